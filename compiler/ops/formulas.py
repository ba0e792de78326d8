"""One-element formulas of elementwise primitives that take more than one builder call.

A formula is `f(b, x, ...)`: loop operands of equal lanes in, one loop operand out. Those for integers never
trap: a divisor of 0, and the smallest integer divided by -1, are replaced before the division.
"""

from collections.abc import Callable

from tilewright.compiler.ir import DType
from tilewright.compiler.loops import F64, INDEX, Builder, Operand, Type

_KINDS = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u"}


def loop_type(dtype: DType) -> Type:
    """The loop IR's scalar type of a tensor's element type."""
    return Type("b", 1) if dtype.kind == "bool" else Type(_KINDS[dtype.kind], dtype.bits)  # type: ignore[arg-type]


def sign(b: Builder, x: Operand) -> Operand:
    """-1, 0 or 1; NaN stays."""
    positive = b.select(b.compare("gt", x, 0), b.const(1, x.type), b.select(b.compare("eq", x, 0), 0, x))
    return positive if x.type.kind == "u" else b.select(b.compare("lt", x, 0), -1, positive)


def relu(b: Builder, x: Operand) -> Operand:
    """x < 0 ? 0 : x."""
    return x if x.type.kind == "u" else b.select(b.compare("lt", x, 0), 0, x)


def div(b: Builder, x: Operand, y: Operand) -> Operand:
    """x / y; integers truncate, n / 0 is 0 and the smallest integer / -1 wraps to itself."""
    return b.div(x, y) if x.type.is_float else _integer(b, x, y, b.div, b.neg)


def rem(b: Builder, x: Operand, y: Operand) -> Operand:
    """The remainder of the truncated quotient, with the sign of x; of integers, n rem 0 is 0."""
    return _float_rem(b, x, y) if x.type.is_float else _integer(b, x, y, b.rem, lambda n: b.const(0, n.type))


def mod(b: Builder, x: Operand, y: Operand) -> Operand:
    """The remainder of the floored quotient, with the sign of y; of integers, n mod 0 is 0."""
    r = rem(b, x, y)
    if r.type.kind == "u":
        return r
    shifted = b.add(r, y)
    if not x.type.is_float:
        # The signs differ where the xor is negative; a remainder of 0 needs no shift.
        differ = b.and_(b.compare("lt", b.xor(r, y), 0), b.compare("ne", r, 0))
        return b.select(differ, shifted, r)
    differ = b.xor(b.compare("lt", r, 0), b.compare("lt", y, 0))
    zero = b.select(b.compare("lt", y, 0), b.const(-0.0, x.type), b.const(0.0, x.type))
    return b.select(b.compare("eq", r, 0), zero, b.select(b.and_(differ, b.compare("eq", y, y)), shifted, r))


def integer_power(b: Builder, x: Operand, y: Operand) -> Operand:
    """x ** y by squaring, wrapping; a negative y gives the truncated 1 / x ** -y, and 0 for x = 0."""
    bits = x.type.bits if x.type.kind == "u" else x.type.bits - 1

    def square(_: object, carried: list[Operand]) -> list[Operand]:
        result, base, exponent = carried
        odd = b.compare("ne", b.and_(exponent, 1), 0)
        return [b.select(odd, b.mul(result, base), result), b.mul(base, base), b.shr(exponent, 1)]

    power, _, _ = b.for_(0, bits, square, carried=[b.const(1, x.type), x, y])
    if x.type.kind == "u":
        return power
    # 1 / x ** -y is 1 for x = 1, +-1 by y's parity for x = -1, else 0.
    odd = b.compare("ne", b.and_(y, 1), 0)
    minus = b.select(odd, b.const(-1, x.type), b.const(1, x.type))
    inverse = b.select(b.compare("eq", x, 1), 1, b.select(b.compare("eq", x, -1), minus, 0))
    return b.select(b.compare("lt", y, 0), inverse, power)


def _integer(
    b: Builder, x: Operand, y: Operand, op: Callable[..., Operand], by_minus_one: Callable[[Operand], Operand]
) -> Operand:
    """`op` of integers where it is safe; `by_minus_one(x)` where y is -1 (signed); 0 where y is 0."""
    one, zero = b.const(1, x.type), b.const(0, x.type)
    none = b.compare("eq", y, 0)
    if x.type.kind == "u":
        return b.select(none, zero, op(x, b.select(none, one, y)))
    minus = b.compare("eq", y, -1)
    divided = op(x, b.select(b.or_(none, minus), one, y))
    return b.select(none, zero, b.select(minus, by_minus_one(x), divided))


def _float_rem(b: Builder, x: Operand, y: Operand) -> Operand:
    """C's fmod, exact, without calling it.

    The residual r - q * y of a rounded quotient q is representable, so each step takes 53 bits off |r|
    without error. One step does for quotients below 2**50, else there are as many as the exponents may need.
    """
    source = x.type
    if source.bits < 64:
        x, y = b.convert(x, F64), b.convert(y, F64)
    size, divisor = b.abs(x), b.abs(y)

    def step(_: object, carried: list[Operand]) -> list[Operand]:
        (r,) = carried
        unit, quotient = divisor, b.div(r, divisor)
        # Only float64 overflows the quotient, at most twice: then a multiple of the divisor serves.
        for _again in range(2 if source.bits == 64 else 0):
            over = b.compare("gt", b.abs(quotient), 1e308)
            unit = b.select(over, b.mul(unit, 2.0**600), unit)
            quotient = b.div(r, unit)
        return [b.fma(b.neg(b.trunc(quotient)), unit, r)]

    large = b.reduce("or", b.compare("ge", b.div(size, divisor), 2.0**50))
    steps = b.select(large, b.const(44 if source.bits == 64 else 7, INDEX), b.const(1, INDEX))
    (r,) = b.for_(0, steps, step, carried=[size])
    r = b.select(b.compare("lt", r, 0), b.add(r, divisor), r)
    # Where |x| < |y|, infinite y included, the answer is x itself. Elsewhere it takes x's sign, also for 0.
    signed = b.select(b.compare("lt", x, 0), b.neg(r), r)
    result = b.select(b.compare("lt", size, divisor), x, signed)
    return b.convert(result, source.scalar) if source.bits < 64 else result
