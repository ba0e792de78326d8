"""Lowers a whole graph: each node by the lowering registered for it, and the zeros around padded results."""

from collections.abc import Callable

from tilewright.compiler.ir import Graph, Node, Value
from tilewright.compiler.kernels import borders
from tilewright.compiler.lower import generic, movement, templates  # noqa: F401  (they register the lowerings)
from tilewright.compiler.lower.context import LOWERINGS, Lowering, Step
from tilewright.compiler.lower.nests import nest_supports as nestable
from tilewright.compiler.targets import Target
from tilewright.errors import CompileError

__all__ = ["lower", "nestable"]


def lower(
    graph: Graph, target: Target, placed: Callable[[Node], frozenset[int]], prefix: str = ""
) -> list[Step]:
    """The kernel calls of a graph, in order; nodes whose operands all lie in the result already need none.

    The names of the kernels begin with `prefix`.
    """
    state = Lowering(graph, target, placed, prefix)
    for node in graph.nodes:
        if len(placed(node)) == len(node.operands) > 0 or all(result.type.elements == 0 for result in node.results):
            continue
        if node.plan is not None and node.plan.template:
            key = f"template:{node.plan.template}"
        else:
            node = node.body[0] if len(node.body) == 1 else node
            key = node.op
        if key not in LOWERINGS:
            raise CompileError("no lowering; please report this", node=node.source, operator=key)
        LOWERINGS[key](state, node)
        for result in node.results:
            if any(map(any, result.type.layout.pads)):
                _write_borders(state, node, result)
    return state.steps


def _write_borders(state: Lowering, node: Node, result: Value) -> None:
    """Write the zeros around a padded result, which its readers count on."""
    kernel = state.kernel("borders", result.type, lambda name: borders.build(name, result.type))
    state.call(kernel, (result,), node, "borders")

