"""Functions, variables, branches and names: what becomes of them, by what the compiled graph computes."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorflow_bundles import saved_model, write_saved_model
from tensorflow_graphs import GraphDefWriter
from tensorflow_models import call, conditional, function, network, simple, variables_graph

import tilewright as tw
from tilewright.frontends.formats import load, recognise
from tilewright.frontends.tensorflow.importer import read_model
from tilewright.frontends.tensorflow.model import Input
from tilewright.frontends.tensorflow.names import layers, resolve

Array = NDArray[Any]
F32 = np.float32
X = np.array([[1, 2, 3], [-4, 5, -6]], F32)


def run(source: Any, feeds: Mapping[str, Array] | None = None, **options: Any) -> dict[str, Array]:
    feeds = {"x": X} if feeds is None else feeds
    shapes = {name: array.shape for name, array in feeds.items()}
    results: dict[str, Array] = tw.compile(source, shapes=shapes, threads=1, cache=False, **options).run(dict(feeds))
    return results


Y = X * np.array([1, 10, 100], F32) + 1


# ---- formats


def test_formats() -> None:
    g = simple()
    text = text_format.MessageToString(g.graph)
    small = saved_model(g.graph, {"in": "x:0"}, {"out": "y:0"})
    for source in (g.bytes(), g.graph, text.encode(), b"# a comment\n\n" + text.encode(), bytearray(g.bytes())):
        assert recognise(source) == "TensorFlow"
        found = run(source)
        np.testing.assert_array_equal(found["y"], Y)
        np.testing.assert_array_equal(found["z"], -X)
    meta = small.meta_graphs[0]
    for source in (small, small.SerializeToString(), meta, meta.SerializeToString(), str(small).encode()):
        assert recognise(source) == "TensorFlow"
        found = run(source, {"in": X})
        assert list(found) == ["out"]
        np.testing.assert_array_equal(found["out"], Y)


@pytest.mark.parametrize("name", ["graph.pb", "graph.onnx", "graph", "graph.pbtxt"])
def test_the_name_does_not_matter(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(simple().bytes())
    np.testing.assert_array_equal(run(path)["y"], Y)
    path.write_text(text_format.MessageToString(simple().graph))
    np.testing.assert_array_equal(run(str(path))["y"], Y)


def test_large_constants_are_mapped(tmp_path: Path) -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (5000,))
    weights = np.arange(5000, dtype=F32)
    g.constant("w", weights)
    g.node("y", "Mul", "x", "w", T=np.dtype(F32))
    path = tmp_path / "graph.pb"
    path.write_bytes(g.bytes())
    (node,) = (node for node in read_model(path).nodes if node.name == "w")
    tensor = node.attributes["value"]
    array = getattr(tensor, "array", None)
    assert array is not None and not array.flags.owndata and not array.flags.writeable
    np.testing.assert_array_equal(array, weights)
    np.testing.assert_array_equal(run(path, {"x": weights})["y"], weights**2)


# ---- outputs and names


def test_the_outputs_of_a_graph_are_what_nothing_uses() -> None:
    g = simple()
    g.node("told", "NoOp", "^y")
    g.constant("unused", np.zeros(3, F32))
    model = load(g.bytes())
    assert model.outputs == ("y", "z")
    assert [str(port) for port in model.inputs] == ["x: float ?x3"]
    g.node("both", "IdentityN", "y", "z", T=[np.dtype(F32), np.dtype(F32)])
    assert load(g.bytes()).outputs == ("both", "both:1")


@pytest.mark.parametrize("wanted", ["scaled", "scaled:0"])
def test_any_tensor_may_be_asked_for(wanted: str) -> None:
    found = run(simple().bytes(), outputs=[wanted, "x"])
    np.testing.assert_array_equal(found[wanted], X * np.array([1, 10, 100], F32))
    np.testing.assert_array_equal(found["x"], X)


def test_friendly_names() -> None:
    model = read_model(network())
    found = layers(model)
    assert [layer.name for layer in found] == ["conv1_1", "pool1", "conv2_1", "pool2", "fc3"]
    assert [layer.parameters for layer in found] == [3 * 9 * 4 + 4, 0, 4 * 9 * 8 + 8, 0, 160]
    assert [layer.taps for layer in found] == [27, 0, 36, 0, 32]
    assert resolve(model, "conv1_1") == Input("model/block1/Relu") == resolve(model, "relu1_1") == resolve(model, 0)
    assert resolve(model, "pool2") == Input("model/block2/MaxPool")
    assert resolve(model, "4") == Input("model/dense/MatMul")
    assert resolve(model, "dense/MatMul") == Input("model/dense/MatMul")  # the end of one name only
    assert resolve(model, "block2/BiasAdd:0") == Input("model/block2/BiasAdd")


@pytest.mark.parametrize("axis", [np.array(0, np.int32), np.array([0], np.int32), np.array(np.nan, F32)])
def test_constants_with_another_axis(axis: Array) -> None:
    """What the axis of a constant is only matters to who needs it."""
    g = GraphDefWriter()
    g.placeholder("x", F32, (1, 4))
    g.node("wide", "ExpandDims", g.constant("c", np.ones(4, F32)), g.constant("axis", axis), T=np.dtype(F32))
    g.node("y", "AddV2", "x", "wide", T=np.dtype(F32))
    assert layers(read_model(g.bytes())) == ()
    if axis.dtype != F32:
        np.testing.assert_array_equal(run(g.bytes(), {"x": np.zeros((1, 4), F32)})["y"], np.ones((1, 4), F32))


def test_a_single_index_has_no_default() -> None:
    """What the masks of begin and end say does not matter to it (ValidateStridedSliceOp in TensorFlow's sources)."""
    g = GraphDefWriter()
    g.placeholder("x", F32, (2, 3))
    bounds = [g.constant(name, np.array([number], np.int32)) for name, number in (("b", 1), ("e", 0), ("s", 1))]
    g.node("y", "StridedSlice", "x", *bounds, T=np.dtype(F32), shrink_axis_mask=1, begin_mask=1, end_mask=1)
    np.testing.assert_array_equal(run(g.bytes())["y"], X[1])


@pytest.mark.parametrize("radius", [3, 8, 1 << 40, (1 << 63) - 1])
def test_a_normalisation_that_reaches_beyond_all_channels(radius: int) -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (1, 2, 2, 4))
    g.node("y", "LRN", "x", T=np.dtype(F32), depth_radius=radius)
    x = np.arange(16, dtype=F32).reshape(1, 2, 2, 4)
    expected = x / np.sqrt(1 + (x * x).sum(-1, keepdims=True))
    np.testing.assert_allclose(run(g.bytes(), {"x": x})["y"], expected, rtol=1e-5)


