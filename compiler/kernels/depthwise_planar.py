"""Depthwise 2-D convolution of row-major data: every channel has its own filter, and lanes run along rows.

    x (N, C, H, W) row-major;  w (C, 1, KH, KW) row-major;  result (N, C, *) row-major

    for item = some channels:
      for channel:
        copy its image into scratch with zeros around, the columns of each remainder by the stride apart
        for tile of R rows by V vectors:            plan.window: the filter's KH * KW splats in registers
          acc[R][V] = 0
          for every vector of the window: one load, a multiply-add for each row it reaches
          epilogue(acc)

Filters too large for the registers go row by row: a loop over KH carries the sums.

This is for what lies between convolutions of row-major data: `kernels.depthwise` takes half the time, and changing
the layout before and behind it more than that.
"""

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import ClassVar

from tilewright.compiler.ir.types import ROW_MAJOR, Shape, TensorType
from tilewright.compiler.kernels.conv_tiles import FLOATS, Pads, Pair, output_size
from tilewright.compiler.kernels.depthwise import WIDEST
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import STACK, load_points, multiply_add, split, zeros
from tilewright.compiler.loops import Buffer, Builder, Index, Operand
from tilewright.compiler.targets import Target

_ITEMS = 32
"""About as many items, each of as many channels."""

_ROWS = 8
"""The most rows of a tile: more share few further loads, and longer code gained nothing."""

