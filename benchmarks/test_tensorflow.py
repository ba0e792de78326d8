"""TensorFlow graphs with the channels last beside the same networks from ONNX, which have them first.

    .venv/bin/python -m pytest benchmarks -k channels_last

Both are compiled by Tilewright; layouts are the compiler's business, so the ratio of their times is to be 1. What is
left of it is one copy of the input.
"""

import numpy as np
import pytest
from tensorflow_networks import NETWORKS, OnnxNet, TensorFlowNet, image

import tilewright as tw
from tilewright.benching import race, takes

SIZES = {"mobilenet": 224, "residual": 64, "vgg": 224}


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = SIZES[name]
    last = image(size)
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    frozen, exported = (
        tw.compile(NETWORKS[name](writer, size), threads=1, cache=False) for writer in (TensorFlowNet, OnnxNet)
    )
    times = race({"tensorflow": takes(lambda: frozen(last)), "onnx": takes(lambda: exported(first))}, seconds=5)
    ratio = times["tensorflow"].min / times["onnx"].min
    with capsys.disabled():
        shown = ", ".join(f"{format} {taken.min:.3f} ms" for format, taken in times.items())
        print(f"\n{name}, the least of {times['onnx'].calls} calls: {shown}, ratio {ratio:.3f}")
