"""One compiled form for every number of samples, beside one compiled for 8 of them and beside other engines.

    make bench ARGS="-k dynamic_batch"

One thread each, rounds interleaved. A ratio is the contender's least time over that of the form for any number: above
1, the latter is faster. The other engines get a model whose leading dimension is open, and 8 samples.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from networks import build, export
from side_by_side import race
from test_networks import torch_runner

import tilewright as tw

SAMPLES = 8
SECONDS = {"resnet50": 30.0, "mobilenetv2": 10.0, "mnist": 3.0}


@pytest.mark.parametrize("name", list(SECONDS))
def test_dynamic_batch(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    module, (_, *sample) = build(name)
    data = export(module, (2, *sample), batch="N")
    x = torch.rand((SAMPLES, *sample), generator=torch.Generator().manual_seed(1))
    array = x.numpy()
    open_ = tw.compile(data, shapes={"x": ("N", *sample)}, threads=1, cache=False)
    fixed = tw.compile(data, shapes={"x": array.shape}, threads=1, cache=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    vino = core.compile_model(core.read_model(model=data), "CPU", {"INFERENCE_NUM_THREADS": 1})
    contenders: dict[str, Callable[[], Any]] = {
        "any number": lambda: open_(array),
        f"for {SAMPLES}": lambda: fixed(array),
        "one by one": lambda: [open_(array[i : i + 1]) for i in range(SAMPLES)],
        "torch": torch_runner(module, x),
        "onnxruntime": lambda: session.run(None, {"x": array}),
        "openvino": lambda: vino(array),
    }
    np.testing.assert_allclose(open_(array), session.run(None, {"x": array})[0], rtol=1e-3, atol=1e-4)
    times = race(contenders, SECONDS[name])
    ours = times.pop("any number")
    shown = ", ".join(f"{peer} {other.least / ours.least:.2f}x" for peer, other in times.items())
    with capsys.disabled():
        print(f"\n{name}, {SAMPLES} samples: {ours.least * 1e3:.2f} ms; {shown} (n {ours.rounds})")
