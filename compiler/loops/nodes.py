"""Loop IR as data: types, operands, buffers, instructions, functions.

    function scale(in x: f32[100], out y: f32[100], begin: index, end: index)
      for i in begin..end step 16
        v: f32x16 = load x[i]
        w: f32x16 = mul v, 2.0
        store y[i], w

A function works on flat buffers of scalars whose sizes are known, so that the interpreter can hold every
access to its bounds. Instructions are in SSA form; a `For` carries values from one iteration to the next.
Index arithmetic is on the type index; indices count elements. Everything is static but loop variables: tails
are masked by a number of active lanes known when the function is built.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

Kind = Literal["f", "bf", "i", "u", "b", "n"]


@dataclass(frozen=True, slots=True)
class Type:
    """A scalar (`lanes` 1) or a vector.

    Kinds: "f" IEEE float, "bf" bfloat, "i" signed, "u" unsigned, "b" bool (one bit in registers), "n" index:
    64 bits that never overflow and are never divided where negative.
    """

    kind: Kind
    bits: int
    lanes: int = 1

    def vector(self, lanes: int) -> "Type":
        """The same element type with `lanes` lanes."""
        return _vector(self.kind, self.bits, lanes)

    @property
    def scalar(self) -> "Type":
        """The element type."""
        return _vector(self.kind, self.bits, 1)

    @property
    def is_float(self) -> bool:
        """True for IEEE floats and bfloat."""
        return self.kind in ("f", "bf")

    @property
    def bytes(self) -> int:
        """Bytes of one element in memory (bool takes one)."""
        return max(self.bits // 8, 1)

    def __str__(self) -> str:
        name = {"b": "bool", "n": "index"}.get(self.kind, f"{self.kind}{self.bits}")
        return name if self.lanes == 1 else f"{name}x{self.lanes}"


@cache
def _vector(kind: Kind, bits: int, lanes: int) -> Type:
    return Type(kind, bits, lanes)


F16, F32, F64, BF16 = Type("f", 16), Type("f", 32), Type("f", 64), Type("bf", 16)
I8, I16, I32, I64 = (Type("i", bits) for bits in (8, 16, 32, 64))
U8, U16, U32, U64 = (Type("u", bits) for bits in (8, 16, 32, 64))
BOOL = Type("b", 1)
INDEX = Type("n", 64)


@dataclass(frozen=True, eq=False, slots=True)
class Var:
    """A value defined by one instruction, a loop variable or a parameter; compared by identity."""

    type: Type
    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """A constant; in a vector every lane holds `value`, unless it is a tuple with one number a lane."""

    type: Type
    value: float | int | bool | tuple[float | int | bool, ...]


Operand = Var | Const
Access = Literal["in", "out", "inout", "local"]


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """A flat array of `size` scalars: a parameter, or ("local") scratch on the stack.

    `align` is the alignment of element 0 in bytes; "in" buffers are never written; no two buffers overlap.
    """

    name: str
    type: Type
    size: int
    access: Access
    align: int = 64


@dataclass(frozen=True, eq=False, slots=True)
class Ref:
    """A buffer argument of a call: the callee's element 0 is `index + offset`."""

    buffer: Buffer
    index: Operand
    offset: int


@dataclass(frozen=True, eq=False, slots=True)
class Instr:
    """Base of the instructions."""


@dataclass(frozen=True, eq=False, slots=True)
class Arith(Instr):
    """add sub mul div rem min max and or xor shl shr, of two operands of one type.

    min and max return NaN if either operand is NaN. Integer division truncates, rem is of integers only; shr
    is arithmetic on "i".
    """

    result: Var
    op: str
    a: Operand
    b: Operand


@dataclass(frozen=True, eq=False, slots=True)
class Unary(Instr):
    """neg abs sqrt floor ceil rint trunc not, of one operand."""

    result: Var
    op: str
    a: Operand


