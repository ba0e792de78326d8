"""Weighted sums of slices along one axis: y[o, i, :] = sum over t of weight[i, t] * x[o, index[i, t], :].

Lanes run along the axes inside; where there are none, along i, with the taps gathered.
"""

from math import prod
from typing import Any

from tilewright.compiler.ir.types import TensorType
from tilewright.compiler.kernels.gather import ITEM_ELEMENTS, in_range, lookup
from tilewright.compiler.kernels.kernel import Kernel, loop_type
from tilewright.compiler.loops import Builder, Index, Operand
from tilewright.compiler.targets import Target

UNROLLED_TAPS = 8
"""Up to so many taps stand in registers."""


def build(
    name: str, x: TensorType, index: TensorType, weight: TensorType, *, attrs: int, target: Target
) -> Kernel:
    """The sums along axis `attrs` of row-major x; buffers x, index, weight, y; items are chunks of rows."""
    inner = prod(x.shape[attrs + 1 :])
    if inner == 1 and index.shape[1] <= UNROLLED_TAPS:
        return _along(name, x, index, attrs, target)
    outer, size = prod(x.shape[:attrs]), x.shape[attrs]
    n, taps = index.shape
    type = loop_type(x.dtype)
    b = Builder(name)
    source, table = b.input("x", type, x.elements), b.input("index", loop_type(index.dtype), n * taps)
    factors, y = b.input("weight", type, n * taps), b.output("y", type, outer * n * inner)
    begin, end = b.scalar("begin"), b.scalar("end")
    lanes = min(target.lanes(x.dtype.bits), 1 << (inner - 1).bit_length())
    rows, chunk = outer * n, max(ITEM_ELEMENTS // (inner * taps), 1)

    def item(i: Any, _: list[Operand]) -> None:
        lo = b.mul(i, chunk)

        def row(r: Any, _: list[Operand]) -> None:
            o, at = b.div(r, n), b.mul(b.rem(r, n), taps)

            def tap(t: Index) -> tuple[Operand, Operand]:
                """Where the slice starts, and its weight in every lane."""
                found = in_range(b, b.load(table, b.add(at, t)), size)
                return b.mul(b.add(b.mul(o, size), found), inner), b.load_splat(factors, b.add(at, t), lanes)

            known = [tap(t) for t in range(taps)] if taps <= UNROLLED_TAPS else []

            def vector(k: Index, active: int) -> None:
                def add(total: Operand, start: Index, factor: Operand) -> Operand:
                    value = b.load(source, b.add(start, k), lanes, active=active)
                    return _plus(b, total, factor, value)

                total: Operand = b.const(0, type.vector(lanes))
                if known:
                    for start, factor in known:
                        total = add(total, start, factor)
                else:
                    (total,) = b.for_(0, taps, lambda t, c: [add(c[0], *tap(t))], carried=[total])
                b.store(y, b.add(b.mul(r, inner), k), total, active=active)

            b.lanes(inner, lanes, vector)

        b.for_(lo, b.min(b.add(lo, chunk), rows), row)

    b.for_(begin, end, item)
    return Kernel(b.finish(), -(-rows // chunk), flops=2 * rows * inner * taps)


def _along(name: str, x: TensorType, index: TensorType, axis: int, target: Target) -> Kernel:
    """The same for the innermost axis: lanes along it; the taps' tables serve all rows of an item."""
    outer, size = prod(x.shape[:axis]), x.shape[axis]
    n, taps = index.shape
    type = loop_type(x.dtype)
    b = Builder(name)
    source, table = b.input("x", type, x.elements), b.input("index", loop_type(index.dtype), n * taps)
    factors, y = b.input("weight", type, n * taps), b.output("y", type, outer * n)
    begin, end = b.scalar("begin"), b.scalar("end")
    lanes = min(target.lanes(max(x.dtype.bits, 32)), 1 << (n - 1).bit_length())
    chunk = max(ITEM_ELEMENTS // n, 1)

    def item(i: Any, _: list[Operand]) -> None:
        lo = b.mul(i, chunk)
        hi = b.min(b.add(lo, chunk), outer)

        def column(k: Index, active: int) -> None:
            at = b.mul(k, taps)
            known = []
            for t in range(taps):
                steps = [lane * taps for lane in range(lanes)]
                if lanes == 1:
                    found, factor = b.load(table, at, offset=t), b.load(factors, at, offset=t)
                else:
                    found = b.gather(table, at, steps, offset=t, active=active)
                    factor = b.gather(factors, at, steps, offset=t, active=active)
                known.append((in_range(b, found, size), factor))

            def row(r: Any, _: list[Operand]) -> None:
                total: Operand = b.const(0, type.vector(lanes))
                for found, factor in known:
                    total = _plus(b, total, factor, lookup(b, source, b.mul(r, size), found, active))
                b.store(y, b.add(b.mul(r, n), k), total, active=active)

            b.for_(lo, hi, row)

        b.lanes(n, lanes, column)

    b.for_(begin, end, item)
    return Kernel(b.finish(), -(-outer // chunk), flops=2 * outer * n * taps)


def _plus(b: Builder, total: Operand, factor: Operand, value: Operand) -> Operand:
    if value.type.is_float:
        return b.fma(factor, value, total)
    added: Operand = b.add(total, b.mul(factor, value))
    return added
