"""Resample both axes of images at once.

    %r = resample(%x, %ih, %wh) {axis=2}
    %y = resample(%r, %iw, %ww) {axis=3}     ->     %y = resample2d(%x, %ih, %wh, %iw, %ww)

Either axis may come first. The tables must be constants with all indices inside the image, and of few taps;
nobody else may see the intermediate image. It reorders floating-point arithmetic where the columns came
first.
"""

from collections.abc import Mapping, Sequence

from tilewright.compiler.ir import Graph, Node, Value
from tilewright.compiler.ir.graph import rewrite
from tilewright.compiler.ops.gather import Resample
from tilewright.compiler.passes.build import new_node

MAX_TAPS = 4


def pair_resamples(graph: Graph) -> Graph:
    """Apply the rewrite of the module's docstring."""
    producers, users = graph.producers(), graph.users()

    def table_fits(node: Node) -> bool:
        x, index, weight = node.operands
        table = graph.constants.get(index)
        if table is None or weight not in graph.constants or not table.size or table.shape[1] > MAX_TAPS:
            return False
        assert isinstance(node.attrs, Resample)
        return bool(table.min() >= 0 and table.max() < x.type.shape[node.attrs.axis])

    def visit(node: Node) -> tuple[Sequence[Node], Mapping[Value, Value]] | None:
        first = producers.get(node.operands[0]) if node.operands else None
        if node.op != "resample" or first is None or first.op != "resample" or node.result.type.rank != 4:
            return None
        assert isinstance(node.attrs, Resample) and isinstance(first.attrs, Resample)
        if {node.attrs.axis, first.attrs.axis} != {2, 3} or not (table_fits(node) and table_fits(first)):
            return None
        if len(users[first.result]) > 1 or first.result in graph.outputs:
            return None
        rows, columns = (node, first) if node.attrs.axis == 2 else (first, node)
        operands = (first.operands[0], *rows.operands[1:], *columns.operands[1:])
        joined = new_node("resample2d", operands, source=node.source, name=node.result.name)
        return [joined], {node.result: joined.result}

    changed = rewrite(graph, visit)
    used = {operand for node in changed.nodes for operand in node.operands} | set(changed.outputs)
    kept = [n for n in changed.nodes if n.op != "resample" or any(result in used for result in n.results)]
    return changed.with_nodes(kept)
