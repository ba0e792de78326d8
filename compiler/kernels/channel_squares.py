"""Sums of squares over neighbouring channels of the same pixel, which local response normalisation divides by.

    y[n, c, ..] = sum of x[n, c + k, ..]**2 for -before <= k <= after, as far as there are channels

    blocked    item = (image, band of rows, channel block): for each pixel the block and its neighbours are squared,
               then lanes change places: for W = 4, c + 1 is x1 x2 x3 of the block and x0 of the next one
    row-major  item = (image, channel, outer position): for vector of the row: for channel: acc += x * x

The results go through the epilogue, which may read x again at no cost: it has just been loaded.
"""

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import ClassVar

from tilewright.compiler.ir.types import ROW_MAJOR, Layout, TensorType
from tilewright.compiler.kernels.conv_tiles import FLOATS
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import unflatten
from tilewright.compiler.loops import F32, Builder, Index, Operand
from tilewright.compiler.targets import Target

BAND = 256
"""Pixels of an item, about: all blocks of a band are near when their neighbours are computed."""
PIXELS = 4
"""Computed side by side in blocks."""
MOST_SHIFTED = 32
"""Neighbours whose lanes change places in registers; more are added up in a loop over row-major data."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """How many channels before and after each one are added, by vectors of `lanes`."""

    template: ClassVar[str] = "channel_squares"
    lanes: int
    before: int
    after: int

    @property
    def blocked(self) -> bool:
        """Whether x lies in blocks of channels."""
        return bool(self.result_layout.blocks)


def plan(x: TensorType, *, before: int, after: int, blocked: bool, target: Target) -> Plan | None:
    """How to compute this of x (N, C, *spatial), which lies in blocks if `blocked`; None for empty tensors."""
    if not x.elements:
        return None
    lanes = target.lanes(max(x.dtype.bits, 32))
    layout = ROW_MAJOR
    if blocked and x.rank == 4 and x.dtype.name in FLOATS and before + after <= MOST_SHIFTED:
        layout = Layout(blocks=((1, lanes),))
    return Plan((layout,), layout, lanes, before, after)


def build(name: str, plan: Plan, x: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """The kernel of `plan`, with buffer x and the epilogue's.

    The epilogue gets vectors along axis 1 of blocked data, and then also of the lanes that fill the last block, of
    any value; else along the last axis.
    """
    b = Builder(name)
    flops = 2 * x.elements * (plan.before + plan.after + 1)
    items = _blocked(b, plan, x, epilogue) if plan.blocked else _row_major(b, plan, x, epilogue)
    return Kernel(b.finish(), items, flops)


def _blocked(b: Builder, plan: Plan, x: TensorType, epilogue: Epilogue) -> int:
    """Emit the loops over blocks; returns the number of items."""
    view, lanes, (batch, channels, height, width) = View.of(x), plan.lanes, x.shape
    x_buffer = b.input("x", view.type, view.size)
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")
    blocks, rows = -(-channels // lanes), min(-(-BAND // width), height)
    bands = -(-height // rows)
    zero = b.const(0.0, view.type.vector(lanes))
    near = range(-plan.before // lanes, (plan.after + lanes - 1) // lanes + 1)

    def item(index: Index, _: list[Operand]) -> None:
        block, outer = b.rem(index, blocks), b.div(index, blocks)
        image, band = b.div(outer, bands), b.rem(outer, bands)
        first = b.mul(band, rows)
        last = height if bands == 1 else b.min(b.add(first, rows), height)
        # Blocks that do not exist are read where one does, and count as zeros.
        starts: dict[int, Index] = {}
        exist: dict[int, Operand] = {}
        for q in near if blocks > 1 else (0,):
            at = b.add(block, q)
            inside = b.max(b.min(at, blocks - 1), 0) if q else at
            starts[q] = b.add(b.mul(image, view.outer[0]), b.mul(inside, view.outer[1]))
            if q:
                exist[q] = b.splat(b.compare("eq", at, inside), lanes)

        def tile(row: Index, column: Index, pixels: int) -> None:
            place = b.add(b.mul(row, view.outer[2]), b.mul(column, view.outer[3]))

            def one(pixel: int) -> None:
                squares: dict[int, Operand] = dict.fromkeys(near, zero)
                for q, start in starts.items():
                    offset = view.origin + pixel * view.outer[3]
                    value = b.load(x_buffer, b.add(start, place), lanes, offset=offset)
                    square = b.mul(value, value)
                    squares[q] = b.select(exist[q], square, 0) if q in exist else square
                total = None
                for k in range(-plan.before, plan.after + 1):
                    q, shift = divmod(k, lanes)
                    shifted = squares[q]
                    if shift:
                        shifted = b.shuffle(squares[q], squares[q + 1], range(shift, shift + lanes))
                    total = shifted if total is None else b.add(total, shifted)
                assert total is not None
                epilogue.store(b, ((image, 0), (b.mul(block, lanes), 0), (row, 0), (column, pixel)), total, lanes)

            b.side_by_side([partial(one, pixel) for pixel in range(pixels)])

        def row_of_tiles(row: Index, _: list[Operand]) -> None:
            b.tiled(width, PIXELS, lambda column, pixels: tile(row, column, pixels))

        b.for_(first, last, row_of_tiles)

    b.for_(begin, end, item)
    return batch * bands * blocks


def _row_major(b: Builder, plan: Plan, x: TensorType, epilogue: Epilogue) -> int:
    """Emit the loops over rows; returns the number of items. Narrow floats are added up in float32."""
    view, channels = View.of(x), x.shape[1]
    wide = view.type if view.type.bits >= 32 else F32
    x_buffer = b.input("x", view.type, view.size)
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")

    def item(index: Index, _: list[Operand]) -> None:
        at = unflatten(b, index, x.shape[:-1])
        image, channel, *outer = at
        start: Index = b.mul(image, view.outer[0])
        for position, stride in zip(outer, view.outer[2:], strict=False):
            start = b.add(start, b.mul(position, stride))
        first = b.max(b.sub(channel, plan.before), 0) if plan.before else channel
        last = b.min(b.add(channel, plan.after + 1), channels)

        def vector(column: Index, active: int) -> None:
            def add(c: Index, total: list[Operand]) -> list[Operand]:
                place = b.add(b.add(start, b.mul(c, view.outer[1])), column)
                loaded = b.load(x_buffer, place, plan.lanes, offset=view.origin, active=active)
                value = b.convert(loaded, wide)
                return [b.fma(value, value, total[0])]

            (total,) = b.for_(first, last, add, carried=[b.const(0.0, wide.vector(plan.lanes))])
            epilogue.store(b, [*((i, 0) for i in at), (column, 0)], b.convert(total, view.type), active)

        b.lanes(x.shape[-1], plan.lanes, vector)

    b.for_(begin, end, item)
    return prod(x.shape[:-1])
