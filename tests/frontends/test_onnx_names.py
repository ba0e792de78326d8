"""Names of layers and tensors, and functions and the order of nodes on the way."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tilewright.compiler.ops import evaluate
from tilewright.frontends.onnx.model import Model, read_model
from tilewright.frontends.onnx.names import layers, resolve
from tilewright.frontends.onnx.translate import translate

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def test_vgg19_without_helpful_names() -> None:
    found = layers(read_model(LIGHT / "light_vgg19.onnx"))
    blocks = [2, 2, 4, 4, 4]
    expected = []
    for block, convolutions in enumerate(blocks, start=1):
        expected += [f"conv{block}_{number + 1}" for number in range(convolutions)] + [f"pool{block}"]
    assert [layer.name for layer in found] == [*expected, "fc6", "fc7", "fc8"]
    assert [layer.index for layer in found] == list(range(24))
    # VGG-19 has 143,667,240 parameters and takes 19.6 G multiply-adds.
    assert [layer.parameters for layer in found][:3] == [64 * 27 + 64, 64 * 576 + 64, 0]
    assert sum(layer.parameters for layer in found) == 143_667_240
    assert [layer.taps for layer in found][:4] == [27, 576, 0, 576]
    assert found[-3].taps == 25088


def conv(
    source: str, result: str, name: str = "", weight: str = "w", **attributes: Sequence[int]
) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [result], name=name, **attributes)


def model_of(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str] = ("y",)) -> Model:
    weights = {
        "w": np.ones((3, 3, 1, 1)), "slope": np.full((3, 1, 1), 0.5), "bias": np.ones((1, 3, 1, 1)),
        "one": np.ones(3), "dense": np.ones((3, 2)), "offset": np.ones(2),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, (1, 3, 4, 4))],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return read_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def node(op: str, inputs: str, result: str, name: str = "", **attributes: int) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [result], name=name, **attributes)


@pytest.mark.parametrize(
    ("after", "tensor"),
    [
        ([node("Relu", "a", "y")], "y"),
        ([node("PRelu", "a slope", "y")], "y"),
        ([node("Add", "a bias", "b"), node("Relu", "b", "y")], "y"),
        ([node("BatchNormalization", "a one one one one", "b"), node("Clip", "b", "y")], "y"),
        ([node("Sigmoid", "a", "b"), node("Mul", "a b", "y")], "y"),  # swish
        ([node("Relu", "a", "b"), node("Relu", "b", "y")], "b"),
        ([node("Add", "a x", "b"), node("Relu", "b", "y")], "a"),  # a residual is no part of the layer
        ([node("Relu", "a", "b"), node("Add", "a b", "y")], "a"),  # others see it before its activation
        ([node("Add", "a bias", "y")], "y"),
        ([node("Softmax", "a", "y")], "a"),
    ],
)
def test_activation_that_belongs_to_a_layer(after: list[onnx.NodeProto], tensor: str) -> None:
    model = model_of([conv("x", "a"), *after])
    (layer,) = layers(model)
    assert (layer.name, layer.raw, layer.tensor) == ("conv1_1", "a", tensor)
    for name in ("conv1_1", "relu1_1", "block1_conv1", 0, "0"):
        assert resolve(model, name) == tensor


def test_dense_layers_and_parameters() -> None:
    model = model_of(
        [
            conv("x", "a"),
            node("GlobalAveragePool", "a", "b"),
            node("Flatten", "b", "c"),
            node("MatMul", "c dense", "d"),
            node("Add", "d offset", "e"),
            node("Tanh", "e", "y"),
        ]
    )
    rows = [(layer.name, layer.tensor, layer.parameters, layer.taps) for layer in layers(model)]
    assert rows == [("conv1_1", "a", 9, 3), ("pool1", "b", 0, 0), ("fc2", "y", 8, 3)]


def test_a_name_of_the_model_comes_first() -> None:
    """A friendly name stands behind a tensor's name, and behind the name of a node that it does not mean."""
    nodes = [conv("x", "conv1_2"), conv("conv1_2", "b", "conv1_1"), node("Relu", "b", "y", "last")]
    model = model_of(nodes)
    assert resolve(model, "conv1_2") == "conv1_2"  # a tensor, though the second layer is called so
    assert resolve(model, "conv1_1") == "b"  # a node, though the first layer is called so
    assert resolve(model, "last") == "y"
    assert resolve(model_of([conv("x", "a", "conv1_1"), node("Relu", "a", "y")]), "conv1_1") == "y"


