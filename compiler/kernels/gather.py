"""Elements and slices looked up by index.

    gather           y[o, i, :] = x[o, index[i], :]         rows copied; lanes along i if they hold one
    gather_elements  y[.., k, ..] = x[.., index[.., k, ..], ..]

Negative indices count from the end; those beyond either end are clamped, so nothing outside is ever read.
"""

from math import prod
from typing import Any

from tilewright.compiler.ir.types import TensorType, row_major_strides
from tilewright.compiler.kernels.kernel import Kernel, loop_type
from tilewright.compiler.loops import I64, INDEX, Buffer, Builder, Index, Operand
from tilewright.compiler.targets import Target

ITEM_ELEMENTS = 1 << 12
"""Elements an item should move at least."""


def in_range(b: Builder, index: Operand, size: int) -> Operand:
    """Any integer as an index operand, or a vector of them, in 0..size-1."""
    wide = b.convert(index, I64)
    wide = b.select(b.compare("lt", wide, 0), b.add(wide, size), wide)
    return b.convert(b.min(b.max(wide, 0), size - 1), INDEX)


def lookup(b: Builder, x: Buffer, base: Index, steps: Operand, active: int) -> Operand:
    """The elements `base + steps`, one a lane."""
    if steps.type.lanes == 1:
        return b.load(x, b.add(base, steps))
    return b.gather(x, base, steps, active=active)


def build(name: str, x: TensorType, indices: TensorType, *, attrs: int, target: Target) -> Kernel:
    """Slices of row-major x along axis `attrs`, as numpy.take; buffers x, index, y; items: chunks of rows."""
    axis = attrs
    outer, size, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    count = indices.elements
    type = loop_type(x.dtype)
    b = Builder(name)
    source = b.input("x", type, x.elements)
    index = b.input("index", loop_type(indices.dtype), count)
    y = b.output("y", type, outer * count * inner)
    begin, end = b.scalar("begin"), b.scalar("end")
    lanes = target.lanes(x.dtype.bits)
    if inner == 1:
        lanes = target.lanes(max(x.dtype.bits, 32))
        chunk = -(-ITEM_ELEMENTS // lanes) * lanes
        chunks = -(-count // chunk)
        whole = count // lanes * lanes

        def item(i: Any, _: list[Operand]) -> None:
            row, part = b.div(i, chunks), b.rem(i, chunks)
            lo = b.mul(part, chunk)

            def vector(at: Index, active: int) -> None:
                found = in_range(b, b.load(index, at, lanes, active=active), size)
                value = lookup(b, source, b.mul(row, size), found, active)
                b.store(y, b.add(b.mul(row, count), at), value, active=active)

            b.for_(lo, b.min(b.add(lo, chunk), whole), lambda at, _: vector(at, lanes), step=lanes)
            if whole < count:
                last = b.compare("eq", part, chunks - 1) if chunks > 1 else True
                b.if_(last, lambda: vector(whole, count - whole))

        b.for_(begin, end, item)
        return Kernel(b.finish(), outer * chunks)

    rows = outer * count
    lanes = min(lanes, 1 << (inner - 1).bit_length())
    chunk = max(ITEM_ELEMENTS // inner, 1)

    def item_of_rows(i: Any, _: list[Operand]) -> None:
        lo = b.mul(i, chunk)

        def row(r: Any, _: list[Operand]) -> None:
            o = b.div(r, count)
            found = in_range(b, b.load(index, b.rem(r, count)), size)
            start = b.mul(b.add(b.mul(o, size), found), inner)
            at = b.mul(r, inner)

            def copy(k: Index, active: int) -> None:
                b.store(y, b.add(at, k), b.load(source, b.add(start, k), lanes, active=active), active=active)

            b.lanes(inner, lanes, copy)

        b.for_(lo, b.min(b.add(lo, chunk), rows), row)

    b.for_(begin, end, item_of_rows)
    return Kernel(b.finish(), -(-rows // chunk))


def build_elements(name: str, x: TensorType, indices: TensorType, *, attrs: int, target: Target) -> Kernel:
    """Elements of row-major x along axis `attrs`, as numpy.take_along_axis; items are chunks of rows."""
    axis, shape, rank = attrs, indices.shape, x.rank
    strides = row_major_strides(x.shape)
    length, rows = shape[-1], prod(shape[:-1])
    type = loop_type(x.dtype)
    b = Builder(name)
    source = b.input("x", type, x.elements)
    index = b.input("index", loop_type(indices.dtype), indices.elements)
    y = b.output("y", type, indices.elements)
    begin, end = b.scalar("begin"), b.scalar("end")
    lanes = min(target.lanes(max(x.dtype.bits, 32)), 1 << (length - 1).bit_length())
    chunk = max(ITEM_ELEMENTS // length, 1)

    def item(i: Any, _: list[Operand]) -> None:
        lo = b.mul(i, chunk)

        def row(r: Any, _: list[Operand]) -> None:
            base: Index = 0
            rest: Index = r
            for a in reversed(range(rank - 1)):
                at = b.rem(rest, shape[a]) if a else rest
                rest = b.div(rest, shape[a])
                if a != axis:
                    base = b.add(base, b.mul(at, strides[a]))

            def vector(k: Index, active: int) -> None:
                where = b.add(b.mul(r, length), k)
                found = in_range(b, b.load(index, where, lanes, active=active), x.shape[axis])
                start = base
                if axis != rank - 1:
                    start = b.add(base, k)
                    found = b.mul(found, strides[axis])
                    if lanes > 1:
                        found = b.add(found, b.vector_const(range(lanes), INDEX))
                b.store(y, where, lookup(b, source, start, found, active), active=active)

            b.lanes(length, lanes, vector)

        b.for_(lo, b.min(b.add(lo, chunk), rows), row)

    b.for_(begin, end, item)
    return Kernel(b.finish(), -(-rows // chunk))
