"""Primitives that compute each element from the elements at the same position.

    unary    neg abs sign relu reciprocal sqrt floor ceil round exp expm1 log log1p sigmoid tanh erf sin cos
             not is_nan
    binary   add sub mul div pow min max mod rem  equal less less_equal  and or xor
    ternary  where(bool, x, y)
    cast{dtype}

Operands broadcast as in NumPy. NaN propagates: relu is x < 0 ? 0 : x, min and max return NaN if either
operand is. Integer arithmetic wraps; integer division by zero (div, mod, rem) gives 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.compiler.ir import BOOL, Attrs, DType, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.loops import Builder, Operand
from tilewright.compiler.loops import math as loop_math
from tilewright.compiler.ops import formulas
from tilewright.compiler.ops.checks import broadcast_shape, check_count, check_dtype, check_same_dtype
from tilewright.compiler.ops.registry import Infer, primitive

# ---- references that NumPy lacks, or defines otherwise


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, 1) / (1 + small))


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x), dtype=x.dtype)


def _relu(x: Array) -> Array:
    return np.where(x < 0, np.zeros((), x.dtype), x)


def _div(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.asarray(np.divide(x, y))
    safe = np.where(y == 0, np.ones((), y.dtype), y)
    return np.where(y == 0, np.zeros((), x.dtype), (x - np.fmod(x, safe)) // safe)


def _pow(x: Array, y: Array) -> Array:
    if x.dtype.kind != "i":
        return np.asarray(np.power(x, y))
    power = np.power(x, np.maximum(y, 0))
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y & 1, -1, 1), 0)).astype(x.dtype)
    return np.where(y < 0, inverse, power)


def saturating_cast(x: Array, dtype: np.dtype[Any]) -> Array:
    """x in another dtype; floats become integers by truncation, saturate, and NaN becomes 0."""
    if x.dtype.kind != "f" or dtype.kind not in "iu":
        return x.astype(dtype, copy=False)
    wide = x.astype(np.float64)
    limits = np.iinfo(dtype)
    # The largest 64-bit integers round up to a power of two in float64; that bound itself is out of range.
    low, high = wide <= float(limits.min), wide >= float(limits.max)
    inside = np.where(low | high | np.isnan(wide), 0, wide).astype(dtype)
    return np.where(low, dtype.type(limits.min), np.where(high, dtype.type(limits.max), inside))


# ---- definitions


def _infer(count: int, kind: str, result: DType | None, first: int = 0) -> Infer:
    """Broadcast operands of one dtype (from operand `first` on) to a result of it, or of `result`."""

    def infer(attrs: Attrs, *types: TensorType) -> tuple[TensorType, ...]:
        check_count(types, count)
        for position in range(first):
            check_dtype(types[position], position, "bools")
        check_dtype(types[first], first, kind)
        check_same_dtype(types, first)
        return (TensorType(result or types[first].dtype, broadcast_shape(types)),)

    return infer


def _define(
    name: str,
    count: int,
    kind: str,
    compute: Callable[..., Any],
    formula: Callable[..., Operand],
    result: DType | None = None,
    first: int = 0,
) -> None:
    """`compute(*arrays)` and `formula(builder, *operands)`; `result` is the dtype if not the operands'."""

    def reference(attrs: Attrs, *arrays: Array) -> tuple[Array]:
        dtype = result.numpy if result else arrays[-1].dtype
        return (np.asarray(compute(*arrays), dtype=dtype),)

    primitive(
        name,
        family="elementwise",
        infer=_infer(count, kind, result, first),
        reference=reference,
        formula=lambda b, attrs, *operands: formula(b, *operands),
    )


def _power_formula(b: Builder, x: Operand, y: Operand) -> Operand:
    return loop_math.pow(b, x, y) if x.type.is_float else formulas.integer_power(b, x, y)


def _compare(op: str) -> Callable[..., Operand]:
    return lambda b, x, y: b.compare(op, x, y)


_define("neg", 1, "numbers", np.negative, Builder.neg)
_define("abs", 1, "numbers", np.abs, Builder.abs)
_define("exp", 1, "floats", np.exp, loop_math.exp)
_define("expm1", 1, "floats", np.expm1, loop_math.expm1)
_define("log", 1, "floats", np.log, loop_math.log)
_define("log1p", 1, "floats", np.log1p, loop_math.log1p)
_define("sqrt", 1, "floats", np.sqrt, Builder.sqrt)
_define("floor", 1, "floats", np.floor, Builder.floor)
_define("ceil", 1, "floats", np.ceil, Builder.ceil)
_define("round", 1, "floats", np.rint, Builder.rint)
_define("sign", 1, "numbers", np.sign, formulas.sign)
_define("relu", 1, "numbers", _relu, formulas.relu)
_define("sigmoid", 1, "floats", _sigmoid, loop_math.sigmoid)
_define("tanh", 1, "floats", np.tanh, loop_math.tanh)
_define("erf", 1, "floats", _erf, loop_math.erf)
_define("sin", 1, "floats", np.sin, loop_math.sin)
_define("cos", 1, "floats", np.cos, loop_math.cos)
_define("reciprocal", 1, "floats", lambda x: np.divide(1, x), lambda b, x: b.div(b.const(1.0, x.type), x))
_define("not", 1, "bools or integers", np.invert, Builder.not_)
_define("is_nan", 1, "floats", np.isnan, lambda b, x: b.compare("ne", x, x), result=BOOL)

_define("add", 2, "numbers", np.add, Builder.add)
_define("sub", 2, "numbers", np.subtract, Builder.sub)
_define("mul", 2, "numbers", np.multiply, Builder.mul)
_define("div", 2, "numbers", _div, formulas.div)
_define("pow", 2, "numbers", _pow, _power_formula)
_define("min", 2, "numbers", np.minimum, Builder.min)
_define("max", 2, "numbers", np.maximum, Builder.max)
_define("mod", 2, "numbers", np.mod, formulas.mod)
_define("rem", 2, "numbers", np.fmod, formulas.rem)
_define("equal", 2, "anything", np.equal, _compare("eq"), result=BOOL)
_define("less", 2, "anything", np.less, _compare("lt"), result=BOOL)
_define("less_equal", 2, "anything", np.less_equal, _compare("le"), result=BOOL)
_define("and", 2, "bools or integers", np.bitwise_and, Builder.and_)
_define("or", 2, "bools or integers", np.bitwise_or, Builder.or_)
_define("xor", 2, "bools or integers", np.bitwise_xor, Builder.xor)

_define("where", 3, "anything", np.where, Builder.select, first=1)


@dataclass(frozen=True)
class Cast(Attrs):
    """The result's element type. Floats to integers truncate, saturate, NaN gives 0; to bool is "not 0"."""

    dtype: DType


def _infer_cast(attrs: Cast, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    return (TensorType(attrs.dtype, types[0].shape),)


primitive(
    "cast",
    family="elementwise",
    attrs=Cast,
    infer=_infer_cast,
    reference=lambda attrs, x: (saturating_cast(x, attrs.dtype.numpy),),
    formula=lambda b, attrs, x: b.convert(x, formulas.loop_type(attrs.dtype)),
)