def test_large_graphs_are_read_in_time() -> None:
    g = GraphDefWriter()
    last = g.placeholder("x", F32, (1, 4))
    for number in range(10_000):
        last = g.node(f"model/block{number // 10}/relu{number}", "Relu", last, T=np.dtype(F32))
    content, started = g.bytes(), time.process_time()
    assert len(read_model(content).nodes) == 10_001
    assert time.process_time() - started < 10


def test_hypercolumns_take_channels_from_the_last_axis() -> None:
    extract = tw.Hypercolumns(network(), layers=["conv1_1", "conv2_1"], size=(8, 8), preprocess="none", cache=False)
    assert extract.channels == {"conv1_1": slice(0, 4), "conv2_1": slice(4, 12)}
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    columns = extract(image)
    feeds = {"image": image[None].astype(F32)}
    maps = run(network(), feeds, outputs=["conv1_1"])["conv1_1"]
    np.testing.assert_allclose(columns[:4], np.moveaxis(maps[0], -1, 0), rtol=1e-5)


# ---- functions


def test_calls_are_inlined() -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (2, 3))
    inner = function(g, "inner", "a b", {"sum": "add:z:0", "second": "b"})
    inner.node_def.add(name="add", op="AddV2", input=["a", "b"]).attr["T"].type = 1
    outer = function(g, "outer", "p", {"out": "call:second:0", "other": "twice:0"})
    outer.node_def.add(name="negative", op="Neg", input=["p", "^twice"]).attr["T"].type = 1
    outer.node_def.add(name="call", op="inner", input=["p", "negative:y:0"])
    outer.node_def.add(name="twice", op="AddV2", input=["call:sum:0", "call:second:0"]).attr["T"].type = 1
    call(g, "first", "outer", "x")
    call(g, "second", "outer", "first:1", op="StatefulPartitionedCall")
    found = run(g.bytes(), outputs=["first", "first:1", "second:0", "second", "first/call/add"])
    np.testing.assert_array_equal(found["first"], -X)
    np.testing.assert_array_equal(found["first:1"], -X)  # x + -x, and -x again
    np.testing.assert_array_equal(found["second"], X)
    np.testing.assert_array_equal(found["first/call/add"], 0 * X)
    assert load(g.bytes()).outputs == ("second", "second:1")


