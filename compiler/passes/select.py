"""Choose how each node will be computed, before layouts: the layouts follow from the choice.

    %y = conv(%x, %w) {...}      ->      %y = conv(%x, %w) {...} <ConvDirectPlan ...>

A plan says which template computes the node and which layouts it reads and writes. Convolutional regions run in
blocked channels (NCHW16c where a vector holds sixteen): a convolution starts one, and pooling, element-wise
operations and concatenation on blocked values stay in it. A node without a plan reads and writes row-major.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from tilewright.compiler.ir import ROW_MAJOR, Graph, Layout, Node, Value
from tilewright.compiler.kernels import (
    channel_squares,
    conv_direct,
    conv_planar,
    conv_pointwise,
    conv_winograd,
    depthwise,
    depthwise_planar,
    gemm,
    gemv,
    pool,
    pool_planar,
    resize2d,
)
from tilewright.compiler.kernels.kernel import KernelPlan
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops.contraction import Conv
from tilewright.compiler.ops.movement import Concat
from tilewright.compiler.ops.reduction import Reduce
from tilewright.compiler.ops.window import ChannelSquares, Pool
from tilewright.compiler.ops.winograd import WinogradConv
from tilewright.compiler.targets import Target

Plan = KernelPlan | None


def select(graph: Graph, target: Target) -> Graph:
    """The graph with a plan on every node that has more to choose than row-major loops."""
    blocked: set[Value] = set()
    users = graph.users()
    nodes = []
    for node in graph.nodes:
        plan = _choose(node, blocked, graph, users, target)
        if plan is not None and plan.result_layout.blocks:
            blocked.update(node.results)
        nodes.append(replace(node, plan=plan))
    return graph.with_nodes(nodes)


def channel_blocks(node: Node, target: Target) -> Layout:
    """Blocked channels for values of the node's result dtype: as many a block as a vector has lanes."""
    return Layout(blocks=((1, target.lanes(node.results[0].type.dtype.bits)),))


def halves(node: Node) -> bool:
    """Whether the node takes 2 x 2 maxima of images of even height and width."""
    if node.op != "max_pool":
        return False
    windows = Pool(kernel=(2, 2), strides=(2, 2), dilations=(1, 1), pads=((0, 0), (0, 0)))
    return node.attrs == windows and not any(size % 2 for size in node.operands[0].type.shape[2:])


def _choose(node: Node, blocked: set[Value], graph: Graph, users: dict[Value, list[Node]], target: Target) -> Plan:
    if node.op == "conv":
        by_channel = isinstance(node.attrs, Conv) and node.attrs.groups == node.operands[0].type.shape[1]
        between = by_channel and node.operands[0] not in blocked and _is_read_in_rows(node, graph, users, target)
        return _conv(node, blocked, _is_halved(node, graph, users), between, target)
    if node.op == "matmul":
        constant = node.operands[1] in graph.constants
        return _matmul(node, constant, target, graph.times if constant else 1)
    if node.op in _CHOICES:
        return _CHOICES[node.op](node, blocked, target)
    if node.op in PRIMITIVES and PRIMITIVES[node.op].family == "elementwise":
        return _elementwise(node, blocked, target)
    return None


def _is_halved(node: Node, graph: Graph, users: dict[Value, list[Node]]) -> bool:
    """Whether all that becomes of the node's result, through element-wise nodes, is its 2 x 2 maxima."""
    while node.results[0] not in graph.outputs and len(users.get(node.results[0], [])) == 1:
        (following,) = users[node.results[0]]
        if halves(following):
            return True
        if following.op not in PRIMITIVES or PRIMITIVES[following.op].family != "elementwise":
            return False
        node = following
    return False


def _is_read_in_rows(node: Node, graph: Graph, users: dict[Value, list[Node]], target: Target) -> bool:
    """Whether only convolutions of row-major data read the node's result, behind element-wise nodes."""
    values = [node.results[0]]
    for value in values:
        readers = users.get(value, [])
        if value in graph.outputs or not readers:
            return False
        for reader in readers:
            if reader.op == "conv":
                plan = _conv(reader, {value}, False, False, target)
                if reader.operands[0] != value or plan is None or plan.operand_layouts[0].blocks:
                    return False
            elif reader.op not in PRIMITIVES or PRIMITIVES[reader.op].family != "elementwise":
                return False
            elif reader.results[0] not in values:
                values.append(reader.results[0])
    return True


