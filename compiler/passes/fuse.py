"""Join nodes that one kernel computes into groups.

    %y = conv(%x, %w) <ConvDirectPlan>         %z = group(%x, %w, %b) {
    %a = add(%y, %b)                    ->         %y = conv(%x, %w) <ConvDirectPlan>
    %z = relu(%a)                                  %a = add(%y, %b)
                                                   %z = relu(%a)
                                               }

A group has one result. First every template takes the element-wise nodes behind it as its epilogue: convolutions with
blocked results also a 2 x 2 maximum and what follows that, those with row-major results a shuffle of their channels.
Then what is left forms loop nests: element-wise nodes, index maps and reductions over one iteration space (a softmax
is one).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tilewright.compiler.ir import Graph, Node, Value
from tilewright.compiler.kernels import conv_direct, conv_planar, conv_pointwise, conv_winograd
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops.movement import shuffled_groups
from tilewright.compiler.passes.cleanup import known_nodes
from tilewright.compiler.passes.select import halves

MAX_GROUP = 32
"""Nodes a group may have: what keeps registers, and the time to look for groups, bounded."""

TEMPLATES_WITH_EPILOGUE = (
    "channel_squares", "conv_direct", "conv_planar", "conv_pointwise", "conv_winograd", "depthwise",
    "depthwise_planar", "gemm", "gemv", "pool", "pool_planar",
)  # fmt: skip


def fuse(graph: Graph, nestable: Callable[[Sequence[Node]], bool]) -> Graph:
    """Form the groups; `nestable` says whether one loop nest can compute a list of nodes."""
    return _fuse_nests(_fuse_epilogues(graph), nestable)


def make_group(nodes: Sequence[Node], result: Value) -> Node:
    """The group of `nodes`, in order, of which only `result` is used outside."""
    inside = {value for node in nodes for value in node.results}
    operands = dict.fromkeys(operand for node in nodes for operand in node.operands if operand not in inside)
    source = next((node.source for node in nodes if node.source), "")
    plan = nodes[0].plan if nodes[0].plan is not None and nodes[0].plan.template else None
    return Node("group", tuple(operands), (result,), source=source, body=tuple(nodes), plan=plan)


def _escaping(nodes: Sequence[Node], users: dict[Value, list[Node]], outputs: set[Value]) -> list[Value]:
    """Results of `nodes` that something else uses."""
    inside = set(nodes)
    return [
        value
        for node in nodes
        for value in node.results
        if value in outputs or any(user not in inside for user in users.get(value, []))
    ]


def _fuse_epilogues(graph: Graph) -> Graph:
    users, outputs = graph.users(), set(graph.outputs)
    order = {node: position for position, node in enumerate(graph.nodes)}
    known = set(known_nodes(graph))
    grouped: dict[Node, Node] = {}
    replaced: dict[Node, Node] = {}
    for anchor in graph.nodes:
        if anchor.plan is None or anchor.plan.template not in TEMPLATES_WITH_EPILOGUE or anchor.op == "group":
            continue
        if anchor in known or anchor in grouped:
            continue
        members = _epilogue_of(anchor, graph, users, outputs, order, grouped)
        following = users.get(members[-1].result, [])
        if len(following) == 1 and members[-1].result not in outputs and _pools(anchor, following[0]):
            members += _epilogue_of(following[0], graph, users, outputs, order, grouped)
        members += _shuffle_behind(anchor, members[-1].result, users, outputs)
        group = make_group(members, members[-1].result)
        grouped.update((member, group) for member in members)
        replaced[members[-1]] = group
    nodes = [replaced.get(node, node) for node in graph.nodes if node in replaced or node not in grouped]
    return graph.with_nodes(nodes)


def _epilogue_of(
    anchor: Node,
    graph: Graph,
    users: dict[Value, list[Node]],
    outputs: set[Value],
    order: dict[Node, int],
    grouped: dict[Node, Node],
) -> list[Node]:
    """The anchor and the longest list of element-wise nodes behind it that leaves one result."""
    members, best = [anchor], 1
    inside = set(anchor.results)
    outside: set[Value] = set()
    end = order[anchor]
    position = end
    while len(members) < MAX_GROUP:
        last_use = max((order[user] for value in inside for user in users.get(value, [])), default=0)
        position += 1
        if position > last_use:
            break
        node = graph.nodes[position]
        uses_inside = any(operand in inside for operand in node.operands)
        uses_outside = any(operand in outside for operand in node.operands)
        joins = (
            uses_inside and not uses_outside and node not in grouped and _is_epilogue(node, anchor)
        )
        if joins:
            members.append(node)
            inside.update(node.results)
            escaping = _escaping(members, users, outputs)
            if escaping == [node.result]:
                best = len(members)
        elif uses_inside or uses_outside:
            outside.update(node.results)
    return members[:best]


def _is_epilogue(node: Node, anchor: Node) -> bool:
    """An element-wise node over the anchor's whole shape, in the same blocks."""
    if node.op not in PRIMITIVES or PRIMITIVES[node.op].family != "elementwise":
        return False
    result, whole = node.results[0].type, anchor.results[0].type
    if result.shape != whole.shape or result.layout.with_pads(()) != whole.layout.with_pads(()):
        return False
    if isinstance(anchor.plan, conv_pointwise.Plan):
        # Its vectors run over the ends of rows: positions of operands are counted like the result's, or not at all.
        spatial = whole.shape[2:]
        for operand in node.operands:
            own = operand.type.shape[-len(spatial) :]
            if own != spatial and any(dim != 1 for dim in own):
                return False
    return result.dtype.bits == whole.dtype.bits


