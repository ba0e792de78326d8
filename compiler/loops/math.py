"""Transcendental functions as loop IR, for every number of lanes, without a library.

    y = math.exp(b, x)        # b: Builder, x: a float operand; y has x's type

IEEE special cases hold for all (NaN, infinities, signed zeros, denormal operands and results). float16 and
bfloat16 are computed in float32. Errors in units in the last place, measured by tests/loops/test_math.py:

            exp    log    tanh   sigmoid  erf    expm1  log1p  pow    sin    cos
    f32     0.88   0.84   1.35   1.48     1.23   1.46   1.45   0.51   1.51   1.52
    f64     0.80   0.77   1.20   1.40     0.90   1.55   1.50   1.00   1.30   1.40

pow is within 0.51 in both for constant exponents among -1, 1, 2 and the quarters between -1 and 1.
sin and cos hold to these up to |x| = 2**40 (f32) and 2**30 (f64); beyond, they give NaN rather than noise.

How the polynomials were made: Remez's exchange algorithm at 60 digits over the interval named beside each,
minimising the relative error of the whole function, the coefficients then rounded to the format; lowest power
first. Range reduction follows W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980):
x - n*c with c split into parts, the products exact by fma. A whole number n is had by adding
1.5 * 2**fraction, whose low bits then are n (sometimes with the exponent's bias added in the same step).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf, nan

from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.nodes import F32, F64, U32, U64, Const, Operand, Type

Polynomial = tuple[float, ...]
_Pair = tuple[Operand, Operand | None]  # a sum, the second much the smaller, or 0 where it is None


@dataclass(frozen=True)
class _Format:
    """What the formulas need to know about one float format."""

    bits: Type
    fraction: int  # bits of the fraction
    bias: int  # of the exponent
    smallest: float  # normal number
    magic_bits: int  # the bits of 1.5 * 2**fraction
    root_half_bits: int  # the bits of sqrt(1/2)
    # exp: (exp(r) - 1 - r) / r**2 for |r| <= ln 2 / 2; beyond the limits the result is 0 or infinity.
    exp_limits: tuple[float, float]
    exp: Polynomial
    ln2: tuple[float, float]  # the first part times an exponent is exact, without fma too
    # tanh: (tanh(r) - r) / r**3 in r**2, for |r| <= 0.625
    tanh: Polynomial
    # erf: (erf(r) - r) / r in r**2 up to the first limit; -log(1 - erf(r)) up to the second; then 1
    erf_limits: tuple[float, float]
    erf: Polynomial
    erfc: Polynomial
    # sin: (sin(r) - r) / r**3, cos: (cos(r) - 1 + r**2 / 2) / r**4, both in r**2, for |r| <= pi / 4
    sin: Polynomial
    cos: Polynomial

    @property
    def magic(self) -> float:
        """1.5 * 2**fraction."""
        return 1.5 * 2.0**self.fraction


_FORMATS = {
    F32: _Format(
        bits=U32,
        fraction=23,
        bias=127,
        smallest=2.0**-126,
        magic_bits=0x4B400000,
        root_half_bits=0x3F3504F3,
        exp_limits=(-104.0, 89.0),
        exp=(4.9999994e-01, 1.666652e-01, 4.166839e-02, 8.368782e-03, 1.3814707e-03),
        ln2=(0.69314575, 1.4286068e-06),
        tanh=(-3.3333284e-01, 1.3331491e-01, -5.37435e-02, 2.06506e-02, -5.717063e-03),
        erf_limits=(0.921875, 4.0),
        erf=(
            1.2837917e-01, -3.7612638e-01, 1.1283788e-01, -2.6865812e-02, 5.222314e-03, -8.506134e-04,
            1.14531955e-04, -1.0289316e-05,
        ),
        erfc=(
            -1.758727e-04, 1.1295208e00, 6.3333464e-01, 1.08293936e-01, -2.5128623e-02, 4.1746437e-03,
            -4.3521926e-04, 2.1161963e-05,
        ),
        sin=(-1.6666655e-01, 8.332178e-03, -1.951726e-04),
        cos=(4.1666646e-02, -1.3887367e-03, 2.443838e-05),
    ),
    F64: _Format(
        bits=U64,
        fraction=52,
        bias=1023,
        smallest=2.0**-1022,
        magic_bits=0x4338000000000000,
        root_half_bits=0x3FE6A09E667F3BCD,
        exp_limits=(-746.0, 710.0),
        exp=(
            0.5000000000000011, 0.1666666666666641, 0.04166666666652917, 0.008333333333495202,
            0.0013888888943928044, 0.00019841269505693093, 2.480149275707748e-05, 2.755758652073998e-06,
            2.763038071786555e-07, 2.5000220505169073e-08,
        ),
        ln2=(0.693147180559663, 2.8235290563031577e-13),
        tanh=(
            -0.33333333333333315, 0.1333333333332989, -0.05396825396613442, 0.02186948847065512,
            -0.008863234341532196, 0.003592114271680609, -0.00145572761983847, 0.0005894586375653237,
            -0.00023703016924198994, 9.158989468542039e-05, -3.021806688312489e-05, 6.055680154224658e-06,
        ),
        erf_limits=(1.0, 6.0),
        erf=(
            0.1283791670955126, -0.3761263890318375, 0.11283791670954857, -0.026866170645072903,
            0.005223977624780955, -0.0008548326978747125, 0.00012055331037075004, -1.4925593511015418e-05,
            1.6460972881793106e-06, -1.635002589423797e-07, 1.465788425667913e-08, -1.1365682624527583e-09,
            5.945289257375861e-11,
        ),
        erfc=(
            1.82837938577001e-07, 1.1283772974305, 0.6366286356453721, 0.10274683354789715,
            -0.019077326921023475, -0.00028169585963974805, 0.0017703421206660707, -0.0006423352198412467,
            4.561891082540658e-05, 6.993205609689493e-05, -4.484808192531438e-05, 1.6448282527854226e-05,
            -4.309045233018521e-06, 8.467288586639466e-07, -1.2507852835665152e-07, 1.3551624062962752e-08,
            -1.0194654807312656e-09, 4.764012681397388e-11, -1.0419650773753584e-12,
        ),
        sin=(
            -0.16666666666666632, 0.008333333333322413, -0.00019841269829807336, 2.7557313691645725e-06,
            -2.5050758062599112e-08, 1.5896792220553329e-10,
        ),
        cos=(
            0.0416666666666666, -0.0013888888888874127, 2.4801587289483563e-05, -2.755731435272984e-07,
            2.087572332740102e-09, -1.1359650616359991e-11,
        ),
    ),
}  # fmt: skip

# log in float32: (log(1 + f) - f + f**2 / 2) / f**3 for sqrt(1/2) <= 1 + f <= sqrt(2)
_LOG_F32 = (
    3.3333313e-01, -2.500001e-01, 2.0002119e-01, -1.6667996e-01, 1.421954e-01, -1.2405558e-01, 1.1888213e-01,
    -1.16758764e-01, 6.746824e-02,
)  # fmt: skip
# log in float64: (2 atanh(s) - 2 s) / s**3 in s**2, where s = f / (2 + f)
_LOG_F64 = (
    0.6666666666666734, 0.39999999999413927, 0.2857142874258461, 0.22222198550648625, 0.1818356559776107,
    0.15314015768052025, 0.14796318025250213,
)  # fmt: skip
# log in two float64: (2 atanh(s) - 2 s - 2/3 s**3) / s**5 in s**2
_LOG_PAIR = (
    0.40000000000002256, 0.2857142857009877, 0.2222222252006883, 0.18181784353798397, 0.15386757977737,
    0.13256801860014342, 0.1319648402224114,
)  # fmt: skip
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
_HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
_TWO_OVER_PI = 0.6366197723675814
_LOG2_E = 1.4426950408889634
# x**(-1/root) for root 2 and 4: its bits are about (1 + 1/root) times those of 1.0, less these (as a share of the
# exponent's unit), less x's bits / root; that number r is off by the polynomial in h = 1 - x r**root, which is
# (1 - h)**(-1/root) for |h| <= 0.0683 and 0.1236, within 2**-15 and 2**-14.
_ROOT_GUESSES = {
    2: (0.06824994087219238, (0.9999991976228474, 0.501092514000084, 0.37637314028542734)),
    4: (0.061750054359436035, (0.9999960920402009, 0.2513552785002585, 0.15786312088504756)),
}
# |x| up to which sin and cos reduce with _HALF_PI: two parts for float32 operands, three for float64
_TURN_LIMIT = {F32: 2.0**40, F64: 2.0**30}


def _in_float(b: Builder, x: Operand, function: Callable[[Builder, Operand, _Format], Operand]) -> Operand:
    """`function` in x's format, or in float32 if it is narrower."""
    if x.type.scalar in _FORMATS:
        return function(b, x, _FORMATS[x.type.scalar])
    if not x.type.is_float:
        raise TypeError(f"a transcendental function of {x.type} in {b.name}")
    return b.convert(function(b, b.convert(x, F32), _FORMATS[F32]), x.type.scalar)


