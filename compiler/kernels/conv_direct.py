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
          totals[tile] += acc, or after the last chain: epilogue(totals[tile] + acc)

W is the vector width. A chain is short, which keeps rounding errors small and its filters in the first-level
cache for all tiles of the area; where the whole reduction is one chain, there are no totals. Tiles never
overlap: every output vector is computed and stored exactly once. Consecutive items of one group may be computed as one.

Data come from the second-level cache or beyond while the arithmetic goes on: each input block's turn prefetches the
pixels of the next one (of 1x1 filters, which use them only once), and in the last chain's what the epilogue reads
and writes. Without that a layer of 1x1 filters takes a tenth longer. Every unrolled step fetches something, if only
filters a few steps ahead: LLVM moves no loads over a prefetch, and would move those of an unrolled step up into spills.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.kernels.conv_blocking import Blocking, Work, blocking
from tilewright.compiler.kernels.conv_tiles import (
    FLOATS,
    Pads,
    Pair,
    check_pads,
    choose_tile,
    needed_pad,
    output_size,
    power_of_two,
    split,
    tile_room,
    unrolled,
)
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.prefetch import Lines
from tilewright.compiler.kernels.tiles import multiply_add, unflatten
from tilewright.compiler.loops import INDEX, Builder, Index, Operand
from tilewright.compiler.loops.nodes import Buffer
from tilewright.compiler.targets import Target

Body = Callable[[Index, list[Operand]], list[Operand]]


