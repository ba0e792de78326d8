"""A TensorFlow graph as plain data, whatever file it was read from.

    Model
        name        what messages call it: the path
        nodes       Node("conv1", "Conv2D", inputs=(Input("x", 0), Input("w", 0)), controls=("init",),
                         attributes={"T": ElementType("float", F32), "strides": (1, 1, 1, 1), "padding": "SAME"})
        inputs      {Input("x", 0): Port("x", F32, "float", (None, 224, 224, 3))}   tensors that a call supplies
        outputs     {"probabilities": Input("softmax", 0)}      what the model computes unless asked otherwise
        declared    the ports that the signature names; all where there is none
        aliases     {Input("call", 1): Input("call/inner", 0)}  results of nodes that are gone
        signatures  the names of a SavedModel's signatures

Calls of functions are replaced by their bodies, variables by the constants that the model holds for them, branches
whose condition is constant by what they choose. A tensor that a call supplies is never computed. Attributes are
Python values:

    string      str; bytes where it is not UTF-8            int, float, bool    the same
    type        ElementType                                 shape       PartialShape
    tensor      Tensor                                      func        Function
    list(...)   a tuple of these; () for an empty list of any kind
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tilewright.frontends.ports import Dim, Port
from tilewright.frontends.tensorflow.tensors import ElementType, Tensor

Scalar = str | bytes | int | float | bool


@dataclass(frozen=True)
class Input:
    """One result of a node: `name:index`."""

    node: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.node}:{self.index}" if self.index else self.node


@dataclass(frozen=True)
class PartialShape:
    """A shape attribute; unknown dimensions are None, `dims` is None where the rank is unknown."""

    dims: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Function:
    """A function attribute: the name of a function in the library, and attributes for its definition."""

    name: str
    attributes: "Mapping[str, Attribute]" = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Reference:
    """Inside a function's definition: the value of the caller's attribute `name`. Gone after inlining."""

    name: str


Single = Scalar | ElementType | PartialShape | Tensor | Function | Reference
Attribute = Single | tuple[Single, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One node; `controls` are the nodes that it only waits for."""

    name: str
    op: str
    inputs: tuple[Input, ...]
    controls: tuple[str, ...]
    attributes: Mapping[str, Attribute]


def constant_node(name: str, value: Tensor) -> Node:
    """A Const."""
    return Node(name, "Const", (), (), {"dtype": value.type, "value": value})


@dataclass(frozen=True, eq=False)
class Model:
    """A model as data; `files` are those it was read from."""

    name: str
    nodes: tuple[Node, ...]
    inputs: Mapping[Input, Port]
    outputs: Mapping[str, Input]
    declared: tuple[Port, ...]
    aliases: dict[Input, Input] = field(default_factory=dict)
    signatures: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


__all__ = [
    "Attribute", "Dim", "ElementType", "Function", "Input", "Model", "Node", "PartialShape", "Port", "Reference",
    "Single", "Tensor", "constant_node",
]  # fmt: skip
