"""Files and graphs that are refused: each with one message that says what is wrong and what to do."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate

FLOAT = TensorProto.FLOAT
Dims = Sequence[int | str | None] | None


def port(name: str, dims: Dims = (1, 4), type: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, type, dims)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    weights: Sequence[TensorProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [port("x")] if inputs is None else inputs,
        [helper.make_empty_tensor_value_info("y")] if outputs is None else outputs,
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def build(model: onnx.ModelProto, **options: Any) -> Graph:
    return translate(read_model(model), **options)


def relu(source: str = "x", result: str = "y", name: str = "the_relu") -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [result], name=name)


WEIGHT = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
ADD = helper.make_node("Add", ["x", "w"], ["y"], name="the_add")
GOOD = model_of([ADD], weights=[WEIGHT])


# ---- files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty; export or download it again"),
        (b"hello, world", r"is not an ONNX model; pass a file that was exported to ONNX"),
        (b"\x80\x04\x95pickle", r"is not an ONNX model but a Python pickle; export the model to ONNX"),
        (b"PK\x03\x04rest", r"is not an ONNX model but a zip archive .*; export the model to ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer; run `git lfs pull`"),
        (b"<!DOCTYPE html><html>", r"a web page; download the file again"),
        (b"\x08\x08", r"truncated or damaged: it has no graph; export or download it again"),
        (b"\x08\x08\x3a\x00", r"it names no operator set; export it again"),
        (b"\x08\x08\x3b\x00", r"truncated or damaged: a field has the unknown wire type 3 \(at byte 2\)"),
        (
            GOOD.SerializeToString()[:-20],
            r"truncated or damaged: a field ends at byte \d+, .*ends at byte \d+",
        ),
    ],
)
def test_content(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "some.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"some\.onnx: .*{message}"):
        read_model(path)
    with pytest.raises(ModelError, match=rf"the model: .*{message}"):
        read_model(content)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx: there is no such file"):
        read_model(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match=r"is a folder, not an ONNX file"):
        read_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match=r"is not a regular file"):
        read_model(tmp_path / "pipe")


def test_name_that_is_not_text() -> None:
    content = GOOD.SerializeToString().replace(b"the_add", b"the\xff\xfe\xfdd")
    with pytest.raises(ModelError, match="not UTF-8 text; the file is damaged"):
        read_model(content)


@pytest.mark.parametrize("name", ["the_add", "w", "Add", "x", "y", "axis", "spam", "g", "local"])
def test_every_name_that_is_not_text(name: str) -> None:
    model = with_function(
        function("Twice", [relu("a", "b", "inner")]), node("Add", "x", "w", name="the_add", axis="spam")
    )
    model.graph.initializer.append(WEIGHT)
    content = model.SerializeToString().replace(
        b"%c%s" % (len(name), name.encode()), b"%c%s" % (len(name), b"\xff" * len(name))
    )
    with pytest.raises(ModelError, match="not UTF-8 text; the file is damaged"):
        read_model(content)


# ---- tensors


def tensor(**fields: Any) -> TensorProto:
    return TensorProto(**{"name": "w", "data_type": FLOAT, "dims": [4], "raw_data": bytes(16)} | fields)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (tensor(raw_data=bytes(15)), "tensor 'w' is declared float 4, which takes 16 bytes, but holds 15"),
        (tensor(dims=[2**35], raw_data=b""), "which takes 137438953472 bytes, but holds 0"),
        (
            TensorProto(name="w", data_type=FLOAT, dims=[3], float_data=[1]),
            "which is 3 elements, but holds 1",
        ),
        (tensor(data_type=0), "tensor 'w' has the unknown element type 0"),
        (tensor(data_type=99), "tensor 'w' has the unknown element type 99"),
        (tensor(dims=[-4]), r"tensor 'w' has a negative dimension: \(-4,\)"),
    ],
)
def test_tensor(weight: TensorProto, message: str) -> None:
    model = model_of([ADD], weights=[weight])
    for source in (model, model.SerializeToString()):
        with pytest.raises(ModelError, match=message):
            read_model(source)


@pytest.mark.parametrize("dims", [[2**20, 2**20], [1] * 40, [0, 2**62, 2**62]])
def test_tensor_of_absurd_size(dims: list[int]) -> None:
    with pytest.raises(
        ResourceError, match=r"tensor 'w' is declared float .*beyond 2\*\*36 elements or 32 axes"
    ):
        read_model(model_of([ADD], weights=[tensor(dims=dims)]))


def test_tensor_of_a_type_that_is_lacking() -> None:
    weight = tensor(data_type=TensorProto.COMPLEX64, dims=[2])
    with pytest.raises(
        UnsupportedError, match=r"tensor 'w' holds complex64 elements.*convert the model to float32"
    ):
        build(model_of([ADD], weights=[weight]))
    build(model_of([ADD, relu(result="z")], weights=[weight]), outputs=["z"])  # nobody needs it


def test_two_tensors_of_one_name() -> None:
    with pytest.raises(ModelError, match="two initialisers are called 'w'"):
        read_model(model_of([ADD], weights=[WEIGHT, WEIGHT]))


# ---- external data


def external(tmp_path: Path, location: str, **entries: str) -> Path:
    """A model in a folder of its own, whose weights are said to lie at `location`."""
    folder = tmp_path / "model"
    folder.mkdir()
    weight = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(model_of([ADD], weights=[weight]).SerializeToString())
    (folder / "w.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    return path


def test_external_data_are_read(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin", offset="8", length="16")
    array = read_model(path).initializers["w"].array
    assert array is not None and array.tolist() == [2, 3, 4, 5]
    assert not array.flags.owndata  # a view of the mapped file
    proto = onnx.load(path, load_external_data=False)
    assert read_model(proto, folder=path.parent).initializers["w"].array is not None


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("gone.bin", {}, r"data of tensor 'w' are missing: there is no file 'gone\.bin' beside the model"),
        ("../secret.bin", {}, r"are in '\.\./secret\.bin', which is not a path inside the model's folder"),
        (
            "sub/../../secret.bin",
            {},
            "which is not a path inside the model's folder; such a file is not read",
        ),
        ("/etc/passwd", {}, "are in '/etc/passwd', which is not a path inside the model's folder"),
        ("", {}, "which is not a path inside the model's folder"),
        (".", {}, r"are missing: there is no file '\.'"),
        (
            "w.bin",
            {"offset": "20"},
            r"should lie at bytes 20 to 36 of 'w\.bin', which has 32; .*copy it again",
        ),
        ("w.bin", {"offset": "-4"}, "should lie at bytes -4 to 12"),
        ("w.bin", {"offset": str(2**70)}, "should lie at bytes"),
        ("w.bin", {"length": "x"}, "an offset or length that is no number"),
        ("w.bin", {"length": "12"}, "takes 16 bytes, but holds 12"),
    ],
)
def test_external_data(tmp_path: Path, location: str, entries: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_model(external(tmp_path, location, **entries))


def test_external_data_behind_a_link(tmp_path: Path) -> None:
    path = external(tmp_path, "link.bin")
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match=r"'link\.bin', a link that leads outside the model's folder"):
        read_model(path)
    (path.parent / "link.bin").unlink()
    (path.parent / "link.bin").symlink_to("w.bin")
    assert read_model(path).initializers["w"].array is not None  # a link inside the folder is fine


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="a model in memory has no folder; pass the path of the model instead"
    ):
        read_model(external(tmp_path, "w.bin").read_bytes())


# ---- graphs


def node(op: str, *inputs: str, name: str = "n", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), ["y"], name=name, **attributes)


CYCLE = [
    helper.make_node("Add", ["x", "c"], ["a"], name="first"),
    helper.make_node("Relu", ["a"], ["b"], name="second"),
    helper.make_node("Neg", ["b"], ["c"], name="third"),
    helper.make_node("Abs", ["c"], ["y"], name="after"),
]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            model_of(CYCLE),
            r"node 'first' \(Add\): it depends on its own result \('first' -> 'second' -> 'third' ",
        ),
        (
            model_of([relu("nothing")]),
            r"node 'the_relu' \(Relu\): it uses 'nothing', which no node, input or init",
        ),
        (
            model_of([relu(), relu(name="b")]),
            r"node 'b' \(Relu\): it computes 'y', which node 'the_relu' defines al",
        ),
        (
            model_of([relu(result="x")]),
            r"it computes 'x', which an input defines already; names must be unique",
        ),
        (
            model_of([relu("x", "w")], weights=[WEIGHT]),
            "it computes 'w', which an initialiser defines already",
        ),
        (model_of([relu()], [port("x"), port("x")]), "two inputs are called 'x'"),
        (model_of([relu(result="z")]), "its output 'y' is computed by no node; the model is incomplete"),
        (model_of([relu()], outputs=[]), "no output is asked for; name at least one"),
        (
            model_of([node("Add", "x", "w")], [port("x", (2, 3))], weights=[WEIGHT]),
            r"node 'n' \(Add\): operand 1 has shape \(4,\), which does not broadcast with \(2, 3\)",
        ),
        (
            model_of([node("MatMul", "x", "w")], [port("x", (2, 3))], weights=[WEIGHT]),
            r"node 'n' \(MatMul\): .*3 col",
        ),
        (
            model_of([relu()], outputs=[port("y", (1, 5))]),
            "'y' is declared y: float 1x5, but the graph computes f32 1x4",
        ),
        (model_of([relu()], outputs=[port("y", (4,))]), "correct the declaration, or pass shapes="),
        (model_of([relu()], outputs=[port("y", (1, 4), TensorProto.INT64)]), "'y' is declared y: int64 1x4"),
        (
            model_of([node("Softmax", "x", axis=2)]),
            r"node 'n' \(Softmax\): axis 2 does not exist in a tensor of 2",
        ),
        (model_of([node("Softmax", "x", axis="1")]), "attribute 'axis' should be an integer, not '1'"),
        (model_of([node("Transpose", "x", perm=[0, 0])]), r"axes \(0, 0\) name one axis twice"),
        (
            model_of([node("MaxPool", "x", kernel_shape=[2])]),
            r"operand 0 has shape \(1, 4\); it takes \(batch",
        ),
        (model_of([node("Concat", axis=0)]), "the node has no operands"),
        (model_of([node("Add", "x")]), r"node 'n' \(Add\): expected 2 operands|takes 2 operands|2 operands"),
        (model_of([node("Add", "x", "")]), "operand 1 is missing"),
    ],
)
def test_graph(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        build(model)


def test_unknown_output() -> None:
    model = model_of([relu(result="hidden_1"), node("Abs", "hidden_1")])
    with pytest.raises(UnknownNameError, match=r"no tensor, node or layer is called 'hiden_1'; .*hidden_1"):
        build(model, outputs=["hiden_1"])
    with pytest.raises(
        UnknownNameError, match=r"no layer \(there are 0, counted from 0\) or tensor is called '3'"
    ):
        build(model, outputs=[3])
    with pytest.raises(UnknownNameError, match=r"counted from 0\) or tensor is called '999"):
        build(model, outputs=["9" * 5000])
    with pytest.raises(GraphError, match="output 'y' is asked for twice"):
        build(model, outputs=["y", "y"])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(UnknownNameError, match="no input is called 'z'; the closest are x"):
        build(GOOD, shapes={"z": (1, 4)})
    with pytest.raises(
        GraphError, match=r"shapes= gives input 'x' the shape \(4,\); the model declares x: float 1x4"
    ):
        build(GOOD, shapes={"x": (4,)})
    with pytest.raises(GraphError, match=r"input 'x' would have the shape \(-1, 4\)"):
        build(GOOD, shapes={"x": (-1, 4)})


def test_unknown_dimensions() -> None:
    model = model_of(
        [node("Add", "x", "z")], [port("x", ("batch", None, 4)), port("z", ("batch", 3, 4)), port("u", None)]
    )
    with pytest.raises(ShapeNeededError) as caught:
        build(model)
    assert str(caught.value) == (
        "the model: the shape of inputs 'x' (batch x ? x 4), 'z' (batch x 3 x 4) is not known; pass it, for "
        "example shapes={'x': (1, 1, 4), 'z': (1, 3, 4)}"
    )
    assert caught.value.inputs == {"x": ("batch", None, 4), "z": ("batch", 3, 4)}
    graph = build(model, shapes={"x": (2, 3, 4)})  # the symbol holds for both
    assert [value.type.shape for value in graph.inputs] == [(2, 3, 4), (2, 3, 4)]
    with pytest.raises(ShapeNeededError, match=r"'u' \(unknown rank\)"):
        build(model, outputs=["u"])


def test_unsupported_operators_are_listed_at_once() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], name="count"),
        helper.make_node("Frob", ["a"], ["b"], name="f1", domain="com.example"),
        helper.make_node("Frob", ["b"], ["c"], name="f2", domain="com.example"),
        helper.make_node("Relu", ["c"], ["y"], name="the_relu"),
        helper.make_node("LSTM", ["x"], ["unneeded"], name="off_the_path"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        build(model_of(nodes))
    assert str(caught.value) == (
        "the model: 2 operators are not supported: NonZero ('count'); com.example.Frob ('f1', 'f2'). Ask for "
        "outputs that do not need them, or export the model with other operators (opset 7 to 28)"
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (model_of([relu()], [port("x", (1, 4), TensorProto.FLOAT16)]), "input 'x' is of type float16"),
        (model_of([relu()], [port("x", (1, 4), TensorProto.STRING)]), "input 'x' is of type string"),
        (
            model_of([node("Reshape", "x", "s")], [port("x"), port("s", (2,), TensorProto.INT64)]),
            r"operand 1 \(shape\) is",
        ),
        (
            model_of([node("Cast", "x", to=TensorProto.BFLOAT16)]),
            "it casts to bfloat16, which Tilewright lacks",
        ),
        (model_of([node("Cast", "x", to=TensorProto.FLOAT16)]), "it computes in f16, which Tilewright lacks"),
        (
            model_of([node("Constant", value_string="s")]),
            r"its value is a string \(attribute 'value_string'\)",
        ),
    ],
)
def test_unsupported(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build(model)


def shape_tensor(*dims: int) -> TensorProto:
    return numpy_helper.from_array(np.array(dims, dtype=np.int64), "s")


@pytest.mark.parametrize(
    "model",
    [
        model_of([node("ConstantOfShape", "s")], weights=[shape_tensor(2**20, 2**20)]),
        model_of([node("Expand", "x", "s")], [port("x", (1, 1))], weights=[shape_tensor(2**20, 2**20)]),
        model_of([node("Tile", "x", "s")], weights=[shape_tensor(2**20, 2**20)]),
        model_of([node("Pad", "x", "s")], weights=[shape_tensor(0, 0, 2**40, 0)]),
        model_of([node("Resize", "x", "", "", "s")], weights=[shape_tensor(2**20, 2**20)]),
        model_of([relu()], [port("x", (2**20, 2**20))]),
        model_of([relu()], [port("x", (1,) * 40)]),
        model_of([node("MatMul", "x", "z")], [port("x", (2**20, 1)), port("z", (1, 2**20))]),
        model_of([node("Conv", "x", "w", pads=[2**40, 0])], [port("x", (1, 1, 4)), port("w", (1, 1, 1))]),
    ],
)
def test_absurd_dimensions(model: onnx.ModelProto) -> None:
    with pytest.raises(ResourceError, match=r"2\*\*36"):
        build(model)


# ---- functions


def with_function(function: onnx.FunctionProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    model = model_of(list(nodes))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.append(function)
    return model


def function(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], nodes, opsets)


def test_function_that_calls_itself() -> None:
    call = helper.make_node("F", ["a"], ["b"], domain="local")
    model = with_function(function("F", [call]), helper.make_node("F", ["x"], ["y"], domain="local"))
    with pytest.raises(ModelError, match="function 'F' calls itself, or calls nest deeper than 64"):
        read_model(model)


def multiplying(levels: int, *leaves: onnx.NodeProto) -> onnx.ModelProto:
    """Ten calls a level; the last function has these nodes."""
    model = model_of([helper.make_node("F0", ["x"], ["y"], domain="local")])
    for level in range(levels):
        calls = [helper.make_node(f"F{level + 1}", ["a"], [f"r{i}"], domain="local") for i in range(9)]
        calls.append(helper.make_node(f"F{level + 1}", ["a"], ["b"], domain="local"))
        model.functions.append(function(f"F{level}", calls))
    model.functions.append(function(f"F{levels}", leaves))
    return model


@pytest.mark.parametrize("leaf", [0, 1])
def test_functions_that_multiply(leaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before memory is gone, or time if nothing comes of them."""
    monkeypatch.setattr("tilewright.frontends.expansion.MAX_BYTES", 1 << 20)
    with pytest.raises(ResourceError, match="its functions expand to more than 1 MiB of nodes; no network needs that"):
        read_model(multiplying(8, *[helper.make_node("Relu", ["a"], ["b"])] * leaf))