def polynomial(b: Builder, x: Operand, coefficients: Polynomial) -> Operand:
    """The polynomial in x, lowest power first, by Horner's rule."""
    value: Operand = b.const(coefficients[-1], x.type)
    for coefficient in reversed(coefficients[:-1]):
        value = b.fma(value, x, coefficient)
    return value


def _with_sign(b: Builder, magnitude: Operand, x: Operand, f: _Format) -> Operand:
    """`magnitude`, which has no sign, with the sign of x."""
    sign = b.and_(b.bitcast(x, f.bits), 1 << (f.bits.bits - 1))
    return b.bitcast(b.or_(b.bitcast(magnitude, f.bits), sign), x.type.scalar)


# ---- exponentials


def exp(b: Builder, x: Operand) -> Operand:
    """e**x, with gradual underflow; 18 instructions."""
    return _in_float(b, x, _exp)


def _reduce(b: Builder, x: Operand, f: _Format) -> tuple[Operand, Operand, Operand]:
    """r and two powers of 2 with e**x = e**r * power * power, where |r| <= ln 2 / 2 and both are normal."""
    smallest, largest = f.exp_limits
    x = b.select(b.compare("gt", smallest, x), smallest, x)
    x = b.select(b.compare("lt", largest, x), largest, x)
    shifted = b.fma(x, _LOG2_E, f.magic + 2 * f.bias)
    n = b.sub(shifted, f.magic + 2 * f.bias)
    r = b.fma(n, -f.ln2[1], b.fma(n, -f.ln2[0], x))
    # The low bits are n + 2 * bias; each half of that is the biased exponent of one power.
    whole = b.bitcast(shifted, f.bits)
    half = b.shr(whole, 1)
    first = b.bitcast(b.shl(half, f.fraction), x.type.scalar)
    second = b.bitcast(b.shl(b.sub(whole, half), f.fraction), x.type.scalar)
    return r, first, second


