"""Runs loop functions on NumPy arrays, checking what machine code cannot: an oracle of tests, not fast.

    interpret(function, {"x": x, "y": y}, {"begin": 0})     # writes into y, or raises InterpreterError

Values have the bits that the emitted code gives. Refused are:

- an access outside its buffer, a write to an "in" buffer,
- a read of an "out" or "local" element that was not written before,
- two arguments of one call that share an element one of them writes, a misaligned streaming store,
- an index that overflows or is divided or shifted where negative,
- division of integers by 0, and a shift by the type's bits or more.

Arrays hold at least their buffer's size; bfloat stands as uint16 in arrays, as rounded float32 in values.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.nodes import Buffer, Const, Function, Instr, Operand, Ref, Type, Var

Array = NDArray[Any]  # a value: one dimension, one element a lane
_INDEX_LIMIT = 2**63


class InterpreterError(Exception):
    """A loop function does what it must not."""


class _View:
    """A buffer in one activation of a function: a window of the memory of `parent`, or memory of its own."""

    def __init__(self, buffer: Buffer, memory: Array, start: int = 0, parent: "_View | None" = None) -> None:
        self.buffer = buffer
        self.memory = memory
        self.start = start
        self.parent = parent
        unwritten = buffer.access in ("out", "local")
        self.written = np.zeros(buffer.size, bool) if unwritten else None
        # What this activation touched, kept where another argument has the same memory.
        self.reads: set[int] | None = None
        self.writes: set[int] | None = None

    def check(self, places: Sequence[int], write: bool) -> None:
        """Refuse an access to the elements `places`; note it otherwise."""
        buffer = self.buffer
        for place in places:
            if not 0 <= place < buffer.size:
                raise InterpreterError(f"{buffer.name}[{place}] is outside its {buffer.size} elements")
            if write and buffer.access == "in":
                raise InterpreterError(f"{buffer.name}[{place}] is written, but the buffer is only read")
            if self.written is not None and not write and not self.written[place]:
                raise InterpreterError(f"{buffer.name}[{place}] is read before it is written")
        absolute = [place + self.start for place in places]
        noted = self.writes if write else self.reads
        if noted is not None:
            noted.update(absolute)
        # A callee's "out" buffer need not have been written by the caller, but must be by itself.
        if self.parent is not None and (write or self.written is None):
            self.parent.check([place - self.parent.start for place in absolute], write)
        if write and self.written is not None:
            self.written[list(places)] = True


def interpret(
    function: Function, buffers: Mapping[str, Array], scalars: Mapping[str, float] | None = None
) -> None:
    """Run the function on arrays and numbers by parameter name; arrays are written in place."""
    arguments: list[_View | Array] = []
    for param in function.params:
        if isinstance(param, Var):
            arguments.append(_constant(Const(param.type, (scalars or {})[param.name])))
            continue
        array = buffers[param.name]
        fits = array.dtype == _memory_dtype(param.type) and array.size >= param.size
        if not fits or not array.flags.c_contiguous:
            given = f"{array.size} {array.dtype}"
            raise InterpreterError(f"{param.name} needs {param.size} contiguous {param.type}, not {given}")
        arguments.append(_View(param, array.reshape(-1)))
    _Activation(function, arguments).run()


class _Activation:
    """One call of a function: its values and views by variable and buffer."""

    def __init__(self, function: Function, arguments: Sequence[_View | Array]) -> None:
        self.function = function
        self.values: dict[Var, Array] = {}
        self.views: dict[Buffer, _View] = {}
        for param, argument in zip(function.params, arguments, strict=True):
            if isinstance(param, Buffer) and isinstance(argument, _View):
                self.views[param] = argument
            elif isinstance(param, Var) and isinstance(argument, np.ndarray):
                self.values[param] = argument
            else:
                raise InterpreterError(f"an argument of {function.name} does not fit {param.name}")

    def run(self) -> None:
        views = list(self.views.values())
        for view in views:
            if sum(other.memory is view.memory for other in views) > 1:
                view.reads, view.writes = set(), set()
        with np.errstate(all="ignore"):
            self.block(self.function.body)
        for position, view in enumerate(views):
            for other in views[:position]:
                if other.memory is view.memory and _conflict(view, other):
                    names = f"{other.buffer.name} and {view.buffer.name} of {self.function.name}"
                    raise InterpreterError(f"{names} share an element that is written")

    def value(self, operand: Operand) -> Array:
        return _constant(operand) if isinstance(operand, Const) else self.values[operand]

    def scalar(self, operand: Operand) -> int:
        return int(self.value(operand)[0])

    def block(self, body: Sequence[Instr]) -> None:
        for instr in body:
            self.step(instr)

    def step(self, instr: Instr) -> None:
        match instr:
            case nodes.Load(result, buffer, index, offset, active):
                start = self.scalar(index) + offset
                self.load(result, buffer, range(start, start + result.type.lanes), active)
            case nodes.Gather(result, buffer, index, offset, steps, active):
                start = self.scalar(index) + offset
                self.load(result, buffer, [start + int(step) for step in self.value(steps)], active)
            case nodes.Store():
                self.store(instr)
            case nodes.Prefetch():
                pass
            case nodes.Alloc(buffer):
                self.views[buffer] = _View(buffer, np.zeros(buffer.size, _memory_dtype(buffer.type)))
            case nodes.Call(function, arguments):
                params = zip(function.params, arguments, strict=True)
                _Activation(function, [self.argument(param, argument) for param, argument in params]).run()
            case nodes.If(condition, then, otherwise):
                self.block(then if self.scalar(condition) else otherwise)
            case nodes.For():
                self.loop(instr)
            case _:
                result, value = self.compute(instr)
                if value.shape != (result.type.lanes,) or value.dtype != _dtype(result.type):
                    raise InterpreterError(f"{result.name}: {result.type} holds {value.dtype}{value.shape}")
                self.values[result] = value

    def argument(self, param: Buffer | Var, argument: Ref | Operand) -> _View | Array:
        if isinstance(argument, Ref) and isinstance(param, Buffer):
            view = self.views[argument.buffer]
            start = view.start + self.scalar(argument.index) + argument.offset
            return _View(param, view.memory, start, view)
        if isinstance(argument, Ref):
            raise InterpreterError(f"a buffer is given for the scalar {param.name}")
        return self.value(argument)

    def load(self, result: Var, buffer: Buffer, places: Sequence[int], active: int) -> None:
        view = self.views[buffer]
        places = places[:active]
        view.check(places, write=False)
        value = np.zeros(result.type.lanes, _dtype(result.type))
        raw = view.memory[[place + view.start for place in places]]
        value[: len(places)] = _from_bfloat(raw) if buffer.type.kind == "bf" else raw
        self.values[result] = value

    def store(self, instr: nodes.Store) -> None:
        view, value = self.views[instr.buffer], self.value(instr.value)
        lanes = instr.value.type.lanes
        start = self.scalar(instr.index) + instr.offset
        if instr.streaming and instr.active >= lanes and (start + view.start) % lanes:
            raise InterpreterError(f"streaming store to {instr.buffer.name}[{start}], no multiple of {lanes}")
        places = range(start, start + min(instr.active, lanes))
        view.check(places, write=True)
        kept = value[: len(places)]
        raw = _to_bfloat(kept) if instr.buffer.type.kind == "bf" else kept
        view.memory[[place + view.start for place in places]] = raw

    def loop(self, instr: nodes.For) -> None:
        carried = [self.value(operand) for operand in instr.initial]
        for i in range(self.scalar(instr.lo), self.scalar(instr.hi), instr.step):
            self.values[instr.variable] = np.array([i], np.int64)
            self.values.update(zip(instr.carried, carried, strict=True))
            self.block(instr.body)
            carried = [self.value(operand) for operand in instr.yields]
        self.values.update(zip(instr.results, carried, strict=True))

    def compute(self, instr: Instr) -> tuple[Var, Array]:
        match instr:
            case nodes.Arith(result, op, a, b):
                return result, _arith(op, result.type, self.value(a), self.value(b))
            case nodes.Unary(result, op, a):
                return result, _rounded(_unary(op, result.type, self.value(a)), result.type)
            case nodes.Fma(result, a, b, c):
                value = _fma(result.type, self.value(a), self.value(b), self.value(c))
                return result, _rounded(value, result.type)
            case nodes.Compare(result, op, a, b):
                return result, _COMPARE[op](self.value(a), self.value(b))
            case nodes.Select(result, condition, a, b):
                return result, np.where(self.value(condition), self.value(a), self.value(b))
            case nodes.Cast(result, "convert", a):
                return result, _convert(a.type, result.type, self.value(a))
            case nodes.Cast(result, _, a):
                return result, _bitcast(a.type, result.type, self.value(a))
            case nodes.Broadcast(result, a):
                return result, np.repeat(self.value(a), result.type.lanes)
            case nodes.ReduceLanes(result, op, a):
                return result, _reduce(op, result.type, self.value(a))
            case nodes.Shuffle(result, a, b, lanes):
                return result, np.concatenate([self.value(a), self.value(b)])[list(lanes)]
            case nodes.Extract(result, a, lane):
                return result, self.value(a)[lane : lane + 1]
        raise InterpreterError(f"unknown instruction {type(instr).__name__}")


def _conflict(one: _View, other: _View) -> bool:
    assert one.reads is not None and one.writes is not None
    assert other.reads is not None and other.writes is not None
    return bool(one.writes & (other.reads | other.writes) or one.reads & other.writes)


# ---- types


def _dtype(type: Type) -> np.dtype[Any]:
    """The dtype of a value."""
    return np.dtype(np.float32) if type.kind == "bf" else _memory_dtype(type)


def _memory_dtype(type: Type) -> np.dtype[Any]:
    """The dtype of a buffer's array."""
    kind = {"f": "f", "bf": "u", "i": "i", "n": "i", "u": "u"}.get(type.kind)
    return np.dtype(f"{kind}{type.bytes}" if kind else "?")


