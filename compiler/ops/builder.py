"""Builds graphs out of primitives; what the frontends' translators write against.

    g = GraphBuilder("tiny")
    x = g.input("x", TensorType(F32, (1, 4)))
    with g.at("relu_1"):
        y = g.op("relu", x)
    graph = g.finish({"y": y})

Operations on constants are computed as they are built, so a shape computed in the graph is known to the
translator that needs it (`constant_of`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from tilewright.compiler.ir import Graph, Node, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ir.types import from_numpy
from tilewright.compiler.ops.registry import PRIMITIVES, compute, infer

FOLD_LIMIT = 1 << 28
"""Results of more elements are not computed while building."""
FOLD_BUDGET = 1 << 31
"""Bytes of results computed while building, all together: what a small file can make of itself has an end."""


class GraphBuilder:
    """Builds one graph; see the module's docstring."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = ""
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._constants: dict[Value, Array] = {}
        self._names: dict[str, int] = {}
        self._budget = FOLD_BUDGET

    def _unique(self, stem: str) -> str:
        name = stem = stem or "v"
        while name in self._names:
            name = f"{stem}.{self._names[stem]}"
            self._names[stem] += 1
        self._names[name] = 1
        return name

    @contextmanager
    def at(self, source: str) -> Iterator[None]:
        """Nodes built inside carry this name of the model's node."""
        outer, self.source = self.source, source
        try:
            yield
        finally:
            self.source = outer

    def input(self, name: str, type: TensorType) -> Value:
        """A new input."""
        value = Value(self._unique(name), type)
        self._inputs.append(value)
        return value

    def include(self, graph: Graph) -> dict[str, Value]:
        """Take over all of another graph, its inputs too; returns its outputs by name, to build on."""
        for value in (*graph.inputs, *graph.constants, *(r for node in graph.nodes for r in node.results)):
            self._names.setdefault(value.name, 1)
        self._inputs += graph.inputs
        self._constants.update(graph.constants)
        self._nodes += graph.nodes
        return dict(zip(graph.output_names, graph.outputs, strict=True))

    def constant(self, array: Any, name: str = "", dtype: Any = None) -> Value:
        """A constant; `array` is anything NumPy takes, and is not copied unless its byte order is foreign."""
        array = np.asarray(array, dtype=dtype)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        value = Value(self._unique(name or "c"), TensorType(from_numpy(array.dtype), array.shape))
        self._constants[value] = array
        return value

    def scalar(self, number: float, like: Value) -> Value:
        """A rank-0 constant of the dtype of `like`."""
        return self.constant(np.asarray(number, dtype=like.type.dtype.numpy))

    def constant_of(self, value: Value) -> Array | None:
        """The array of a constant, None for a value known only at run time."""
        return self._constants.get(value)

    def op(self, name: str, *operands: Value, **attrs: Any) -> Value:
        """The result of a primitive with one result; `attrs` are the fields of its attributes."""
        (result,) = self.ops(name, *operands, **attrs)
        return result

    def ops(self, name: str, *operands: Value, **attrs: Any) -> tuple[Value, ...]:
        """The results of a primitive."""
        attributes = PRIMITIVES[name].attrs(**attrs)
        types = infer(name, attributes, [operand.type for operand in operands], self.source)
        size = sum(type.bytes for type in types)
        if (
            all(operand in self._constants for operand in operands)
            and sum(type.elements for type in types) < FOLD_LIMIT
            and size <= self._budget
        ):
            self._budget -= size
            arrays = compute(name, attributes, [self._constants[operand] for operand in operands])
            return tuple(self._folded(array, type) for array, type in zip(arrays, types, strict=True))
        results = tuple(Value(self._unique(self.source or name), type) for type in types)
        self._nodes.append(Node(name, operands, results, attributes, self.source))
        return results

    def _folded(self, array: Array, type: TensorType) -> Value:
        """A constant of the type inferred, layout included."""
        value = Value(self._unique("c"), type)
        self._constants[value] = array
        return value

    def finish(self, outputs: Mapping[str, Value]) -> Graph:
        """The graph with these outputs, without the nodes that they do not need."""
        needed = set(outputs.values())
        kept: list[Node] = []
        for node in reversed(self._nodes):
            if any(result in needed for result in node.results):
                needed.update(node.operands)
                kept.append(node)
        graph = Graph(
            self.name, tuple(self._inputs), tuple(outputs.values()), tuple(outputs), (), self._constants
        )
        return graph.with_nodes(kept[::-1])
