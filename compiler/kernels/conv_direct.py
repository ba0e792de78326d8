"""Direct 2-D convolution: a register tile of output vectors by output pixels, filled in one pass over the filter.

    x       [N][C/W][H + pads][W + pads][W]              blocked, or any unblocked layout (planar, channels last)
    w       [O/(V*W)][I/W][KH][KW][W][V*W]               (for unblocked x: [O/(V*W)][I][KH][KW][V*W])
    result  in blocks of W channels, through the epilogue

    for item (group of V output vectors x band of R rows):
      for tile of R x T pixels:
        acc[V][R*T] = 0                                  carried in registers by the loops below
        for input block, kh, kw, channel of the block:
          load V filter vectors; for every pixel: broadcast x, V multiply-adds
        epilogue(acc)

W is the vector width. Tiles never overlap: every output vector is computed and stored exactly once. Long sums are
added up in blocks (`Plan.chain` blocks of input channels each), which keeps their rounding errors small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.loops import Builder, Index, Operand
from tilewright.compiler.loops.nodes import Buffer
from tilewright.compiler.targets import Target
from tilewright.errors import CompileError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Body = Callable[[Index, list[Operand]], list[Operand]]

FLOATS = ("f32", "f64")
CHAIN = 256
"""Products added up in one register before the sum moves on to a block's total."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """The register tile and the loop order; see the module's docstring."""

    template: ClassVar[str] = "conv_direct"
    lanes: int
    vectors: int
    rows: int
    pixels: int
    unroll: int
    chain: int
    rows_outer: bool
    prefetch: bool
    strides: Pair
    pads: Pads
    dilations: Pair
    groups: int


def output_size(size: int, kernel: int, stride: int, pad: Pair, dilation: int) -> int:
    """Outputs of a convolution along one axis; none or fewer where the filter exceeds the padded input."""
    return (size + sum(pad) - (kernel - 1) * dilation - 1) // stride + 1


def needed_pad(size: int, kernel: int, stride: int, pad: Pair, dilation: int) -> Pair:
    """The zeros that a convolution really reads before and after an axis: strides may leave some out."""
    last = (output_size(size, kernel, stride, pad, dilation) - 1) * stride - pad[0] + (kernel - 1) * dilation
    return pad[0], max(last - (size - 1), 0)


def plan(
    x: TensorType,
    w: TensorType,
    *,
    strides: Pair,
    pads: Pads,
    dilations: Pair,
    groups: int,
    x_is_blocked_source: bool,
    target: Target,
) -> Plan | None:
    """How to convolve x (N, C, H, W) with w (O, C/groups, KH, KW); pads are (before, after) by spatial axis.

    `x_is_blocked_source` says that x can come in blocks of channels; otherwise it is read in its unblocked order
    of axes. Applies to f32 and f64 with non-empty results and pads that are not negative; with groups, a group's
    output channels must be whole vectors, and so must its input channels where x is blocked. Else None.
    """
    lanes = target.lanes(x.dtype.bits)
    if x.rank != 4 or w.rank != 4 or x.dtype.name not in FLOATS or w.dtype != x.dtype:
        return None
    if min(*x.shape, *w.shape) < 1 or min(*pads[0], *pads[1]) < 0:
        return None
    (outputs, inputs, *kernel), spatial = w.shape, x.shape[2:]
    if groups > 1 and (outputs // groups % lanes or (x_is_blocked_source and inputs % lanes)):
        return None
    geometry = list(zip(spatial, kernel, strides, pads, dilations, strict=True))
    height, width = (output_size(*axis) for axis in geometry)
    if height < 1 or width < 1:
        return None
    blocks = -(-(outputs // groups) // lanes)
    reduction = inputs * kernel[0] * kernel[1]
    vectors, rows, pixels = _choose_tile(
        target, lanes * x.dtype.bytes, blocks, groups, height, width, reduction
    )
    block = lanes if x_is_blocked_source else 1
    x_pads = ((0, 0), (0, 0), *(needed_pad(*axis) for axis in geometry))
    x_layout = Layout(blocks=((1, lanes),)) if x_is_blocked_source else Layout(axes=x.layout.axes)
    w_blocks = ((1, lanes), (0, vectors * lanes)) if x_is_blocked_source else ((0, vectors * lanes),)
    weight_bytes = outputs * reduction * x.dtype.bytes
    tiles = -(-height // rows) * -(-width // pixels)
    return Plan(
        operand_layouts=(x_layout.with_pads(x_pads), Layout(blocks=w_blocks)),
        result_layout=Layout(blocks=((1, lanes),)),
        lanes=lanes,
        vectors=vectors,
        rows=rows,
        pixels=pixels,
        unroll=4,
        chain=max(CHAIN // (kernel[0] * kernel[1] * block), 1),
        rows_outer=2 * weight_bytes <= target.l2 < x.elements * x.dtype.bytes,
        prefetch=tiles <= 32,
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
    )


def split(size: int, most: int) -> tuple[int, int, int]:
    """(width, count, narrower): `size` in the fewest parts of at most `most`, as even as can be.

    There are `count` parts of `width` and `narrower` parts of `width - 1`.
    """
    parts = -(-size // most)
    width = -(-size // parts)
    narrower = parts * width - size
    return width, parts - narrower, narrower


def _choose_tile(
    target: Target, vector_bytes: int, blocks: int, groups: int, height: int, width: int, reduction: int
) -> tuple[int, int, int]:
    """(vectors, rows, pixels a row) of the tile that is estimated fastest.

    A step of the reduction takes the longest of: multiply-adds at two a cycle, loads at two a cycle, the latency of
    one multiply-add (four cycles), and filter vectors arriving from the second-level cache at 32 bytes a cycle.
    """
    # Elsewhere than on x86 a multiply-add takes its broadcast from a lane: registers hold several pixels' channels.
    registers = target.registers if target.triple.startswith("x86") else target.registers * 5 // 8

    def cycles(vectors: int, pixels: int) -> float:
        step = max(vectors * pixels / 2, (vectors + pixels) / 2, 4.0, vectors * vector_bytes / 32)
        return (step + 0.5) * reduction + 2 * vectors * pixels + 20

    def along(vectors: int, rows: int, pixels: int) -> float:
        wide, count, narrower = split(width, pixels)
        row = count * cycles(vectors, rows * wide) + (
            narrower * cycles(vectors, rows * (wide - 1)) if narrower else 0
        )
        return row

    best: tuple[float, tuple[int, int, int]] | None = None
    for vectors in range(1, min(blocks, 8) + 1):
        if groups > 1 and blocks % vectors:
            continue
        room = (registers - vectors - 1) // vectors
        for rows in range(1, min(height, max(room // width, 1)) + 1):
            pixels = min(width, room // rows)
            if pixels < 1:
                continue
            cost = 0.0
            for count, taken in ((blocks // vectors, vectors), (1, blocks % vectors)):
                if taken:
                    bands = height // rows * along(taken, rows, pixels)
                    cost += count * (bands + (along(taken, height % rows, pixels) if height % rows else 0))
            if best is None or cost < best[0]:
                best = cost, (vectors, rows, pixels)
    if best is None:
        raise CompileError(f"target {target} has too few registers for a convolution")
    return best[1]


def build(
    name: str, plan: Plan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue
) -> Kernel:
    """The kernel of `plan`, with buffers x, w and the epilogue's; x and w in layouts that hold what the plan asks.

    Items are pairs of an output channel group and a band of rows. The epilogue gets whole vectors along axis 1.
    """
    check_pads(plan.operand_layouts[0], x)
    return _Builder(name, plan, x, w, result, epilogue).kernel()


def check_pads(needed: Layout, x: TensorType) -> None:
    """Raise CompileError where x has fewer physical zeros around it than a kernel reads."""
    for axis, (before, after) in enumerate(needed.pads):
        has = x.layout.pad(axis)
        if has[0] < before or has[1] < after:
            raise CompileError(
                f"a convolution reads {before}, {after} zeros around axis {axis}, its operand has {has}"
            )


class _Builder:
    """What the parts of one kernel share while it is built."""

    def __init__(
        self, name: str, plan: Plan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue
    ) -> None:
        self.plan, self.epilogue, self.shape = plan, epilogue, result.shape
        self.kernel_size = (w.shape[2], w.shape[3])
        self.inputs = w.shape[1]
        self.x, self.w = View.of(x), View.of(w)
        self.b = Builder(name)
        self.x_buffer = self.b.input("x", self.x.type, self.x.size)
        self.w_buffer = self.b.input("w", self.w.type, self.w.size)
        epilogue.declare(self.b)
        self.begin, self.end = self.b.scalar("begin"), self.b.scalar("end")
        self.block = self.x.blocks[1]
        self.flops = 2 * result.elements * self.inputs * self.kernel_size[0] * self.kernel_size[1]
        outputs = result.shape[1] // plan.groups
        self.vector_blocks = -(-outputs // plan.lanes)
        self.input_blocks = -(-self.inputs // self.block)
        self.totals: Buffer | None = None

    def kernel(self) -> Kernel:
        """Every item in begin..end."""
        b, plan = self.b, self.plan
        batch, _, height, _ = self.shape
        groups = plan.groups * -(-self.vector_blocks // plan.vectors)
        bands = -(-height // plan.rows)
        if self.input_blocks > plan.chain:
            self.totals = b.alloc("totals", self.x.type, plan.vectors * plan.rows * plan.pixels * plan.lanes)

        def item(index: Index, _: list[Operand]) -> None:
            inner = groups if plan.rows_outer else bands
            outer, second = b.div(index, inner), b.rem(index, inner)
            first = b.rem(outer, groups * bands // inner)
            image = b.div(outer, groups * bands // inner) if batch > 1 else 0
            self.group(image, *((second, first) if plan.rows_outer else (first, second)))

        b.for_(self.begin, self.end, item)
        return Kernel(b.finish(), batch * groups * bands, self.flops)

    def group(self, image: Index, group: Index, band: Index) -> None:
        """One item: choose between whole and last groups of vectors, whole and last bands of rows."""
        plan, height = self.plan, self.shape[2]
        whole_groups, last_vectors = divmod(self.vector_blocks * plan.groups, plan.vectors)
        whole_bands, last_rows = divmod(height, plan.rows)

        def rows(vectors: int) -> None:
            self.choose(band, whole_bands, plan.rows, last_rows,
                        lambda count: self.band(image, group, band, vectors, count))  # fmt: skip

        self.choose(group, whole_groups, plan.vectors, last_vectors, rows)

    def choose(self, index: Index, whole: int, size: int, last: int, body: Callable[[int], None]) -> None:
        """Build `body(size)` for the first `whole` indices and `body(last)` for one more, where last is not 0."""
        if not last:
            body(size)
        elif not whole:
            body(last)
        else:
            self.b.if_(self.b.compare("lt", index, whole), lambda: body(size), lambda: body(last))

    def band(self, image: Index, group: Index, band: Index, vectors: int, rows: int) -> None:
        """`rows` rows of one group's outputs, tile after tile."""
        b = self.b
        wide, count, narrower = split(self.shape[3], self.plan.pixels)
        first = b.mul(band, self.plan.rows)
        middle = count * wide

        def tile(pixels: int) -> Callable[[Index, list[Operand]], None]:
            return lambda column, _: self.tile(image, group, first, column, vectors, rows, pixels)

        b.for_(0, middle, tile(wide), step=wide)
        if narrower:
            b.for_(middle, self.shape[3], tile(wide - 1), step=wide - 1)

    def tile(
        self, image: Index, group: Index, row: Index, column: Index, vectors: int, rows: int, pixels: int
    ) -> None:
        """One register tile, handed to the epilogue."""
        b, plan, lanes = self.b, self.plan, self.plan.lanes
        (stride_y, stride_x), (pad_y, pad_x) = plan.strides, plan.pads
        x, w = self.x, self.w
        per_group = self.vector_blocks // plan.vectors
        base: Index = b.mul(image, x.outer[0])
        if plan.groups > 1:
            base = b.add(base, b.mul(b.div(group, per_group), self.input_blocks * x.outer[1]))
        base = b.add(base, b.add(b.mul(row, stride_y * x.outer[2]), b.mul(column, stride_x * x.outer[3])))
        origin = x.origin - pad_y[0] * x.outer[2] - pad_x[0] * x.outer[3]
        places = [
            origin + y * stride_y * x.outer[2] + t * stride_x * x.outer[3]
            for y in range(rows)
            for t in range(pixels)
        ]
        filters = b.mul(group, w.outer[0])
        blocks, chain = self.input_blocks, plan.chain
        totals = self.totals
        if totals is None:
            sums = self.reduce(base, filters, 0, blocks, vectors, places)
        else:
            whole = (blocks - 1) // chain * chain
            count = vectors * len(places)
            for k in range(count):
                b.store(totals, k * lanes, b.const(0.0, x.type.vector(lanes)))

            def add_up(block: Index, _: list[Operand]) -> None:
                part = self.reduce(base, filters, block, b.add(block, chain), vectors, places)
                for k, value in enumerate(part):
                    b.store(totals, k * lanes, b.add(b.load(totals, k * lanes, lanes), value))

            b.for_(0, whole, add_up, step=chain)
            part = self.reduce(base, filters, whole, blocks, vectors, places)
            sums = [b.add(b.load(totals, k * lanes, lanes), value) for k, value in enumerate(part)]
        channel = b.mul(group, plan.vectors * lanes)
        for v in range(vectors):
            for k in range(len(places)):
                y, t = divmod(k, pixels)
                at = ((image, 0), (channel, v * lanes), (row, y), (column, t))
                self.epilogue.store(b, at, sums[v * len(places) + k], lanes)

    def reduce(
        self, base: Index, filters: Index, lo: Index, hi: Index, vectors: int, places: list[int]
    ) -> list[Operand]:
        """The sums over input blocks lo..hi, [vector][pixel]; the very last block may have fewer channels."""
        b, x, w = self.b, self.x, self.w
        last = self.inputs % self.block if hi == self.input_blocks else 0
        zero = b.const(0.0, x.type.vector(self.plan.lanes))

        def block(channels: int) -> Body:
            def body(index: Index, sums: list[Operand]) -> list[Operand]:
                at_x, at_w = b.add(base, b.mul(index, x.outer[1])), b.add(filters, b.mul(index, w.outer[1]))
                return self.window(at_x, at_w, channels, sums, vectors, places)

            return body

        sums: list[Operand] = [zero] * (vectors * len(places))
        sums = b.for_(lo, b.sub(hi, 1) if last else hi, block(self.block), carried=sums)
        return block(last)(b.sub(hi, 1), sums) if last else sums

    def window(
        self, at_x: Index, at_w: Index, channels: int, sums: list[Operand], vectors: int, places: list[int]
    ) -> list[Operand]:
        """Add one block of input channels over the whole filter window."""
        b, x, w, plan = self.b, self.x, self.w, self.plan
        unroll = min(plan.unroll, channels)
        whole = channels // unroll * unroll

        def steps(at_x: Index, at_w: Index, count: int, sums: list[Operand]) -> list[Operand]:
            sums = list(sums)
            for c in range(count):
                taps = [
                    b.load(self.w_buffer, at_w, plan.lanes, offset=w.origin + c * w.inner[1] + v * plan.lanes)
                    for v in range(vectors)
                ]
                for k, place in enumerate(places):
                    pixel = b.load_splat(self.x_buffer, at_x, plan.lanes, offset=place + c * x.inner[1])
                    for v in range(vectors):
                        sums[v * len(places) + k] = b.fma(pixel, taps[v], sums[v * len(places) + k])
            return sums

        def column(at_x: Index, at_w: Index, sums: list[Operand]) -> list[Operand]:
            def channel(c: Index, sums: list[Operand]) -> list[Operand]:
                return steps(
                    b.add(at_x, b.mul(c, x.inner[1])), b.add(at_w, b.mul(c, w.inner[1])), unroll, sums
                )

            sums = b.for_(0, whole, channel, step=unroll, carried=sums)
            if whole < channels:
                end_x, end_w = b.add(at_x, whole * x.inner[1]), b.add(at_w, whole * w.inner[1])
                sums = steps(end_x, end_w, channels - whole, sums)
            return sums

        def over_columns(row_x: Index, row_w: Index, sums: list[Operand]) -> list[Operand]:
            step = plan.dilations[1] * x.outer[3]
            return b.for_(
                0, self.kernel_size[1],
                lambda kw, s: column(b.add(row_x, b.mul(kw, step)), b.add(row_w, b.mul(kw, w.outer[3])), s),
                carried=sums,
            )  # fmt: skip

        step = plan.dilations[0] * x.outer[2]
        return b.for_(
            0, self.kernel_size[0],
            lambda kh, s: over_columns(b.add(at_x, b.mul(kh, step)), b.add(at_w, b.mul(kh, w.outer[2])), s),
            carried=sums,
        )  # fmt: skip
