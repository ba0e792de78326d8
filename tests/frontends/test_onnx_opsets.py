"""Operators as older operator sets defined them, against onnxruntime; the onnx package tests only the newest
set.
"""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from tilewright.compiler.ops import evaluate
from tilewright.errors import UnsupportedError
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate

Array = np.ndarray[Any, Any]


def model_of(
    op: str, opset: int, inputs: list[Array], constants: list[Array] | None, results: int, **attributes: Any
) -> onnx.ModelProto:
    """One node whose first operands are inputs and the others (None: left out) initialisers."""
    ports = [
        helper.make_tensor_value_info(f"x{index}", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for index, array in enumerate(inputs)
    ]
    names = [port.name for port in ports]
    weights = []
    for index, array in enumerate(constants or []):
        names.append("" if array is None else f"c{index}")
        if array is not None:
            weights.append(numpy_helper.from_array(array, f"c{index}"))
    outputs = [f"y{index}" for index in range(results)]
    node = helper.make_node(op, names, outputs, name="the_node", **attributes)
    infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "one", ports, infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    return onnx.shape_inference.infer_shapes(model)


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


X = normal(2, 3, 4, 5)
STATISTICS = [normal(3), normal(3), normal(3), np.abs(normal(3))]

CASES: list[tuple[str, int, list[Array], list[Any] | None, dict[str, Any]]] = [
    ("Clip", 7, [X], None, {"min": -0.5, "max": 0.25}),
    ("Clip", 10, [X], None, {"max": 0.25}),
    ("Clip", 11, [X], [None, np.float32(0.5)], {}),
    ("Slice", 7, [X], None, {"starts": [1, -3], "ends": [2**31, -1], "axes": [1, 3]}),
    ("Slice", 7, [X], None, {"starts": [0, 1], "ends": [1, 5]}),
    ("Slice", 10, [X], [ints(-1, 4), ints(-(2**31), 0), ints(-2, 3), ints(-1, -2)], {}),
    ("Slice", 10, [X], [ints(3), ints(1)], {}),
    ("Pad", 7, [X], None, {"pads": [0, 1, 2, 0, 0, 0, 1, 1], "value": 2.0}),
    ("Pad", 7, [X], None, {"pads": [0, 0, 2, 1, 0, 0, 1, 2], "mode": "reflect"}),
    ("Pad", 7, [X], None, {"pads": [0, 0, -1, 1, 0, 0, 1, -2], "mode": "edge"}),
    ("Pad", 11, [X], [ints(0, 1, 2, 0, 0, 0, 1, 1), np.float32(-1)], {}),
    ("Pad", 18, [X], [ints(1, 2, 1, 1), None, ints(-1, 1)], {}),
    ("Pad", 19, [X], [ints(0, 0, 2, 1, 0, 0, 1, 2)], {"mode": "wrap"}),
    ("Squeeze", 7, [normal(1, 3, 1)], None, {"axes": [2]}),
    ("Squeeze", 11, [normal(1, 3, 1)], None, {}),
    ("Squeeze", 13, [normal(1, 3, 1)], [ints(-3)], {}),
    ("Unsqueeze", 7, [X], None, {"axes": [0, 3]}),
    ("Unsqueeze", 13, [X], [ints(-1, 0)], {}),
    ("Softmax", 7, [X], None, {"axis": 2}),
    ("Softmax", 11, [X], None, {}),
    ("Softmax", 11, [X], None, {"axis": -1}),
    ("Softmax", 13, [X], None, {}),
    ("LogSoftmax", 11, [X], None, {}),
    ("Dropout", 7, [X], None, {"ratio": 0.3}),
    ("Dropout", 12, [X], [np.float32(0.3)], {}),
    ("Upsample", 7, [X], None, {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}),
    ("Upsample", 9, [X], [np.float32([1, 1, 2, 1.6])], {"mode": "nearest"}),
    ("Upsample", 9, [X], [np.float32([1, 1, 2, 3])], {"mode": "linear"}),
    ("Resize", 10, [X], [np.float32([1, 1, 2, 0.6])], {"mode": "nearest"}),
    ("Resize", 10, [X], [np.float32([1, 1, 3, 2])], {"mode": "linear"}),
    ("Resize", 11, [X], [np.float32([]), np.float32([1, 1, 2, 2])], {"mode": "cubic"}),
    ("Resize", 11, [X], [np.float32([]), np.float32([]), ints(2, 3, 7, 3)], {"mode": "linear"}),
    (
        "Resize", 13, [X], [None, np.float32([1, 1, 2, 2])],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    (
        "Resize", 13, [X], [None, None, ints(2, 3, 9, 11)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    ("ReduceSum", 7, [X], None, {"axes": [1, -1], "keepdims": 0}),
    ("ReduceMean", 11, [X], None, {}),
    ("ReduceMean", 18, [X], [ints(0, 2)], {"keepdims": 0}),
    ("ReduceSum", 13, [X], [ints()], {"noop_with_empty_axes": 1}),
    ("ReduceL2", 11, [X], None, {"axes": [0]}),
    ("ReduceLogSumExp", 13, [X], None, {"axes": [0]}),
    ("ReduceMax", 12, [X], None, {"axes": [-2]}),
    ("BatchNormalization", 7, [X], STATISTICS, {"epsilon": 1e-3}),
    ("BatchNormalization", 9, [X], STATISTICS, {}),
    ("BatchNormalization", 15, [X], STATISTICS, {}),
    (
        "Gemm", 7, [normal(4, 3)], [normal(5, 4), normal(5)],
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    ("Gemm", 11, [normal(3, 4)], [normal(4, 5)], {}),
    ("Gemm", 9, [normal(3, 4)], [normal(4, 5), normal(3, 1)], {"beta": 0.5}),
    ("PRelu", 7, [X], [normal(3, 1, 1)], {}),
    ("PRelu", 9, [X], [normal(1)], {}),
    ("Max", 7, [X, normal(2, 3, 4, 5)], None, {}),
    ("Min", 8, [X, normal(5)], None, {}),
    ("Mean", 8, [X, normal(4, 1)], None, {}),
    ("Pow", 7, [np.abs(X)], [np.float32(1.5)], {}),
    ("Pow", 12, [np.abs(X)], [np.array([2], dtype=np.int32)], {}),
    ("AveragePool", 7, [X], None, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    (
        "AveragePool", 7, [X], None,
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 2], "count_include_pad": 1},
    ),
    ("AveragePool", 10, [X], None, {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}),
    ("AveragePool", 11, [X], None, {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", 7, [X], None, {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    (
        "MaxPool", 10, [X], None,
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "dilations": [2, 2]},
    ),
    (
        "MaxPool", 12, [X], None,
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [0, 1, 1, 0]},
    ),
    ("LpPool", 7, [X], None, {"kernel_shape": [2, 2], "p": 3}),
    ("GlobalLpPool", 7, [X], None, {}),
    ("GlobalLpPool", 7, [X], None, {"p": 1}),
    ("LRN", 7, [X], None, {"size": 5, "alpha": 0.1, "beta": 0.6, "bias": 2.0}),
    ("LRN", 13, [X], None, {"size": 3, "alpha": 0.1}),
    ("InstanceNormalization", 7, [X], STATISTICS[:2], {}),
    ("Conv", 7, [X], [normal(4, 3, 2, 3), normal(4)], {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    ("Conv", 7, [X], [normal(6, 1, 2, 2)], {"group": 3, "pads": [1, 0, 0, 2], "dilations": [2, 1]}),
    ("Conv", 7, [normal(1, 2, 9)], [normal(3, 2, 3)], {"auto_pad": "VALID"}),
    ("Conv", 7, [normal(1, 2, 5, 4, 6)], [normal(3, 2, 2, 3, 1)], {"strides": [2, 1, 2]}),
    ("ConvTranspose", 7, [X], [normal(3, 2, 3, 3), normal(2)], {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    ("ConvTranspose", 7, [X], [normal(3, 2, 3, 3)], {"strides": [2, 2], "output_padding": [1, 1]}),
    ("ConvTranspose", 7, [X], [normal(3, 1, 2, 3)], {"strides": [2, 2], "group": 3, "dilations": [2, 1]}),
    ("ConvTranspose", 7, [X], [normal(3, 2, 3, 3)], {"strides": [2, 2], "output_shape": [9, 11]}),
    ("ConvTranspose", 11, [X], [normal(3, 2, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", 11, [X], [normal(3, 2, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("Flatten", 9, [X], None, {"axis": 0}),
    ("Flatten", 11, [X], None, {"axis": -1}),
    ("Reshape", 7, [X], [ints(0, -1, 4)], {}),
    ("Transpose", 7, [X], None, {}),
    ("Gather", 7, [X], [ints(2, 0)], {"axis": 1}),
    ("Gather", 11, [X], [np.array([[-1, 0]], dtype=np.int32)], {"axis": -1}),
    ("Expand", 8, [normal(3, 1)], [ints(2, 1, 6)], {}),
    ("Tile", 7, [X], [ints(1, 2, 1, 3)], {}),
    ("ArgMax", 7, [X], None, {"axis": 1}),
    ("ArgMin", 11, [X], None, {"axis": -1, "keepdims": 0}),
    ("Cast", 7, [X * 3], None, {"to": onnx.TensorProto.INT32}),
    ("Greater", 7, [X, normal(5)], None, {}),
    ("Equal", 7, [np.int64([[1, 2], [3, 4]])], [ints(1, 4)], {}),
    ("Not", 7, [X > 0], None, {}),
    ("Where", 9, [X > 0, X, normal(5)], None, {}),
    ("DepthToSpace", 7, [normal(1, 8, 2, 3)], None, {"blocksize": 2}),
    ("DepthToSpace", 11, [normal(1, 8, 2, 3)], None, {"blocksize": 2, "mode": "CRD"}),
    ("HardSigmoid", 7, [X], None, {}),
    ("Selu", 7, [X], None, {}),
    ("ThresholdedRelu", 10, [X], None, {"alpha": 0.3}),
    ("Mod", 10, [np.int64([-7, 7, 5])], [ints(3, -3, 5)], {}),
    ("Mod", 10, [X], [np.float32(0.4)], {"fmod": 1}),
    ("Div", 7, [np.int32([-7, 7, 5])], [np.int32([2, -2, 5])], {}),
    ("ConstantOfShape", 9, [], [ints(2, 3)], {}),
    ("Shape", 7, [X], None, {}),
    ("Shape", 15, [X], None, {"start": 1, "end": -1}),
    ("MatMul", 9, [normal(2, 1, 3, 4)], [normal(5, 4, 2)], {}),
    ("MatMul", 9, [normal(4)], [normal(5, 4, 2)], {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "constants", "attributes"),
    CASES,
    ids=[f"{case[0]}-{case[1]}-{index}" for index, case in enumerate(CASES)],
)
def test_against_onnxruntime(
    op: str, opset: int, inputs: list[Array], constants: list[Array] | None, attributes: dict[str, Any]
) -> None:
    model = model_of(op, opset, inputs, constants, 1, **attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {f"x{index}": array for index, array in enumerate(inputs)})
    (result,) = evaluate(translate(read_model(model)), inputs)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_lrn_of_even_size() -> None:
    """onnxruntime refuses it. The odd channel is the one after."""
    (result,) = evaluate(translate(read_model(model_of("LRN", 13, [X], None, 1, size=2, alpha=0.4))), [X])
    square = X.astype(np.float64) ** 2
    sums = square + np.concatenate([square[:, 1:], np.zeros_like(square[:, :1])], axis=1)
    np.testing.assert_allclose(result, X / (1 + 0.4 / 2 * sums) ** 0.75, rtol=1e-5)


@pytest.mark.parametrize(
    ("opset", "inputs", "constants", "results", "attributes", "sizes"),
    [
        (7, [X], None, 2, {"axis": 1, "split": [1, 2]}, (1, 2)),
        (11, [X], None, 3, {"axis": 1}, (1, 1, 1)),
        (13, [X], [ints(3, 2)], 2, {"axis": -1}, (3, 2)),
        (18, [X], None, 2, {"axis": 3, "num_outputs": 2}, (3, 2)),
    ],
)
def test_split(
    opset: int, inputs: Any, constants: Any, results: int, attributes: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    axis = attributes["axis"]
    graph = translate(read_model(model_of("Split", opset, inputs, constants, results, **attributes)))
    parts = evaluate(graph, inputs)
    assert tuple(part.shape[axis] for part in parts) == sizes
    assert np.array_equal(np.concatenate(parts, axis=axis), X)


@pytest.mark.parametrize(
    ("op", "opset", "results", "attributes"),
    [("Add", 6, 1, {}), ("Relu", 29, 1, {}), ("Hardmax", 11, 1, {})],
)
def test_operator_set_outside_the_table(
    op: str, opset: int, results: int, attributes: dict[str, Any]
) -> None:
    """An operator set that the table does not cover is refused by name, not translated as another one."""
    inputs = [X, X] if op == "Add" else [X]
    ports = [helper.make_tensor_value_info(f"x{i}", 1, array.shape) for i, array in enumerate(inputs)]
    node = helper.make_node(op, [port.name for port in ports], ["y"], name="the_node", **attributes)
    graph = helper.make_graph([node], "one", ports, [helper.make_tensor_value_info("y", 1, X.shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with pytest.raises(
        UnsupportedError, match=rf"1 operator is not supported: {op} of opset {opset} \('the_node'\)"
    ):
        translate(read_model(model))
