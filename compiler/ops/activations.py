"""Activations and other elementwise composites: functions from a GraphBuilder and values to a value.

Whatever the input, NaN comes out as NaN; no formula overflows where its result does not.
"""

from math import pi, sqrt

from tilewright.compiler.ir import Value
from tilewright.compiler.ops.builder import GraphBuilder

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805


def scaled(g: GraphBuilder, x: Value, factor: float) -> Value:
    """x * factor."""
    return x if factor == 1 else g.op("mul", x, g.scalar(factor, x))


def shifted(g: GraphBuilder, x: Value, offset: float) -> Value:
    """x + offset."""
    return x if offset == 0 else g.op("add", x, g.scalar(offset, x))


def square(g: GraphBuilder, x: Value) -> Value:
    """x * x."""
    return g.op("mul", x, x)


def power(g: GraphBuilder, x: Value, y: Value) -> Value:
    """x ** y; the constant exponents 1, 2 and 3 become multiplications."""
    exponent = g.constant_of(y)
    if (
        exponent is None
        or exponent.size != 1
        or y.type.rank > x.type.rank
        or exponent.item() not in (1, 2, 3)
    ):
        return g.op("pow", x, y)
    product = x
    for _ in range(int(exponent.item()) - 1):
        product = g.op("mul", product, x)
    return product


def negative_part(g: GraphBuilder, x: Value, other: Value) -> Value:
    """x, and `other` where x < 0."""
    return g.op("where", g.op("less", x, g.scalar(0, x)), other, x)


def leaky_relu(g: GraphBuilder, x: Value, alpha: float = 0.01) -> Value:
    """x < 0 ? alpha x : x."""
    return negative_part(g, x, scaled(g, x, alpha))


def prelu(g: GraphBuilder, x: Value, slope: Value) -> Value:
    """x < 0 ? slope x : x; the slope broadcasts."""
    return negative_part(g, x, g.op("mul", x, slope))


def thresholded_relu(g: GraphBuilder, x: Value, alpha: float = 1.0) -> Value:
    """x > alpha ? x : 0; NaN stays."""
    return g.op("where", g.op("less_equal", x, g.scalar(alpha, x)), g.scalar(0, x), x)


def elu(g: GraphBuilder, x: Value, alpha: float = 1.0) -> Value:
    """x < 0 ? alpha (exp(x) - 1) : x."""
    return negative_part(g, x, scaled(g, g.op("expm1", x), alpha))


def selu(g: GraphBuilder, x: Value, alpha: float = SELU_ALPHA, gamma: float = SELU_GAMMA) -> Value:
    """gamma elu(x, alpha)."""
    return scaled(g, elu(g, x, alpha), gamma)


def celu(g: GraphBuilder, x: Value, alpha: float = 1.0) -> Value:
    """x < 0 ? alpha (exp(x / alpha) - 1) : x."""
    return negative_part(g, x, scaled(g, g.op("expm1", scaled(g, x, 1 / alpha)), alpha))


def softplus(g: GraphBuilder, x: Value) -> Value:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    small = g.op("exp", g.op("neg", g.op("abs", x)))
    return g.op("add", g.op("relu", x), g.op("log1p", small))


def softsign(g: GraphBuilder, x: Value) -> Value:
    """x / (1 + |x|)."""
    return g.op("div", x, shifted(g, g.op("abs", x), 1.0))


def hard_sigmoid(g: GraphBuilder, x: Value, alpha: float = 0.2, beta: float = 0.5) -> Value:
    """alpha x + beta, clipped to 0..1."""
    return clip(g, shifted(g, scaled(g, x, alpha), beta), 0.0, 1.0)


def hard_swish(g: GraphBuilder, x: Value) -> Value:
    """x hard_sigmoid(x, 1/6, 1/2)."""
    return g.op("mul", x, hard_sigmoid(g, x, 1 / 6, 0.5))


def swish(g: GraphBuilder, x: Value, alpha: float = 1.0) -> Value:
    """x sigmoid(alpha x); SiLU with alpha 1."""
    return g.op("mul", x, g.op("sigmoid", scaled(g, x, alpha)))


def mish(g: GraphBuilder, x: Value) -> Value:
    """x tanh(softplus(x)) = x n / (n + 2) with n = e (e + 2), e = exp(x).

    Beyond x = 20 the fraction rounds to 1 also in float64, so e is taken there.
    """
    e = g.op("exp", g.op("min", x, g.scalar(20.0, x)))
    n = g.op("mul", e, shifted(g, e, 2.0))
    return g.op("mul", x, g.op("div", n, shifted(g, n, 2.0)))


def gelu(g: GraphBuilder, x: Value, approximate: bool = False) -> Value:
    """x Phi(x) by erf, or by its tanh approximation."""
    if approximate:
        cubic = g.op("mul", x, shifted(g, scaled(g, square(g, x), 0.044715), 1.0))
        gate = g.op("tanh", scaled(g, cubic, sqrt(2 / pi)))
    else:
        gate = g.op("erf", scaled(g, x, sqrt(0.5)))
    return g.op("mul", scaled(g, x, 0.5), shifted(g, gate, 1.0))


def shrink(g: GraphBuilder, x: Value, lambd: float = 0.5, bias: float = 0.0) -> Value:
    """x + bias below -lambd, x - bias above lambd, else 0; NaN stays."""
    below = g.op("where", g.op("less", x, g.scalar(-lambd, x)), shifted(g, x, bias), shifted(g, x, -bias))
    inside = g.op("less_equal", g.op("abs", x), g.scalar(lambd, x))
    return g.op("where", inside, g.scalar(0, x), below)


def clip(
    g: GraphBuilder, x: Value, low: Value | float | None = None, high: Value | float | None = None
) -> Value:
    """min(max(x, low), high); a limit may be a number, a value of x's dtype or absent."""
    if low is not None:
        x = g.op("max", x, low if isinstance(low, Value) else g.scalar(low, x))
    if high is not None:
        x = g.op("min", x, high if isinstance(high, Value) else g.scalar(high, x))
    return x


# ---- arithmetic and comparisons that are not primitives


def floor_div(g: GraphBuilder, x: Value, y: Value) -> Value:
    """floor(x / y). Integers: exact, and 0 where y is 0."""
    if x.type.dtype.is_float:
        return g.op("floor", g.op("div", x, y))
    return g.op("div", g.op("sub", x, g.op("mod", x, y)), y)


def not_equal(g: GraphBuilder, x: Value, y: Value) -> Value:
    """x != y."""
    return g.op("not", g.op("equal", x, y))


def greater(g: GraphBuilder, x: Value, y: Value) -> Value:
    """x > y."""
    return g.op("less", y, x)


def greater_equal(g: GraphBuilder, x: Value, y: Value) -> Value:
    """x >= y."""
    return g.op("less_equal", y, x)


def rsqrt(g: GraphBuilder, x: Value) -> Value:
    """1 / sqrt(x)."""
    return g.op("reciprocal", g.op("sqrt", x))


def tan(g: GraphBuilder, x: Value) -> Value:
    """sin(x) / cos(x)."""
    return g.op("div", g.op("sin", x), g.op("cos", x))


def is_inf(g: GraphBuilder, x: Value, negative: bool = True, positive: bool = True) -> Value:
    """Where x is an infinity of the chosen signs, as bools."""
    if negative and positive:
        return g.op("equal", g.op("abs", x), g.scalar(float("inf"), x))
    if not (negative or positive):
        return g.op("less", x, x)
    return g.op("equal", x, g.scalar(float("inf") if positive else -float("inf"), x))
