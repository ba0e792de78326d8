"""Values, nodes and graphs, and how to rewrite them.

    graph vgg
      input  %x: f32 1x3x224x224
      const  %w: f32 64x3x3x3
      %y: f32 1x64x224x224 = conv(%x, %w) {strides=(1, 1) ...}     ; conv1_1
      output %y as "conv1_1"

A graph is in SSA form: a value has one definition (an input, a constant or a node's result) and nodes stand in
topological order. Everything is frozen; a pass builds a new graph, usually through `rewrite`. Values are
compared by identity, their names are for people.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.ir.types import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Attrs:
    """Base of every primitive's attributes: a frozen dataclass, hashable and printable."""

    def __str__(self) -> str:
        shown = [f"{f.name}={getattr(self, f.name)}" for f in fields(self)]
        return f"{{{', '.join(shown)}}}" if shown else ""


@dataclass(frozen=True)
class NoAttrs(Attrs):
    """The attributes of a primitive that has none."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of a graph. Two values are the same only if they are the same object."""

    name: str
    type: TensorType

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    `op` names a primitive, or "group" for a fusion group, whose `body` holds the fused nodes in order; inner
    nodes use outer values directly and `operands` lists those. `source` is the name of the model's node it came
    from. `plan` is how it will be computed, once `select` has decided: an instance of one of the kernels' frozen
    plan classes.
    """

    op: str
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    attrs: Attrs = field(default_factory=NoAttrs)
    source: str = ""
    body: tuple["Node", ...] = ()
    plan: Any = None

    @property
    def result(self) -> Value:
        """The only result."""
        (only,) = self.results
        return only


@dataclass(frozen=True, eq=False)
class Graph:
    """A network, or a part of one. `output_names[i]` is what users call `outputs[i]`.

    What affects rounding is chosen as for `times` as many samples: a batch may be computed in pieces of several sizes,
    whose results must not differ.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[Value, Array]
    times: int = 1

    def users(self) -> dict[Value, list[Node]]:
        """For each value, the nodes that use it, in order; a node that uses it twice stands there once."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for operand in dict.fromkeys(node.operands):
                found.setdefault(operand, []).append(node)
        return found

    def producers(self) -> dict[Value, Node]:
        """For each node result, its node."""
        return {result: node for node in self.nodes for result in node.results}

    def with_nodes(self, nodes: Sequence[Node], constants: Mapping[Value, Array] | None = None) -> "Graph":
        """The same graph with other nodes, and other constants if given; constants nobody uses are dropped."""
        constants = self.constants if constants is None else constants
        used = {operand for node in walk(nodes) for operand in node.operands} | set(self.outputs)
        kept = {value: array for value, array in constants.items() if value in used}
        return replace(self, nodes=tuple(nodes), constants=kept)

    def __str__(self) -> str:
        lines = [f"graph {self.name}"]
        lines += [f"  input  {value}: {value.type}" for value in self.inputs]
        lines += [f"  const  {value}: {value.type}{_shown(array)}" for value, array in self.constants.items()]
        for node in self.nodes:
            lines += _node_lines(node, "  ")
        for value, name in zip(self.outputs, self.output_names, strict=True):
            lines.append(f'  output {value} as "{name}"')
        return "\n".join(lines)


def walk(nodes: Sequence[Node]) -> Iterator[Node]:
    """Every node and, before it, the nodes fused in it."""
    for node in nodes:
        yield from node.body
        yield node


def rewrite(
    graph: Graph, visit: Callable[[Node], tuple[Sequence[Node], Mapping[Value, Value]] | None]
) -> Graph:
    """Build a graph by visiting each node in order.

    `visit(node)` gets the node with its operands already renamed. It returns None to keep it, or
    `(nodes, renamed)`: the nodes that stand in its place and, for each of its results that goes away, the value
    to use instead.
    """
    renamed: dict[Value, Value] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node = rename_operands(node, renamed)
        change = visit(node)
        if change is None:
            kept.append(node)
            continue
        nodes, mapping = change
        kept += nodes
        renamed.update(mapping)
    outputs = tuple(renamed.get(value, value) for value in graph.outputs)
    return replace(graph, outputs=outputs).with_nodes(kept)


def rename_operands(node: Node, renamed: Mapping[Value, Value]) -> Node:
    """The node with its operands (and those of its fused nodes) replaced."""
    if not renamed or not any(operand in renamed for operand in node.operands):
        return node
    operands = tuple(renamed.get(operand, operand) for operand in node.operands)
    body = tuple(rename_operands(inner, renamed) for inner in node.body)
    return replace(node, operands=operands, body=body)


def _node_lines(node: Node, indent: str) -> list[str]:
    results = ", ".join(f"{value}: {value.type}" for value in node.results)
    operands = ", ".join(map(str, node.operands))
    parts = [f"{indent}{results} = {node.op}({operands})"]
    if str(node.attrs):
        parts.append(str(node.attrs))
    if node.plan is not None and not node.body:
        parts.append(f"<{node.plan}>")
    line = " ".join(parts)
    if node.source:
        line += f"  ; {node.source}"
    return [line, *(text for inner in node.body for text in _node_lines(inner, indent + "    "))]


def _shown(array: Array) -> str:
    """A constant's value, where it is a single number."""
    return f" = {np.asarray(array).reshape(()).item()}" if array.size == 1 else ""