AHEAD = 8
"""How many products ahead filters are fetched that lie in the second-level cache."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """The register tile and the loops around it; see the module's docstring.

    `vectors`, `rows` and `pixels` are V, R and T; the rows and pixels of all tiles are multiples of `unit`.
    """

    template: ClassVar[str] = "conv_direct"
    lanes: int
    vectors: int
    rows: int
    pixels: int
    unit: int
    unroll: int
    blocking: Blocking
    strides: Pair
    pads: Pads
    dilations: Pair
    groups: int


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
    pooled: bool = False,
) -> Plan | None:
    """How to convolve x (N, C, H, W) with w (O, C/groups, KH, KW); pads are (before, after) by spatial axis.

    `x_is_blocked_source` says that x can come in blocks of channels; otherwise it is read in its unblocked
    order of axes. `pooled` says that 2 x 2 maxima of the results, which have even height and width, are all that
    is wanted: tiles then hold whole windows. Applies to f32 and f64 with non-empty results and pads that are not
    negative; with groups, a group's output channels must be whole vectors, and so must its input channels where x
    is blocked. Else None.
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
    unit = 2 if pooled and tile_room(target, 1) >= 4 else 1
    vectors, rows, pixels = choose_tile(target, lanes * x.dtype.bytes, blocks, groups, height, width, reduction, unit)
    x_pads = ((0, 0), (0, 0), *(needed_pad(*axis) for axis in geometry))
    x_layout = Layout(blocks=((1, lanes),)) if x_is_blocked_source else Layout(axes=x.layout.axes)
    w_blocks = ((1, lanes), (0, vectors * lanes)) if x_is_blocked_source else ((0, vectors * lanes),)
    work = Work(
        groups=x.shape[0] * groups * -(-blocks // vectors),
        bands=-(-height // rows),
        across=sum(split(width // unit, pixels // unit)[1:]),
        tile_bytes=vectors * rows * pixels * lanes * x.dtype.bytes,
        weight_bytes=w.elements * x.dtype.bytes,
        x_bytes=x.elements * x.dtype.bytes,
        reduction=reduction,
        blocks=-(-inputs // block),
        products=kernel[0] * kernel[1] * block,
    )
    return Plan(
        operand_layouts=(x_layout.with_pads(x_pads), Layout(blocks=w_blocks)),
        result_layout=Layout(blocks=((1, lanes),)),
        lanes=lanes,
        vectors=vectors,
        rows=rows,
        pixels=pixels,
        unit=unit,
        unroll=power_of_two(unrolled(target, vectors) // (vectors * rows * pixels)),
        blocking=blocking(work, target),
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
    )


def build(name: str, plan: Plan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """The kernel of `plan`, with buffers x, w and the epilogue's.

    x and w lie as the plan asks; x may have wider pads, else CompileError. Items are pairs of an output
    channel group and an area. The epilogue gets whole vectors along axis 1.
    """
    check_pads(plan.operand_layouts[0], x)
    return _Builder(name, plan, x, w, result, epilogue).kernel()


@dataclass(frozen=True)
class _Item:
    """What one item or some as one compute: `vectors` vectors of a group, for some row tiles by a piece of columns.

    The filters that its tiles fetch lie `fetch_step` elements apart: a line, or less where the tiles of several items
    share that.
    """

    image: Index
    group: Index
    first: Index
    past: Index
    piece: Index
    fetch_step: Index
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
        self.line = max(64 // self.w.type.bytes, 1)
        self.flops = 2 * result.elements * self.inputs * self.kernel_size[0] * self.kernel_size[1]
        outputs = result.shape[1] // plan.groups
        self.vector_blocks = -(-outputs // plan.lanes)
        self.input_blocks = -(-self.inputs // self.block)
        self.columns = split(self.shape[3] // plan.unit, plan.pixels // plan.unit)
        self.tile_size = plan.vectors * plan.rows * plan.pixels * plan.lanes
        self.totals: Buffer | None = None

    def kernel(self) -> Kernel:
        """Every item in begin..end."""
        b, plan = self.b, self.plan
        batch, _, height, _ = self.shape
        groups = plan.groups * -(-self.vector_blocks // plan.vectors)
        bands = -(-height // (plan.rows * plan.blocking.row_tiles))
        pieces = -(-sum(self.columns[1:]) // plan.blocking.column_tiles)
        areas = bands * pieces
        if self.input_blocks > plan.blocking.chain:
            self.totals = b.alloc("totals", self.x.type, plan.blocking.tiles * self.tile_size)

        def area(image: Index, group: Index, band: Index, past: Index, piece: Index) -> None:
            first, end = b.mul(band, plan.blocking.row_tiles), b.mul(past, plan.blocking.row_tiles)
            whole, last = divmod(self.vector_blocks * plan.groups, plan.vectors)
            step: Index = self.line
            if plan.blocking.joined > 1:
                alone, shared = b.compare("le", past, b.add(band, 1)), -(-self.line // plan.blocking.joined)
                step = b.select(alone, b.const(self.line, INDEX), b.const(shared, INDEX))

            def of(vectors: int) -> Callable[[], None]:
                return lambda: self.item(_Item(image, group, first, end, piece, step, vectors))

            if not last:
                of(plan.vectors)()
            else:
                b.if_(b.compare("lt", group, whole) if whole else False, of(plan.vectors), of(last))

        def item(index: Index, _: list[Operand]) -> None:
            if plan.blocking.rows_outer:
                image, number, group = unflatten(b, index, (batch, areas, groups))
            else:
                image, group, number = unflatten(b, index, (batch, groups, areas))
            band, piece = unflatten(b, number, (bands, pieces))
            area(image, group, band, b.add(band, 1), piece)

        def of_group(index: Index, _: list[Operand]) -> None:
            image, group = unflatten(b, index, (batch, groups))
            before = b.mul(index, bands)
            lo, hi = b.max(b.sub(self.begin, before), 0), b.min(b.sub(self.end, before), bands)

            def some(band: Index, _: list[Operand]) -> None:
                area(image, group, band, b.min(b.add(band, plan.blocking.joined), hi), 0)

            b.for_(lo, hi, some, step=plan.blocking.joined)

        if plan.blocking.joined == 1:
            b.for_(self.begin, self.end, item)
        else:
            b.for_(b.div(self.begin, bands), b.div(b.add(self.end, bands - 1), bands), of_group)
        return Kernel(b.finish(), batch * groups * areas, self.flops)

    def item(self, item: "_Item") -> None:
        """One item: its tiles once, or once for every chain of input blocks."""
        b, plan = self.b, self.plan
        blocks = self.input_blocks
        if self.totals is None:
            self.tiles(item, lambda tile: self.finish(item, tile, self.reduce(item, tile, 0, blocks, True)))
            return
        # The last block may have fewer channels: then the last chain is code of its own.
        end = (blocks - 1) // plan.blocking.chain * plan.blocking.chain if self.inputs % self.block else blocks

        def chain(block: Index, _: list[Operand]) -> None:
            past = b.min(b.add(block, plan.blocking.chain), blocks)
            is_first = True if isinstance(block, int) else b.compare("eq", block, 0)
            is_last = False if end < blocks else b.compare("eq", past, blocks)

            def visit(tile: "_Tile") -> None:
                sums = self.reduce(item, tile, block, past, is_last)
                b.if_(is_first, lambda: self.keep(tile, sums), lambda: self.add_up(item, tile, sums, is_last))

            self.tiles(item, visit)

        b.for_(0, end, chain, step=plan.blocking.chain)
        if end < blocks:
            self.tiles(item, lambda tile: self.add_up(item, tile, self.reduce(item, tile, end, blocks, True), True))

    def add_up(self, item: "_Item", tile: "_Tile", sums: list[Operand], is_last: Operand | bool) -> None:
        """Add a chain's sums to the tile's totals; hand those on after the last one."""
        b, totals, lanes = self.b, self.totals, self.plan.lanes
        assert totals is not None
        at = b.mul(tile.number, self.tile_size)
        sums = [b.add(b.load(totals, at, lanes, offset=number * lanes), value) for number, value in enumerate(sums)]
        b.if_(is_last, lambda: self.finish(item, tile, sums), lambda: self.keep(tile, sums))

    def keep(self, tile: "_Tile", sums: list[Operand]) -> None:
        """Store a tile's totals."""
        assert self.totals is not None
        at = self.b.mul(tile.number, self.tile_size)
        for number, value in enumerate(sums):
            self.b.store(self.totals, at, value, offset=number * self.plan.lanes)

    def tiles(self, item: "_Item", visit: Callable[["_Tile"], None]) -> None:
        """Build loops over an item's tiles."""
        b, plan = self.b, self.plan
        wide, count, narrower = self.columns
        height = self.shape[2]
        whole_rows = height // plan.rows
        first = item.first
        left = b.mul(item.piece, plan.blocking.column_tiles)
        right = b.min(b.add(left, plan.blocking.column_tiles), count + narrower)

        def across(row: Index, rows: int) -> None:
            slots = b.mul(b.sub(row, first), plan.blocking.column_tiles)

            def tile(pixels: int, skipped: int) -> Callable[[Index, list[Operand]], None]:
                def body(number: Index, _: list[Operand]) -> None:
                    slot = b.add(slots, b.sub(number, left))
                    column = b.mul(b.add(b.mul(number, pixels), skipped), plan.unit)
                    visit(_Tile(b.mul(row, plan.rows), column, rows, pixels * plan.unit, slot))

                return body

            b.for_(left, b.min(right, count), tile(wide, 0))
            if narrower:
                b.for_(b.max(left, count), right, tile(wide - 1, count))

        last = b.min(item.past, whole_rows)
        b.for_(first, last, lambda row, _: across(row, plan.rows))
        if height % plan.rows:
            here = True if isinstance(item.past, int) else b.compare("gt", item.past, whole_rows)
            b.if_(here, lambda: across(whole_rows, height % plan.rows))

    def finish(self, item: "_Item", tile: "_Tile", sums: list[Operand]) -> None:
        """Hand a tile's sums, [vector][pixel], to the epilogue."""
        b, lanes = self.b, self.plan.lanes
        channel = b.mul(item.group, self.plan.vectors * lanes)
        if self.epilogue.pools:
            half_row, half_column = b.div(tile.row, 2), b.div(tile.column, 2)
            for v, y, t in product(range(item.vectors), range(0, tile.rows, 2), range(0, tile.pixels, 2)):
                first = (v * tile.rows + y) * tile.pixels + t
                window = [sums[first + i] for i in (0, 1, tile.pixels, tile.pixels + 1)]
                outer = ((item.image, 0), (channel, v * lanes))
                place, pooled = ((tile.row, y), (tile.column, t)), ((half_row, y // 2), (half_column, t // 2))
                self.epilogue.store_window(b, (*outer, *place), window, (*outer, *pooled))
            return
        for number, value in enumerate(sums):
            v, pixel = divmod(number, tile.rows * tile.pixels)
            y, t = divmod(pixel, tile.pixels)
            at = ((item.image, 0), (channel, v * lanes), (tile.row, y), (tile.column, t))
            self.epilogue.store(b, at, value, lanes)

    def reduce(self, item: "_Item", tile: "_Tile", lo: Index, hi: Index, is_last: Operand | bool) -> list[Operand]:
        """The sums over input blocks lo..hi, [vector][pixel]; in the last chain, what the epilogue needs is fetched.

        Where `hi` is known to be the end, the last block may have fewer channels.
        """
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

        # Each input block's turn fetches its share of the lines, so that they come while the arithmetic goes on.
        turns = hi - lo if isinstance(hi, int) and isinstance(lo, int) else plan.blocking.chain
        fetched = -(-tile.pixels // turns)

        def block(channels: int) -> Body:
            def body(index: Index, sums: list[Operand]) -> list[Operand]:
                at_x, at_w = b.add(base, b.mul(index, x.outer[1])), b.add(filters, b.mul(index, w.outer[1]))
                first = b.mul(b.sub(index, lo), fetched)
                b.if_(is_last, lambda: self.prefetch_results(item, tile, first, fetched))
                following = self.following(tile, index, hi)
                return self.window(at_x, at_w, channels, sums, item, places, tile, following)

            return body

        rest = self.inputs % self.block if hi == self.input_blocks else 0
        zero = b.const(0.0, x.type.vector(plan.lanes))
        sums: list[Operand] = [zero] * (item.vectors * len(places))
        sums = b.for_(lo, b.sub(hi, 1) if rest else hi, block(self.block), carried=sums)
        return block(rest)(b.sub(hi, 1), sums) if rest else sums

    def following(self, tile: "_Tile", block: Index, hi: Index) -> Index | None:
        """How far behind the tile's pixels of an input block those lie that are needed next."""
        b, plan, x = self.b, self.plan, self.x
        if self.kernel_size != (1, 1) or self.block == 1:
            return None
        down = plan.blocking.column_tiles == 1
        step = tile.rows * plan.strides[0] * x.outer[2] if down else tile.pixels * plan.strides[1] * x.outer[3]
        chain = min(plan.blocking.chain, self.input_blocks)
        if chain == 1:
            return step
        is_last = b.max(b.sub(block, b.sub(hi, 2)), 0)
        found: Index = b.add(b.mul(is_last, step - chain * x.outer[1]), x.outer[1])
        return found

    def prefetch_results(self, item: "_Item", tile: "_Tile", first: Index, count: int) -> None:
        """Fetch what the epilogue needs for pixels first .. first + count of each of the tile's rows."""
        if self.epilogue.pools:
            return  # a quarter of that, elsewhere
        b, lanes = self.b, self.plan.lanes
        channel = b.mul(item.group, self.plan.vectors * lanes)
        for v in range(item.vectors):
            for y in range(tile.rows):
                for t in range(count):
                    at = ((item.image, 0), (channel, v * lanes), (tile.row, y), (b.add(tile.column, first), t))
                    self.epilogue.prefetch(b, at)

    def window(
        self, at_x: Index, at_w: Index, channels: int, sums: list[Operand], item: "_Item", places: list[int],
        tile: "_Tile", following: Index | None,
    ) -> list[Operand]:  # fmt: skip
        """Add one block of input channels over the whole filter window."""
        b, x, w, plan = self.b, self.x, self.w, self.plan
        unroll, vectors = min(plan.unroll, channels), item.vectors
        whole = channels // unroll * unroll
        pixel_step = plan.strides[1] * x.outer[3]

        def steps(at_x: Index, at_w: Index, count: int, sums: list[Operand], ahead: Sequence[Lines]) -> list[Operand]:
            sums = list(sums)
            for c in range(count):
                due = [lines for lines in ahead if c % lines.every == 0]
                for lines in due:
                    lines.fetch(b, c)
                if not due and count > 1:
                    b.prefetch(self.w_buffer, at_w, offset=w.origin + (AHEAD + c) * plan.vectors * plan.lanes)
                taps = [
                    b.load(self.w_buffer, at_w, plan.lanes, offset=w.origin + c * w.inner[1] + v * plan.lanes)
                    for v in range(vectors)
                ]
                for k, place in enumerate(places):
                    pixel = b.load_splat(self.x_buffer, at_x, plan.lanes, offset=place + c * x.inner[1])
                    for v in range(vectors):
                        sums[v * len(places) + k] = multiply_add(b, pixel, taps[v], sums[v * len(places) + k])
            return sums

        def lines_ahead(at_x: Index, at_w: Index) -> list[Lines]:
            """What the steps of one place of the window fetch, a line each of every kind."""
            found = []
            if following is not None:
                row_step = plan.strides[0] * x.outer[2]
                joined = row_step == tile.pixels * pixel_step
                rows, pixels = (1, tile.rows * tile.pixels) if joined else (tile.rows, tile.pixels)
                at = b.add(at_x, following)
                apart = max(pixel_step, self.line)  # several pixels may share a line
                every = power_of_two(channels * apart // (pixels * pixel_step))
                found += [Lines(self.x_buffer, at, places[0] + y * row_step, apart, every) for y in range(rows)]
            if plan.blocking.prefetch:
                # The tile's share, within its item, of the vectors at the same place of the next chain of input blocks.
                tiles = plan.blocking.row_tiles * plan.blocking.column_tiles
                share = -(-channels * vectors * plan.lanes // (self.line * tiles))
                each = -(-share // channels)
                every = unroll if share * unroll <= channels else 1
                origin, step = w.origin + plan.blocking.chain * w.outer[1], b.mul(item.fetch_step, each)
                for k in range(each):
                    at = b.add(at_w, b.mul(b.add(b.mul(tile.number, share), k), item.fetch_step))
                    found.append(Lines(self.w_buffer, at, origin, step, every))
            return found

        def column(at_x: Index, at_w: Index, sums: list[Operand]) -> list[Operand]:
            fetched = lines_ahead(at_x, at_w)

            def channel(c: Index, sums: list[Operand]) -> list[Operand]:
                here_x, here_w = b.add(at_x, b.mul(c, x.inner[1])), b.add(at_w, b.mul(c, w.inner[1]))
                return steps(here_x, here_w, unroll, sums, [lines.later(b, c) for lines in fetched])

            sums = b.for_(0, whole, channel, step=unroll, carried=sums)
            if whole < channels:
                end_x, end_w = b.add(at_x, whole * x.inner[1]), b.add(at_w, whole * w.inner[1])
                sums = steps(end_x, end_w, channels - whole, sums, [lines.later(b, whole) for lines in fetched])
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
