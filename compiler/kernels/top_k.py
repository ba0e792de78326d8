"""Where the k largest or smallest elements along an axis lie, the best first.

The result is the list itself: each element is held against the worst listed one, and where it is better it
moves up to its place. For k of n elements in random order that makes about k log(n / k) insertions; it is meant
for k much smaller than n. Of equal elements the first is better; a NaN counts as the largest element.
"""

from math import prod
from typing import Any

from tilewright.compiler.ir.types import TensorType
from tilewright.compiler.kernels.kernel import Kernel, loop_type
from tilewright.compiler.loops import I64, INDEX, Builder, Index, Operand
from tilewright.compiler.loops.nodes import BOOL
from tilewright.compiler.targets import Target

ITEM_ELEMENTS = 1 << 13


def build(name: str, x: TensorType, *, attrs: tuple[int, int, bool], target: Target) -> Kernel:
    """Positions (i64) in row-major x; `attrs` is (axis, k, largest); buffers x, y; items: chunks of rows."""
    axis, k, largest = attrs
    outer, size, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    type = loop_type(x.dtype)
    b = Builder(name)
    source, y = b.input("x", type, x.elements), b.inout("y", I64, outer * k * inner)
    begin, end = b.scalar("begin"), b.scalar("end")
    rows = outer * inner
    chunk = max(ITEM_ELEMENTS // size, 1)

    def better(value: Operand, than: Operand) -> Operand:
        found = b.compare("gt" if largest else "lt", value, than)
        if not value.type.is_float:
            return found
        new, old = (value, than) if largest else (than, value)
        only_new = b.and_(b.compare("ne", new, new), b.compare("eq", old, old))
        return b.or_(found, only_new)

    def row(r: Any, _: list[Operand]) -> None:
        o, i = b.div(r, inner), b.rem(r, inner)
        at, listed = b.add(b.mul(o, size * inner), i), b.add(b.mul(o, k * inner), i)

        def place(slot: Index) -> Any:
            return b.add(listed, b.mul(slot, inner))

        def element(position: Operand) -> Operand:
            return b.load(source, b.add(at, b.mul(b.convert(position, INDEX), inner)))

        def insert(position: Any, count: Index) -> Operand:
            """Hand the position through a list of `count`; what it displaces moves down, the last comes out."""

            def step(slot: Any, carried: list[Operand]) -> list[Operand]:
                moving, placed = carried
                there = b.load(y, place(slot))
                # What was displaced goes before all that follows, equal elements too.
                first = b.or_(placed, better(element(moving), element(there)))
                b.store(y, place(slot), b.select(first, moving, there))
                return [b.select(first, there, moving), first]

            start = [b.convert(b.index(position), I64), b.const(False, BOOL)]
            left, _ = b.for_(0, count, step, carried=start)
            return left

        b.for_(0, k, lambda position, _: b.store(y, place(position), insert(position, position)))

        def consider(position: Any, _: list[Operand]) -> None:
            value = b.load(source, b.add(at, b.mul(position, inner)))
            worst = element(b.load(y, place(k - 1)))

            def take() -> None:
                insert(position, k)

            b.if_(better(value, worst), take)

        b.for_(k, size, consider)

    def item(i: Any, _: list[Operand]) -> None:
        lo = b.mul(i, chunk)
        b.for_(lo, b.min(b.add(lo, chunk), rows), row)

    b.for_(begin, end, item)
    return Kernel(b.finish(), -(-rows // chunk))
