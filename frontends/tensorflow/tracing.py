"""Follows tensors back through nodes that only hand them on.

    origin(nodes, Input("dense/ReadVariableOp/Identity"))   Input("dense/ReadVariableOp")
    truth(nodes, Input("cond/pred_id"), {})                 True, False, or None where no constant decides
"""

from collections.abc import Mapping

from tilewright.errors import GraphError, TilewrightError
from tilewright.frontends.tensorflow.model import Input, Node, Tensor

PASSING = {"Identity", "StopGradient", "PreventGradient", "Snapshot", "IdentityN"}
MAX_STEPS = 100  # from node to node: beyond is a cycle, or something that nobody writes
MAX_DEPTH = 16  # of logical operators


def follow(aliases: dict[Input, Input], tensor: Input) -> Input:
    """What an alias stands for; raises GraphError if it stands for itself.

    Every alias on the way comes to stand for that directly: else long chains would be followed again and again.
    """
    passed: dict[Input, None] = {}
    while tensor in aliases:
        if tensor in passed:
            raise GraphError("it only hands on its own result; a graph must not have cycles", node=tensor.node)
        passed[tensor] = None
        tensor = aliases[tensor]
    aliases.update(dict.fromkeys(passed, tensor))
    return tensor


def origin(
    nodes: Mapping[str, Node], tensor: Input, aliases: dict[Input, Input] | None = None, defaults: bool = False
) -> Input:
    """Where a tensor comes from, the nodes that hand it on left out; with `defaults` also placeholders with one."""
    for _ in range(MAX_STEPS):
        tensor = follow(aliases or {}, tensor)
        node = nodes.get(tensor.node)
        if node is None or tensor.index >= len(node.inputs):
            break
        if node.op not in PASSING and not (defaults and node.op == "PlaceholderWithDefault"):
            break
        tensor = node.inputs[tensor.index]
    return tensor


def constant(nodes: Mapping[str, Node], tensor: Input, aliases: dict[Input, Input] | None = None) -> Tensor | None:
    """The constant that a tensor is, handed on or not; None if it is computed."""
    node = nodes.get(origin(nodes, tensor, aliases, defaults=True).node)
    value = node.attributes.get("value") if node is not None and node.op == "Const" else None
    return value if isinstance(value, Tensor) else None


def truth(
    nodes: Mapping[str, Node],
    tensor: Input,
    found: dict[Input, bool | None],
    aliases: dict[Input, Input] | None = None,
    depth: int = 0,
) -> bool | None:
    """Whether a condition is true, if only constants decide about it.

    `found` keeps what has been answered about these nodes: conditions of conditions ask for the same ones again.
    """
    source = origin(nodes, tensor, aliases, defaults=True)
    if depth > MAX_DEPTH:
        return None
    if source not in found:
        found[source] = None  # what a cycle meets
        found[source] = _decided(nodes, source, found, aliases, depth)
    return found[source]


def _decided(
    nodes: Mapping[str, Node],
    source: Input,
    found: dict[Input, bool | None],
    aliases: dict[Input, Input] | None,
    depth: int,
) -> bool | None:
    node = nodes.get(source.node)
    if node is None:
        return None
    if node.op in ("LogicalNot", "LogicalAnd", "LogicalOr"):
        values = [truth(nodes, given, found, aliases, depth + 1) for given in node.inputs[:2]]
        if node.op == "LogicalNot":
            return None if values[:1] in ([], [None]) else not values[0]
        decides = node.op == "LogicalOr"  # one operand with this value decides
        if decides in values:
            return decides
        return None if None in values or len(values) < 2 else not decides
    value = constant(nodes, source)
    try:
        array = None if value is None else value.array
    except TilewrightError:
        return None  # who needs it will say what is wrong with it
    return bool(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