def _exp(b: Builder, x: Operand, f: _Format, low: Operand | None = None) -> Operand:
    """e**(x + low)."""
    r, first, second = _reduce(b, x, f)
    if low is not None:
        r = b.add(r, low)
    value: Operand = b.mul(b.mul(polynomial(b, r, (1.0, 1.0, *f.exp)), first), second)
    return value


def expm1(b: Builder, x: Operand) -> Operand:
    """e**x - 1, without cancellation near 0."""
    return _in_float(b, x, _expm1)


def _expm1(b: Builder, x: Operand, f: _Format) -> Operand:
    r, first, second = _reduce(b, x, f)
    power = b.mul(first, second)
    less_one = b.fma(b.mul(r, r), polynomial(b, r, f.exp), r)
    near = b.fma(less_one, power, b.sub(power, 1.0))
    far = b.mul(b.mul(b.add(less_one, 1.0), first), second)  # where the 1 has no weight
    result = b.select(b.compare("gt", x, 2.0 * f.fraction), far, near)
    return b.select(b.compare("eq", x, 0.0), x, result)


def sigmoid(b: Builder, x: Operand) -> Operand:
    """1 / (1 + e**-x)."""
    return _in_float(b, x, _sigmoid)


def _sigmoid(b: Builder, x: Operand, f: _Format) -> Operand:
    # e**-|x| never overflows, so small results keep their digits.
    power = _exp(b, b.neg(b.abs(x)), f)
    dividend, divisor = b.select(b.compare("lt", x, 0.0), power, 1.0), b.add(power, 1.0)
    quotient = b.div(dividend, divisor)
    # What the divisor's rounding and the quotient's left over, divided by 1 + power within an eighth
    left = b.fma(b.neg(quotient), divisor, dividend)
    left = b.fma(b.neg(quotient), b.sub(power, b.sub(divisor, 1.0)), left)
    return b.fma(left, b.fma(power, -0.5, 1.0), quotient)


