"""Instructions that some machines lack, in several of those they have; LLVM would call functions of libm instead.

    floor(x)        (x + 2**23) - 2**23, one less where that is above x
    f16 and bf16    the bits of a float, shifted and rounded to nearest even
    a * b + c       the product's rounding error, had from halves of a and b (T. J. Dekker, 1971), added to the sum

Each function takes the emitter it adds instructions to, the type, and operands by name, and gives the result's name.
"""

from collections.abc import Sequence
from typing import Protocol

from tilewright.compiler.loops.nodes import Const, Type

ROUNDING = ("floor", "ceil", "rint", "trunc")


class Emits(Protocol):
    """What is needed of an emitter."""

    def emit(self, text: str) -> str:
        """Add an instruction."""

    def intrinsic(self, name: str, result: str, arguments: Sequence[tuple[str, str]]) -> str:
        """The text of a call."""

    def type_name(self, type: Type) -> str:
        """LLVM's name of a type."""

    def mangled(self, type: Type) -> str:
        """Its name in intrinsics."""

    def literal(self, constant: Const) -> str:
        """A constant."""


class _Maker:
    """Writes instructions of one type."""

    def __init__(self, emits: Emits, type: Type) -> None:
        self.emits, self.type, self.kind = emits, type, emits.type_name(type)

    def __call__(self, op: str, a: str, b: str) -> str:
        return self.emits.emit(f"{op} {self.kind} {a}, {b}")

    def const(self, value: float) -> str:
        return self.emits.literal(Const(self.type, value))

    def call(self, name: str, *operands: str) -> str:
        arguments = [(self.kind, operand) for operand in operands]
        return self.emits.emit(
            self.emits.intrinsic(f"llvm.{name}.{self.emits.mangled(self.type)}", self.kind, arguments)
        )

    def select(self, condition: str, a: str, b: str) -> str:
        bools = self.emits.type_name(Type("b", 1, self.type.lanes))
        return self.emits.emit(f"select {bools} {condition}, {self.kind} {a}, {self.kind} {b}")

    def cast(self, op: str, a: str, other: Type) -> str:
        """An operand of this type in the other one."""
        return self.emits.emit(f"{op} {self.kind} {a} to {self.emits.type_name(other)}")


def rounded(emits: Emits, op: str, type: Type, x: str) -> str:
    """floor, ceil, rint or trunc: of the sum with 2**fraction no digits behind the point are left."""
    m = _Maker(emits, type)
    magic = m.const(2.0**23 if type.bits == 32 else 2.0**52)
    size = m.call("fabs", x)
    y = size if op == "trunc" else x
    shift = m.call("copysign", magic, y)
    whole = m("fsub", m("fadd", y, shift), shift)
    if op in ("floor", "trunc"):
        whole = m.select(m("fcmp ogt", whole, y), m("fsub", whole, m.const(1.0)), whole)
    elif op == "ceil":
        whole = m.select(m("fcmp olt", whole, y), m("fadd", whole, m.const(1.0)), whole)
    return m.select(m("fcmp olt", size, magic), m.call("copysign", whole, x), x)


def product_and_sum(emits: Emits, type: Type, a: str, b: str, c: str) -> str:
    """a * b + c, rounded twice."""
    m = _Maker(emits, type)
    return m("fadd", m("fmul", a, b), c)


def fused(emits: Emits, type: Type, a: str, b: str, c: str) -> str:
    """a * b + c without loss by cancellation: within one unit in the last place of the sum rounded once.

    NaN where |a| or |b| is above 2**996.
    """
    if type.bits < 64:
        wide = Type("f", 64, type.lanes)
        narrow = _Maker(emits, type)
        x, y, z = (narrow.cast("fpext", operand, wide) for operand in (a, b, c))
        return _Maker(emits, wide).cast("fptrunc", product_and_sum(emits, wide, x, y, z), type)
    m = _Maker(emits, type)

    def halves(x: str) -> tuple[str, str]:
        scaled = m("fmul", x, m.const(2.0**27 + 1))
        high = m("fsub", scaled, m("fsub", scaled, x))
        return high, m("fsub", x, high)

    (a1, a2), (b1, b2) = halves(a), halves(b)
    product = m("fmul", a, b)
    error = m("fsub", m("fmul", a1, b1), product)
    for x, y in ((a1, b2), (a2, b1), (a2, b2)):
        error = m("fadd", error, m("fmul", x, y))
    total = m("fadd", product, c)
    rest = m("fsub", total, product)
    lost = m("fadd", m("fsub", product, m("fsub", total, rest)), m("fsub", c, rest))
    return m("fadd", total, m("fadd", error, lost))


