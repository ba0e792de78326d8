"""Builds loop functions; kernels are written against this.

    b = Builder("scale")
    x, y = b.input("x", F32, n), b.output("y", F32, n)
    def step(i, active):
        b.store(y, i, b.mul(b.load(x, i, lanes=16, active=active), 2.0), active=active)
    b.lanes(n, 16, step)
    function = b.finish()

Indices and sizes are Python ints where they are known and index operands where they are not; arithmetic on
two Python numbers gives a Python number, so what is static folds as it is built, and equal arithmetic on
indices is built once. Operands of one operation take the type of the first that has one: a Python number
becomes a constant of that type, a scalar meets a vector as a broadcast.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import zip_longest
from typing import Any

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.nodes import (
    BOOL,
    INDEX,
    Access,
    Buffer,
    Const,
    Function,
    Instr,
    Operand,
    Ref,
    Type,
    Var,
)

Index = Operand | int
Number = Operand | int | float | bool

_FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
}


def _is_number(a: Number) -> bool:
    """Whether a is a constant, in all lanes, and not NaN."""
    value = a.value if isinstance(a, Const) else a
    return isinstance(value, int | float) and value == value


class Builder:
    """Builds one function; see the module's docstring."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._params: list[Buffer | Var] = []
        self._block: list[Instr] = []
        self._count = 0
        # What is built `once`, index arithmetic by (operation, operands): one dict for each open block.
        self._known: list[dict[Hashable, Any]] = [{}]

    # ---- parameters and results

    def input(self, name: str, type: Type, size: int, align: int = 64) -> Buffer:
        """A parameter that is only read."""
        return self._buffer(name, type, size, "in", align)

    def output(self, name: str, type: Type, size: int, align: int = 64) -> Buffer:
        """A parameter that is written before it is read."""
        return self._buffer(name, type, size, "out", align)

    def inout(self, name: str, type: Type, size: int, align: int = 64) -> Buffer:
        """A parameter that holds data and is written."""
        return self._buffer(name, type, size, "inout", align)

    def scalar(self, name: str, type: Type = INDEX) -> Var:
        """A scalar parameter."""
        var = Var(type, name)
        self._params.append(var)
        return var

    def _buffer(self, name: str, type: Type, size: int, access: Access, align: int) -> Buffer:
        buffer = Buffer(name, type, size, access, align)
        self._params.append(buffer)
        return buffer

    def parameter(self, name: str) -> Buffer:
        """The buffer parameter called `name`."""
        return next(p for p in self._params if isinstance(p, Buffer) and p.name == name)

    def finish(self) -> Function:
        """The function built."""
        return Function(self.name, tuple(self._params), tuple(self._block))

    # ---- operands

    def _new(self, type: Type, stem: str = "t") -> Var:
        self._count += 1
        return Var(type, f"{stem}{self._count}")

    def const(self, value: float | int | bool, type: Type) -> Const:
        """A constant; in a vector type, every lane holds it."""
        return Const(type, value)

    def vector_const(self, values: Sequence[float | int], type: Type) -> Const:
        """A vector constant from one number a lane; `type` is the element type."""
        return Const(type.vector(len(values)), tuple(values))

    def index(self, value: Index) -> Operand:
        """An index as an operand."""
        return Const(INDEX, value) if isinstance(value, int) else value

    def _unify(self, *values: Number) -> list[Operand]:
        """Operands of one type; see the module's docstring."""
        types = [value.type for value in values if isinstance(value, (Var, Const))]
        if not types:
            raise TypeError("no operand says the type; use const()")
        type = max(types, key=lambda t: t.lanes)
        unified: list[Operand] = []
        for value in values:
            if not isinstance(value, (Var, Const)):
                if isinstance(value, float) and not (type.is_float or value.is_integer()):
                    raise TypeError(f"the number {value} beside a {type} in {self.name}")
                unified.append(Const(type, value))
            elif value.type.scalar != type.scalar:
                raise TypeError(f"operands of types {value.type} and {type} in {self.name}")
            elif value.type.lanes != type.lanes:
                unified.append(self.splat(value, type.lanes))
            else:
                unified.append(value)
        return unified

    # ---- arithmetic

    def _arith(self, op: str, a: Number, b: Number) -> Any:
        plain_a, plain_b = not isinstance(a, (Var, Const)), not isinstance(b, (Var, Const))
        if plain_a and plain_b:
            if op in ("div", "rem"):
                quotient = int(a / b) if isinstance(a, float) or isinstance(b, float) else a // b  # type: ignore[operator]
                return quotient if op == "div" else a - quotient * b  # type: ignore[operator]
            return _FOLD[op](a, b)
        type = a.type if isinstance(a, (Var, Const)) else b.type  # type: ignore[union-attr]
        if type.kind == "n" and type.lanes == 1:
            if op in ("add", "sub") and plain_b and b == 0:
                return a
            if op == "add" and plain_a and a == 0:
                return b
            if op in ("mul", "div") and plain_b and b == 1:
                return a
            if op == "mul" and plain_a and a == 1:
                return b
            if op == "mul" and ((plain_b and b == 0) or (plain_a and a == 0)):
                return 0
            if op == "rem" and plain_b and b == 1:
                return 0
        return self._op2(op, a, b)

    def add(self, a: Number, b: Number) -> Any:
        """a + b."""
        return self._arith("add", a, b)

    def sub(self, a: Number, b: Number) -> Any:
        """a - b."""
        return self._arith("sub", a, b)

    def mul(self, a: Number, b: Number) -> Any:
        """a * b."""
        return self._arith("mul", a, b)

    def div(self, a: Number, b: Number) -> Any:
        """a / b; on integers the quotient truncated (of indices, which are never negative, the floor)."""
        return self._arith("div", a, b)

    def rem(self, a: Number, b: Number) -> Any:
        """The remainder of `div`, with the sign of a."""
        return self._arith("rem", a, b)

    def min(self, a: Number, b: Number) -> Any:
        """The smaller; NaN if either is; of zeros, which are equal, either."""
        return self._extremum("min", a, b)

    def max(self, a: Number, b: Number) -> Any:
        """The larger; NaN if either is; of zeros, which are equal, either."""
        return self._extremum("max", a, b)

    def _extremum(self, op: str, a: Number, b: Number) -> Any:
        """`op` of a and b. Where one is known not to be NaN, a comparison finds NaN in the other too."""
        value, limit = (b, a) if _is_number(a) else (a, b)
        if not (_is_number(limit) and isinstance(value, Var) and value.type.is_float):
            return self._arith(op, a, b)
        value, limit = self._unify(value, limit)
        return self.select(self.compare("gt" if op == "max" else "lt", limit, value), limit, value)

    def and_(self, a: Number, b: Number) -> Operand:
        """Bitwise and."""
        return self._op2("and", a, b)

    def or_(self, a: Number, b: Number) -> Operand:
        """Bitwise or."""
        return self._op2("or", a, b)

    def xor(self, a: Number, b: Number) -> Operand:
        """Bitwise exclusive or."""
        return self._op2("xor", a, b)

    def shl(self, a: Number, b: Number) -> Operand:
        """a shifted left by b bits, 0 <= b < bits."""
        return self._op2("shl", a, b)

    def shr(self, a: Number, b: Number) -> Operand:
        """a shifted right by b bits, keeping the sign of signed types."""
        return self._op2("shr", a, b)

    def _op2(self, op: str, a: Number, b: Number) -> Operand:
        if isinstance(a, (Var, Const)):
            if isinstance(b, int):
                return self._numbered(nodes.Arith, op, a, Const(a.type, b), a.type)
            if isinstance(b, (Var, Const)) and a.type is b.type:
                return self._numbered(nodes.Arith, op, a, b, a.type)
        left, right = self._unify(a, b)
        return self._numbered(nodes.Arith, op, left, right, left.type)

    def _numbered(
        self, kind: type[nodes.Arith] | type[nodes.Compare], op: str, a: Operand, b: Operand, type: Type
    ) -> Var:
        """Append an instruction; on indices, take the one that this block or one around it already has."""
        if a.type.kind != "n" or a.type.lanes != 1:
            result = self._new(type)
            self._block.append(kind(result, op, a, b))
            return result

        def build() -> Var:
            result = self._new(type)
            self._block.append(kind(result, op, a, b))
            return result

        left, right = (operand.value if isinstance(operand, Const) else operand for operand in (a, b))
        found: Var = self.once((op, left, right), build)
        return found

    def once(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """What `build` gives, or what it gave for the same key in this block or one around it."""
        for scope in self._known:
            if key in scope:
                return scope[key]
        built = self._known[-1][key] = build()
        return built

    def _inside(self, build: Callable[[], Any]) -> tuple[tuple[Instr, ...], Any]:
        """The instructions that `build` appends, as a block of their own, and what it returns."""
        outer, self._block = self._block, []
        self._known.append({})
        returned = build()
        self._known.pop()
        block, self._block = self._block, outer
        return tuple(block), returned

    def side_by_side(self, builds: Sequence[Callable[[], Any]]) -> list[Any]:
        """Build parts that do not need one another's values, an instruction of each in turn; returns what they return.

        Processors look ahead only so far: long chains of instructions overlap where they lie next to each other.
        """
        built = [self._inside(build) for build in builds]
        for turn in zip_longest(*(block for block, _ in built)):
            self._block.extend(instr for instr in turn if instr is not None)
        return [returned for _, returned in built]

    def fma(self, a: Number, b: Number, c: Number, exact: bool = False) -> Var:
        """a * b + c, rounded once; floats only.

        On machines without this instruction it is a product and a sum, each rounded, unless `exact`.
        """
        operands: list[Operand]
        if isinstance(a, Var) and isinstance(b, Var) and isinstance(c, (Var, Const)) and a.type is b.type is c.type:
            operands = [a, b, c]
        else:
            operands = self._unify(a, b, c)
        x, y, z = operands
        result = self._new(x.type)
        self._block.append(nodes.Fma(result, x, y, z, exact))
        return result

    def unary(self, op: str, a: Operand) -> Var:
        """neg abs sqrt floor ceil rint trunc not."""
        result = self._new(a.type)
        self._block.append(nodes.Unary(result, op, a))
        return result

    def neg(self, a: Operand) -> Var:
        """-a (of floats: the sign bit flipped)."""
        return self.unary("neg", a)

    def abs(self, a: Operand) -> Var:
        """The magnitude."""
        return self.unary("abs", a)

    def sqrt(self, a: Operand) -> Var:
        """The square root, correctly rounded."""
        return self.unary("sqrt", a)

    def floor(self, a: Operand) -> Var:
        """Rounded down to a whole float."""
        return self.unary("floor", a)

    def ceil(self, a: Operand) -> Var:
        """Rounded up to a whole float."""
        return self.unary("ceil", a)

    def rint(self, a: Operand) -> Var:
        """Rounded to the nearest whole float, halves to even."""
        return self.unary("rint", a)

    def trunc(self, a: Operand) -> Var:
        """Rounded towards zero to a whole float."""
        return self.unary("trunc", a)

    def not_(self, a: Operand) -> Var:
        """Bitwise (of bool: logical) not."""
        return self.unary("not", a)

    def compare(self, op: str, a: Number, b: Number) -> Operand:
        """eq ne lt le gt ge, giving bool lanes."""
        left, right = self._unify(a, b)
        return self._numbered(nodes.Compare, op, left, right, BOOL.vector(left.type.lanes))

    def select(self, condition: Operand, a: Number, b: Number) -> Var:
        """a where the condition holds, else b."""
        if isinstance(a, (Var, Const)) or isinstance(b, (Var, Const)):
            left, right = self._unify(a, b)
        else:
            raise TypeError("no operand says the type; use const()")
        lanes = condition.type.lanes
        if lanes > left.type.lanes:
            left, right = self.splat(left, lanes), self.splat(right, lanes)
        result = self._new(left.type)
        self._block.append(nodes.Select(result, condition, left, right))
        return result

    def convert(self, a: Operand, type: Type) -> Operand:
        """The value in element type `type` (a's lanes are kept); to bool: is not zero."""
        if a.type.scalar == type.scalar:
            return a
        if type.kind == "b":
            return self.compare("ne", a, 0)
        result = self._new(type.vector(a.type.lanes))
        self._block.append(nodes.Cast(result, "convert", a))
        return result

    def bitcast(self, a: Operand, type: Type) -> Operand:
        """The bits as element type `type` of the same width."""
        if a.type.scalar == type.scalar:
            return a
        result = self._new(type.vector(a.type.lanes))
        self._block.append(nodes.Cast(result, "bitcast", a))
        return result

    # ---- vectors

    def splat(self, a: Operand, lanes: int) -> Operand:
        """A scalar in every lane."""
        if a.type.lanes == lanes:
            return a
        if a.type.lanes != 1:
            raise TypeError(f"splat of a {a.type}")
        if isinstance(a, Const):
            return Const(a.type.vector(lanes), a.value)
        result = self._new(a.type.vector(lanes))
        self._block.append(nodes.Broadcast(result, a))
        return result

    def reduce(self, op: str, a: Operand) -> Operand:
        """One scalar from all lanes, of which there are a power of two: add mul min max and or."""
        if a.type.lanes == 1:
            return a
        if a.type.lanes & (a.type.lanes - 1):
            raise TypeError(f"reduction of a {a.type} in {self.name}, whose lanes are no power of two")
        result = self._new(a.type.scalar)
        self._block.append(nodes.ReduceLanes(result, op, a))
        return result

    def shuffle(self, a: Operand, b: Operand, lanes: Sequence[int]) -> Operand:
        """A vector of the chosen lanes of a (0 ..) and b (counted on from a's last)."""
        result = self._new(a.type.vector(len(lanes)))
        self._block.append(nodes.Shuffle(result, a, b, tuple(lanes)))
        return result

    def extract(self, a: Operand, lane: int) -> Operand:
        """One lane as a scalar."""
        if a.type.lanes == 1:
            return a
        result = self._new(a.type.scalar)
        self._block.append(nodes.Extract(result, a, lane))
        return result

    # ---- memory

    def load(
        self, buffer: Buffer, index: Index, lanes: int = 1, *, offset: int = 0, active: int | None = None
    ) -> Var:
        """`lanes` consecutive elements from `index + offset`; those from `active` on are not read and hold 0.

        Give constant distances as `offset`: accesses that share an index share their address computation.
        """
        if isinstance(index, int):
            index, offset = 0, index + offset
        result = self._new(buffer.type.vector(lanes))
        active = lanes if active is None else active
        self._block.append(nodes.Load(result, buffer, self.index(index), offset, active))
        return result

    def load_splat(self, buffer: Buffer, index: Index, lanes: int, *, offset: int = 0) -> Operand:
        """One element in every lane."""
        return self.splat(self.load(buffer, index, offset=offset), lanes)

    def gather(
        self,
        buffer: Buffer,
        index: Index,
        steps: Operand | Sequence[int],
        *,
        offset: int = 0,
        active: int | None = None,
    ) -> Var:
        """Lane k holds element `index + offset + steps[k]`; steps is an index vector or a list of ints."""
        chosen = steps if isinstance(steps, (Var, Const)) else self.vector_const(steps, INDEX)
        if isinstance(index, int):
            index, offset = 0, index + offset
        lanes = chosen.type.lanes
        result = self._new(buffer.type.vector(lanes))
        active = lanes if active is None else active
        self._block.append(nodes.Gather(result, buffer, self.index(index), offset, chosen, active))
        return result

    def store(
        self,
        buffer: Buffer,
        index: Index,
        value: Number,
        *,
        offset: int = 0,
        active: int | None = None,
        streaming: bool = False,
    ) -> None:
        """Write consecutive elements from `index + offset`; lanes from `active` on are not written.

        `streaming` asks to bypass the caches; the address must then be a multiple of the vector's size.
        """
        if isinstance(index, int):
            index, offset = 0, index + offset
        operand = value if isinstance(value, (Var, Const)) else Const(buffer.type, value)
        if operand.type.scalar != buffer.type:
            raise TypeError(f"store of {operand.type} into {buffer.type} buffer {buffer.name} in {self.name}")
        active = operand.type.lanes if active is None else active
        self._block.append(nodes.Store(buffer, self.index(index), offset, operand, active, streaming))

    def prefetch(self, buffer: Buffer, index: Index, *, offset: int = 0, locality: int = 3) -> None:
        """A hint that an element will be read; locality 3 keeps it in all caches, 2 from L2 on."""
        if isinstance(index, int):
            index, offset = 0, index + offset
        self._block.append(nodes.Prefetch(buffer, self.index(index), offset, locality))

    def alloc(self, name: str, type: Type, size: int) -> Buffer:
        """Scratch on the stack (keep it to a few kilobytes), undefined until written."""
        buffer = Buffer(f"{name}{self._count}", type, size, "local")
        self._count += 1
        self._block.append(nodes.Alloc(buffer))
        return buffer

    def ref(self, buffer: Buffer, index: Index = 0, offset: int = 0) -> Ref:
        """A buffer argument whose element 0 is `index + offset` here."""
        if isinstance(index, int):
            index, offset = 0, index + offset
        return Ref(buffer, self.index(index), offset)

    def call(self, function: Function, *arguments: Ref | Index) -> None:
        """Call another function of the module."""
        operands = tuple(Const(INDEX, a) if isinstance(a, int) else a for a in arguments)
        self._block.append(nodes.Call(function, operands))

    # ---- control

    def for_(
        self,
        lo: Index,
        hi: Index,
        body: Callable[[Any, list[Operand]], Sequence[Operand] | None],
        *,
        step: int = 1,
        carried: Sequence[Operand] = (),
    ) -> list[Operand]:
        """`for i in lo..hi step step`: `body(i, carried)` builds one and returns the new carried values.

        Returns the last ones. A range known to be empty builds nothing, one of a single iteration no loop.
        """
        if isinstance(lo, int) and isinstance(hi, int):
            if lo >= hi:
                return list(carried)
            if lo + step >= hi:
                return list(body(lo, list(carried)) or [])
        variable = self._new(INDEX, "i")
        inner = [self._new(value.type, "c") for value in carried]
        block, returned = self._inside(lambda: body(variable, list(inner)))
        yields = tuple(returned or ())
        if len(yields) != len(inner) or any(y.type != c.type for y, c in zip(yields, inner, strict=True)):
            raise TypeError(f"a loop of {self.name} yields other types than it carries")
        results = tuple(self._new(value.type, "r") for value in carried)
        self._block.append(
            nodes.For(
                variable, self.index(lo), self.index(hi), step, tuple(inner), tuple(carried), block, yields,
                results,
            )
        )  # fmt: skip
        return list(results)

    def if_(
        self, condition: Operand | bool, then: Callable[[], None], otherwise: Callable[[], None] | None = None
    ) -> None:
        """Build `then` or `otherwise` under a scalar bool; a Python bool chooses at once."""
        if isinstance(condition, bool):
            if condition:
                then()
            elif otherwise is not None:
                otherwise()
            return
        first, _ = self._inside(then)
        second, _ = self._inside(otherwise) if otherwise is not None else ((), None)
        self._block.append(nodes.If(condition, first, second))

    def tiled(self, n: int, step: int, body: Callable[[Any, int], None], *, start: int = 0) -> None:
        """Cover `start..n` in tiles: `body(i, width)` with width `step`, and once with the remainder."""
        whole = start + (n - start) // step * step
        self.for_(start, whole, lambda i, _: body(i, step), step=step)
        if whole < n:
            body(whole, n - whole)

    def lanes(self, n: int, width: int, body: Callable[[Any, int], None]) -> None:
        """Cover `0..n` with vectors: `body(i, active)`, the last one with fewer active lanes."""
        self.tiled(n, width, body)
