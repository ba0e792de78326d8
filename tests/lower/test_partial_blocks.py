"""Reductions of tensors in blocked layouts whose last block of channels is partial."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tilewright as tw
from tilewright.compiler.ops import evaluate
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate

HERE = (1, 64, 13, 13)


def model_of(channels: int, *names: str, same: bool = False) -> onnx.ModelProto:
    """A 1x1 convolution, whose filters may be all the same, and operators behind it."""
    weight = np.random.default_rng(1).standard_normal((1 if same else channels, 64, 1, 1))
    weight = np.broadcast_to(weight, (channels, 64, 1, 1)).astype(np.float32) / 8
    steps = ["x", "c", *(f"t{index}" for index in range(len(names) - 1)), "y"]
    nodes = [helper.make_node("Conv", ["x", "w"], [steps[1]])]
    for name, source, result in zip(names, steps[1:], steps[2:], strict=False):
        nodes.append(helper.make_node(name, [source], [result], **({"axis": 1} if name == "Softmax" else {})))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, HERE)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.ascontiguousarray(weight), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


@pytest.mark.parametrize("channels", [16, 20, 24, 32, 40, 1000])
@pytest.mark.parametrize(
    "names", [("Softmax",), ("GlobalAveragePool", "Softmax"), ("Relu", "GlobalMaxPool", "Softmax")]
)
def test_softmax_over_channels(channels: int, names: tuple[str, ...]) -> None:
    """The whole axis is reduced, not each piece of it by itself."""
    model = model_of(channels, *names)
    x = np.random.default_rng(0).standard_normal(HERE).astype(np.float32)
    (expected,) = evaluate(translate(read_model(model)), [x])
    result = np.asarray(tw.compile(model)(x))
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(result, expected, rtol=1e-4)


@pytest.mark.parametrize("channels", [24, 40, 1000])
def test_equal_channels_sum_equally(channels: int) -> None:
    """Sums are taken in one order in whole and in partial blocks."""
    x = np.random.default_rng(0).random(HERE, np.float32) * 1e9
    result = np.asarray(tw.compile(model_of(channels, "GlobalAveragePool", same=True))(x))
    assert len(np.unique(result)) == 1
