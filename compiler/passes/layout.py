"""Give every value the layout its producer writes, and insert `relayout` where a consumer reads another.

    %y = conv(%x, %w) <blocked>            %x.1 = relayout(%x)   row-major to padded
    %z = relu(%y)     <blocked>     ->     %w.1 = relayout(%w)   packed; folded later, being constant
    output %z                              %y = conv(%x.1, %w.1)
                                           %z = relu(%y)
                                           %z.1 = relayout(%z)   blocked to row-major
                                           output %z.1

A blocked value carries the physical zeros that its consumers need, the largest of them all. A row-major value
never does: who needs one padded gets a copy.
"""

from collections.abc import Sequence
from dataclasses import replace

from tilewright.compiler.ir import ROW_MAJOR, Graph, Layout, Node, Value
from tilewright.compiler.ops.layout import Relayout
from tilewright.compiler.passes.build import new_node

Pads = tuple[tuple[int, int], ...]


def assign_layouts(graph: Graph) -> Graph:
    """Apply the pass of the module's docstring; every node's plan must have been chosen."""
    natural = {result: _written(node) for node in graph.nodes for result in node.results}
    pads = _needed_pads(graph, natural)

    def final(value: Value, structure: Layout) -> Layout:
        """The layout that readers of `structure` get of a value."""
        found = pads.get((value, structure))
        return structure.with_pads(found) if found else structure

    typed: dict[Value, Value] = {}
    made: dict[tuple[Value, Layout], Value] = {}
    nodes: list[Node] = []

    def read(value: Value, wanted: Layout) -> Value:
        """The value in the layout a consumer wants, relaid out if need be."""
        structure = wanted.with_pads(())
        layout = final(value, structure) if wanted.blocks else wanted
        source = typed.get(value, value)
        if source.type.layout == layout:
            return source
        if (value, layout) not in made:
            attrs = Relayout(layout=layout, source=source.type.layout, shape=value.type.shape)
            node = new_node("relayout", [source], attrs, name=f"{value.name}.{layout_name(layout)}")
            nodes.append(node)
            made[value, layout] = node.result
        return made[value, layout]

    for node in graph.nodes:
        operands = tuple(read(o, w) for o, w in zip(node.operands, _read(node), strict=True))
        results = []
        for result in node.results:
            layout = final(result, natural[result]) if natural[result].blocks else natural[result]
            typed[result] = Value(result.name, result.type.with_layout(layout))
            results.append(typed[result])
        nodes.append(replace(node, operands=operands, results=tuple(results)))
    outputs = tuple(read(value, ROW_MAJOR) for value in graph.outputs)
    return replace(graph, outputs=outputs).with_nodes(nodes)


def layout_name(layout: Layout) -> str:
    """A short name for what a relayout makes, for value names."""
    if layout.blocks:
        return "blocked"
    return "row" if layout.is_row_major else "padded"


def _written(node: Node) -> Layout:
    return ROW_MAJOR if node.plan is None else node.plan.result_layout.with_pads(())


def _read(node: Node) -> Sequence[Layout]:
    return (ROW_MAJOR,) * len(node.operands) if node.plan is None else node.plan.operand_layouts


def _needed_pads(graph: Graph, natural: dict[Value, Layout]) -> dict[tuple[Value, Layout], Pads]:
    """For each blocked form of a value, the largest pads any reader needs.

    The operands of a blocked concatenation get the pads of its result, and the other way round, so that they can
    be computed in place.
    """
    pads: dict[tuple[Value, Layout], Pads] = {}

    def grow(value: Value, structure: Layout, wanted: Pads) -> bool:
        old = pads.get((value, structure), ((0, 0),) * value.type.rank)
        grown = tuple((max(a, c), max(b, d)) for (a, b), (c, d) in zip(old, wanted, strict=True))
        pads[value, structure] = grown
        return grown != old

    for node in graph.nodes:
        for operand, layout in zip(node.operands, _read(node), strict=True):
            if layout.blocks and layout.pads and operand not in graph.constants:
                grow(operand, layout.with_pads(()), layout.pads)
    concats = [node for node in graph.nodes if node.op == "concat" and _written(node).blocks]
    changed = True
    while changed:
        changed = False
        for node in reversed(concats):
            structure = natural[node.result]
            none = ((0, 0),) * node.result.type.rank
            for operand in node.operands:
                changed |= grow(operand, structure, pads.get((node.result, structure), none))
                changed |= grow(node.result, structure, pads[operand, structure])
    return pads
