"""Turns NodeDef and AttrValue messages into plain Python.

    read_node(proto, payloads)  ->  Node("conv1", "Conv2D", (Input("x"), Input("w", 1)), ("init",), {"T": ...})

Inside functions an input has three parts, `node:result:index`; `Operand` keeps them until the function is inlined.
Attributes whose names begin with an underscore are TensorFlow's own notes and left out.
"""

from collections.abc import Mapping, Sequence

from tilewright.errors import GraphError
from tilewright.frontends.tensorflow.messages import Message
from tilewright.frontends.tensorflow.model import (
    Attribute,
    Function,
    Input,
    Node,
    PartialShape,
    Reference,
    Single,
)
from tilewright.frontends.tensorflow.tensors import element_type, read_tensor

Payloads = Sequence[memoryview]


def read_node(proto: Message, payloads: Payloads) -> Node:
    """A node of a graph; raises GraphError for an input that is not written like one."""
    inputs, controls = [], []
    for text in proto.input:
        if text.startswith("^"):
            controls.append(text[1:])
        else:
            inputs.append(read_input(text, proto.name))
    return Node(proto.name, proto.op, tuple(inputs), tuple(controls), read_attributes(proto.attr, payloads))


def read_input(text: str, node: str = "") -> Input:
    """`name` or `name:index`."""
    name, colon, index = text.rpartition(":")
    if not colon:
        return Input(text)
    if not (name and index.isascii() and index.isdecimal() and len(index) < 10):
        raise GraphError(f"'{text}' is not the name of a tensor; it should be 'node' or 'node:index'", node=node)
    return Input(name, int(index))


def read_attributes(attributes: Mapping[str, Message], payloads: Payloads) -> dict[str, Attribute]:
    """The attributes by name."""
    return {
        name: read_attribute(attributes[name], payloads) for name in sorted(attributes) if not name.startswith("_")
    }


def read_attribute(proto: Message, payloads: Payloads) -> Attribute:
    """The value of one attribute; one without a value is an empty list."""
    kind = proto.WhichOneof("value")
    if kind is None:
        return ()
    if kind != "list":
        return _single(kind, getattr(proto, kind), payloads)
    for field, values in proto.list.ListFields():
        return tuple(_single(field.name, value, payloads) for value in values)
    return ()


def read_shape(proto: Message) -> PartialShape:
    """A shape with its unknown dimensions."""
    if proto.unknown_rank:
        return PartialShape(None)
    return PartialShape(tuple(dim.size if dim.size >= 0 else None for dim in proto.dim))


def _single(kind: str, value: Message, payloads: Payloads) -> Single:
    match kind:
        case "s":
            try:
                return str(value, "utf-8")
            except UnicodeDecodeError:
                return bytes(value)
        case "i":
            return int(value)
        case "f":
            return float(value)
        case "b":
            return bool(value)
        case "type":
            return element_type(value)
        case "shape":
            return read_shape(value)
        case "tensor":
            return read_tensor(value, payloads)
        case "func":
            return Function(value.name, read_attributes(value.attr, payloads))
        case _:
            return Reference(value)
