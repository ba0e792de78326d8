"""Operators that reduce axes, or run along one."""

from collections.abc import Callable
from functools import partial

from tilewright.compiler.ir import BOOL, I32, I64, Value
from tilewright.compiler.ops import GraphBuilder, composites
from tilewright.frontends.tensorflow.operators.table import Call, operator

Reduction = Callable[[GraphBuilder, Value, tuple[int, ...], bool], Value]


def _primitive(name: str) -> Reduction:
    return lambda g, x, axes, keepdims: g.op(name, x, axes=axes, keepdims=keepdims)


_REDUCTIONS: dict[str, Reduction] = {
    "All": composites.reduce_all,
    "Any": composites.reduce_any,
    "EuclideanNorm": composites.reduce_l2,
    "Max": _primitive("reduce_max"),
    "Mean": composites.mean,
    "Min": _primitive("reduce_min"),
    "Prod": _primitive("reduce_prod"),
    "Sum": _primitive("reduce_sum"),
}


def _reduce(reduction: Reduction, call: Call) -> Value:
    """No axes means that none is reduced."""
    x = call.operand(0)
    axes = call.axes(call.integers(1, "reduction_indices"), x.type.rank)
    return reduction(call.g, x, axes, call.flag("keep_dims", False))


for _name, _reduction in _REDUCTIONS.items():
    operator(_name)(partial(_reduce, _reduction))


def _arg(primitive: str, call: Call) -> Value:
    x = call.operand(0)
    axis = call.axis(call.integer(1, "dimension"), x.type.rank)
    if x.type.dtype == BOOL:
        x = call.cast(x, I32)
    return call.cast(call.g.op(primitive, x, axis=axis), call.dtype("output_type", I64))


operator("ArgMax")(partial(_arg, "argmax"))
operator("ArgMin")(partial(_arg, "argmin"))


@operator("Cumsum")
def cumsum(call: Call) -> Value:
    x = call.operand(0)
    axis = call.axis(call.integer(1, "axis"), x.type.rank)
    exclusive, reverse = call.flag("exclusive", False), call.flag("reverse", False)
    return composites.cumulative_sum(call.g, x, axis, exclusive, reverse)
