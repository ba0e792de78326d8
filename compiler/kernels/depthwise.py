"""Depthwise 2-D convolution: every channel has its own filter, and the lanes of a vector are channels.

    x       [N][C/W][H + pads][W + pads][W]
    w       [C/W][1][KH][KW][W]
    result  in blocks of W channels, through the epilogue

    for item (channel block x band of rows):             plan.window: the whole filter in registers
      load KH*KW filter vectors
      for tile of R x T pixels:
        for every x vector of its window: one load, a multiply-add for each output it reaches
        epilogue(sums)

Filters too large for the registers go row by row: a loop over KH carries the sums of one row of T pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.kernels.conv_tiles import (
    FLOATS,
    Pads,
    Pair,
    check_pads,
    needed_pad,
    output_size,
    split,
)
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import multiply_add
from tilewright.compiler.loops import Builder, Index, Operand
from tilewright.compiler.targets import Target

BAND = 256
"""Pixels of an item, about: enough work to outweigh its start, little enough to share between threads."""
WIDEST = 7
"""The widest filter row: it stays in registers."""
UNSTRIDED, STRIDED = 14, 9
"""The most pixels of a tile elsewhere than on x86. Strides make every input serve fewer of them, and LLVM loads many
inputs early: with larger tiles it runs out of registers."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """The tile, the rows of an item, and whether the whole filter stays in registers."""

    template: ClassVar[str] = "depthwise"
    lanes: int
    rows: int
    pixels: int
    band: int
    window: bool
    strides: Pair
    pads: Pads
    dilations: Pair


def plan(
    x: TensorType,
    w: TensorType,
    *,
    strides: Pair,
    pads: Pads,
    dilations: Pair,
    groups: int,
    target: Target,
) -> Plan | None:
    """How to convolve x (N, C, H, W) with w (C, 1, KH, KW), one filter a channel.

    Applies to f32 and f64 with groups = C = O, filters at most 7 wide, pads that are not negative and
    non-empty results; else None.
    """
    lanes = target.lanes(x.dtype.bits)
    if x.rank != 4 or w.rank != 4 or x.dtype.name not in FLOATS or w.dtype != x.dtype:
        return None
    if min(*x.shape, *w.shape) < 1 or min(*pads[0], *pads[1]) < 0:
        return None
    kernel = w.shape[2:]
    if w.shape[:2] != (x.shape[1], 1) or groups != x.shape[1] or kernel[1] > WIDEST:
        return None
    geometry = list(zip(x.shape[2:], kernel, strides, pads, dilations, strict=True))
    height, width = (output_size(*axis) for axis in geometry)
    if height < 1 or width < 1:
        return None
    room = target.registers - kernel[0] * kernel[1] - 2
    # Elsewhere than on x86, multiply-adds take no operand from memory: loads need registers of their own, and the
    # whole filter beside a tile and its epilogue leaves too few.
    x86 = target.triple.startswith(("x86", "i686"))
    window = room >= 8 and x86
    rows = 2 if window and height > 1 else 1
    most = target.registers - kernel[1] - 2
    if not x86:
        most = min(most, UNSTRIDED if strides[1] == 1 else STRIDED)
    pixels = min(room // rows if window else most, width)
    band = min(-(-BAND // width // rows) * rows, -(-height // rows) * rows)
    layout = Layout(blocks=((1, lanes),))
    return Plan(
        operand_layouts=(
            layout.with_pads(((0, 0), (0, 0), *(needed_pad(*axis) for axis in geometry))),
            Layout(blocks=((0, lanes),)),
        ),
        result_layout=layout,
        lanes=lanes,
        rows=rows,
        pixels=pixels,
        band=band,
        window=window,
        strides=strides,
        pads=pads,
        dilations=dilations,
    )


def build(
    name: str, plan: Plan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue
) -> Kernel:
    """The kernel of `plan`, with buffers x, w and the epilogue's.

    x and w lie as the plan asks; x may have wider pads, else CompileError. Items are pairs of a channel block
    and a band of rows. The epilogue gets whole vectors along axis 1.
    """
    check_pads(plan.operand_layouts[0], x)
    lanes, (batch, channels, height, width) = plan.lanes, result.shape
    kernel = (w.shape[2], w.shape[3])
    x_view, w_view = View.of(x), View.of(w)
    b = Builder(name)
    x_buffer = b.input("x", x_view.type, x_view.size)
    w_buffer = b.input("w", w_view.type, w_view.size)
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")
    (stride_y, stride_x), (dilation_y, dilation_x) = plan.strides, plan.dilations
    origin = x_view.origin - plan.pads[0][0] * x_view.outer[2] - plan.pads[1][0] * x_view.outer[3]
    blocks, bands = -(-channels // lanes), -(-height // plan.band)
    whole_rows = height // plan.rows * plan.rows
    zero = b.const(0.0, x_view.type.vector(lanes))

    def filter_row(block: Index, kh: Index) -> list[Operand]:
        at = b.add(b.mul(block, w_view.outer[0]), b.mul(kh, w_view.outer[2]))
        return [
            b.load(w_buffer, at, lanes, offset=w_view.origin + kw * w_view.outer[3])
            for kw in range(kernel[1])
        ]

    def add_row(
        sums: list[Operand],
        taps: list[Operand],
        at: Index,
        row: int,
        pixels: int,
        uses: list[tuple[int, int]],
    ) -> None:
        """Load input row `row` once; `uses` are the (output row, filter row) pairs it serves."""
        for column in range((pixels - 1) * stride_x + (kernel[1] - 1) * dilation_x + 1):
            reached = [
                (y * pixels + t, kh * kernel[1] + kw)
                for y, kh in uses
                for t in range(pixels)
                for kw in range(kernel[1])
                if t * stride_x + kw * dilation_x == column
            ]
            if not reached:
                continue
            offset = origin + row * x_view.outer[2] + column * x_view.outer[3]
            value = b.load(x_buffer, at, lanes, offset=offset)
            for place, tap in reached:
                sums[place] = multiply_add(b, value, taps[tap], sums[place])

    def sums_of_tile(
        block: Index, at: Index, filters: list[Operand], rows: int, pixels: int
    ) -> list[Operand]:
        sums: list[Operand] = [zero] * (rows * pixels)
        if plan.window:
            for row in range((rows - 1) * stride_y + (kernel[0] - 1) * dilation_y + 1):
                uses = [
                    (y, kh)
                    for y in range(rows)
                    for kh in range(kernel[0])
                    if y * stride_y + kh * dilation_y == row
                ]
                if uses:
                    add_row(sums, filters, at, row, pixels, uses)
            return sums

        def filter_rows(kh: Index, carried: list[Operand]) -> list[Operand]:
            carried = list(carried)
            place = b.add(at, b.mul(kh, dilation_y * x_view.outer[2]))
            add_row(carried, filter_row(block, kh), place, 0, pixels, [(0, 0)])
            return carried

        return b.for_(0, kernel[0], filter_rows, carried=sums)

    def row_of_tiles(image: Index, block: Index, row: Index, filters: list[Operand], rows: int) -> None:
        def tile(pixels: int) -> Callable[[Index, list[Operand]], None]:
            def body(column: Index, _: list[Operand]) -> None:
                at = b.add(b.mul(image, x_view.outer[0]), b.mul(block, x_view.outer[1]))
                at = b.add(at, b.mul(row, stride_y * x_view.outer[2]))
                at = b.add(at, b.mul(column, stride_x * x_view.outer[3]))
                sums = sums_of_tile(block, at, filters, rows, pixels)
                for k, value in enumerate(sums):
                    y, t = divmod(k, pixels)
                    place = ((image, 0), (b.mul(block, lanes), 0), (row, y), (column, t))
                    epilogue.store(b, place, value, lanes)

            return body

        wide, count, narrower = split(width, plan.pixels)
        b.for_(0, count * wide, tile(wide), step=wide)
        if narrower:
            b.for_(count * wide, width, tile(wide - 1), step=wide - 1)

    def item(index: Index, _: list[Operand]) -> None:
        outer, band = b.div(index, bands), b.rem(index, bands)
        block = b.rem(outer, blocks)
        image = b.div(outer, blocks) if batch > 1 else 0
        filters = [tap for kh in range(kernel[0]) for tap in filter_row(block, kh)] if plan.window else []
        first = b.mul(band, plan.band)
        last = whole_rows if bands == 1 else b.min(b.add(first, plan.band), whole_rows)
        b.for_(
            first, last, lambda row, _: row_of_tiles(image, block, row, filters, plan.rows), step=plan.rows
        )
        if whole_rows < height:

            def remainder() -> None:
                row_of_tiles(image, block, whole_rows, filters, height - whole_rows)

            b.if_(True if bands == 1 else b.compare("eq", band, bands - 1), remainder)

    b.for_(begin, end, item)
    return Kernel(b.finish(), batch * blocks * bands, 2 * result.elements * kernel[0] * kernel[1])
