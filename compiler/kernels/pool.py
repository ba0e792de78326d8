"""2-D max and sum pooling over blocked channels; the input needs no physical padding.

    x       [N][C/W][H][W][W]              any physical pads are never read
    result  in blocks of W channels, through the epilogue

    for item (channel block x band of rows): for each output row:
      rows lo..hi of the window that lie inside the input       loop bounds, static where no row is clipped
      for tile of T pixels whose windows are all inside in width, and each border pixel by itself:
        for kh in lo..hi: for kw (clipped where the tile was built): max or sum

A window that lies wholly in the padding gives -infinity or 0. NaN propagates through both. Averages are sums
scaled by the epilogue. Sums of long windows are added up row by row, in several partial sums a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.kernels.conv_tiles import FLOATS, Pads, Pair
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.loops import Builder, Index, Operand
from tilewright.compiler.targets import Target

Mode = Literal["max", "sum"]

BAND = 256
"""Pixels of an item, about."""
UNROLLED = 16
"""The widest window whose columns are unrolled, and the most elements of a window that is unrolled whole."""
CHAINS = 4
"""Partial results of a row of a wide window."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """The window, the tile of `pixels` outputs and the rows of an item."""

    template: ClassVar[str] = "pool"
    lanes: int
    mode: Mode
    pixels: int
    band: int
    kernel: Pair
    strides: Pair
    pads: Pads
    dilations: Pair


def plan(
    x: TensorType,
    result: TensorType,
    *,
    mode: Mode,
    kernel: Pair,
    strides: Pair,
    pads: Pads,
    dilations: Pair,
    target: Target,
) -> Plan | None:
    """How to pool x (N, C, H, W) to `result`, whose shape says how many windows there are (rounded up or
    down).

    Windows are clipped to the input: padding counts as -infinity for "max" and 0 for "sum". Applies to f32
    and f64 with non-empty results and pads that are not negative; else None.
    """
    if x.rank != 4 or x.dtype.name not in FLOATS or result.dtype != x.dtype:
        return None
    if min(*x.shape, *result.shape, *kernel) < 1 or min(*pads[0], *pads[1]) < 0:
        return None
    lanes = target.lanes(x.dtype.bits)
    layout = Layout(blocks=((1, lanes),))
    width = result.shape[3]
    return Plan(
        operand_layouts=(layout,),
        result_layout=layout,
        lanes=lanes,
        mode=mode,
        pixels=max(target.registers // 4, 1),
        band=min(-(-BAND // width), result.shape[2]),
        kernel=kernel,
        strides=strides,
        pads=pads,
        dilations=dilations,
    )


def clip(position: int, kernel: int, stride: int, pad: int, dilation: int, size: int) -> Pair:
    """(lo, hi): which of a window's elements along one axis lie inside an input of `size`, for one output."""
    first = position * stride - pad
    inside = [k for k in range(kernel) if 0 <= first + k * dilation < size]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def build(name: str, plan: Plan, x: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """The kernel of `plan`, with buffer x and the epilogue's.

    Items are pairs of a channel block and a band of rows. The epilogue gets whole vectors along axis 1.
    """
    lanes, (batch, channels, height, width) = plan.lanes, result.shape
    view = View.of(x)
    b = Builder(name)
    x_buffer = b.input("x", view.type, view.size)
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")
    (kernel_y, kernel_x), (stride_y, stride_x), (dilation_y, dilation_x) = (
        plan.kernel,
        plan.strides,
        plan.dilations,
    )
    blocks, bands = -(-channels // lanes), -(-height // plan.band)
    rows, columns = (
        [
            clip(
                position, plan.kernel[d], plan.strides[d], plan.pads[d][0], plan.dilations[d], x.shape[2 + d]
            )
            for position in range(result.shape[2 + d])
        ]
        for d in range(2)
    )
    nothing = b.const(float("-inf") if plan.mode == "max" else 0.0, view.type.vector(lanes))

    def merge(a: Operand, value: Operand) -> Operand:
        merged: Operand = b.max(a, value) if plan.mode == "max" else b.add(a, value)
        return merged

    def fold(parts: list[Operand]) -> Operand:
        whole = parts[0]
        for part in parts[1:]:
            whole = merge(whole, part)
        return whole

    def window_row(at: Index, row: int, pixels: int, length: int) -> list[Operand]:
        """Each pixel's result over `length` elements of a row of its window, the tile's first one at `at`."""
        offset = view.origin + row * dilation_y * view.outer[2]

        def element(at: Index, pixel: int, kw: int) -> Operand:
            return b.load(
                x_buffer, at, lanes, offset=offset + (pixel * stride_x + kw * dilation_x) * view.outer[3]
            )

        if length <= UNROLLED:
            return [fold([element(at, pixel, kw) for kw in range(length)]) for pixel in range(pixels)]
        results = []
        for pixel in range(pixels):
            middle = length // CHAINS * CHAINS

            def step(kw: Index, parts: list[Operand], pixel: int = pixel) -> list[Operand]:
                place = b.add(at, b.mul(kw, dilation_x * view.outer[3]))
                return [merge(part, element(place, pixel, k)) for k, part in enumerate(parts)]

            parts = b.for_(0, middle, step, step=CHAINS, carried=[nothing] * CHAINS)
            results.append(fold([*parts, *(element(at, pixel, kw) for kw in range(middle, length))]))
        return results

    def tile(
        image: Index,
        block: Index,
        row: Index,
        inside: tuple[Index, Index],
        column: Index,
        pixels: int,
        span: Pair,
    ) -> None:
        """`pixels` outputs whose windows are clipped to `span` in width and to `inside` in height."""
        lo, hi = inside
        rows, length = b.sub(hi, lo), span[1] - span[0]
        at = b.add(b.mul(image, view.outer[0]), b.mul(block, view.outer[1]))
        top = b.add(b.sub(b.mul(row, stride_y), plan.pads[0][0]), b.mul(lo, dilation_y))
        left = b.add(b.mul(column, stride_x), span[0] * dilation_x - plan.pads[1][0])
        at = b.add(b.add(at, b.mul(top, view.outer[2])), b.mul(left, view.outer[3]))
        results: list[Operand] = [nothing] * pixels
        if isinstance(rows, int) and 0 < rows * length <= UNROLLED:
            parts = [window_row(at, kh, pixels, length) for kh in range(rows)]
            results = [fold(list(column)) for column in zip(*parts, strict=True)]
        elif length:

            def window(kh: Index, carried: list[Operand]) -> list[Operand]:
                place = b.add(at, b.mul(kh, dilation_y * view.outer[2]))
                return list(map(merge, carried, window_row(place, 0, pixels, length)))

            results = b.for_(0, rows, window, carried=results)
        for t, value in enumerate(results):
            epilogue.store(b, ((image, 0), (b.mul(block, lanes), 0), (row, 0), (column, t)), value, lanes)

    def row_bounds(row: Index) -> tuple[Index, Index]:
        """Which rows of the windows lie inside the input."""
        if all(span == rows[0] for span in rows):
            return rows[0]
        # The smallest lo with row * stride - pad + lo * dilation >= 0, and the smallest hi that is outside or
        # past the window: quotients rounded up, of numbers made positive first.
        first = b.mul(row, stride_y)
        before, after = plan.pads[0][0], x.shape[2] + plan.pads[0][0]
        lo = b.min(b.div(b.add(b.max(b.sub(before, first), 0), dilation_y - 1), dilation_y), kernel_y)
        hi = b.min(b.div(b.add(b.max(b.sub(after, first), 0), dilation_y - 1), dilation_y), kernel_y)
        return lo, hi

    def row_of_tiles(image: Index, block: Index, row: Index) -> None:
        inside = row_bounds(row)
        column = 0
        while column < width:
            span, run = columns[column], column
            while run < width and columns[run] == span:
                run += 1
            whole = column + (run - column) // plan.pixels * plan.pixels

            def body(pixels: int, span: Pair = span) -> Callable[[Index, list[Operand]], None]:
                return lambda at, _: tile(image, block, row, inside, at, pixels, span)

            b.for_(column, whole, body(plan.pixels), step=plan.pixels)
            if whole < run:
                body(run - whole)(whole, [])
            column = run

    def item(index: Index, _: list[Operand]) -> None:
        outer, band = b.div(index, bands), b.rem(index, bands)
        block = b.rem(outer, blocks)
        image = b.div(outer, blocks) if batch > 1 else 0
        first = b.mul(band, plan.band)
        last = height if bands == 1 else b.min(b.add(first, plan.band), height)
        b.for_(first, last, lambda row, _: row_of_tiles(image, block, row))

    b.for_(begin, end, item)
    return Kernel(b.finish(), batch * blocks * bands, result.elements * kernel_y * kernel_x)