def _conv(node: Node, blocked: set[Value], pooled: bool, between: bool, target: Target) -> Plan:
    """`pooled`: 2 x 2 maxima of the result are all that is wanted. `between`: x and the result are best row-major."""
    assert isinstance(node.attrs, Conv)
    attrs = node.attrs
    x, w = (operand.type for operand in node.operands)
    kinds: dict[str, Any] = {
        "strides": attrs.strides, "pads": attrs.pads, "dilations": attrs.dilations, "groups": attrs.groups,
    }  # fmt: skip
    if x.rank == 4 and x.dtype.is_float:
        in_blocks = node.operands[0] in blocked or x.shape[1] >= target.lanes(x.dtype.bits)
        plan: Plan = depthwise_planar.plan(x, w, **kinds, target=target) if between else None
        plan = plan or depthwise.plan(x, w, **kinds, target=target)
        plan = plan or conv_direct.plan(x, w, **kinds, x_is_blocked_source=in_blocks, target=target, pooled=pooled)
        if plan is not None:
            return plan
    return conv_pointwise.plan(x, w, **kinds, target=target) or conv_planar.plan(x, w, **kinds, target=target)


def _winograd_conv(node: Node, blocked: set[Value], target: Target) -> Plan:
    assert isinstance(node.attrs, WinogradConv)
    x, u = (operand.type for operand in node.operands)
    top, left = node.attrs.pads
    return conv_winograd.plan(
        x, u, tile=node.attrs.tile, kernel=node.attrs.kernel, pads=(top, left), target=target
    )


def _matmul(node: Node, constant: bool, target: Target, times: int) -> Plan:
    a, w = (operand.type for operand in node.operands)
    plan: Plan = gemv.plan(a, w, target=target, constant=constant, times=times)
    return plan or gemm.plan(a, w, target=target, constant=constant, times=times)


def _pool(node: Node, blocked: set[Value], target: Target) -> Plan:
    assert isinstance(node.attrs, Pool)
    attrs = node.attrs
    (x,) = node.operands
    kinds: dict[str, Any] = {
        "kernel": attrs.kernel, "strides": attrs.strides, "dilations": attrs.dilations, "pads": attrs.pads,
    }  # fmt: skip
    mode: Literal["max", "sum"] = "max" if node.op == "max_pool" else "sum"
    plan: Plan = None
    if x in blocked:
        plan = pool.plan(x.type, node.result.type, mode=mode, **kinds, target=target)
    return plan or pool_planar.plan(x.type, node.result.type, mode=mode, **kinds, target=target)


def _channel_squares(node: Node, blocked: set[Value], target: Target) -> Plan:
    assert isinstance(node.attrs, ChannelSquares)
    (x,) = node.operands
    before, after = node.attrs.before, node.attrs.after
    return channel_squares.plan(x.type, before=before, after=after, blocked=x in blocked, target=target)


def _elementwise(node: Node, blocked: set[Value], target: Target) -> Plan:
    """Blocked where a whole operand is; all element types in it must then have equally many lanes."""
    shape = node.result.type.shape
    whole = [operand for operand in node.operands if operand.type.shape == shape]
    if not any(operand in blocked for operand in whole) or len(shape) < 3:
        return None
    bits = {value.type.dtype.bits for value in (*whole, node.result)}
    layout = Layout(blocks=((1, target.lanes(max(bits))),))
    layouts = []
    for operand in node.operands:
        if operand.type.elements == 1:
            layouts.append(ROW_MAJOR)
        elif operand.type.rank != len(shape):
            return None
        else:
            layouts.append(ROW_MAJOR if operand.type.shape[1] == 1 else layout)
    return KernelPlan(tuple(layouts), layout)


def _concat(node: Node, blocked: set[Value], target: Target) -> Plan:
    """Blocked along channels where every operand is and each but the last fills its blocks."""
    assert isinstance(node.attrs, Concat)
    layout = channel_blocks(node, target)
    block = layout.block(1)
    full = all(operand.type.shape[1] % block == 0 for operand in node.operands[:-1]) if node.attrs.axis == 1 else False
    if not full or not all(operand in blocked for operand in node.operands):
        return None
    return KernelPlan((layout,) * len(node.operands), layout)


def _reduce(node: Node, blocked: set[Value], target: Target) -> Plan:
    """Blocked where the channels and the batch stay: global pooling."""
    assert isinstance(node.attrs, Reduce)
    (x,) = node.operands
    if x not in blocked or not node.attrs.keepdims or set(node.attrs.axes) & {0, 1}:
        return None
    layout = channel_blocks(node, target)
    return KernelPlan((layout,), layout)


def _resample2d(node: Node, blocked: set[Value], target: Target) -> Plan:
    x, index_h, _, index_w, _ = node.operands
    return resize2d.plan(x.type, index_h.type, index_w.type, blocked=x in blocked, target=target)


_CHOICES: dict[str, Callable[[Node, set[Value], Target], Plan]] = {
    "winograd_conv": _winograd_conv,
    "max_pool": _pool,
    "sum_pool": _pool,
    "channel_squares": _channel_squares,
    "concat": _concat,
    "resample2d": _resample2d,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
}
