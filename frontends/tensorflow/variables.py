"""Replaces the variables of a SavedModel by the constants that they hold.

    w = VarHandleOp(shared_name="w")                           (gone)
    r = ReadVariableOp(w)                              ->      r = Const(value=Tensor(float, (3, 3), mapped))
    v = VariableV2(shared_name="v")                    ->      v = Const(...)
    g = ResourceGather(w, indices)                     ->      g = GatherV2(w, indices, axis 0), w = Const(...)

Which entry of the bundle belongs to a variable says the part of the graph that restores them: a RestoreV2 with the
entries' names, whose results are assigned. Where nothing is restored it is the entry of the variable's own name.
"""

from collections.abc import Iterable, Mapping, Sequence

from tilewright.frontends.tensorflow.bundle import Bundle
from tilewright.frontends.tensorflow.model import Input, Node, constant_node
from tilewright.frontends.tensorflow.tensors import scalar
from tilewright.frontends.tensorflow.tracing import constant, origin

HANDLES = {"VarHandleOp"}
REFERENCES = {"VariableV2", "Variable"}
ASSIGNMENTS = {"AssignVariableOp", "Assign"}
READERS = {"ReadVariableOp", "ResourceGather"}
VARIABLES = HANDLES | REFERENCES | READERS
"""Operators that stay where a variable has no value."""


def with_values(nodes: Sequence[Node], bundle: Bundle) -> tuple[Node, ...]:
    """The nodes with every variable that the bundle holds replaced; raises ModelError for a damaged entry."""
    known = {node.name: node for node in nodes}
    entries = _entries(known, bundle)
    found: list[Node] = []
    for node in nodes:
        reads = node.op in READERS and node.inputs
        source = origin(known, node.inputs[0]).node if reads else ""
        if node.op in REFERENCES and node.name in entries:
            found.append(constant_node(node.name, bundle.tensor(entries[node.name])))
        elif node.op == "ReadVariableOp" and source in entries:
            found.append(constant_node(node.name, bundle.tensor(entries[source])))
        elif node.op == "ResourceGather" and source in entries and len(node.inputs) == 2:
            table, axis = f"{node.name}/table", f"{node.name}/axis"
            found.append(constant_node(table, bundle.tensor(entries[source])))
            batched = node.attributes.get("batch_dims", 0)
            found.append(constant_node(axis, scalar(batched if isinstance(batched, int) else 0)))
            operands = (Input(table), node.inputs[1], Input(axis))
            found.append(Node(node.name, "GatherV2", operands, node.controls, {"batch_dims": batched}))
        else:
            found.append(node)
    return tuple(found)


def _entries(known: Mapping[str, Node], bundle: Bundle) -> dict[str, str]:
    """The name of a variable's node -> the name of its entry."""
    found: dict[str, str] = {}
    for node in known.values():
        if node.op in ASSIGNMENTS and len(node.inputs) >= 2:
            variable, value = (origin(known, given) for given in node.inputs[:2])
            restore = known.get(value.node)
            if restore is None or restore.op != "RestoreV2" or len(restore.inputs) < 2:
                continue
            names = constant(known, restore.inputs[1])
            texts = () if names is None else names.strings
            if value.index < len(texts) and texts[value.index] in bundle:
                found.setdefault(variable.node, texts[value.index])
    for node in known.values():
        if node.op in HANDLES | REFERENCES and node.name not in found:
            entry = next((name for name in _own_names(node) if name in bundle), None)
            if entry is not None:
                found[node.name] = entry
    return found


def _own_names(node: Node) -> Iterable[str]:
    shared = node.attributes.get("shared_name")
    if isinstance(shared, str) and shared:
        yield shared
    yield node.name
