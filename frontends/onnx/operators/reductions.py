"""Operators that reduce axes."""

from collections.abc import Callable
from functools import partial

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.frontends.onnx.operators.table import Call, operator

Reduction = Callable[[Call, Value, tuple[int, ...], bool], Value]


def _primitive(name: str) -> Reduction:
    return lambda call, x, axes, keepdims: call.g.op(name, x, axes=axes, keepdims=keepdims)


_sum = _primitive("reduce_sum")


def _mean(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return composites.mean(call.g, x, axes, keepdims)


def _extremum(largest: bool, call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    if x.type.dtype.kind != "bool":
        return _primitive("reduce_max" if largest else "reduce_min")(call, x, axes, keepdims)
    narrow = call.g.op("cast", x, dtype=composites.I32)
    return call.cast(_extremum(largest, call, narrow, axes, keepdims), x.type.dtype)


def _l1(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return _sum(call, call.g.op("abs", x), axes, keepdims)


def _sum_square(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return _sum(call, call.g.op("mul", x, x), axes, keepdims)


def _l2(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """Integers are summed as integers and rounded down at the end, as the specification's function body does."""
    wide = x if x.type.dtype.is_float else call.cast(x, composites.F64)
    return call.cast(call.g.op("sqrt", _sum_square(call, wide, axes, keepdims)), x.type.dtype)


def _log_sum(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return call.g.op("log", _sum(call, x, axes, keepdims))


def _log_sum_exp(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return composites.log_sum_exp(call.g, x, axes, keepdims)


_REDUCTIONS: dict[str, tuple[int, Reduction]] = {
    # The opset from which the axes are an operand.
    "ReduceSum": (13, _sum),
    "ReduceMean": (18, _mean),
    "ReduceMax": (18, partial(_extremum, True)),
    "ReduceMin": (18, partial(_extremum, False)),
    "ReduceProd": (18, _primitive("reduce_prod")),
    "ReduceL1": (18, _l1),
    "ReduceL2": (18, _l2),
    "ReduceSumSquare": (18, _sum_square),
    "ReduceLogSum": (18, _log_sum),
    "ReduceLogSumExp": (18, _log_sum_exp),
}


def _reduce(reduction: Reduction, axes_are_operand: bool, call: Call) -> Value:
    """No axes means all of them, or none at all with noop_with_empty_axes.

    Without axes to reduce, what a reduction does to each element (an absolute value, a logarithm) still happens.
    """
    x = call.operand(0)
    axes = call.known_ints(1, "axes") if axes_are_operand else call.integers("axes")
    if not axes:
        axes = () if axes_are_operand and call.integer("noop_with_empty_axes", 0) else tuple(range(x.type.rank))
    return reduction(call, x, call.axes(axes, x.type.rank), bool(call.integer("keepdims", 1)))


for _name, (_since, _reduction) in _REDUCTIONS.items():
    operator(_name, since=1)(partial(_reduce, _reduction, False))
    operator(_name, since=_since)(partial(_reduce, _reduction, True))


def _arg(primitive: str, call: Call) -> Value:
    x = call.operand(0)
    return call.g.op(
        primitive,
        x,
        axis=call.axis(call.integer("axis", 0), x.type.rank),
        keepdims=bool(call.integer("keepdims", 1)),
        last=bool(call.integer("select_last_index", 0)),
    )


operator("ArgMax", since=1)(partial(_arg, "argmax"))
operator("ArgMin", since=1)(partial(_arg, "argmin"))


@operator("LpNormalization", since=1)
def lp_normalization(call: Call) -> Value:
    g, x = call.g, call.operand(0)
    axes = (call.axis(call.integer("axis", -1), x.type.rank),)
    norm = (_l1 if call.integer("p", 2) == 1 else _l2)(call, x, axes, True)
    zero = g.op("equal", norm, g.scalar(0, x))
    return g.op("where", zero, g.scalar(0, x), g.op("div", x, norm))
