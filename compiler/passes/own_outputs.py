"""Give every output a buffer of its own, which the caller provides.

    output %x as "y"   (an input)                   %y = copy(%x)
    output %a as "p"                      ->        output %y as "y"
    output %a as "q"                                output %a as "p"
                                                    %q = copy(%a); output %q as "q"

The copy is a `relayout` from row-major to row-major.
"""

from dataclasses import replace

from tilewright.compiler.ir import ROW_MAJOR, Graph, Value
from tilewright.compiler.ops.layout import Relayout
from tilewright.compiler.passes.build import new_node


def own_outputs(graph: Graph) -> Graph:
    """Copy outputs that are inputs, constants or other outputs too."""
    shared: set[Value] = {*graph.inputs, *graph.constants}
    nodes, outputs = list(graph.nodes), []
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        if value in shared:
            attrs = Relayout(layout=ROW_MAJOR, source=ROW_MAJOR, shape=value.type.shape)
            nodes.append(new_node("relayout", [value], attrs, name=name))
            value = nodes[-1].result
        shared.add(value)
        outputs.append(value)
    return replace(graph, outputs=tuple(outputs)).with_nodes(nodes)