def _shuffle_behind(anchor: Node, value: Value, users: dict[Value, list[Node]], outputs: set[Value]) -> list[Node]:
    """The nodes that shuffle the channels of a row-major template's results, if that is all that becomes of `value`."""
    if not isinstance(anchor.plan, conv_planar.ConvPlanarPlan | conv_pointwise.Plan):
        return []
    nodes: list[Node] = []
    while len(nodes) < 3 and value not in outputs and len(users.get(value, [])) == 1:
        nodes.append(users[value][0])
        value = nodes[-1].results[0]
    return nodes if shuffled_groups(nodes) else []


def _pools(anchor: Node, node: Node) -> bool:
    """Whether the anchor's tiles, of even height and width, hold whole windows of this 2 x 2 maximum."""
    plan = anchor.plan
    tiles = (isinstance(plan, conv_winograd.Plan) and plan.tile % 2 == 0) or (
        isinstance(plan, conv_direct.Plan) and plan.unit == 2
    )
    before, after = node.operands[0].type.layout, node.results[0].type.layout
    return tiles and halves(node) and after.with_pads(()) == before.with_pads(())


def _fuse_nests(graph: Graph, nestable: Callable[[Sequence[Node]], bool]) -> Graph:
    users, outputs = graph.users(), set(graph.outputs)
    order = {node: position for position, node in enumerate(graph.nodes)}
    producers = graph.producers()
    taken = set(known_nodes(graph))  # these are computed before the program runs
    groups: dict[Node, Node] = {}
    for root in reversed(graph.nodes):
        if root in taken or root.op == "group" or len(root.results) != 1 or not nestable([root]):
            continue
        members = {root}
        rejected: set[Node] = set()
        while len(members) < MAX_GROUP:
            before = {
                producers[operand] for node in members for operand in node.operands if operand in producers
            } - members - rejected
            if not before:
                break
            candidate = max(before, key=order.__getitem__)
            joined = sorted([candidate, *members], key=order.__getitem__)
            fits = (
                candidate.op != "group" and candidate not in taken and len(candidate.results) == 1
                and _escaping(joined, users, outputs) == [root.result] and nestable(joined)
            )  # fmt: skip
            if fits:
                members.add(candidate)
            else:
                rejected.add(candidate)
        ordered = sorted(members, key=order.__getitem__)
        taken |= members
        groups[root] = make_group(ordered, root.result)
    inside = {node for group in groups.values() for node in group.body}
    nodes = [groups.get(node, node) for node in graph.nodes if node in groups or node not in inside]
    return replace(graph, nodes=()).with_nodes(nodes, graph.constants)
