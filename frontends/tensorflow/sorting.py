"""Which nodes of a model are needed, and in what order.

    names = wire(model)                                     node -> its index; GraphError for a name that two have
    nodes = reachable(model, names, [Input("softmax")])     the nodes that those tensors need, in the model's order
    nodes = in_order(model, nodes)                          each after those whose results it uses

Control inputs are no reason to need a node: what they would wait for changes no value.
"""

from collections.abc import Iterable, Mapping, Sequence

from tilewright.errors import GraphError
from tilewright.frontends.ordering import ordered
from tilewright.frontends.tensorflow.model import Input, Model, Node


def wire(model: Model) -> dict[str, int]:
    """The index of each node by its name; raises GraphError if two have the same."""
    found: dict[str, int] = {}
    for index, node in enumerate(model.nodes):
        if found.setdefault(node.name, index) != index:
            raise GraphError(
                f"another node ({model.nodes[found[node.name]].op}) is called the same; names must be unique",
                model=model.name, node=node.name, operator=node.op,
            )  # fmt: skip
    return found


def reachable(model: Model, names: Mapping[str, int], tensors: Iterable[Input]) -> list[Node]:
    """The nodes that `tensors` need, short of what a call supplies; raises GraphError if there is no such node."""
    waiting = [names[tensor.node] for tensor in tensors if tensor not in model.inputs]
    found = set(waiting)
    while waiting:
        node = model.nodes[waiting.pop()]
        for given in node.inputs:
            if given in model.inputs:
                continue
            index = names.get(given.node)
            if index is None:
                raise GraphError(
                    f"it uses '{given}', but there is no node '{given.node}'; the model is incomplete",
                    model=model.name, node=node.name, operator=node.op,
                )  # fmt: skip
            if index not in found:
                found.add(index)
                waiting.append(index)
    return [model.nodes[index] for index in sorted(found)]


def in_order(model: Model, nodes: Sequence[Node]) -> list[Node]:
    """`nodes`, which need no others, each after those whose results it uses; raises GraphError for a cycle."""
    place = {node.name: index for index, node in enumerate(nodes)}
    before = {
        index: {place[given.node] for given in node.inputs if given not in model.inputs}
        for index, node in enumerate(nodes)
    }
    order, cycle = ordered(before)
    if cycle:
        path = " -> ".join(f"'{nodes[index].name}'" for index in [*cycle, cycle[0]][:9])
        raise GraphError(
            f"it depends on its own result ({path}); a graph must not have cycles",
            model=model.name, node=nodes[cycle[0]].name, operator=nodes[cycle[0]].op,
        )  # fmt: skip
    return [nodes[index] for index in order]