def float_to_bfloat(emits: Emits, target: Type, x: str) -> str:
    """The upper half of a float's bits, rounded to nearest even; a NaN stays one."""
    words, halves = Type("u", 32, target.lanes), Type("u", 16, target.lanes)
    m = _Maker(emits, words)
    floats = _Maker(emits, Type("f", 32, target.lanes))
    bits = floats.cast("bitcast", x, words)
    upper = m("lshr", bits, m.const(16))
    odd = m("and", upper, m.const(1))
    near = m("lshr", m("add", bits, m("add", odd, m.const(0x7FFF))), m.const(16))
    chosen = m.select(floats("fcmp uno", x, x), m("or", upper, m.const(0x40)), near)
    return _Maker(emits, halves).cast("bitcast", m.cast("trunc", chosen, halves), target)


def half_to_float(emits: Emits, source: Type, x: str) -> str:
    """A half as a float: its bits in their place, and the exponent's bias made up for by a product."""
    halves, words, floats = Type("u", 16, source.lanes), Type("u", 32, source.lanes), Type("f", 32, source.lanes)
    m, f = _Maker(emits, words), _Maker(emits, floats)
    bits = _Maker(emits, halves).cast("zext", _Maker(emits, source).cast("bitcast", x, halves), words)
    size = m("shl", m("and", bits, m.const(0x7FFF)), m.const(13))
    sign = m("shl", m("and", bits, m.const(0x8000)), m.const(16))
    finite = f.cast("bitcast", f("fmul", m.cast("bitcast", size, floats), f.const(2.0**112)), words)
    special = m("icmp uge", size, m.const(0x7C00 << 13))
    chosen = m.select(special, m("or", size, m.const(0x7F800000)), finite)
    return m.cast("bitcast", m("or", chosen, sign), floats)


def float_to_half(emits: Emits, target: Type, x: str) -> str:
    """A float as a half, rounded to nearest even; a NaN stays one."""
    halves, words, floats = Type("u", 16, target.lanes), Type("u", 32, target.lanes), Type("f", 32, target.lanes)
    m, f = _Maker(emits, words), _Maker(emits, floats)
    bits = f.cast("bitcast", x, words)
    size = m("and", bits, m.const(0x7FFFFFFF))
    sign = m("and", m("lshr", bits, m.const(16)), m.const(0x8000))
    odd = m("and", m("lshr", size, m.const(13)), m.const(1))
    moved = m("sub", size, m.const((127 - 15) << 23))
    normal = m("lshr", m("add", moved, m("add", odd, m.const(0xFFF))), m.const(13))
    # Below the normal halves, the sum with 0.5 has the half's bits for its last ones.
    near = f.cast("bitcast", f("fadd", m.cast("bitcast", size, floats), f.const(0.5)), words)
    small = m("sub", near, m.const(0x3F000000))
    chosen = m.select(m("icmp ult", size, m.const(0x38800000)), small, normal)
    chosen = m.select(m("icmp uge", size, m.const(0x47800000)), m.const(0x7C00), chosen)
    nan = m("or", m("and", m("lshr", size, m.const(13)), m.const(0x3FF)), m.const(0x7E00))
    chosen = m.select(m("icmp ugt", size, m.const(0x7F800000)), nan, chosen)
    return _Maker(emits, halves).cast("bitcast", m.cast("trunc", m("or", chosen, sign), halves), target)