def tanh(b: Builder, x: Operand) -> Operand:
    """The hyperbolic tangent."""
    return _in_float(b, x, _tanh)


def _tanh(b: Builder, x: Operand, f: _Format) -> Operand:
    a = b.abs(x)
    square = b.mul(a, a)
    near = b.fma(b.mul(square, a), polynomial(b, square, f.tanh), a)
    far = b.sub(1.0, b.div(2.0, b.add(_exp(b, b.add(a, a), f), 1.0)))
    return _with_sign(b, b.select(b.compare("lt", a, 0.625), near, far), x, f)


def erf(b: Builder, x: Operand) -> Operand:
    """The error function."""
    return _in_float(b, x, _erf)


def _erf(b: Builder, x: Operand, f: _Format) -> Operand:
    middle, largest = f.erf_limits
    a = b.abs(x)
    near = b.fma(a, polynomial(b, b.mul(a, a), f.erf), a)
    bounded = b.select(b.compare("lt", largest, a), largest, a)
    far = b.sub(1.0, _exp(b, b.neg(polynomial(b, bounded, f.erfc)), f))
    return _with_sign(b, b.select(b.compare("lt", a, middle), near, far), x, f)


# ---- logarithms


def log(b: Builder, x: Operand) -> Operand:
    """The natural logarithm; NaN below 0, -infinity at 0."""
    return _in_float(b, x, _log)


def _split(b: Builder, x: Operand, f: _Format) -> tuple[Operand, Operand]:
    """e and m with x = 2**e * m and sqrt(1/2) <= m < sqrt(2), for finite x > 0; both are floats."""
    denormal = b.compare("lt", x, f.smallest)
    scaled = b.select(denormal, b.mul(x, 2.0 ** (f.fraction + 1)), x)
    # One is added to the exponent of all that is at least sqrt(1/2), once its fraction is taken off.
    one_bits = f.bias << f.fraction
    shifted = b.add(b.bitcast(scaled, f.bits), one_bits - f.root_half_bits)
    exponent = b.bitcast(b.add(b.shr(shifted, f.fraction), f.magic_bits), x.type.scalar)
    bias = b.const(f.magic + f.bias, x.type)
    e = b.sub(exponent, b.select(denormal, f.magic + f.bias + f.fraction + 1, bias))
    fraction = b.and_(shifted, (1 << f.fraction) - 1)
    return e, b.bitcast(b.add(fraction, f.root_half_bits), x.type.scalar)