_ELSEWHERE = 12
"""The most vectors of a tile elsewhere than on x86: LLVM loads many inputs early there and runs out of registers."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """The tile of `rows` rows by `vectors` vectors of `lanes`; `chunk` channels are an item.

    `window`: the whole filter stays in registers.
    """

    template: ClassVar[str] = "depthwise_planar"
    lanes: int
    rows: int
    vectors: int
    chunk: int
    window: bool
    strides: Pair
    pads: Pads
    dilations: Pair


def plan(
    x: TensorType, w: TensorType, *, strides: Pair, pads: Pads, dilations: Pair, groups: int, target: Target
) -> Plan | None:
    """How to convolve x (N, C, H, W) with w (C, 1, KH, KW), one filter a channel, both row-major.

    None for other element types than f32 and f64, for groups other than C, more filters than channels, negative pads,
    empty results, filters of more than 7 taps a row, and images that with their zeros are too large for the stack.
    """
    if x.rank != 4 or x.dtype.name not in FLOATS or w.dtype != x.dtype or min(*x.shape, *w.shape) < 1:
        return None
    if w.shape[:2] != (x.shape[1], 1) or groups != x.shape[1] or min(*pads[0], *pads[1]) < 0:
        return None
    kernel = w.shape[2:]
    height, width = (
        output_size(*axis) for axis in zip(x.shape[2:], kernel, strides, pads, dilations, strict=True)
    )
    lanes = target.lanes(x.dtype.bits)
    if min(height, width) < 1 or kernel[1] > WIDEST:
        return None
    tall, wide = _padded((height, width), kernel, strides, dilations, lanes)
    if tall * strides[1] * wide * x.dtype.bytes > STACK:
        return None
    x86 = target.triple.startswith(("x86", "i686"))
    window = x86 and prod(kernel) <= target.registers // 2 + 1
    room = target.registers - (prod(kernel) if window else kernel[1]) - 2
    room = max(room if x86 else min(room, _ELSEWHERE), 1)
    vectors = split(-(-width // lanes), min(room, 2))[0]
    rows = split(height, min(room // vectors, _ROWS))[0]
    return Plan(
        operand_layouts=(ROW_MAJOR, ROW_MAJOR),
        result_layout=ROW_MAJOR,
        lanes=lanes,
        rows=rows,
        vectors=vectors,
        chunk=-(-prod(x.shape[:2]) // _ITEMS),
        window=window,
        strides=strides,
        pads=pads,
        dilations=dilations,
    )


def build(name: str, plan: Plan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """fn(x, w, <epilogue>, begin, end): x (N, C, H, W), w (C, 1, KH, KW), result (N, C, *), all row-major."""
    return _Builder(name, plan, x.shape, w.shape, result.shape, View.of(x), epilogue).kernel()


def _padded(result: Shape, kernel: Shape, strides: Shape, dilations: Shape, lanes: int) -> Pair:
    """Rows of the padded image, and columns of each of its planes: what whole vectors of a result read."""
    reach = -(-result[1] // lanes) * lanes + (kernel[1] - 1) * dilations[1] // strides[1]
    return (result[0] - 1) * strides[0] + (kernel[0] - 1) * dilations[0] + 1, -(-reach // lanes) * lanes


class _Builder:
    """What the parts of one kernel share while it is built.

    Column c of the padded image lies in plane c % stride of a scratch row, at c // stride.
    """

    def __init__(
        self, name: str, plan: Plan, x: Shape, w: Shape, result: Shape, view: View, epilogue: Epilogue
    ) -> None:
        self.plan, self.epilogue, self.shape, self.image = plan, epilogue, result, x[2:]
        self.kernel_size = w[2:]
        self.b = b = Builder(name)
        self.x, self.w = b.input("x", view.type, prod(x)), b.input("w", view.type, prod(w))
        epilogue.declare(b)
        self.begin, self.end = b.scalar("begin"), b.scalar("end")
        self.across = -(-result[3] // plan.lanes)
        self.height, self.width = _padded(result[2:], w[2:], plan.strides, plan.dilations, plan.lanes)
        self.scratch: Buffer = b.alloc("image", view.type, self.height * plan.strides[1] * self.width)

    def kernel(self) -> Kernel:
        """Every item in begin..end."""
        b, plan = self.b, self.plan
        channels, size = prod(self.shape[:2]), self.height * plan.strides[1] * self.width
        (zero,) = zeros(self.x.type, plan.lanes, 1)
        b.for_(0, size, lambda at, _: b.store(self.scratch, at, zero), step=plan.lanes)
        # One loop over the channels of all items.
        first = b.mul(self.begin, plan.chunk)
        b.for_(first, b.min(b.mul(self.end, plan.chunk), channels), lambda channel, _: self.channel(channel))
        items = -(-channels // plan.chunk)
        return Kernel(b.finish(), items, 2 * prod(self.shape) * prod(self.kernel_size))

    def channel(self, number: Index) -> None:
        """One channel of one image."""
        b, plan = self.b, self.plan
        image, channel = b.div(number, self.shape[1]), b.rem(number, self.shape[1])
        self.copy(b.mul(number, prod(self.image)))
        w_at, taps = b.mul(channel, prod(self.kernel_size)), prod(self.kernel_size)
        kept = [b.load_splat(self.w, w_at, plan.lanes, offset=tap) for tap in range(taps)] if plan.window else []
        rows, whole, rest = split(self.shape[2], plan.rows)

        def band(row: Index, rows: int) -> None:
            def tile(first: Index, vectors: int, active: int) -> None:
                sums = self.sums(row, first, rows, vectors, w_at, kept)
                for (r, v), value in zip(product(range(rows), range(vectors)), sums, strict=True):
                    at = ((image, 0), (channel, 0), (row, r), (first, v * plan.lanes))
                    self.epilogue.store(b, at, value, active if v == vectors - 1 else plan.lanes)

            last = (self.across - 1) // plan.vectors * plan.vectors
            step = plan.vectors * plan.lanes
            b.for_(0, last * plan.lanes, lambda first, _: tile(first, plan.vectors, plan.lanes), step=step)
            tile(last * plan.lanes, self.across - last, self.shape[3] - (self.across - 1) * plan.lanes)

        b.for_(0, whole * rows, lambda row, _: band(row, rows), step=rows)
        if rest:
            band(whole * rows, rest)

    def copy(self, x_at: Index) -> None:
        """Copy what is read of the image at x_at into scratch."""
        b, plan = self.b, self.plan
        stride = plan.strides[1]
        (top, _), (left, _) = plan.pads
        rows = min(self.image[0], self.height - top)
        columns = min(self.image[1], stride * self.width - left)

        def row(number: Index, _: list[Operand]) -> None:
            at = b.add(x_at, b.mul(number, self.image[1]))
            to = b.mul(b.add(number, top), stride * self.width)
            for plane in range(stride):
                first = (plane - left) % stride
                count = max(-(-(columns - first) // stride), 0)
                for done in range(0, count, plan.lanes):
                    active = min(count - done, plan.lanes)
                    points = tuple(range(0, active * stride, stride))
                    value = load_points(b, self.x, at, first + done * stride, points, plan.lanes)
                    offset = plane * self.width + (first + left) // stride + done
                    b.store(self.scratch, to, value, offset=offset, active=active)

        if columns > 0:
            b.for_(0, rows, row)

    def sums(
        self, row: Index, first: Index, rows: int, vectors: int, w_at: Index, kept: list[Operand]
    ) -> list[Operand]:
        """[row][vector] of the tile at a row and column of the result; `kept` are all splats of the filter, or none."""
        b, plan = self.b, self.plan
        (taps_y, taps_x), (stride_y, stride_x), (dilation_y, _) = self.kernel_size, plan.strides, plan.dilations
        step = stride_x * self.width
        at = b.add(b.mul(row, stride_y * step), first)
        sums = zeros(self.x.type, plan.lanes, rows * vectors)

        def add(
            sums: list[Operand], at: Index, y: int, weights: list[Operand], reached: list[tuple[int, int]]
        ) -> list[Operand]:
            """Row y of the window, times the row of weights at `tap` for each (row of the tile, tap)."""
            sums = list(sums)
            for k, v in product(range(taps_x), range(vectors)):
                value = b.load(self.scratch, at, plan.lanes, offset=y * step + self.column(k) + v * plan.lanes)
                for r, tap in reached:
                    sums[r * vectors + v] = multiply_add(b, weights[tap + k], value, sums[r * vectors + v])
            return sums

        def filter_row(k: Index, sums: list[Operand]) -> list[Operand]:
            here, weights_at = b.add(at, b.mul(k, dilation_y * step)), b.add(w_at, b.mul(k, taps_x))
            weights: list[Operand] = [b.load_splat(self.w, weights_at, plan.lanes, offset=i) for i in range(taps_x)]
            for r in range(rows):
                sums = add(sums, here, r * stride_y, weights, [(r, 0)])
            return sums

        if not kept:
            return b.for_(0, taps_y, filter_row, carried=sums)
        for y in range((rows - 1) * stride_y + (taps_y - 1) * dilation_y + 1):
            places = product(range(rows), range(taps_y))
            reached = [(r, k * taps_x) for r, k in places if r * stride_y + k * dilation_y == y]
            if reached:
                sums = add(sums, at, y, kept, reached)
        return sums

    def column(self, tap: int) -> int:
        """Where a scratch row has the column of x for a tap of the first column of the result."""
        at, stride = tap * self.plan.dilations[1], self.plan.strides[1]
        return at % stride * self.width + at // stride
