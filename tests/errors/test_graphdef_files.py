"""TensorFlow graphs that are refused: each with one message that says what is wrong and what to do."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.message import EncodeError
from tensorflow_bundles import saved_model, write_saved_model
from tensorflow_graphs import GraphDefWriter

from tilewright.compiler.ir import Graph
from tilewright.errors import (
    GraphError,
    ModelError,
    ResourceError,
    ShapeNeededError,
    TilewrightError,
    UnknownNameError,
    UnsupportedError,
)
from tilewright.frontends.formats import load
from tilewright.frontends.tensorflow import functions
from tilewright.frontends.tensorflow.importer import read_model
from tilewright.frontends.tensorflow.messages import GraphDef
from tilewright.frontends.tensorflow.translate import translate

F32 = np.dtype(np.float32)


def graph() -> GraphDefWriter:
    """y = Relu(x)"""
    g = GraphDefWriter()
    g.placeholder("x", F32, (1, 4))
    g.node("y", "Relu", "x", T=F32)
    return g


def build(source: Any, **options: Any) -> Graph:
    return translate(read_model(source), **options)


# ---- files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty; export or download it again"),
        (b"hello, world", r"is not a TensorFlow graph; pass a GraphDef \(\.pb or \.pbtxt\) or a SavedModel's folder"),
        (b"PK\x03\x04rest", r"is not a TensorFlow graph but a zip archive .*; export the model to ONNX or Tensor"),
        (b"\x08\x08\x3a\x00", r"is not a TensorFlow graph; pass"),  # an ONNX model
        (graph().bytes()[:-8], r"truncated or damaged: a field ends at byte \d+, what holds it ends at byte \d+"),
        (graph().bytes() + b"\x0b", r"truncated or damaged: a field has the unknown wire type 3"),
        (graph().bytes().replace(b"Relu", b"R\xff\xffu"), r"truncated or damaged; export or download it again"),
        (b"node { name: 'x' op: }", r"is not a well-formed text GraphDef \(.*1:2\d : .*\); correct it, or export"),
        (b"node { name: 'x' attr { key: 'T' value { type: DT_NONE } } }", r"is not a well-formed text GraphDef"),
        (b"node { " * 3000, r"its text nests too deeply"),
        (b"node { name: '\xff' }", r"is not UTF-8 text all through|is not a TensorFlow graph"),
        (b"node { name: '" + b"a" * 5000 + b"\xff' }", r"is not UTF-8 text all through"),
    ],
)
def test_content(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "some.pb"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"some\.pb: .*{message}"):
        read_model(path)
    with pytest.raises(ModelError, match=rf"the model: .*{message}"):
        read_model(content)


def test_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("hello, world")
    with pytest.raises(ModelError, match=r"text: is neither an ONNX model nor a TensorFlow graph; pass a file"):
        load(path)
    with pytest.raises(ModelError, match=r"the model: is not a model but a Python pickle"):
        load(b"\x80\x04\x95pickle")
    with pytest.raises(ModelError, match=r"the model: is of type int; pass a path, bytes, or a protobuf message"):
        load(3)
    with pytest.raises(ModelError, match="there is no such file"):
        load(tmp_path / "gone.pb")
    with pytest.raises(ModelError, match=r"is a folder without saved_model\.pb; pass a SavedModel's folder, or a file"):
        load(tmp_path)


def test_a_message_that_cannot_be_written() -> None:
    class Refusing:
        DESCRIPTOR = GraphDef.DESCRIPTOR

        def SerializeToString(self) -> bytes:
            raise EncodeError("exceeds maximum protobuf size of 2GB")

    with pytest.raises(ModelError, match=r"cannot be serialised \(exceeds .* 2GB\); pass a path to the file"):
        load(Refusing())


def test_nesting_in_binary() -> None:
    message = GraphDef()
    attr = message.node.add(name="x", op="y").attr["f"]
    for _ in range(40):
        attr.func.name = "f"
        attr = attr.func.attr["f"]
    with pytest.raises(ModelError, match="truncated or damaged"):
        read_model(message.SerializeToString())


# ---- graphs


def changed(change: Callable[[GraphDefWriter], Any]) -> bytes:
    g = graph()
    change(g)
    return g.bytes()


def ring(g: GraphDefWriter) -> None:
    g.node("first", "AddV2", "x", "third", T=F32)
    g.node("second", "Relu", "first", T=F32)
    g.node("third", "Neg", "second", T=F32)
    g.node("after", "Abs", "third", T=F32)


def loop(g: GraphDefWriter) -> None:
    g.node("enter", "Enter", "x", T=F32)
    g.node("merge", "Merge", "enter", "next", T=F32)
    g.node("next", "NextIteration", "merge", T=F32)
    g.node("exit", "Exit", "merge", T=F32)


def constant(g: GraphDefWriter, name: str, shape: tuple[int, ...]) -> None:
    g.node("c", "Const", dtype=F32, value=np.zeros(1, np.float32))
    tensor = g.graph.node[-1].attr["value"].tensor
    del tensor.tensor_shape.dim[:]
    for dim in shape:
        tensor.tensor_shape.dim.add(size=dim)
    g.node(name, "Neg", "c", T=F32)


NO_TYPE = "input 'p' is of type invalid, which Tilewright lacks"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (changed(ring), GraphError, r"node 'first' \(AddV2\): it depends on its own result \('first' -> 'second' -> "),
        (changed(loop), UnsupportedError, r"Enter \('enter'\); Merge \('merge'\); NextI.*no branches and loops"),
        (
            changed(lambda g: g.node("z", "Neg", "nothing", T=F32)),
            GraphError,
            r"node 'z' \(Neg\): it uses 'nothing', but there is no node 'nothing'; the model is incomplete",
        ),
        (
            changed(lambda g: g.node("z", "Neg", "y:3", T=F32)),
            UnsupportedError,
            r"node 'z' \(Neg\): an input of it is 'y:3', a result that the node lacks",
        ),
        (changed(lambda g: g.node("z", "Neg", "y:x", T=F32)), GraphError, r"'y:x' is not the name of a tensor"),
        (changed(lambda g: g.node("y", "Neg", "x", T=F32)), GraphError, r"node 'y' \(Neg\): another node \(Relu\) is"),
        (changed(lambda g: g.node("z", "", "x")), UnsupportedError, r"a node without operator \('z'\)"),
        (
            changed(lambda g: (g.node("a", "Foo", "x"), g.node("b", "Bar", "a"), g.node("c", "Foo", "b"))),
            UnsupportedError,
            r"2 operators are not supported: Foo \('a', 'c'\); Bar \('b'\)",
        ),
        (
            changed(lambda g: (g.node("v", "VarHandleOp"), g.node("z", "ReadVariableOp", "v"))),
            UnsupportedError,
            r"VarHandleOp \('v'\); ReadVariableOp \('z'\).*freeze the graph, or pass the SavedModel's folder",
        ),
        (changed(lambda g: constant(g, "z", (-1,))), ModelError, r"node 'c' \(Const\): .*a negative dimension: \(-1"),
        (changed(lambda g: constant(g, "z", (2**20, 2**20))), ResourceError, r"node 'c' \(Const\): .*1048576x1048576"),
        (changed(lambda g: constant(g, "z", (3,))), ModelError, r"float 3, which takes 12 bytes, but holds 4"),
        (
            changed(lambda g: g.node("z", "Const", dtype=np.dtype(np.int32), value=np.zeros(1, F32))),
            GraphError,
            r"node 'z' \(Const\): attribute 'dtype' is int32, but the tensor holds float",
        ),
        (
            changed(lambda g: (g.node("c", "Const", value=3), g.node("z", "Neg", "c"))),
            GraphError,
            r"attribute 'value' should be a tensor, not 3",
        ),
        (
            changed(lambda g: (g.placeholder("p", F32, (2**30, 2**30)), g.node("z", "Neg", "p"))),
            ResourceError,
            r"input 'p' would have 1073741824x1073741824 elements, more than 2\*\*36",
        ),
        (changed(lambda g: (g.node("p", "Placeholder"), g.node("z", "Neg", "p"))), UnsupportedError, NO_TYPE),
        (changed(lambda g: (g.node("p", "Placeholder", dtype=3), g.node("z", "Neg", "p"))), UnsupportedError, NO_TYPE),
        (
            b"node { name: 'p' op: 'Placeholder' attr { key: 'dtype' value { type: DT_STRING } } }"
            b"node { name: 'z' op: 'Identity' input: 'p' }",
            UnsupportedError,
            "input 'p' is of type string",
        ),
        (b"library { } versions { producer: 3 }", GraphError, "it has no outputs; say with outputs= which"),
    ],
)  # fmt: skip
def test_graph(source: bytes, error: type[TilewrightError], message: str) -> None:
    with pytest.raises(error, match=message):
        model = read_model(source)
        asked = [node.name for node in model.nodes if node.name in ("after", "exit", "z")]
        translate(model, outputs=asked or None)


def test_nobody_needs_it() -> None:
    """Only what is asked for is looked at."""
    g = graph()
    ring(g)
    g.node("a", "Foo", "nothing")
    g.node("b", "Const", value=3)
    assert build(g.bytes(), outputs=["y"]).output_names == ("y",)


def test_unknown_names() -> None:
    g = graph()
    with pytest.raises(UnknownNameError, match="no tensor, node or layer is called 'yy'; the closest are y"):
        build(g.bytes(), outputs=["yy"])
    with pytest.raises(UnknownNameError, match="no input is called 'z'; the closest are x"):
        build(g.bytes(), shapes={"z": (1,)})
    with pytest.raises(UnknownNameError, match=r"no layer \(there are 0, counted from 0\) or tensor is called '7'"):
        build(g.bytes(), outputs=[7])
    with pytest.raises(UnknownNameError, match=r"no layer \(there are 0, counted from 0\) or tensor is called '999"):
        build(g.bytes(), outputs=["9" * 5000])
    with pytest.raises(GraphError, match="output 'y' is asked for twice"):
        build(g.bytes(), outputs=["y", "y"])
    with pytest.raises(GraphError, match="no output is asked for"):
        build(g.bytes(), outputs=[])


def test_unknown_shapes() -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (None, 4))
    g.node("y", "Relu", "x", T=F32)
    with pytest.raises(ShapeNeededError, match=r"the shape of input 'x' \(\? x 4\) is not known"):
        build(g.bytes())
    with pytest.raises(GraphError, match=r"shapes= gives input 'x' the shape \(3,\); the model declares x: float \?x4"):
        build(g.bytes(), shapes={"x": (3,)})


def test_arithmetic_in_half_precision() -> None:
    g = GraphDefWriter()
    g.placeholder("x", F32, (4,))
    g.node("h", "Cast", "x", SrcT=F32, DstT=np.dtype(np.float16))
    g.node("y", "Relu", "h", T=np.dtype(np.float16))
    with pytest.raises(UnsupportedError, match=r"node 'h' \(Cast\): it computes in f16, which Tilewright lacks"):
        build(g.bytes())


# ---- functions


def called(*nodes: tuple[str, str, tuple[str, ...]], result: str = "a", inputs: int = 1) -> GraphDefWriter:
    """y calls the function f, whose body these nodes are."""
    g = GraphDefWriter()
    g.placeholder("x", F32, (1, 4))
    g.node("y", "PartitionedCall", *["x"] * inputs)
    g.graph.node[-1].attr["f"].func.name = "f"
    f = g.graph.library.function.add()
    f.signature.name = "f"
    f.signature.input_arg.add(name="a", type=1)
    f.signature.output_arg.add(name="r", type=1)
    f.ret["r"] = result
    for name, op, operands in nodes:
        f.node_def.add(name=name, op=op, input=operands)
    return g


def without_result() -> GraphDefWriter:
    g = called()
    del g.graph.library.function[0].ret["r"]
    return g


def twice() -> GraphDefWriter:
    g = called()
    g.graph.library.function.add().CopyFrom(g.graph.library.function[0])
    return g


def missing() -> GraphDefWriter:
    g = called()
    del g.graph.library.function[:]
    return g


@pytest.mark.parametrize(
    ("g", "error", "message"),
    [
        (called(("n", "f", ("a",)), result="n:r:0"), GraphError, r"node 'y/n' \(f\): function 'f' calls itself"),
        (called(("n", "Neg", ("b",))), GraphError, "node 'y': function 'f' uses 'b', which nothing in it defines"),
        (called(result="n:y:0"), GraphError, "function 'f' uses 'n:y:0', which nothing in it defines"),
        (called(result="a:1"), GraphError, "function 'f' uses 'a:1', which the call lacks"),
        (called(("n", "Neg", ("a",)), result="n:y:x"), GraphError, "'y:x' is not a result of Neg"),
        (called(inputs=2), GraphError, "function 'f' takes 1 inputs, the call passes 2"),
        (without_result(), GraphError, "function 'f' does not return 'r'"),
        (twice(), ModelError, "two functions in it are called 'f'"),
        (missing(), UnsupportedError, r"PartitionedCall of 'f', which the library lacks \('y'\)"),
    ],
)
def test_functions(g: GraphDefWriter, error: type[TilewrightError], message: str) -> None:
    with pytest.raises(error, match=message):
        build(g.bytes())


def doubling(levels: int, *leaves: str, first: str = "b") -> GraphDefWriter:
    """y calls f0, which calls f1 twice, and so on; the last function has these nodes."""
    g = called(("n", "f0", ("a",)))
    for level in range(levels + 1):
        f = g.graph.library.function.add()
        f.signature.name = f"f{level}"
        f.signature.input_arg.add(name="a", type=1)
        for name in (first, "c") if level < levels else leaves:
            f.node_def.add(name=name, op=f"f{level + 1}" if level < levels else "Neg", input=["a"])
    return g


@pytest.mark.parametrize("leaves", [(), ("n",)])
def test_functions_that_double(leaves: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may ask for any number of nodes, or of calls without any."""
    monkeypatch.setattr("tilewright.frontends.expansion.MAX_BYTES", 1 << 20)
    with pytest.raises(ResourceError, match="its functions expand to more than 1 MiB of nodes; no network needs that"):
        read_model(doubling(40, *leaves).bytes())


