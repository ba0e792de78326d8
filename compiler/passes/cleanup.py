"""Dead code, common subexpressions and constants: what every other pass leaves behind.

    %a = exp(%x)                 %a = exp(%x)
    %b = exp(%x)          ->     %d = add(%a, %a)
    %d = add(%a, %b)
    %e = neg(%d)   (unused)
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tilewright.compiler.ir import Graph, Node, Value
from tilewright.compiler.ir.graph import Array, rewrite
from tilewright.compiler.ir.pages import release
from tilewright.compiler.ops import compute
from tilewright.compiler.ops.builder import FOLD_BUDGET


def remove_dead(graph: Graph) -> Graph:
    """Drop nodes whose results nothing needs, and constants nobody uses."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(result in needed for result in node.results):
            needed.update(node.operands)
            kept.append(node)
    return graph.with_nodes(kept[::-1])


def merge_equal(graph: Graph) -> Graph:
    """Compute equal things once: nodes of the same primitive, attributes and operands, and equal constants."""
    graph = _merge_constants(graph)
    first: dict[Hashable, Node] = {}

    def visit(node: Node) -> tuple[Sequence[Node], Mapping[Value, Value]] | None:
        if node.op == "group":
            return None
        key = (node.op, node.attrs, node.operands)
        if key not in first:
            first[key] = node
            return None
        return [], dict(zip(node.results, first[key].results, strict=True))

    return rewrite(graph, visit)


def _merge_constants(graph: Graph) -> Graph:
    """Small equal constants become one; large ones are not worth comparing."""
    seen: dict[Hashable, Value] = {}
    renamed: dict[Value, Value] = {}
    for value, array in graph.constants.items():
        if array.size <= 4096:
            key = (value.type, array.tobytes())
            renamed[value] = seen.setdefault(key, value)
    nodes = [
        replace(node, operands=tuple(renamed.get(operand, operand) for operand in node.operands))
        for node in graph.nodes
    ]
    outputs = tuple(renamed.get(value, value) for value in graph.outputs)
    return replace(graph, outputs=outputs).with_nodes(nodes)


def known_nodes(graph: Graph) -> list[Node]:
    """Nodes whose results follow from constants alone, and so can be computed before the program runs.

    Not those of outputs, which are computed into the caller's arrays, nor what goes beyond the budget, in which
    packing and Winograd's transform of all constants have room.
    """
    budget = FOLD_BUDGET + 8 * sum(array.nbytes for array in graph.constants.values())
    known, outputs = set(graph.constants), set(graph.outputs)
    nodes = []
    for node in graph.nodes:
        size = sum(result.type.bytes for result in node.results)
        follows = bool(node.operands) and known.issuperset(node.operands) and node.op != "group"
        if follows and outputs.isdisjoint(node.results) and size <= budget:
            budget -= size
            known.update(node.results)
            nodes.append(node)
    return nodes


def fold_constants(graph: Graph, most: int | None = None) -> Graph:
    """Compute the known nodes; only those with results of up to `most` bytes if that is given.

    The arrays are physical: a folded `relayout` is the packing of a weight.
    """
    constants: dict[Value, Array] = dict(graph.constants)
    known = set(known_nodes(graph))
    kept: list[Node] = []
    for node in graph.nodes:
        large = most is not None and sum(result.type.bytes for result in node.results) > most
        if node not in known or large or any(operand not in constants for operand in node.operands):
            kept.append(node)
            continue
        arrays = compute(node.op, node.attrs, [constants[operand] for operand in node.operands])
        for result, array in zip(node.results, arrays, strict=True):
            constants[result] = np.asarray(array, dtype=result.type.dtype.numpy)
        for operand in node.operands:
            release(constants[operand])
    return graph.with_nodes(kept, constants)