def _constant(constant: Const) -> Array:
    values = constant.value if isinstance(constant.value, tuple) else [constant.value] * constant.type.lanes
    return _rounded(np.array(values, _dtype(constant.type)), constant.type)


def _to_bfloat(value: Array) -> Array:
    """The upper halves of float32, rounded to nearest even; a NaN that loses bits becomes quiet."""
    bits = value.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    quiet = (bits >> np.uint64(16)) | np.where(bits & np.uint64(0xFFFF), np.uint64(0x40), np.uint64(0))
    return np.where(np.isnan(value), quiet, rounded).astype(np.uint16)


def _from_bfloat(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _rounded(value: Array, type: Type) -> Array:
    """`value` as the type's dtype; bfloat rounded to its precision."""
    if type.kind == "bf":
        return _from_bfloat(_to_bfloat(value))
    return value.astype(_dtype(type), copy=False)


# ---- arithmetic

_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip
_PLAIN = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
_BITS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def _arith(op: str, type: Type, a: Array, b: Array) -> Array:
    if op in ("min", "max"):
        chosen = np.where((a > b) if op == "max" else (a < b), a, b)
        return np.where(np.isnan(a), a, chosen) if type.is_float else chosen
    if op in _BITS:
        value: Array = _BITS[op](a, b)
        return value
    if type.is_float:
        operation = {**_PLAIN, "div": np.divide, "rem": np.fmod}[op]
        return _rounded(operation(a, b), type)
    if type.kind == "b":
        raise InterpreterError(f"{op} of bool")
    exact = [_integer(op, type, int(x), int(y)) for x, y in zip(a, b, strict=True)]
    if type.kind == "n" and any(not -_INDEX_LIMIT <= x < _INDEX_LIMIT for x in exact):
        raise InterpreterError(f"{op} of indices overflows")
    return _wrapped(exact, type)


def _integer(op: str, type: Type, a: int, b: int) -> int:
    """The exact result on integers of any size."""
    if op in ("div", "rem", "shl", "shr") and type.kind == "n" and (a < 0 or b < 0):
        raise InterpreterError(f"{op} of the indices {a} and {b}, of which one is negative")
    if op in ("shl", "shr"):
        if not 0 <= b < type.bits:
            raise InterpreterError(f"{op} of {type} by {b} bits")
        return a << b if op == "shl" else a >> b
    if op in ("div", "rem"):
        if b == 0:
            raise InterpreterError(f"{op} of {type} by 0")
        if type.kind == "i" and b == -1 and a == -(1 << (type.bits - 1)):
            raise InterpreterError(f"{op} of the least {type} by -1")
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if op == "div" else a - quotient * b
    return a + b if op == "add" else a - b if op == "sub" else a * b


def _wrapped(values: Sequence[int], type: Type) -> Array:
    """The low bits of integers."""
    masked = np.array([value & ((1 << type.bits) - 1) for value in values], np.uint64)
    return masked.astype(f"u{type.bytes}").view(_dtype(type))


def _unary(op: str, type: Type, a: Array) -> Array:
    if op == "not":
        return ~a
    if type.is_float:
        functions: dict[str, Any] = {
            "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil,
            "rint": np.rint, "trunc": np.trunc,
        }  # fmt: skip
        value: Array = functions[op](a)
        return value
    return _wrapped([-int(x) if op == "neg" else abs(int(x)) for x in a], type)


def _fma(type: Type, a: Array, b: Array, c: Array) -> Array:
    lanes = zip(a.astype(np.float64), b.astype(np.float64), c.astype(np.float64), strict=True)
    return np.array([_fused(float(x), float(y), float(z), type) for x, y, z in lanes])


def _fused(a: float, b: float, c: float, type: Type) -> float:
    """a * b + c rounded once to the type (and left in float64)."""
    plain = a * b + c
    if not np.isfinite([a, b, c]).all():
        return plain
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return plain
    try:
        rounded = float(exact)
    except OverflowError:
        return float(np.copysign(np.inf, 1.0 if exact > 0 else -1.0))
    if type.bits < 64 and rounded != exact and np.float64(rounded).view(np.uint64) % 2 == 0:
        # Rounded to odd, a second rounding to a shorter format gives what one rounding would.
        rounded = float(np.nextafter(rounded, np.inf if exact > rounded else -np.inf))
    return rounded if rounded != 0 else float(np.copysign(0.0, 1.0 if exact > 0 else -1.0))


def _reduce(op: str, type: Type, value: Array) -> Array:
    """Halves are combined until one lane is left."""
    while value.size > 1:
        half = value.size // 2
        value = _arith(op, type, value[:half], value[half:])
    return value


# ---- casts


def _convert(source: Type, target: Type, value: Array) -> Array:
    if target.kind == "b":
        return np.not_equal(value, 0)
    if target.is_float:
        # To 16 bits by way of float32, as PyTorch does
        return _rounded(value.astype(np.float32) if target.bits == 16 else value, target)
    if not source.is_float:
        return _wrapped([int(x) for x in value], target)
    signed = target.kind in ("i", "n")
    low = -(1 << (target.bits - 1)) if signed else 0
    high = low + (1 << target.bits) - 1

    def whole(x: float) -> int:
        if np.isnan(x):
            return 0
        return max(low, min(high, int(x))) if np.isfinite(x) else (high if x > 0 else low)

    return _wrapped([whole(float(x)) for x in value], target)


def _bitcast(source: Type, target: Type, value: Array) -> Array:
    raw = _to_bfloat(value) if source.kind == "bf" else value
    bits = np.ascontiguousarray(raw).view(_memory_dtype(target))
    return _from_bfloat(bits) if target.kind == "bf" else bits