def test_results_by_name_in_bodies() -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (2, 3))
    body = function(g, "largest", "a", {"which": "top:indices:0", "what": "top:values:0"})
    body.signature.output_arg[0].type = 3
    body.node_def.add(name="k", op="Const").attr["dtype"].type = 3
    body.node_def[-1].attr["value"].tensor.dtype = 3
    body.node_def[-1].attr["value"].tensor.int_val.append(2)
    body.node_def.add(name="top", op="TopKV2", input=["a", "k:output:0"]).attr["T"].type = 1
    call(g, "y", "largest", "x")
    found = run(g.bytes())
    np.testing.assert_array_equal(found["y"], [[2, 1], [1, 0]])
    np.testing.assert_array_equal(found["y:1"], [[3, 2], [5, -4]])


def test_attributes_of_the_call() -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (2, 3))
    body = function(g, "convert", "a", {"r": "c:y:0"})
    node = body.node_def.add(name="c", op="Cast", input=["a"])
    node.attr["SrcT"].type = 1
    node.attr["DstT"].placeholder = "T"
    call(g, "y", "convert", "x")
    g.graph.node[-1].attr["f"].func.attr["T"].type = 3
    g.node("z", "convert", "x", T=np.dtype(np.int64))
    found = run(g.bytes())
    assert (found["y"].dtype, found["z"].dtype) == (np.int32, np.int64)
    np.testing.assert_array_equal(found["y"], X)


def test_names_below_a_call_stay_apart() -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (2, 3))
    body = function(g, "f", "a", {"r": "neg:y:0"})
    body.node_def.add(name="neg", op="Neg", input=["a"]).attr["T"].type = 1
    call(g, "y", "f", "x")
    g.node("y/neg", "Abs", "y", T=np.dtype(F32))
    found = run(g.bytes(), outputs=["y/neg", "y"])
    np.testing.assert_array_equal(found["y/neg"], abs(X))
    np.testing.assert_array_equal(found["y"], -X)


@pytest.mark.parametrize(("condition", "expected"), [(True, -X), (False, 2 * X)])
@pytest.mark.parametrize("op", ["If", "StatelessIf"])
def test_conditions_that_are_constant(condition: bool, expected: Array, op: str) -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (2, 3))
    function(g, "yes", "a", {"r": "n:y:0"}).node_def.add(name="n", op="Neg", input=["a"]).attr["T"].type = 1
    function(g, "no", "a", {"r": "n:z:0"}).node_def.add(name="n", op="AddV2", input=["a", "a"]).attr["T"].type = 1
    g.node("y", op, "unlikely", "x")
    g.graph.node[-1].attr["then_branch"].func.name = "yes"
    g.graph.node[-1].attr["else_branch"].func.name = "no"
    g.node("unlikely", "LogicalNot", "pass")  # after its use
    g.node("pass", "Identity", "phase", T=np.dtype(np.bool_))
    g.node("phase", "PlaceholderWithDefault", "constant", dtype=np.dtype(np.bool_))
    g.constant("constant", np.array(not condition))
    np.testing.assert_array_equal(run(g.bytes())["y"], expected)


def test_switches_whose_condition_is_constant() -> None:
    wanted = ["out", "merge", "merge:1"]
    found = run(conditional(True).bytes(), outputs=wanted)
    np.testing.assert_array_equal(found["out"], -X)
    np.testing.assert_array_equal(found["merge"], -X)
    assert found["merge:1"] == 1
    found = run(conditional(False).bytes(), outputs=wanted)
    np.testing.assert_array_equal(found["out"], X + 7)
    np.testing.assert_array_equal(found["merge"], np.full((2, 3), 7))  # known by what its node waits for
    assert found["merge:1"] == 0


def test_switches_whose_condition_is_an_input() -> None:
    with pytest.raises(tw.TilewrightError, match=r"Switch \('switch'.*runs no branches and loops of TensorFlow's"):
        run(conditional(None).bytes(), {"x": X, "p": np.array(True)}, outputs=["out"])


