"""TensorFlow graphs with the channels last beside the same networks from ONNX, which have them first.

    make bench ARGS="-k channels_last"

Both are compiled by Tilewright; layouts are the compiler's business, so the ratio of their times is to be 1. What is
left of it is one copy of the input.
"""

from typing import Any

import numpy as np
import pytest
from side_by_side import race
from tensorflow_networks import NETWORKS, OnnxNet, TensorFlowNet, image

import tilewright as tw

SIZES = {"mobilenet": 224, "residual": 64, "vgg": 224}


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last(name: str, benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    size = SIZES[name]
    last = image(size)
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    frozen, exported = (
        tw.compile(NETWORKS[name](writer, size), threads=1, cache=False) for writer in (TensorFlowNet, OnnxNet)
    )
    times = race({"tensorflow": lambda: frozen(last), "onnx": lambda: exported(first)}, seconds=5)
    benchmark.pedantic(frozen, (last,), rounds=5)
    ratio = times["tensorflow"].least / times["onnx"].least
    benchmark.extra_info["tensorflow_over_onnx"] = ratio
    with capsys.disabled():
        print(f"\n{name}: tensorflow {times['tensorflow']}, onnx {times['onnx']}, ratio of the least {ratio:.3f}")
