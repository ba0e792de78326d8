"""Direct 2-D convolution: register tiles of output vectors by output pixels.

    x       [N][C/W][H + pads][W + pads][W]       blocked, or any unblocked layout (planar, channels last)
    w       [O/(V*W)][I/W][KH][KW][W][V*W]        for unblocked x [O/(V*W)][I][KH][KW][V*W]
    result  in blocks of W channels, through the epilogue

    for item (group of V output vectors x an area of some tiles):
      for chain of input blocks:
        for tile of R x T pixels of the area:
          acc[V][R*T] = 0                         carried in registers by the loops below
          for input block of the chain, kh, kw, channel of the block:
            load V filter vectors; for every pixel: broadcast x, V multiply-adds
          totals[tile] += acc
      for tile of the area: epilogue(totals[tile])

W is the vector width. A chain is short, which keeps rounding errors small and its filters in the first-level
cache for all tiles of the area; where the whole reduction is one chain, there are no totals. Tiles never
overlap: every output vector is computed and stored exactly once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import multiply_add, unflatten
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

ITEMS = 8
"""The least number of items, where there are so many tiles: threads share them."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """The register tile and the loops around it; see the module's docstring.

    `vectors`, `rows` and `pixels` are V, R and T; `chain` counts input blocks; an area has up to `row_tiles`
    by `column_tiles` tiles. `rows_outer`: all groups of an area are consecutive items, rather than all areas
    of a group. `prefetch`: the next chain's filters are fetched while one is in use.
    """

    template: ClassVar[str] = "conv_direct"
    lanes: int
    vectors: int
    rows: int
    pixels: int
    unroll: int
    chain: int
    row_tiles: int
    column_tiles: int
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

    `x_is_blocked_source` says that x can come in blocks of channels; otherwise it is read in its unblocked
    order of axes. Applies to f32 and f64 with non-empty results and pads that are not negative; with groups,
    a group's output channels must be whole vectors, and so must its input channels where x is blocked. Else
    None.
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
    block = lanes if x_is_blocked_source else 1
    vectors, rows, pixels = _choose_tile(
        target, lanes * x.dtype.bytes, blocks, groups, height, width, reduction
    )
    x_pads = ((0, 0), (0, 0), *(needed_pad(*axis) for axis in geometry))
    x_layout = Layout(blocks=((1, lanes),)) if x_is_blocked_source else Layout(axes=x.layout.axes)
    w_blocks = ((1, lanes), (0, vectors * lanes)) if x_is_blocked_source else ((0, vectors * lanes),)
    weight_bytes = outputs * reduction * x.dtype.bytes
    blocks_in = -(-inputs // block)
    chain = max(CHAIN // (kernel[0] * kernel[1] * block), 1)
    tile_bytes = vectors * rows * pixels * lanes * x.dtype.bytes
    tiles = max(target.l1 // 2 // tile_bytes, 1)
    column_tiles = split(sum(split(width, pixels)[1:]), tiles)[0]
    bands = -(-height // rows)
    row_tiles = split(bands, max(tiles // column_tiles, 1))[0]
    # Enough items to share, even where each then reads its filters for fewer pixels.
    while row_tiles > 1 and x.shape[0] * -(-blocks // vectors) * groups * -(-bands // row_tiles) < ITEMS:
        row_tiles = -(-row_tiles // 2)
    return Plan(
        operand_layouts=(x_layout.with_pads(x_pads), Layout(blocks=w_blocks)),
        result_layout=Layout(blocks=((1, lanes),)),
        lanes=lanes,
        vectors=vectors,
        rows=rows,
        pixels=pixels,
        # About as many multiply-adds a step as accumulators: with more, LLVM moves loads ahead, into spills.
        unroll=-(-(target.registers - 4) // (vectors * rows * pixels)),
        chain=-(-blocks_in // -(-blocks_in // chain)),
        row_tiles=row_tiles,
        column_tiles=column_tiles,
        rows_outer=2 * weight_bytes <= target.l2 < 2 * x.elements * x.dtype.bytes,
        prefetch=weight_bytes > target.l2 // 2,
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

    A step of the reduction takes the longest of: multiply-adds at two a cycle, loads at two a cycle, the
    latency of a multiply-add (four cycles), and filter vectors coming from the second-level cache at 32 bytes
    a cycle.
    """
    # Elsewhere than on x86, multiply-adds broadcast a lane: registers hold channels of several pixels.
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
    """The kernel of `plan`, with buffers x, w and the epilogue's.

    x and w lie as the plan asks; x may have wider pads, else CompileError. Items are pairs of an output
    channel group and an area. The epilogue gets whole vectors along axis 1.
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


@dataclass(frozen=True)
class _Item:
    """What an item computes: `vectors` vectors of a group, for a band of row tiles by a piece of columns."""

    image: Index
    group: Index
    band: Index
    piece: Index
    vectors: int


@dataclass(frozen=True)
class _Tile:
    """A register tile: its first row and column, its size, and its number in the item."""

    row: Index
    column: Index
    rows: int
    pixels: int
    number: Index


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
        self.columns = split(self.shape[3], plan.pixels)
        self.tile_size = plan.vectors * plan.rows * plan.pixels * plan.lanes
        self.totals: Buffer | None = None

    def kernel(self) -> Kernel:
        """Every item in begin..end."""
        b, plan = self.b, self.plan
        batch, _, height, _ = self.shape
        groups = plan.groups * -(-self.vector_blocks // plan.vectors)
        bands = -(-height // (plan.rows * plan.row_tiles))
        pieces = -(-sum(self.columns[1:]) // plan.column_tiles)
        areas = bands * pieces
        if self.input_blocks > plan.chain:
            tiles = plan.row_tiles * plan.column_tiles
            self.totals = b.alloc("totals", self.x.type, tiles * self.tile_size)

        def item(index: Index, _: list[Operand]) -> None:
            if plan.rows_outer:
                image, area, group = unflatten(b, index, (batch, areas, groups))
            else:
                image, group, area = unflatten(b, index, (batch, groups, areas))
            band, piece = unflatten(b, area, (bands, pieces))
            whole, last = divmod(self.vector_blocks * plan.groups, plan.vectors)

            def of(vectors: int) -> Callable[[], None]:
                return lambda: self.item(_Item(image, group, band, piece, vectors))

            if not last:
                of(plan.vectors)()
            else:
                b.if_(b.compare("lt", group, whole) if whole else False, of(plan.vectors), of(last))

        b.for_(self.begin, self.end, item)
        return Kernel(b.finish(), batch * groups * areas, self.flops)

    def item(self, item: "_Item") -> None:
        """One item: its tiles once, or once for every chain of input blocks."""
        b, plan = self.b, self.plan
        blocks = self.input_blocks
        if self.totals is None:
            self.tiles(item, lambda tile: self.finish(item, tile, self.reduce(item, tile, 0, blocks)))
            return
        totals, lanes = self.totals, plan.lanes
        # A last block of fewer channels is code of its own, and so is a shorter last chain.
        whole = (blocks - (1 if self.inputs % self.block else 0)) // plan.chain * plan.chain
        zero = b.const(0.0, self.x.type.vector(lanes))
        b.for_(0, totals.size, lambda at, _: b.store(totals, at, zero), step=lanes)

        def places(tile: "_Tile") -> range:
            return range(0, item.vectors * tile.rows * tile.pixels * lanes, lanes)

        def add_up(block: Index, _: list[Operand]) -> None:
            def visit(tile: "_Tile") -> None:
                sums = self.reduce(item, tile, block, b.add(block, plan.chain))
                slot = b.mul(tile.number, self.tile_size)
                for offset, value in zip(places(tile), sums, strict=True):
                    total = b.add(b.load(totals, slot, lanes, offset=offset), value)
                    b.store(totals, slot, total, offset=offset)

            self.tiles(item, visit)

        def last(tile: "_Tile") -> None:
            slot = b.mul(tile.number, self.tile_size)
            sums: list[Operand] = [b.load(totals, slot, lanes, offset=offset) for offset in places(tile)]
            if whole < blocks:
                sums = list(map(b.add, sums, self.reduce(item, tile, whole, blocks)))
            self.finish(item, tile, sums)

        b.for_(0, whole, add_up, step=plan.chain)
        self.tiles(item, last)

    def tiles(self, item: "_Item", visit: Callable[["_Tile"], None]) -> None:
        """Build loops over an item's tiles."""
        b, plan = self.b, self.plan
        wide, count, narrower = self.columns
        height = self.shape[2]
        whole_rows = height // plan.rows
        first = b.mul(item.band, plan.row_tiles)
        left = b.mul(item.piece, plan.column_tiles)
        right = b.min(b.add(left, plan.column_tiles), count + narrower)

        def across(row: Index, rows: int) -> None:
            slots = b.mul(b.sub(row, first), plan.column_tiles)

            def tile(pixels: int, skipped: int) -> Callable[[Index, list[Operand]], None]:
                def body(number: Index, _: list[Operand]) -> None:
                    slot = b.add(slots, b.sub(number, left))
                    column = b.add(b.mul(number, pixels), skipped)
                    visit(_Tile(b.mul(row, plan.rows), column, rows, pixels, slot))

                return body

            b.for_(left, b.min(right, count), tile(wide, 0))
            if narrower:
                b.for_(b.max(left, count), right, tile(wide - 1, count))

        last = b.min(b.add(first, plan.row_tiles), whole_rows)
        b.for_(first, last, lambda row, _: across(row, plan.rows))
        if height % plan.rows:
            here = True if item.band == 0 else b.compare("gt", b.add(first, plan.row_tiles), whole_rows)
            b.if_(here, lambda: across(whole_rows, height % plan.rows))

    def finish(self, item: "_Item", tile: "_Tile", sums: list[Operand]) -> None:
        """Hand a tile's sums, [vector][pixel], to the epilogue."""
        lanes = self.plan.lanes
        channel = self.b.mul(item.group, self.plan.vectors * lanes)
        for number, value in enumerate(sums):
            v, pixel = divmod(number, tile.rows * tile.pixels)
            y, t = divmod(pixel, tile.pixels)
            at = ((item.image, 0), (channel, v * lanes), (tile.row, y), (tile.column, t))
            self.epilogue.store(self.b, at, value, lanes)

    def reduce(self, item: "_Item", tile: "_Tile", lo: Index, hi: Index) -> list[Operand]:
        """The sums over input blocks lo..hi, [vector][pixel]; the very last block may have fewer channels."""
        b, plan, x, w = self.b, self.plan, self.x, self.w
        (stride_y, stride_x), (pad_y, pad_x) = plan.strides, plan.pads
        base: Index = b.mul(item.image, x.outer[0])
        if plan.groups > 1:
            per_group = self.vector_blocks // plan.vectors
            base = b.add(base, b.mul(b.div(item.group, per_group), self.input_blocks * x.outer[1]))
        base = b.add(base, b.mul(tile.row, stride_y * x.outer[2]))
        base = b.add(base, b.mul(tile.column, stride_x * x.outer[3]))
        filters = b.mul(item.group, w.outer[0])
        origin = x.origin - pad_y[0] * x.outer[2] - pad_x[0] * x.outer[3]
        places = [
            origin + y * stride_y * x.outer[2] + t * stride_x * x.outer[3]
            for y in range(tile.rows)
            for t in range(tile.pixels)
        ]

        def block(channels: int) -> Body:
            def body(index: Index, sums: list[Operand]) -> list[Operand]:
                at_x, at_w = b.add(base, b.mul(index, x.outer[1])), b.add(filters, b.mul(index, w.outer[1]))
                return self.window(at_x, at_w, channels, sums, item.vectors, places, tile.number)

            return body

        last = self.inputs % self.block if hi == self.input_blocks else 0
        zero = b.const(0.0, x.type.vector(plan.lanes))
        sums: list[Operand] = [zero] * (item.vectors * len(places))
        sums = b.for_(lo, b.sub(hi, 1) if last else hi, block(self.block), carried=sums)
        return block(last)(b.sub(hi, 1), sums) if last else sums

    def window(
        self,
        at_x: Index,
        at_w: Index,
        channels: int,
        sums: list[Operand],
        vectors: int,
        places: list[int],
        number: Index,
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
                        sums[v * len(places) + k] = multiply_add(b, pixel, taps[v], sums[v * len(places) + k])
            return sums

        def prefetch(at_w: Index) -> None:
            """The tile's share of the vectors at the same place of the next chain of input blocks."""
            line = max(64 // w.type.bytes, 1)
            share = -(-channels * vectors * plan.lanes // (line * plan.row_tiles * plan.column_tiles))
            at = b.add(at_w, b.mul(number, share * line))
            for k in range(share):
                offset = w.origin + plan.chain * w.outer[1] + k * line
                b.prefetch(self.w_buffer, at, offset=offset, locality=3)

        def column(at_x: Index, at_w: Index, sums: list[Operand]) -> list[Operand]:
            if plan.prefetch:
                prefetch(at_w)

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
