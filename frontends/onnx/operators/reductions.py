"""Operators that reduce axes."""

from collections.abc import Callable
from functools import partial

from tilewright.compiler.ir import BOOL, F64, Value
from tilewright.compiler.ops import GraphBuilder, composites
from tilewright.errors import GraphError
from tilewright.frontends.onnx.operators.table import Call, operator

Reduction = Callable[[GraphBuilder, Value, tuple[int, ...], bool], Value]


def _primitive(name: str) -> Reduction:
    return lambda g, x, axes, keepdims: g.op(name, x, axes=axes, keepdims=keepdims)


def _extremum(name: str) -> Reduction:
    """Of bools: some (max) or all (min) are true."""

    def reduce(g: GraphBuilder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if x.type.dtype != BOOL:
            return g.op(name, x, axes=axes, keepdims=keepdims)
        found = composites.reduce_any if name == "reduce_max" else composites.reduce_all
        return found(g, x, axes, keepdims)

    return reduce


def _in_floats(reduction: Reduction) -> Reduction:
    """Integers are reduced in float64 and truncated at the end."""

    def reduce(g: GraphBuilder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if x.type.dtype.is_float:
            return reduction(g, x, axes, keepdims)
        return g.op("cast", reduction(g, g.op("cast", x, dtype=F64), axes, keepdims), dtype=x.type.dtype)

    return reduce


_REDUCTIONS: dict[str, tuple[int, Reduction]] = {
    # The opset from which the axes are an operand.
    "ReduceSum": (13, _primitive("reduce_sum")),
    "ReduceMean": (18, composites.mean),
    "ReduceMax": (18, _extremum("reduce_max")),
    "ReduceMin": (18, _extremum("reduce_min")),
    "ReduceProd": (18, _primitive("reduce_prod")),
    "ReduceL1": (18, composites.reduce_l1),
    "ReduceL2": (18, _in_floats(composites.reduce_l2)),
    "ReduceSumSquare": (18, composites.reduce_sum_square),
    "ReduceLogSum": (18, _in_floats(composites.reduce_log_sum)),
    "ReduceLogSumExp": (18, _in_floats(composites.reduce_log_sum_exp)),
}


def _reduce(reduction: Reduction, axes_are_operand: bool, call: Call) -> Value:
    """No axes means all of them, or none at all with noop_with_empty_axes.

    Without axes to reduce, what a reduction does to each element (an absolute value, a logarithm) still
    happens.
    """
    x = call.operand(0)
    axes = call.known_ints(1, "axes") if axes_are_operand else call.wholes("axes")
    if not axes:
        axes = (
            () if axes_are_operand and call.whole("noop_with_empty_axes", 0) else tuple(range(x.type.rank))
        )
    return reduction(call.g, x, call.axes(axes, x.type.rank), bool(call.whole("keepdims", 1)))


for _name, (_since, _reduction) in _REDUCTIONS.items():
    operator(_name, since=1)(partial(_reduce, _reduction, False))
    operator(_name, since=_since)(partial(_reduce, _reduction, True))


def _arg(primitive: str, call: Call) -> Value:
    x = call.operand(0)
    return call.g.op(
        primitive,
        x,
        axis=call.axis(call.whole("axis", 0), x.type.rank),
        keepdims=bool(call.whole("keepdims", 1)),
        last=bool(call.whole("select_last_index", 0)),
    )


operator("ArgMax", since=1)(partial(_arg, "argmax"))
operator("ArgMin", since=1)(partial(_arg, "argmin"))


@operator("LpNormalization", since=1)
def lp_normalization(call: Call) -> Value:
    x, p = call.operand(0), call.whole("p", 2)
    if p not in (1, 2):
        raise GraphError(f"attribute 'p' is {p}; it can be 1 or 2")
    return composites.lp_normalise(call.g, x, call.axis(call.whole("axis", -1), x.type.rank), p)
