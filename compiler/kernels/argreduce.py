"""The position of the largest or smallest element along an axis.

Lanes keep their best value and its position; where lanes run along the axis itself, the best of the lanes is
chosen at the end. A NaN counts as the extreme element. Of equal elements the first counts, or the last.
"""

from math import prod
from typing import Any

from tilewright.compiler.ir.types import TensorType
from tilewright.compiler.kernels.kernel import Kernel, loop_type
from tilewright.compiler.loops import I64, Builder, Const, Index, Operand
from tilewright.compiler.targets import Target

ITEM_ELEMENTS = 1 << 13


def build(name: str, x: TensorType, *, attrs: tuple[bool, int, bool], target: Target) -> Kernel:
    """Positions (i64) in row-major x; `attrs` is (largest, axis, last of equals); buffers x, y."""
    largest, axis, last = attrs
    outer, size, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    type = loop_type(x.dtype)
    b = Builder(name)
    source, y = b.input("x", type, x.elements), b.output("y", I64, outer * inner)
    begin, end = b.scalar("begin"), b.scalar("end")
    lanes = target.lanes(64)

    def better(value: Operand, best: Operand, or_equal: bool) -> Operand:
        """Where `value` replaces `best`: it is more extreme, or the first NaN (or equal, or the last NaN)."""
        order = ("g" if largest else "l") + ("e" if or_equal else "t")
        found = b.compare(order, value, best)
        if not value.type.is_float:
            return found
        new_nan, old_nan = b.compare("ne", value, value), b.compare("ne", best, best)
        # A comparison with NaN is false, so a best that is NaN stays unless the value is NaN too.
        return b.or_(found, new_nan if or_equal else b.and_(new_nan, b.not_(old_nan)))

    def take(state: list[Operand], value: Operand, at: Operand, or_equal: bool, valid: int) -> list[Operand]:
        best, position = state
        chosen = better(value, best, or_equal)
        if valid < value.type.lanes:
            mask = b.vector_const([lane < valid for lane in range(value.type.lanes)], chosen.type.scalar)
            chosen = b.and_(chosen, mask)
        return [b.select(chosen, value, best), b.select(chosen, at, position)]

    def position(k: Index, width: int) -> Operand:
        return b.splat(b.convert(b.index(k), I64), width)

    if inner == 1:
        width = min(lanes, 1 << (size - 1).bit_length())
        chunk = max(ITEM_ELEMENTS // size, 1)

        def row(r: Any, _: list[Operand]) -> None:
            start = b.mul(r, size)
            steps = Const(I64.vector(width), tuple(range(width))) if width > 1 else Const(I64, 0)
            first = min(width, size)
            state: list[Operand] = [b.load(source, start, width, active=first), steps]
            whole = size // width * width

            def vector(k: Any, state: list[Operand], active: int = width) -> list[Operand]:
                value = b.load(source, b.add(start, k), width, active=active)
                return take(state, value, b.add(position(k, width), steps), last, active)

            state = b.for_(width, whole, vector, step=width, carried=state)
            if width <= whole < size:
                state = vector(whole, state, size - whole)
            best, at = b.extract(state[0], 0), b.extract(state[1], 0)
            for lane in range(1, first):
                value, where = b.extract(state[0], lane), b.extract(state[1], lane)
                nearer = b.compare("gt" if last else "lt", where, at)
                if value.type.is_float:
                    both = b.and_(b.compare("ne", value, value), b.compare("ne", best, best))
                    equal = b.or_(b.compare("eq", value, best), both)
                else:
                    equal = b.compare("eq", value, best)
                chosen = b.or_(b.and_(better(value, best, False), b.not_(equal)), b.and_(equal, nearer))
                best, at = b.select(chosen, value, best), b.select(chosen, where, at)
            b.store(y, r, at)

        def item(i: Any, _: list[Operand]) -> None:
            lo = b.mul(i, chunk)
            b.for_(lo, b.min(b.add(lo, chunk), outer), row)

        b.for_(begin, end, item)
        return Kernel(b.finish(), -(-outer // chunk))

    width = min(lanes, 1 << (inner - 1).bit_length())
    vectors = -(-inner // width)
    chunk = min(max(ITEM_ELEMENTS // (size * width), 1), vectors)
    chunks = -(-vectors // chunk)
    whole = inner // width * width

    def item_of_columns(i: Any, _: list[Operand]) -> None:
        o, part = b.div(i, chunks), b.rem(i, chunks)
        lo = b.mul(part, chunk * width)

        def column(c: Index, active: int) -> None:
            base = b.add(b.mul(o, size * inner), c)
            state: list[Operand] = [b.load(source, base, width, active=active), b.const(0, I64.vector(width))]

            def along(k: Any, state: list[Operand]) -> list[Operand]:
                value = b.load(source, b.add(base, b.mul(k, inner)), width, active=active)
                return take(state, value, position(k, width), last, width)

            _, at = b.for_(1, size, along, carried=state)
            b.store(y, b.add(b.mul(o, inner), c), at, active=active)

        b.for_(lo, b.min(b.add(lo, chunk * width), whole), lambda c, _: column(c, width), step=width)
        if whole < inner:
            b.if_(
                b.compare("eq", part, chunks - 1) if chunks > 1 else True,
                lambda: column(whole, inner - whole),
            )

    b.for_(begin, end, item_of_columns)
    return Kernel(b.finish(), outer * chunks)
