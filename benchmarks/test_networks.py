"""Whole networks beside PyTorch eager and onnxruntime: one thread each, batch 1, rounds interleaved.

    make bench ARGS="-k resnet50"

The ratio printed is the peer's median over ours: above 1, Tilewright is faster. PyTorch runs in the faster of its
two memory formats.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from networks import build, export

import tilewright as tw

ROUNDS = {"vgg16": 10, "resnet50": 20, "mobilenetv2": 60, "mnist": 2000}


def torch_runner(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], Any]:
    """The module in whichever memory format is faster here."""

    def in_format(memory_format: torch.memory_format) -> Callable[[], Any]:
        placed, input = module.to(memory_format=memory_format), x.to(memory_format=memory_format)

        def run() -> Any:
            with torch.inference_mode():
                return placed(input)

        return run

    def seconds(run: Callable[[], Any]) -> float:
        taken = []
        for _ in range(4):
            begin = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begin)
        return min(taken)

    return min(map(in_format, (torch.contiguous_format, torch.channels_last)), key=seconds)


@pytest.mark.parametrize("name", list(ROUNDS))
def test_network(name: str, benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    module, shape = build(name)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    data = export(module, shape)
    begin = time.perf_counter()
    model = tw.compile(data, threads=1, cache=False)
    compile_seconds = time.perf_counter() - begin
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    array = x.numpy()
    peers: dict[str, Callable[[], Any]] = {
        "torch": torch_runner(module, x),
        "onnxruntime": lambda: session.run(None, {"x": array}),
    }
    np.testing.assert_allclose(model(array), session.run(None, {"x": array})[0], rtol=1e-3, atol=1e-4)
    taken: dict[str, list[float]] = {peer: [] for peer in peers}

    def run_peers() -> None:
        for peer, run in peers.items():
            started = time.perf_counter()
            run()
            taken[peer].append(time.perf_counter() - started)

    benchmark.pedantic(model, args=(array,), setup=run_peers, rounds=ROUNDS[name], warmup_rounds=2)
    ours = benchmark.stats.stats.median
    ratios = {peer: median(times) / ours for peer, times in taken.items()}
    benchmark.extra_info.update(ratios, compile_seconds=compile_seconds)
    shown = ", ".join(f"{peer} {ratio:.2f}x" for peer, ratio in ratios.items())
    with capsys.disabled():
        print(f"\n{name}: {ours * 1e3:.2f} ms, compiled in {compile_seconds:.2f} s; peers take {shown} our time")
