"""Reads an ONNX file into plain data; the one place, with `tensors`, that knows protobuf.

    Model
        name            what messages call it: the path
        nodes           Node("conv1", "Conv", domain="", opset=13, inputs=("x", "w"), outputs=("y",),
                             attributes={"strides": (1, 1)})
        initializers    {"w": Tensor("w", "float", (64, 3, 3, 3), array)}   arrays map the file
        inputs          Port("x", F32, "float", (None, 3, "height", 224)), without the initialisers
        outputs         the same, as declared: assertions about shapes, never a source of them

Calls of functions that the model defines are replaced by their bodies. Nothing is judged here except what
makes the file unreadable (ModelError): whether the graph makes sense is for `translate` to say.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
)

from tilewright.errors import ModelError, TilewrightError
from tilewright.frontends.expansion import Expansion, Extent
from tilewright.frontends.files import open_file, refuse_strangers, view
from tilewright.frontends.onnx.tensors import Tensor, TensorReader, dtype_of, text, type_name
from tilewright.frontends.onnx.wire import split
from tilewright.frontends.ports import Dim, Port
from tilewright.frontends.wire import Damaged

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | ModelProto

MAX_CALL_DEPTH = 64


@dataclass(frozen=True)
class Opaque:
    """An attribute that no supported operator reads (a sub-graph, a sparse tensor, a type)."""

    kind: str


@dataclass(frozen=True)
class Reference:
    """Inside a function: the value of the caller's attribute `name`."""

    name: str


Attribute = (
    int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Tensor | Opaque | Reference
)


@dataclass(frozen=True, eq=False)
class Node:
    """One node. `opset` is the version of its domain; an input or output left out has an empty name."""

    name: str
    op: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def full_op(self) -> str:
        """The operator with its domain, if it is not ONNX's own."""
        return f"{self.domain}.{self.op}" if self.domain else self.op


@dataclass(frozen=True, eq=False)
class Model:
    """A model file as data; `files` are those with its external data."""

    name: str
    graph_name: str
    opsets: Mapping[str, int]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, Tensor]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    files: tuple[Path, ...] = ()


def read_model(source: Source, *, folder: str | os.PathLike[str] | None = None, name: str = "") -> Model:
    """Read a model from a path, its bytes or a ModelProto.

    `folder` is where external data lie; a path's own folder if not given. `name` is what messages call the
    model. Raises ModelError.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        name = name or str(path)
        folder = path.parent if folder is None else folder
    name = name or "the model"
    try:
        if isinstance(source, ModelProto):
            proto = source
            payloads: list[memoryview | None] = [None] * len(source.graph.initializer)
        else:
            data = (
                _open(Path(source))
                if isinstance(source, (str, os.PathLike))
                else view(source)
            )
            proto, payloads = _parse(data)
        return _Reader(TensorReader(None if folder is None else Path(folder))).model(proto, payloads, name)
    except TilewrightError as error:
        error.model = name
        raise
    except UnicodeDecodeError:
        raise ModelError(
            "an attribute in it is not UTF-8 text; the file is damaged, export it again", model=name
        ) from None


def _open(path: Path) -> memoryview:
    if path.is_dir():
        raise ModelError("is a folder, not an ONNX file")
    return open_file(path)


def _parse(data: memoryview) -> tuple[ModelProto, list[memoryview | None]]:
    """The message, and apart from it the initialisers' raw data."""
    refuse_strangers(data, "an ONNX model")
    # A model starts with its ir_version, a small number, in every file that onnx itself has written.
    looks_right = data[0] == 0x08
    proto = ModelProto()
    try:
        skeleton, payloads = split(data)
        proto.ParseFromString(skeleton)
    except (Damaged, DecodeError) as error:
        if looks_right:
            where = f": {error.message}" if isinstance(error, Damaged) else ""
            raise ModelError(
                f"the file is truncated or damaged{where}; export or download it again"
            ) from None
        raise ModelError("is not an ONNX model; pass a file that was exported to ONNX") from None
    if not proto.HasField("graph"):
        if looks_right:
            raise ModelError("the file is truncated or damaged: it has no graph; export or download it again")
        raise ModelError("is not an ONNX model; pass a file that was exported to ONNX")
    return proto, payloads