@pytest.mark.parametrize("what", ["nothing", "controls", "attributes", "results", "names"])
def test_functions_that_double_what_a_node_has(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.frontends.expansion.MAX_BYTES", 4 << 20)
    g = doubling(8, "n", "m", first="b" * 2000 if what == "names" else "b")
    last = g.graph.library.function[-1]
    for number in range(300):
        if what == "controls":
            last.node_def[0].input.append("^m")
        elif what == "attributes":
            last.node_def[0].attr[f"k{number}"].i = number
        elif what == "results":
            last.signature.output_arg.add(name=f"r{number}", type=1)
            last.ret[f"r{number}"] = "a"
    if what == "nothing":
        assert len(read_model(g.bytes()).nodes) == 1 + 2 * 256
        return
    with pytest.raises(ResourceError, match="its functions expand to more than 4 MiB of nodes"):
        read_model(g.bytes())


def test_a_name_of_many_parts_takes_little_memory() -> None:
    g = graph()
    g.node("a/" * 20_000 + "b", "Neg", "y", T=F32)
    content = g.bytes()
    tracemalloc.start()
    try:
        read_model(content)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_conditions_of_conditions_are_asked_once() -> None:
    """Each operator asks for its operand twice, a thousand Switches for all of them."""
    g = graph()
    g.placeholder("p", np.dtype(np.bool_), ())
    last = "p"
    for number in range(16):
        last = g.node(f"and{number}", "LogicalAnd", last, last)
    for number in range(1000):
        g.node(f"switch{number}", "Switch", "x", last, T=F32)
    started = time.process_time()
    with pytest.raises(UnsupportedError, match=r"Switch \('switch0', .* and 995 more\)"):
        build(g.bytes())
    assert time.process_time() - started < 20


def test_functions_that_nest_deeply() -> None:
    g = called(("n", "f0", ("a",)))
    for level in range(functions.MAX_CALL_DEPTH + 1):
        f = g.graph.library.function.add()
        f.signature.name = f"f{level}"
        f.signature.input_arg.add(name="a", type=1)
        f.node_def.add(name="n", op=f"f{level + 1}", input=["a"])
    with pytest.raises(GraphError, match="its calls nest deeper than 64"):
        read_model(g.bytes())


def test_a_switch_that_only_hands_on_itself() -> None:
    g = GraphDefWriter()
    g.constant("p", np.array(True))
    g.node("s", "Switch", "s:1", "p", T=F32)
    g.node("y", "Neg", "s:1", T=F32)
    with pytest.raises(GraphError, match="it only hands on its own result; a graph must not have cycles"):
        build(g.bytes())


# ---- saved models


def test_saved_models(tmp_path: Path) -> None:
    g = graph()
    message = saved_model(g.graph, {"x": "x:0"}, {"y": "gone:0"})
    with pytest.raises(GraphError, match="its output 'y' is 'gone', which no node computes; the model is incomplete"):
        build(message)
    bare = saved_model(g.graph, {}, {})
    bare.meta_graphs[0].signature_def.clear()
    with pytest.raises(GraphError, match="it has no outputs; say with outputs= which tensors to compute"):
        build(bare)
    message.meta_graphs.add().CopyFrom(message.meta_graphs[0])
    with pytest.raises(UnsupportedError, match="is a SavedModel with 2 graphs to choose from, their tags are serve; s"):
        build(message)
    del message.meta_graphs[:]
    with pytest.raises(ModelError, match="is a SavedModel without a graph"):
        build(message)
    folder = write_saved_model(tmp_path / "m", g.graph, {"x": "x:0"}, {"y": "y:0"}, {"w": np.zeros(3, F32)})
    (folder / "variables" / "variables.index").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"variables\.index is damaged \(it does not end as an index does"):
        read_model(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="the file is empty"):
        read_model(folder)


def test_two_inputs_of_one_name() -> None:
    g = graph()
    g.placeholder("b", F32, (1, 4))
    g.node("sum", "AddV2", "y", "b", T=F32)
    with pytest.raises(GraphError, match="two inputs are called the same: b, b"):
        build(saved_model(g.graph, {"b": "x:0"}, {"out": "sum:0"}))


def test_text_of_unknown_fields_is_read() -> None:
    """Newer writers have fields that we do not know."""
    text = text_format.MessageToString(graph().graph)
    text += 'debug_info { files: "a.py" traces { key: "k" value { frames: 3 } } }'
    assert build(text.encode()).output_names == ("y",)