def _log(b: Builder, x: Operand, f: _Format) -> Operand:
    e, m = _split(b, x, f)
    value = b.sub(m, 1.0)
    half = b.mul(b.mul(value, value), 0.5)
    if f.bits == U32:
        cube = b.mul(b.mul(value, value), value)
        low = b.fma(cube, polynomial(b, value, _LOG_F32), b.mul(e, f.ln2[1]))
        result: Operand = b.fma(e, f.ln2[0], b.add(value, b.sub(low, half)))
    else:
        # fdlibm's form: log(1 + f) = 2 atanh(s) = f - (f**2/2 - s (f**2/2 + s**2 R(s**2)))
        s = b.div(value, b.add(value, 2.0))
        square = b.mul(s, s)
        rest = b.fma(square, polynomial(b, square, _LOG_F64), half)
        low = b.fma(s, rest, b.mul(e, f.ln2[1]))
        result = b.fma(e, f.ln2[0], b.sub(value, b.sub(half, low)))
    result = b.select(b.compare("lt", x, inf), result, x)
    outside = b.select(b.compare("eq", x, 0.0), b.const(-inf, x.type), nan)
    return b.select(b.compare("gt", x, 0.0), result, outside)


def log1p(b: Builder, x: Operand) -> Operand:
    """log(1 + x), without cancellation near 0."""
    return _in_float(b, x, _log1p)


def _log1p(b: Builder, x: Operand, f: _Format) -> Operand:
    # u = 1 + x was rounded by d: log(1 + x) = log(u + d) = log(u) + d / u, but for what is of no weight.
    u = b.add(x, 1.0)
    d = b.select(b.compare("lt", x, 1.0), b.sub(x, b.sub(u, 1.0)), b.sub(1.0, b.sub(u, x)))
    plain = _log(b, u, f)
    regular = b.and_(b.compare("gt", u, 0.0), b.compare("lt", u, inf))
    result = b.select(regular, b.add(plain, b.div(d, u)), plain)
    return b.select(b.compare("eq", x, 0.0), x, result)


# ---- powers


def pow(b: Builder, x: Operand, y: Operand) -> Operand:
    """x**y for floats of one type, with the special cases of C99's annex F.

    float32 is computed in float64; float64 with a logarithm held in two numbers; constants in _PLAIN_POWERS without.
    """
    if x.type.scalar != y.type.scalar or not x.type.is_float:
        raise TypeError(f"pow of {x.type} and {y.type} in {b.name}")
    if isinstance(y, Const) and y.value in _PLAIN_POWERS:
        return _in_float(b, b.splat(x, y.type.lanes) if x.type.lanes == 1 else x, _PLAIN_POWERS[y.value])
    lanes = max(x.type.lanes, y.type.lanes)
    x, y = b.splat(x, lanes), b.splat(y, lanes)
    f = _FORMATS[F64]
    if x.type.scalar == F64:
        size = _pow_pair(b, b.abs(x), y, f)
    else:
        wide = b.mul(b.convert(y, F64), _log(b, b.abs(b.convert(x, F64)), f))
        size = b.convert(b.convert(_exp(b, wide, f), F32), x.type.scalar)
    whole = b.compare("eq", b.trunc(y), y)
    half = b.mul(y, 0.5)
    odd = b.and_(whole, b.compare("ne", b.trunc(half), half))
    # |x| = 1 gives 1 whatever y is, but log(1) * infinity is NaN; -1 and NaN do give NaN.
    size = b.select(b.and_(b.compare("eq", b.abs(x), 1.0), b.compare("eq", y, y)), 1.0, size)
    # A negative zero is not below 0, but its reciprocal is.
    negative = b.or_(b.compare("lt", x, 0.0), b.compare("lt", b.div(1.0, x), 0.0))
    result: Operand = b.select(b.and_(odd, negative), b.neg(size), size)
    finite_negative = b.and_(b.compare("lt", x, 0.0), b.compare("gt", x, -inf))
    result = b.select(b.and_(finite_negative, b.not_(whole)), nan, result)
    return b.select(b.or_(b.compare("eq", y, 0.0), b.compare("eq", x, 1.0)), 1.0, result)


def _pow_half(b: Builder, x: Operand, f: _Format) -> Operand:
    """x**(1/2): unlike of the root, 0 of -0 and infinity of -infinity."""
    return b.select(b.compare("eq", x, -inf), inf, b.sqrt(b.add(x, 0.0)))


