"""Whole networks against PyTorch with the same weights: the largest error as a share of the output's range."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import build, export

import tilewright as tw
from tilewright.columns import default_model
from tilewright.frontends.onnx.model import read_model

TOLERANCE = 1e-5


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference, over the range of the expected values."""
    return float(np.abs(got - expected).max() / (expected.max() - expected.min()))


@pytest.mark.parametrize("name", ["mnist", "mobilenetv2", "resnet50", "vgg16"])
def test_network_agrees_with_torch(name: str, record_property: Callable[[str, object], None]) -> None:
    module, shape = build(name)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(x).numpy()
    model = tw.compile(export(module, shape))
    got = model(x.numpy())
    assert got.shape == expected.shape and got.dtype == np.float32
    error = relative_error(got, expected)
    record_property("relative_error", error)
    assert error <= TOLERANCE
    np.testing.assert_array_equal(model(x.numpy()), got, err_msg="a second call differs")


def test_batch_of_three() -> None:
    module, shape = build("mobilenetv2")
    x = torch.rand((3, *shape[1:]), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(x).numpy()
    got = tw.compile(export(module, shape), shapes={"x": (3, *shape[1:])})(x.numpy())
    assert relative_error(got, expected) <= TOLERANCE


@pytest.mark.parametrize("size", [240, 224])
def test_the_real_vgg16_agrees_with_torch(size: int) -> None:
    """The default model, convolutions and dense head, with its weights in PyTorch; at 224 only the convolutions."""
    model = read_model(default_model())
    weights = {name: torch.from_numpy(np.array(tensor.array)) for name, tensor in model.initializers.items()}
    image = np.random.default_rng(0).uniform(-120, 150, (1, size, size, 3)).astype(np.float32)
    x = torch.from_numpy(image)
    with torch.inference_mode():
        for node in model.nodes:
            if node.op == "Transpose":
                x = x.permute(tuple(node.attributes["perm"]))
            elif node.op == "Conv":
                x = F.conv2d(x, *(weights[name] for name in node.inputs[1:]), padding=1)
            elif node.op == "MaxPool":
                x = F.max_pool2d(x, 2)
            elif node.op == "Reshape" and size != 240:
                break
            elif node.op == "Reshape":
                x = x.reshape(1, -1)
            elif node.op == "MatMul":
                x = x @ weights[node.inputs[1]]
            elif node.op in ("Add", "Mul"):
                x = x + weights[node.inputs[1]] if node.op == "Add" else x * weights[node.inputs[1]]
            elif node.op in ("Relu", "Softmax"):
                x = torch.relu(x) if node.op == "Relu" else torch.softmax(x, -1)
    outputs = None if size == 240 else ["Transpose__90:0"]
    compiled = tw.compile(default_model(), outputs=outputs, shapes={"input": (1, size, size, 3)})
    got = compiled(image)
    assert got.shape == tuple(x.shape) and relative_error(got, x.numpy()) <= TOLERANCE