@dataclass(frozen=True, eq=False, slots=True)
class Fma(Instr):
    """a * b + c, rounded once.

    Machines without this instruction round the product too, unless `exact` says that its rounding error counts.
    """

    result: Var
    a: Operand
    b: Operand
    c: Operand
    exact: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Compare(Instr):
    """eq ne lt le gt ge; on floats all but ne are false if either operand is NaN."""

    result: Var
    op: str
    a: Operand
    b: Operand


@dataclass(frozen=True, eq=False, slots=True)
class Select(Instr):
    """`a` where the condition holds, else `b`; the condition has as many lanes, or one."""

    result: Var
    condition: Operand
    a: Operand
    b: Operand


@dataclass(frozen=True, eq=False, slots=True)
class Cast(Instr):
    """"convert" keeps the value, "bitcast" keeps the bits.

    Floats to integers truncate and saturate, NaN gives 0; integers to narrower integers drop the high bits.
    All goes to 16-bit floats by way of f32, as in PyTorch.
    """

    result: Var
    op: Literal["convert", "bitcast"]
    a: Operand


@dataclass(frozen=True, eq=False, slots=True)
class Broadcast(Instr):
    """A scalar in every lane."""

    result: Var
    a: Operand


@dataclass(frozen=True, eq=False, slots=True)
class ReduceLanes(Instr):
    """One scalar from all lanes: add mul min max and or.

    The lower half is combined with the upper until one lane is left, so floats round alike everywhere; lanes
    are a power of two.
    """

    result: Var
    op: str
    a: Operand


@dataclass(frozen=True, eq=False, slots=True)
class Shuffle(Instr):
    """Lanes chosen from `a` (0 ..) and `b` (counted on from a's last)."""

    result: Var
    a: Operand
    b: Operand
    lanes: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Extract(Instr):
    """One lane as a scalar."""

    result: Var
    a: Operand
    lane: int


@dataclass(frozen=True, eq=False, slots=True)
class Load(Instr):
    """Consecutive elements from `index + offset`; lanes from `active` on are not read and hold 0."""

    result: Var
    buffer: Buffer
    index: Operand
    offset: int
    active: int


@dataclass(frozen=True, eq=False, slots=True)
class Gather(Instr):
    """Lane k holds element `index + offset + steps[k]`; lanes from `active` on are not read and hold 0."""

    result: Var
    buffer: Buffer
    index: Operand
    offset: int
    steps: Operand
    active: int


@dataclass(frozen=True, eq=False, slots=True)
class Store(Instr):
    """Consecutive elements from `index + offset`; lanes from `active` on are not written."""

    buffer: Buffer
    index: Operand
    offset: int
    value: Operand
    active: int
    streaming: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Prefetch(Instr):
    """A hint that element `index + offset` will be read; may lie outside the buffer."""

    buffer: Buffer
    index: Operand
    offset: int
    locality: int


@dataclass(frozen=True, eq=False, slots=True)
class Alloc(Instr):
    """Scratch on the stack, undefined until written."""

    buffer: Buffer


@dataclass(frozen=True, eq=False, slots=True)
class Call(Instr):
    """A call of another function of the module."""

    function: "Function"
    arguments: tuple[Ref | Operand, ...]


@dataclass(frozen=True, eq=False, slots=True)
class For(Instr):
    """`for variable in lo..hi step step`; `carried` are rebound to `yields` after each iteration.

    `results` hold the last yields, or `initial` if the range is empty.
    """

    variable: Var
    lo: Operand
    hi: Operand
    step: int
    carried: tuple[Var, ...]
    initial: tuple[Operand, ...]
    body: tuple[Instr, ...]
    yields: tuple[Operand, ...]
    results: tuple[Var, ...]


@dataclass(frozen=True, eq=False, slots=True)
class If(Instr):
    """One of two blocks, by a scalar bool; gives no values."""

    condition: Operand
    then: tuple[Instr, ...]
    otherwise: tuple[Instr, ...]


@dataclass(frozen=True, eq=False)
class Function:
    """A loop function: buffers and scalars in, effects in its "out" and "inout" buffers."""

    name: str
    params: tuple[Buffer | Var, ...]
    body: tuple[Instr, ...]
