"""Lowering of nodes with a template: plan, operand types and epilogue become a kernel and its call."""

from collections.abc import Callable
from typing import Any

from tilewright.compiler.ir import Node, TensorType, Value
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
    winograd_filter,
)
from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.lower.context import Lowering, lowering
from tilewright.compiler.lower.epilogue import GroupEpilogue
from tilewright.compiler.ops.winograd import WinogradFilter

Build = Callable[..., Kernel]

_TEMPLATES: dict[str, tuple[Build, Callable[[TensorType], int]]] = {
    "channel_squares": (channel_squares.build, lambda result: 1 if result.layout.blocks else result.rank - 1),
    "conv_direct": (conv_direct.build, lambda result: 1),
    "conv_winograd": (conv_winograd.build, lambda result: 1),
    "depthwise": (depthwise.build, lambda result: 1),
    "pool": (pool.build, lambda result: 1),
    "conv_planar": (conv_planar.build, lambda result: result.rank - 1),
    "conv_pointwise": (conv_pointwise.build, lambda result: result.rank - 1),
    "depthwise_planar": (depthwise_planar.build, lambda result: result.rank - 1),
    "pool_planar": (pool_planar.build, lambda result: result.rank - 1),
    "gemm": (gemm.build, lambda result: result.rank - 1),
    "gemv": (gemv.build, lambda result: result.rank - 1),
}
"""By template: its builder, and the lane axis of its result."""


@lowering(*(f"template:{name}" for name in _TEMPLATES if name != "conv_winograd"))
def lower_template(state: Lowering, node: Node) -> None:
    """Lower a group whose first node has a template plan."""
    _call_template(state, node, node.body[0].operands)


def _call_template(state: Lowering, node: Node, operands: tuple[Value, ...]) -> None:
    """Build the template's kernel and call it with these operands in place of the anchor's."""
    anchor = node.body[0]
    plan: Any = node.plan
    build, lane_axis = _TEMPLATES[plan.template]
    result = anchor.results[0].type
    constants = {value: state.graph.constants[value] for value in node.operands if value in state.graph.constants}
    epilogue = GroupEpilogue.of(node.body, constants, lane_axis(result))
    types = tuple(operand.type for operand in anchor.operands)
    key = (plan, types, result, epilogue.key)
    kernel = state.kernel(plan.template, key, lambda name: build(name, plan, *types, result, epilogue))
    arguments: tuple[Value, ...] = (*operands, *epilogue.operands, *node.results)
    state.call(kernel, arguments, node, plan.template)


@lowering("template:conv_winograd")
def lower_winograd(state: Lowering, node: Node) -> None:
    """Lower to one kernel, or to two where its items share the transformed inputs."""
    plan, anchor = node.plan, node.body[0]
    assert isinstance(plan, conv_winograd.Plan)
    if not plan.shared:
        _call_template(state, node, anchor.operands)
        return
    (x, u), result = anchor.operands, anchor.results[0].type
    v = state.scratch(conv_winograd.inputs_type(plan, x.type, result))
    kernel = state.kernel(
        "winograd_inputs", (plan, x.type, result.shape),
        lambda name: conv_winograd.build_inputs(name, plan, x.type, result),
    )  # fmt: skip
    state.call(kernel, (x, v), node, "winograd_inputs")
    _call_template(state, node, (v, u))


@lowering("winograd_filter")
def lower_winograd_filter(state: Lowering, node: Node) -> None:
    """Transform filters at run time; those that are constants have been folded."""
    (w,), attrs = node.operands, node.attrs
    assert isinstance(attrs, WinogradFilter)
    key = (state.target, attrs.tile, w.type.shape)
    kernel = state.kernel(
        "winograd_filter", key, lambda name: winograd_filter.build(name, attrs.tile, w.type.shape, state.target)
    )
    state.call(kernel, (w, *node.results), node, "winograd_filter")