def _pow_quarters(b: Builder, x: Operand, f: _Format, quarters: int) -> Operand:
    """x**(quarters / 4) for -1/2, +-1/4 and +-3/4.

    With r near x**(-1/root) and h = 1 - x r**root: x**(-1/root) = r (1 - h)**(-1/root). The first step makes h small.
    The second computes h from exact products, and a few terms of the binomial series are then more than enough.
    """
    root = 2 if quarters % 2 == 0 else 4
    guess, coefficients = _ROOT_GUESSES[root]
    denormal = b.compare("lt", x, f.smallest)
    shift = -(-f.fraction // 4) * 4
    scaled = b.select(denormal, b.mul(x, 2.0**shift), x)
    one, unit = f.bias << f.fraction, 1 << f.fraction
    bits = b.shr(b.bitcast(scaled, f.bits), root // 2)
    r = b.bitcast(b.sub(one + one // root - int(guess * unit), bits), x.type.scalar)
    near, times_x = (r, b.mul(scaled, r)) if root == 2 else (b.mul(r, r), b.mul(scaled, b.mul(r, r)))
    r = b.mul(r, polynomial(b, b.fma(b.neg(times_x), near, 1.0), coefficients))

    half = (r, None) if root == 2 else _pair_times(b, (r, None), r)
    other_half = _pair_times(b, half, scaled)
    h = b.fma(b.neg(other_half[0]), half[0], 1.0, exact=True)
    for low, factor in ((half[1], other_half[0]), (other_half[1], half[0])):
        h = h if low is None else b.fma(b.neg(low), factor, h)

    taken = -quarters * root // 4 % root  # of the factors x**(-1/root); the result may be x times those
    if quarters > 0:
        high, rest = _pair_times(b, other_half if taken == 3 else (scaled, None), r)
    else:
        high, rest = _pair_times(b, half, r) if taken == 3 else (r, None)
    series = [taken / root]
    for k in range(2, 3 if f.bits == U32 else 5):
        series.append(series[-1] * (taken / root + k - 1) / k)
    off = b.mul(b.mul(high, h), polynomial(b, h, tuple(series)))
    regular = b.add(high, off if rest is None else b.add(off, rest))
    regular = b.select(denormal, b.mul(regular, 2.0 ** (-shift * quarters // 4)), regular)

    at_zero, at_infinity = (0.0, inf) if quarters > 0 else (inf, 0.0)
    outside = b.select(b.compare("eq", b.abs(x), inf), b.const(at_infinity, x.type), nan)
    outside = b.select(b.compare("eq", x, 0.0), at_zero, outside)
    return b.select(b.and_(b.compare("gt", x, 0.0), b.compare("lt", x, inf)), regular, outside)


def _pair_times(b: Builder, a: _Pair, x: Operand) -> _Pair:
    """a * x, to about twice the format's precision."""
    high, low = a
    product = b.mul(high, x)
    error: Operand = b.fma(high, x, b.neg(product), exact=True)
    return product, error if low is None else b.fma(low, x, error)


_PLAIN_POWERS: dict[object, Callable[[Builder, Operand, _Format], Operand]] = {
    1: lambda b, x, f: x,
    2: lambda b, x, f: b.mul(x, x),
    -1: lambda b, x, f: b.div(1.0, x),
    0.5: _pow_half,
    **{n / 4: partial(_pow_quarters, quarters=n) for n in (-3, -2, -1, 1, 3)},
}
"""What pow does for constant exponents."""


def _pow_pair(b: Builder, a: Operand, y: Operand, f: _Format) -> Operand:
    """a**y in float64 for a >= 0 or NaN: log(a) as high + low, good to 2**-63, so that y * log(a) is too.

    A sum's or product's rounding error is had exactly (T. J. Dekker, 1971), the product's by fma.
    """
    e, m = _split(b, a, f)
    value = b.sub(m, 1.0)
    divisor = b.add(value, 2.0)
    divisor_low = b.sub(value, b.sub(divisor, 2.0))
    s = b.div(value, divisor)
    rest = b.fma(b.neg(s), divisor, value, exact=True)
    s_low = b.div(b.fma(b.neg(s), divisor_low, rest), divisor)
    square = b.mul(s, s)
    square_low = b.fma(s, b.add(s_low, s_low), b.fma(s, s, b.neg(square), exact=True))
    cube = b.mul(square, s)
    cube_low = b.fma(square_low, s, b.fma(square, s_low, b.fma(square, s, b.neg(cube), exact=True)))
    third = b.mul(cube, _TWO_THIRDS[0])
    third_low = b.fma(cube, _TWO_THIRDS[0], b.neg(third), exact=True)
    third_low = b.fma(cube_low, _TWO_THIRDS[0], b.fma(cube, _TWO_THIRDS[1], third_low))
    tail = b.mul(b.mul(cube, square), polynomial(b, square, _LOG_PAIR))
    # high = e ln 2 + 2 s + 2/3 s**3, each term smaller than the one before, or e = 0
    first, double = b.mul(e, f.ln2[0]), b.add(s, s)
    partial = b.add(first, double)
    low = b.sub(double, b.sub(partial, first))
    high = b.add(partial, third)
    low = b.add(low, b.sub(third, b.sub(high, partial)))
    small = b.fma(e, f.ln2[1], b.add(b.add(tail, third_low), b.add(s_low, s_low)))
    low = b.add(low, small)
    high, low = b.add(high, low), b.add(low, b.sub(high, b.add(high, low)))
    high = b.select(b.compare("lt", a, inf), high, a)
    high = b.select(b.compare("eq", a, 0.0), b.const(-inf, a.type), high)
    product = b.mul(y, high)
    product_low = b.fma(y, low, b.fma(y, high, b.neg(product), exact=True))
    inside = b.compare("lt", b.abs(product), 1000.0)
    return _exp(b, product, f, b.select(inside, product_low, 0.0))


# ---- circular functions


def sin(b: Builder, x: Operand) -> Operand:
    """The sine: of float32 up to |x| = 2**40, of float64 up to 2**30; NaN beyond."""
    return _in_float(b, x, lambda b, x, f: _circular(b, x, f, 0))


def cos(b: Builder, x: Operand) -> Operand:
    """The cosine: of float32 up to |x| = 2**40, of float64 up to 2**30; NaN beyond."""
    return _in_float(b, x, lambda b, x, f: _circular(b, x, f, 1))


def _circular(b: Builder, x: Operand, f: _Format, quarters: int) -> Operand:
    """sin(x + quarters * pi / 2): x = n pi / 2 + r, reduced in float64; sin(r) or cos(r) as n is even."""
    wide = b.convert(x, F64)
    magic = _FORMATS[F64].magic
    shifted = b.fma(wide, _TWO_OVER_PI, magic)
    n = b.sub(shifted, magic)
    reduced: Operand = wide
    for part in _HALF_PI[:2] if f.bits == U32 else _HALF_PI:
        reduced = b.fma(n, -part, reduced, exact=True)
    r = b.convert(reduced, x.type.scalar)
    turns = b.add(b.convert(b.bitcast(shifted, U64), f.bits), quarters)
    square = b.mul(r, r)
    sine = b.fma(b.mul(square, r), polynomial(b, square, f.sin), r)
    cosine = polynomial(b, square, (1.0, -0.5, *f.cos))
    odd = b.compare("ne", b.and_(turns, 1), 0)
    sign = b.shl(b.and_(turns, 2), f.bits.bits - 2)
    value = b.bitcast(b.xor(b.bitcast(b.select(odd, cosine, sine), f.bits), sign), x.type.scalar)
    if quarters == 0:  # keeps -0
        value = b.select(b.compare("eq", x, 0.0), x, value)
    return b.select(b.compare("le", b.abs(x), _TURN_LIMIT[x.type.scalar]), value, nan)
