"""Which nodes of a model are needed, and in what order.

    wires = wire(model)                      who defines each tensor; GraphError for what contradicts itself
    nodes = needed(model, wires, ["conv1_2:0"])     the nodes that those tensors need, each after what it uses

ONNX wants nodes in topological order already; a model in another order is accepted, a cyclic one is not.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tilewright.errors import GraphError
from tilewright.frontends.onnx.model import Model, Node, Tensor
from tilewright.frontends.ordering import ordered
from tilewright.frontends.ports import Port


@dataclass(frozen=True)
class Wires:
    """For each tensor of a model, where it comes from: one of these three."""

    inputs: Mapping[str, Port]
    initializers: Mapping[str, Tensor]
    nodes: Mapping[str, int]
    """The index of the node that computes the tensor."""

    def __contains__(self, tensor: str) -> bool:
        return tensor in self.nodes or tensor in self.initializers or tensor in self.inputs

    def __iter__(self) -> Iterator[str]:
        yield from self.inputs
        yield from self.nodes
        yield from self.initializers


def wire(model: Model) -> Wires:
    """Where each tensor comes from; raises GraphError if one is defined twice."""
    inputs: dict[str, Port] = {}
    for port in model.inputs:
        if port.name in inputs:
            raise GraphError(f"two inputs are called '{port.name}'", model=model.name)
        inputs[port.name] = port
    defined: dict[str, int] = {}
    for index, node in enumerate(model.nodes):
        for output in filter(None, node.outputs):
            earlier = ""
            if output in defined:
                earlier = f"node '{model.nodes[defined[output]].name}'"
            elif output in inputs or output in model.initializers:
                earlier = "an input" if output in inputs else "an initialiser"
            if earlier:
                raise GraphError(
                    f"it computes '{output}', which {earlier} defines already; names must be unique",
                    model=model.name, node=node.name, operator=node.full_op,
                )  # fmt: skip
            defined[output] = index
    return Wires(inputs, model.initializers, defined)


def needed(model: Model, wires: Wires, tensors: Iterable[str]) -> list[Node]:
    """The nodes that `tensors` need, in the model's order as far as that is topological.

    Raises GraphError naming a node on a cycle, or one that uses a tensor which nothing defines.
    """
    waiting = {wires.nodes[tensor] for tensor in tensors if tensor in wires.nodes}
    found: dict[int, set[int]] = {}  # node -> the nodes whose results it uses
    while waiting:
        index = waiting.pop()
        node = model.nodes[index]
        for tensor in filter(None, node.inputs):
            if tensor not in wires:
                raise GraphError(
                    f"it uses '{tensor}', which no node, input or initialiser defines; the model is "
                    "incomplete",
                    model=model.name, node=node.name, operator=node.full_op,
                )  # fmt: skip
        found[index] = {wires.nodes[tensor] for tensor in node.inputs if tensor in wires.nodes}
        waiting |= found[index] - found.keys()

    order, cycle = ordered(found)
    if cycle:
        path = " -> ".join(f"'{model.nodes[index].name}'" for index in [*cycle, cycle[0]][:9])
        node = model.nodes[cycle[0]]
        raise GraphError(
            f"it depends on its own result ({path}); a graph must not have cycles",
            model=model.name, node=node.name, operator=node.full_op,
        )  # fmt: skip
    return [model.nodes[index] for index in order]