# ---- saved models


def expected_of_variables(arrays: Mapping[str, Array]) -> Array:
    result: Array = (X * arrays["k/0"] + arrays["k/1"]) @ arrays["layer/table"][[2, 0, 1]]
    return result


def test_a_saved_model(tmp_path: Path) -> None:
    g, arrays = variables_graph()
    folder = write_saved_model(
        tmp_path / "model", g.graph, {"x": "serving_default_x:0"}, {"y": "serve_it:0"}, arrays
    )
    model = load(folder)
    assert [str(port) for port in model.inputs] == ["x: float ?x3"]
    assert model.outputs == ("y",)
    for source in (folder, str(folder), folder / "saved_model.pb"):
        np.testing.assert_allclose(run(source)["y"], expected_of_variables(arrays), rtol=1e-6)
    (folder / "saved_model.pb").unlink()
    message = saved_model(g.graph, {"x": "serving_default_x:0"}, {"y": "serve_it:0"})
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(message))
    np.testing.assert_allclose(run(folder)["y"], expected_of_variables(arrays), rtol=1e-6)


def test_reference_variables(tmp_path: Path) -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (None, 3))
    g.node("w", "VariableV2", dtype=np.dtype(F32))
    g.node("w/read", "Identity", "w", T=np.dtype(F32))
    g.node("y", "Mul", "x", "w/read", T=np.dtype(F32))
    w = np.array([1, 10, 100], F32)
    folder = write_saved_model(tmp_path, g.graph, {"x": "x:0"}, {"y": "y:0"}, {"w": w})
    np.testing.assert_array_equal(run(folder)["y"], X * w)


def test_signatures_to_choose_from(tmp_path: Path) -> None:
    message = saved_model(simple().graph, {"a": "x:0"}, {"b": "y:0"})
    (meta,) = message.meta_graphs
    meta.signature_def["other"].outputs["c"].name = "z:0"
    assert load(message).outputs == ("b",)  # serving_default
    meta.signature_def["one"].CopyFrom(meta.signature_def["serving_default"])
    del meta.signature_def["serving_default"]
    with pytest.raises(tw.TilewrightError, match=r"several signatures \(one, other\) and none"):
        tw.compile(message, cache=False)
    np.testing.assert_array_equal(run(message, outputs=["z"])["z"], -X)
    del meta.signature_def["other"]
    assert load(message).outputs == ("b",)  # the only one


def test_signatures_may_feed_any_tensor(tmp_path: Path) -> None:
    message = saved_model(simple().graph, {}, {"b": "y:0"})
    info = message.meta_graphs[0].signature_def["serving_default"].inputs["middle"]
    info.name, info.dtype = "scaled:0", 1
    info.tensor_shape.dim.add(size=2)
    info.tensor_shape.dim.add(size=3)
    np.testing.assert_array_equal(run(message, {"middle": X})["b"], X + 1)


def test_the_cache_knows_a_folder_by_its_files(tmp_path: Path) -> None:
    g, arrays = variables_graph()
    signature = {"x": "serving_default_x:0"}, {"y": "serve_it:0"}
    folder = write_saved_model(tmp_path / "model", g.graph, *signature, arrays)

    def results() -> Array:
        found: Array = tw.compile(folder, shapes={"x": (2, 3)}, threads=1)(X)
        return found

    first = results()
    np.testing.assert_allclose(results(), first)
    arrays["k/1"] = arrays["k/1"] + 1
    write_saved_model(folder, g.graph, *signature, arrays)
    np.testing.assert_allclose(results(), expected_of_variables(arrays), rtol=1e-6)


def test_old_scalar_shapes_are_unknown() -> None:
    g = simple()
    del g.graph.node[0].attr["shape"].shape.dim[:]
    g.graph.versions.producer = 20
    assert [str(port) for port in load(g.bytes()).inputs] == ["x: float unknown rank"]
    np.testing.assert_array_equal(run(g.bytes())["y"], Y)
    g.graph.versions.producer = 24
    assert [str(port) for port in load(g.bytes()).inputs] == ["x: float scalar"]


def test_unknown_dimensions_are_those_of_a_call() -> None:
    model = tw.compile(simple().bytes(), cache=False, threads=1)
    for rows in (1, 4):
        x = np.ones((rows, 3), F32)
        np.testing.assert_array_equal(model(x)[1], -x)
