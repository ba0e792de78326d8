"""Operators on one element at a time, with NumPy's broadcasting: arithmetic, comparison, logic, casts."""

from collections.abc import Callable
from functools import partial, reduce

import numpy as np

from tilewright.compiler.ir import DType, Value
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError, UnsupportedError
from tilewright.frontends.onnx.operators.table import Call, operator
from tilewright.frontends.onnx.tensors import dtype_of, type_name


def _plain(primitive: str, call: Call) -> Value:
    """An operator that is a primitive."""
    return call.g.op(primitive, *call.variadic())


# ONNX's operator -> the opset its present meaning starts with, the primitive.
_PLAIN = {
    "Abs": (6, "abs"), "Add": (7, "add"), "And": (7, "and"), "BitwiseAnd": (18, "and"),
    "BitwiseNot": (18, "not"), "BitwiseOr": (18, "or"), "BitwiseXor": (18, "xor"), "Cos": (7, "cos"),
    "Div": (7, "div"), "Equal": (7, "equal"), "Erf": (9, "erf"), "Exp": (6, "exp"), "IsNaN": (9, "is_nan"),
    "Less": (7, "less"), "LessOrEqual": (12, "less_equal"), "Log": (6, "log"), "Mul": (7, "mul"),
    "Neg": (6, "neg"), "Not": (1, "not"), "Or": (7, "or"), "Reciprocal": (6, "reciprocal"),
    "Sign": (9, "sign"), "Sin": (7, "sin"), "Sqrt": (6, "sqrt"), "Sub": (7, "sub"), "Where": (9, "where"),
    "Xor": (7, "xor"),
}  # fmt: skip
for _name, (_since, _primitive) in _PLAIN.items():
    operator(_name, since=_since)(partial(_plain, _primitive))


def _rounding(primitive: str, call: Call) -> Value:
    x = call.operand(0)
    return call.g.op(primitive, x) if x.type.dtype.is_float else x


for _name, _since in (("Floor", 6), ("Ceil", 6), ("Round", 11)):
    operator(_name, since=_since)(partial(_rounding, _name.lower()))


@operator("Greater", since=7)
def greater(call: Call) -> Value:
    return composites.greater(call.g, call.operand(0), call.operand(1))


@operator("GreaterOrEqual", since=12)
def greater_or_equal(call: Call) -> Value:
    return composites.greater_equal(call.g, call.operand(0), call.operand(1))


@operator("Tan", since=7)
def tan(call: Call) -> Value:
    return composites.tan(call.g, call.operand(0))


@operator("IsInf", since=10)
def is_inf(call: Call) -> Value:
    negative, positive = (bool(call.whole(f"detect_{sign}", 1)) for sign in ("negative", "positive"))
    x = call.operand(0)
    if not x.type.dtype.is_float:
        raise GraphError(f"operand 0 is {x.type}; only floats can be infinite")
    return composites.is_inf(call.g, x, negative, positive)


@operator("Pow", since=7)
def pow(call: Call) -> Value:
    """The result has the base's type, whatever the exponent's."""
    x, y = call.operand(0), call.operand(1)
    common = x.type.dtype if x.type.dtype.is_float or not y.type.dtype.is_float else y.type.dtype
    return call.cast(composites.power(call.g, call.cast(x, common), call.cast(y, common)), x.type.dtype)


@operator("Mod", since=10)
def mod(call: Call) -> Value:
    return call.g.op("rem" if call.whole("fmod", 0) else "mod", call.operand(0), call.operand(1))


def _fold(primitive: str, call: Call) -> Value:
    """A variadic operator."""
    combine: Callable[[Value, Value], Value] = partial(call.g.op, primitive)
    return reduce(combine, call.variadic())


# These broadcast since opset 8; of equal shapes, which opset 6 wants, they do the same.
operator("Min", since=6)(partial(_fold, "min"))
operator("Max", since=6)(partial(_fold, "max"))
operator("Sum", since=6)(partial(_fold, "add"))


@operator("Mean", since=6)
def mean(call: Call) -> Value:
    total = _fold("add", call)
    return call.g.op("mul", total, call.g.scalar(1 / len(call.operands), total))


@operator("Clip", since=6)
def clip_attributes(call: Call) -> Value:
    g, x = call.g, call.operand(0)
    low = g.scalar(call.number("min"), x) if call.has("min") else None
    high = g.scalar(call.number("max"), x) if call.has("max") else None
    return composites.clip(g, x, low, high)


@operator("Clip", since=11)
def clip(call: Call) -> Value:
    return composites.clip(call.g, call.operand(0), call.optional(1), call.optional(2))


def _cast(call: Call, dtype: DType) -> Value:
    return call.cast(call.operand(0), dtype)


@operator("Cast", since=6)
def cast(call: Call) -> Value:
    """`saturate` and `round_mode` speak of 8-bit floats only."""
    number = call.whole("to")
    dtype = dtype_of(number)
    if dtype is None:
        raise UnsupportedError(f"it casts to {type_name(number)}, which Tilewright lacks")
    return _cast(call, dtype)


@operator("CastLike", since=15)
def cast_like(call: Call) -> Value:
    return _cast(call, call.operand(1).type.dtype)


@operator("Identity", since=1)
def identity(call: Call) -> Value:
    return call.operand(0)


@operator("Dropout", since=7)
def dropout(call: Call) -> list[Value]:
    """Without training, or with nothing dropped, it hands its operand through; the mask keeps everything."""
    training, ratio = call.known(2, "training_mode"), call.known_floats(1, "ratio")
    if training is not None and training.any() and ratio != (0.0,):
        raise UnsupportedError("it is in training mode; export the model for inference")
    x = call.operand(0)
    if call.results < 2:
        return [x]
    mask = call.g.constant(np.ones((), dtype=bool))
    if call.node.opset < 10:  # the mask had the operand's type
        mask = call.cast(mask, x.type.dtype)
    return [x, call.g.op("broadcast", mask, shape=x.type.shape)]
