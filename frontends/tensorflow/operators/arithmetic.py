"""Operators on one element at a time, with NumPy's broadcasting: arithmetic, comparison, logic, casts."""

from functools import partial, reduce

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError
from tilewright.frontends.tensorflow.operators.table import Call, operator

# ---- what is a primitive

_PRIMITIVES = {
    "Abs": "abs", "Add": "add", "AddV2": "add", "BitwiseAnd": "and", "BitwiseOr": "or", "BitwiseXor": "xor",
    "Cos": "cos", "Div": "div", "Equal": "equal", "Erf": "erf", "Exp": "exp", "Expm1": "expm1", "FloorMod": "mod",
    "Inv": "reciprocal", "Invert": "not", "IsNan": "is_nan", "Less": "less", "LessEqual": "less_equal", "Log": "log",
    "Log1p": "log1p", "LogicalAnd": "and", "LogicalNot": "not", "LogicalOr": "or", "Maximum": "max",
    "Minimum": "min", "Mod": "rem", "Mul": "mul", "Neg": "neg", "RealDiv": "div", "Reciprocal": "reciprocal",
    "Sign": "sign", "Sin": "sin", "Sqrt": "sqrt", "Sub": "sub", "TruncateDiv": "div", "TruncateMod": "rem",
}  # fmt: skip
_BINARY = {"add", "and", "or", "xor", "div", "equal", "mod", "less", "less_equal", "max", "min", "rem", "mul", "sub"}


def _primitive(name: str, call: Call) -> Value:
    return call.g.op(name, *call.variadic(2 if name in _BINARY else 1))


for _name, _op in _PRIMITIVES.items():
    operator(_name)(partial(_primitive, _op))

# ---- compositions

_BINARY_COMPOSITES = {
    "FloorDiv": composites.floor_div,
    "Greater": composites.greater,
    "GreaterEqual": composites.greater_equal,
    "NotEqual": composites.not_equal,
    "Pow": composites.power,
}
for _name, _composite in _BINARY_COMPOSITES.items():
    operator(_name)(lambda call, composite=_composite: composite(call.g, call.operand(0), call.operand(1)))

_UNARY_COMPOSITES = {
    "IsInf": composites.is_inf,
    "Rsqrt": composites.rsqrt,
    "Square": composites.square,
    "Tan": composites.tan,
}
for _name, _unary in _UNARY_COMPOSITES.items():
    operator(_name)(lambda call, composite=_unary: composite(call.g, call.operand(0)))


def _rounding(primitive: str, call: Call) -> Value:
    x = call.operand(0)
    return call.g.op(primitive, x) if x.type.dtype.is_float else x


for _name, _op in (("Floor", "floor"), ("Ceil", "ceil"), ("Round", "round"), ("Rint", "round")):
    operator(_name)(partial(_rounding, _op))


@operator("SquaredDifference")
def squared_difference(call: Call) -> Value:
    return composites.square(call.g, call.g.op("sub", call.operand(0), call.operand(1)))


def _unless_zero(primitive: str, call: Call) -> Value:
    """0 where the second operand is, whatever the first; otherwise the primitive."""
    g, x, y = call.g, call.operand(0), call.operand(1)
    zero = g.scalar(0, y)
    return g.op("where", g.op("equal", y, zero), zero, g.op(primitive, x, y))


operator("DivNoNan")(partial(_unless_zero, "div"))
operator("MulNoNan")(partial(_unless_zero, "mul"))


@operator("AddN", "AccumulateNV2")
def add_n(call: Call) -> Value:
    return reduce(partial(call.g.op, "add"), call.variadic(len(call.operands)))


@operator("ClipByValue")
def clip_by_value(call: Call) -> Value:
    return composites.clip(call.g, call.operand(0), call.operand(1), call.operand(2))


@operator("SelectV2")
def select(call: Call) -> Value:
    return call.g.op("where", *call.variadic(3))


@operator("Select")
def select_rows(call: Call) -> Value:
    """The condition has the operands' shape, is a scalar, or a vector that chooses whole rows."""
    condition, x, y = call.variadic(3)
    if x.type.shape != y.type.shape:
        raise GraphError(f"operands 1 and 2 have shapes {x.type.shape} and {y.type.shape}; they must be equal")
    shape = condition.type.shape
    if shape not in ((), x.type.shape) and shape != x.type.shape[:1]:
        raise GraphError(f"a condition of shape {shape} does not choose between operands of shape {x.type.shape}")
    if condition.type.rank == 1:
        condition = call.g.op("reshape", condition, shape=(*shape, *[1] * (x.type.rank - 1)))
    return call.g.op("where", condition, x, y)


@operator("Cast")
def cast(call: Call) -> Value:
    return call.cast(call.operand(0), call.dtype("DstT"))


# ---- what hands its operands through


@operator("Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape")
def identity(call: Call) -> Value:
    return call.operand(0)


@operator("IdentityN")
def identity_n(call: Call) -> tuple[Value, ...]:
    return call.operands


@operator("NoOp", "Assert")
def no_results(call: Call) -> tuple[Value, ...]:
    return ()