class _Reader:
    """Converts the messages of one model."""

    def __init__(self, tensors: TensorReader) -> None:
        self.tensors = tensors
        self.functions: dict[tuple[str, str, str], FunctionProto] = {}
        self.nodes: list[Node] = []
        self.extents: dict[tuple[str, str, str], Extent] = {}
        self.expansion = Expansion()

    def model(self, proto: ModelProto, payloads: Sequence[memoryview | None], name: str) -> Model:
        graph = proto.graph
        opsets = {_domain(entry.domain): entry.version for entry in proto.opset_import}
        if not opsets:
            raise ModelError("is not a complete ONNX model: it names no operator set; export it again")
        for function in proto.functions:
            self.functions[_domain(function.domain), text(function.name), text(function.overload)] = function
        initializers = {
            text(tensor.name): self.tensors.read(tensor, payload)
            for tensor, payload in zip(graph.initializer, payloads, strict=True)
        }
        for sparse in graph.sparse_initializer:
            sparse_name = text(sparse.values.name)
            initializers[sparse_name] = Tensor(sparse_name, "sparse tensor", tuple(sparse.dims), None)
        if len(initializers) != len(graph.initializer) + len(graph.sparse_initializer):
            raise ModelError(f"two initialisers are called '{_repeated(graph)}'")
        for index, node in enumerate(graph.node):
            self.add(node, opsets, text(node.name) or f"{text(node.op_type)}_{index}", depth=0)
        inputs = tuple(_port(info) for info in graph.input if text(info.name) not in initializers)
        outputs = tuple(_port(info) for info in graph.output)
        files = self.tensors.files
        return Model(name, text(graph.name), opsets, tuple(self.nodes), initializers, inputs, outputs, files)

    def add(
        self,
        node: NodeProto,
        opsets: Mapping[str, int],
        name: str,
        depth: int,
        tensors: Mapping[str, str] | None = None,
        given: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Append a node, or the body of the function that it calls.

        Inside a function, `tensors` renames its tensors and `given` are the attributes of the call.
        """
        inputs, outputs = tuple(map(text, node.input)), tuple(map(text, node.output))
        if tensors is not None:
            inputs, outputs = (
                tuple(tensors.get(tensor, "") for tensor in side) for side in (inputs, outputs)
            )
        attributes = {}
        for attribute in node.attribute:
            value = self.attribute(attribute)
            if isinstance(value, Reference):
                if given is None or value.name not in given:
                    continue  # the caller left it out: the operator's default holds
                value = given[value.name]
            attributes[text(attribute.name)] = value
        domain = _domain(node.domain)
        function = self.functions.get((domain, node.op_type, text(node.overload)))
        if function is not None:
            self.expand(function, name, inputs, outputs, attributes, depth)
            return
        opset = opsets.get(domain, 0)
        self.nodes.append(Node(name, text(node.op_type), domain, opset, inputs, outputs, attributes))

    def expand(
        self,
        function: FunctionProto,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Attribute],
        depth: int,
    ) -> None:
        """Append the body of a called function; its tensors and nodes are named after the call."""
        if depth >= MAX_CALL_DEPTH:
            raise ModelError(
                f"function '{function.name}' calls itself, or calls nest deeper than {MAX_CALL_DEPTH}",
                node=name,
            )
        if len(inputs) > len(function.input) or len(outputs) > len(function.output):
            raise ModelError(
                f"function '{function.name}' has {len(function.input)} inputs and {len(function.output)} "
                f"outputs, the call passes {len(inputs)} and {len(outputs)}",
                node=name,
            )
        self.expansion.call(self.extent(function), name)
        given = {text(default.name): self.attribute(default) for default in function.attribute_proto} | dict(
            attributes
        )
        tensors = {"": ""}
        for inner in function.node:
            tensors |= {text(tensor): f"{name}/{tensor}" for tensor in inner.output if tensor}
        tensors |= dict.fromkeys(map(text, function.input), "") | dict(
            zip(function.input, inputs, strict=False)
        )
        opsets = {_domain(entry.domain): entry.version for entry in function.opset_import}
        for formal, actual in zip(function.output, outputs, strict=False):
            if text(formal) not in function.input:
                tensors[formal] = actual or f"{name}/{formal}"
        for index, inner in enumerate(function.node):
            inner_name = f"{name}/{text(inner.name) or f'{inner.op_type}_{index}'}"
            self.add(inner, opsets, inner_name, depth + 1, tensors, given)
        for formal, actual in zip(function.output, outputs, strict=False):
            if formal in function.input and actual:  # an input handed through
                source = (tensors[formal],)
                self.nodes.append(Node(f"{name}/{formal}", "Identity", "", 1, source, (actual,), {}))

    def extent(self, function: FunctionProto) -> Extent:
        """How much each call of a function adds."""
        key = _domain(function.domain), text(function.name), text(function.overload)
        if key not in self.extents:
            parts = sum(len(node.input) + len(node.output) + len(node.attribute) for node in function.node)
            parts += len(function.input) + len(function.output) + len(function.attribute_proto)
            self.extents[key] = Extent(len(function.node), parts, function.ByteSize())
        return self.extents[key]

    def attribute(self, proto: AttributeProto) -> Attribute:
        """The value of an attribute."""
        if proto.ref_attr_name:
            return Reference(text(proto.ref_attr_name))
        match proto.type:
            case AttributeProto.FLOAT:
                return float(proto.f)
            case AttributeProto.INT:
                return int(proto.i)
            case AttributeProto.STRING:
                return proto.s.decode()
            case AttributeProto.TENSOR:
                return self.tensors.read(proto.t)
            case AttributeProto.FLOATS:
                return tuple(map(float, proto.floats))
            case AttributeProto.INTS:
                return tuple(map(int, proto.ints))
            case AttributeProto.STRINGS:
                return tuple(text.decode() for text in proto.strings)
            case other:
                names: Mapping[int, str] = {
                    number: key for key, number in AttributeProto.AttributeType.items()
                }
                return Opaque(names.get(other, str(other)).lower())


def _port(info: ValueInfoProto) -> Port:
    """A declared input or output."""
    if info.type.WhichOneof("value") != "tensor_type":
        return Port(
            text(info.name), None, str(info.type.WhichOneof("value") or "no type").removesuffix("_type"), None
        )
    tensor = info.type.tensor_type
    dims: list[Dim] | None = None
    if tensor.HasField("shape"):
        dims = []
        for dim in tensor.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                dims.append(int(dim.dim_value))
            else:  # exporters write -1 for an unknown dimension, too
                dims.append(text(dim.dim_param) or None)
    dtype = dtype_of(tensor.elem_type)
    return Port(text(info.name), dtype, type_name(tensor.elem_type), None if dims is None else tuple(dims))


def _domain(domain: str) -> str:
    """ONNX's own operators have two names for their domain."""
    return "" if text(domain) == "ai.onnx" else domain


def _repeated(graph: GraphProto) -> str:
    seen: set[str] = set()
    tensors: list[TensorProto] = [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]
    for tensor in tensors:
        if tensor.name in seen:
            return text(tensor.name)
        seen.add(tensor.name)
    return ""


__all__ = ["Attribute", "Model", "Node", "Opaque", "Source", "Tensor", "read_model"]