def test_nodes_in_any_order() -> None:
    model = model_of(
        [node("Relu", "b", "y"), node("Neg", "x", "a"), node("Neg", "a", "b"), node("Abs", "x", "off")]
    )
    graph = translate(model)
    assert [inner.op for inner in graph.nodes] == ["neg", "neg", "relu"]


def test_outputs_that_are_inputs_or_constants() -> None:
    x = np.ones((1, 3, 4, 4), np.float32)
    graph = translate(model_of([node("Identity", "x", "y")]), outputs=["y", "x", "one"])
    assert graph.output_names == ("y", "x", "one")
    assert [result.shape for result in evaluate(graph, [x])] == [x.shape, x.shape, (3,)]


def test_inputs_that_nobody_needs_go_away() -> None:
    ports = [helper.make_tensor_value_info(name, 1, (2,)) for name in ("a", "b", "c")]
    nodes = [node("Add", "c a", "y"), node("Neg", "b", "z")]
    infos = [helper.make_empty_tensor_value_info(name) for name in ("y", "z")]
    model = read_model(helper.make_model(helper.make_graph(nodes, "g", ports, infos)))
    assert [value.name for value in translate(model, outputs=["y"]).inputs] == ["a", "c"]


def test_functions_are_inlined() -> None:
    """With attributes from the call, defaults, calls in calls, and an operand that is left out."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"], name="inner")
    leaky.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    first = helper.make_function("my", "First", ["a"], ["b"], [leaky], opsets, ["slope"])
    clip = helper.make_node("Clip", ["t", "low", "high"], ["b"])
    call = helper.make_node("First", ["a"], ["t"], domain="my", name="call")
    call.attribute.append(
        onnx.AttributeProto(name="slope", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    second = helper.make_function(
        "my", "Second", ["a", "low", "high"], ["b"], [call, clip], opsets,
        attribute_protos=[helper.make_attribute("slope", 0.5)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Second", ["x", "", "top"], ["y"], domain="my", name="outer"),
        helper.make_node("Second", ["x"], ["z"], domain="my", slope=0.25),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, (3,))],
        [helper.make_empty_tensor_value_info(name) for name in ("y", "z")],
        [numpy_helper.from_array(np.float32(1), "top")],
    )
    model = read_model(helper.make_model(graph, opset_imports=opsets, functions=[first, second]))
    assert [inner.name for inner in model.nodes][:2] == ["outer/call/inner", "outer/Clip_1"]
    y, z = evaluate(translate(model), [np.array([-4, 0.5, 3], np.float32)])
    assert y.tolist() == [-2, 0.5, 1]
    assert z.tolist() == [-1, 0.5, 3]


def test_constants_in_all_forms() -> None:
    forms = {
        "value": (numpy_helper.from_array(np.int32([[1, 2]])), np.int32([[1, 2]])),
        "value_float": (1.5, np.float32(1.5)),
        "value_floats": ([1.5, 2.5], np.float32([1.5, 2.5])),
        "value_int": (7, np.int64(7)),
        "value_ints": ([7, 8], np.int64([7, 8])),
    }
    for name, (value, expected) in forms.items():
        graph = helper.make_graph(
            [helper.make_node("Constant", [], ["y"], **{name: value})], "g", [],
            [helper.make_empty_tensor_value_info("y")],
        )  # fmt: skip
        (result,) = evaluate(translate(read_model(helper.make_model(graph))), [])
        assert result.dtype == expected.dtype
        assert np.array_equal(result, expected)


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", 1, (6,))],
        [helper.make_empty_tensor_value_info("y")], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), path)
    array = read_model(path).initializers["w"].array
    assert array is not None and not array.flags.owndata and not array.flags.writeable
    assert np.array_equal(array, weight)


def test_external_data_beyond_two_gigabytes(tmp_path: Path) -> None:
    """The file has holes, so that it takes no space."""
    offset = 5 << 29
    with open(tmp_path / "weights", "wb") as file:
        file.seek(offset)
        file.write(np.float32([1, 2, 3]).tobytes())
    weight = onnx.TensorProto(name="w", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights")
    weight.external_data.add(key="offset", value=str(offset))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_empty_tensor_value_info("y")],
        [weight],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert evaluate(translate(read_model(path)), [])[0].tolist() == [1, 2, 3]
