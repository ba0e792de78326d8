"""The verifier: what every graph must satisfy between passes.

It holds the form of the graph (one definition a value, definitions before uses, outputs defined, constants that
fit their types); `compiler.ops.verify_types` holds that each node's results are what its primitive infers.
"""

from tilewright.compiler.ir.graph import Graph, Value
from tilewright.compiler.ir.types import from_numpy
from tilewright.errors import GraphError


def verify(graph: Graph) -> None:
    """Raise GraphError if `graph` is not in SSA form or a constant does not fit its type."""
    defined: set[Value] = set()

    def define(value: Value, by: str) -> None:
        if value in defined:
            raise GraphError(f"{by} defines {value} a second time", model=graph.name)
        defined.add(value)

    for value in graph.inputs:
        define(value, "an input")
    for value, array in graph.constants.items():
        define(value, "a constant")
        if array.shape != value.type.layout.physical_shape(value.type.shape):
            raise GraphError(f"constant {value} has shape {array.shape}, its type says {value.type}", model=graph.name)
        if from_numpy(array.dtype) != value.type.dtype:
            raise GraphError(f"constant {value} holds {array.dtype}, its type says {value.type}", model=graph.name)
    for node in graph.nodes:
        available = set(defined)
        for inner in node.body:
            for operand in inner.operands:
                if operand not in available:
                    raise GraphError(f"{operand} is used before it is defined", node=inner.source, operator=inner.op)
            available.update(inner.results)
        for operand in node.operands:
            if operand not in defined:
                raise GraphError(f"{operand} is used before it is defined", node=node.source, operator=node.op)
        for result in node.results:
            define(result, f"node '{node.source}'")
    for value in graph.outputs:
        if value not in defined:
            raise GraphError(f"output {value} is never defined", model=graph.name)
    if len(graph.outputs) != len(graph.output_names):
        raise GraphError("outputs and output_names differ in length", model=graph.name)