@pytest.mark.parametrize(
    ("node", "fits"),
    [
        (helper.make_node("Relu", ["a"], ["b"]), True),
        (helper.make_node("Concat", ["a"] * 1000, ["b"], axis=0), False),
        (helper.make_node("Split", ["a"], ["b", *map(str, range(1000))]), False),
        (helper.make_node("Affine", ["a"], ["b"], numbers=[1.5] * 4000), False),
        (helper.make_node("Relu", ["a"], ["b"], **{f"k{i}": i for i in range(1000)}), False),
    ],
)
def test_functions_that_multiply_what_a_node_has(
    node: onnx.NodeProto, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilewright.frontends.expansion.MAX_BYTES", 4 << 20)
    if fits:
        assert len(read_model(multiplying(2, node)).nodes) == 100
        return
    with pytest.raises(ResourceError, match="its functions expand to more than 4 MiB of nodes"):
        read_model(multiplying(2, node))


# ---- anything else


def outcome(content: bytes) -> str:
    """What becomes of a file; anything but success and a TilewrightError is raised on."""
    try:
        translate(read_model(content))
    except TilewrightError as error:
        return type(error).__name__
    return "translated"


@pytest.fixture(scope="module")
def squeezenet() -> bytes:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return (folder / "light_squeezenet.onnx").read_bytes()


def test_truncations(squeezenet: bytes) -> None:
    ends = [*range(1, 200), *range(200, len(squeezenet), 97)]
    assert {outcome(squeezenet[:end]) for end in ends} == {"ModelError"}


@pytest.mark.parametrize("damage", [1, 3])
def test_damaged_bytes(squeezenet: bytes, damage: int) -> None:
    rng = random.Random(damage)
    found = set()
    for _ in range(300):
        content = bytearray(squeezenet)
        for _ in range(damage):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        found.add(outcome(bytes(content)))
    assert {"ModelError", "GraphError", "translated"} <= found
