"""Resampling of both image axes at once, into a planar result.

    x  [N][C/W][h][w][W] or [N][C][h][w]      per output row: a whole source row's vertical taps, to scratch
    y  [N][C][H][Wd]                          per W pixels: horizontal taps, a W x W turn in registers

    y[n, c, i, j] = sum over s, t of weight_h[i, s] * weight_w[j, t] * x[n, c, index_h[i, s], index_w[j, t]]

A planar source is turned on its way into scratch. The tables are arguments; all indices must lie inside x.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tilewright.compiler.ir.types import ROW_MAJOR, Layout, TensorType
from tilewright.compiler.kernels.kernel import Kernel, KernelPlan, View
from tilewright.compiler.kernels.nest_tiles import MAX_TILE, transposed
from tilewright.compiler.kernels.tiles import STACK
from tilewright.compiler.loops import I64, INDEX, Buffer, Builder, Index, Operand
from tilewright.compiler.targets import Target

MAX_TAPS = 4
ITEM_ELEMENTS = 1 << 14


@dataclass(frozen=True)
class Resize2dPlan(KernelPlan):
    """`lanes` channels are computed together; `rows` output rows make an item."""

    template: ClassVar[str] = "resize2d"
    lanes: int
    rows: int


def plan(
    x: TensorType, index_h: TensorType, index_w: TensorType, *, blocked: bool, target: Target
) -> Resize2dPlan | None:
    """The plan for resampling axes 2 and 3 of rank-4 x, in blocks of channels or row-major; None if unfit."""
    lanes = min(target.lanes(x.dtype.bits), MAX_TILE)
    taps = max(index_h.shape[1], index_w.shape[1])
    fits = x.rank == 4 and x.dtype.is_float and x.dtype.bits in (32, 64) and taps <= MAX_TAPS
    if not fits or lanes < 4 or x.shape[3] * lanes * x.dtype.bytes > STACK:
        return None
    if blocked and lanes != target.lanes(x.dtype.bits):
        return None
    source = Layout(blocks=((1, lanes),)) if blocked else ROW_MAJOR
    rows = max(ITEM_ELEMENTS // (lanes * index_w.shape[0]), 1)
    return Resize2dPlan((source, *(ROW_MAJOR,) * 4), ROW_MAJOR, lanes, rows)


def build(
    name: str, plan: Resize2dPlan, x: TensorType, index_h: TensorType, index_w: TensorType, y: TensorType
) -> Kernel:
    """The kernel over buffers x, index_h, weight_h, index_w, weight_w, y; items: rows of channel blocks."""
    lanes = plan.lanes
    images, channels, height, width = y.shape
    source_width = x.shape[3]
    (out_h, taps_h), (out_w, taps_w) = index_h.shape, index_w.shape
    view, target = View.of(x), View.of(y)
    blocks, chunks = -(-channels // lanes), -(-height // plan.rows)

    b = Builder(name)
    source = b.input("x", view.type, view.size)
    rows, row_weights = (
        b.input("index_h", I64, out_h * taps_h),
        b.input("weight_h", view.type, out_h * taps_h),
    )
    columns, weights = b.input("index_w", I64, out_w * taps_w), b.input("weight_w", view.type, out_w * taps_w)
    result = b.output("y", target.type, target.size)
    begin, end = b.scalar("begin"), b.scalar("end")
    scratch = b.alloc("row", view.type, source_width * lanes)

    def tapped(table: Buffer, factors: Buffer, at: Index, taps: int) -> list[tuple[Operand, Operand]]:
        """The source indices and weights of the output position whose tables start at `at`."""
        return [
            (b.convert(b.load(table, at, offset=t), INDEX), b.load_splat(factors, at, lanes, offset=t))
            for t in range(taps)
        ]

    def weighted(terms: Sequence[tuple[Operand, Operand]]) -> Operand:
        """The sum of value * weight."""
        total: Operand = b.mul(terms[0][0], terms[0][1])
        for value, weight in terms[1:]:
            total = b.fma(value, weight, total)
        return total

    def vertical(n: Index, block: Index, row: Index, valid: int) -> None:
        """One row of the source's columns at output row `row`, channels innermost, into scratch."""
        taps = tapped(rows, row_weights, b.mul(row, taps_h), taps_h)
        starts = []
        for at, weight in taps:
            coordinates = [(n, 0), (b.mul(block, lanes), 0), (at, 0), (0, 0)]
            starts.append((*view.address(b, coordinates), weight))
        if x.layout.blocks:

            def column(j: Index) -> None:
                index = b.mul(j, lanes)
                values = [(b.load(source, b.add(s, index), lanes, offset=o), w) for s, o, w in starts]
                b.store(scratch, index, weighted(values))

            b.for_(0, source_width, lambda j, _: column(j))
            return

        def tile(j: Index, pixels: int) -> None:
            planar = [
                weighted([
                    (b.load(source, b.add(s, j), lanes, offset=o + c * view.outer[1], active=pixels), w)
                    for s, o, w in starts
                ])
                for c in range(valid)
            ]  # fmt: skip
            zero = b.const(0, view.type.vector(lanes))
            for p, vector in enumerate(transposed(b, planar + [zero] * (lanes - valid))[:pixels]):
                b.store(scratch, b.mul(j, lanes), vector, offset=p * lanes)

        b.lanes(source_width, lanes, tile)

    def horizontal(n: Index, block: Index, row: Index, valid: int) -> None:
        """The row's output pixels."""
        start, origin = target.address(b, [(n, 0), (b.mul(block, lanes), 0), (row, 0), (0, 0)])

        def tile(j: Index, pixels: int) -> None:
            mixed = []
            for p in range(pixels):
                at = b.mul(b.add(j, p), taps_w) if isinstance(j, int) else b.mul(j, taps_w)
                offset = 0 if isinstance(j, int) else p * taps_w
                terms = []
                for t in range(taps_w):
                    where = b.convert(b.load(columns, at, offset=offset + t), INDEX)
                    weight = b.load_splat(weights, at, lanes, offset=offset + t)
                    terms.append((b.load(scratch, b.mul(where, lanes), lanes), weight))
                mixed.append(weighted(terms))
            mixed += [mixed[0]] * (lanes - pixels)
            for c, vector in enumerate(transposed(b, mixed)[:valid]):
                b.store(result, b.add(start, j), vector, offset=origin + c * target.outer[1], active=pixels)

        b.lanes(width, lanes, tile)

    def item(i: Any, _: list[Operand]) -> None:
        part, rest = b.rem(i, chunks), b.div(i, chunks)
        block, n = b.rem(rest, blocks), b.div(rest, blocks)
        first = b.mul(part, plan.rows)
        last = b.min(b.add(first, plan.rows), height)

        def compute(valid: int) -> None:
            def row(r: Any, _: list[Operand]) -> None:
                vertical(n, block, r, valid)
                horizontal(n, block, r, valid)

            b.for_(first, last, row)

        partial = channels % lanes
        if not partial:
            compute(lanes)
        elif blocks == 1:
            compute(partial)
        else:
            b.if_(b.compare("eq", block, blocks - 1), lambda: compute(partial), lambda: compute(lanes))

    b.for_(begin, end, item)
    return Kernel(b.finish(), images * blocks * chunks, flops=2 * y.elements * (taps_h + taps_w))
