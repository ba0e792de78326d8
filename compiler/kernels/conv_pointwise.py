"""1x1 convolution of row-major data, with stride 1 and no pads: any rank, groups and element type.

    x (N, G * K, *spatial) row-major: K rows of P positions a group;  w (G * M, K, 1 ..) row-major: M rows of K

    for item = (image, group, panel of V vectors of positions, some tiles of rows of w):
      for tile of R rows:
        acc[R][V] = 0                               registers
        for k: load V vectors of x; a row: broadcast its weight, V fmas
        epilogue(acc)                               blocks of long sums are added up in scratch before
        behind the last panel, a few positions: dot products of the rows with columns of x

Lanes run along all positions at once, over the ends of image rows: 14 x 14 are 12 vectors and a quarter rather
than 14 vectors. The last vector of several begins early enough to be whole, and computes some positions again.

One position more than whole vectors (7 x 7 are 49) would cost as much as a vector. Few such positions are dot
products instead, lanes along K as in gemv, while a tile's filters are in the first-level cache.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from tilewright.compiler.ir.types import ROW_MAJOR, Shape, TensorType
from tilewright.compiler.kernels.conv_tiles import split
from tilewright.compiler.kernels.gemv import dot_tile, dots
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import BLOCK, STACK, Pads, multiply_add, unflatten, zeros
from tilewright.compiler.loops import Buffer, Builder, Index, Operand
from tilewright.compiler.targets import Target
from tilewright.errors import CompileError

_ITEMS = 8
"""The least number of items, where there are so many tiles: threads share them."""

_UNROLL = 2

_LINE = 64
"""Bytes of a line of the caches."""

_LONGEST = BLOCK * 3 // 2
"""Products that one chain of additions takes."""


@dataclass(frozen=True)
class Plan(KernelPlan):
    """The register tile: `rows` filters by `vectors` vectors of `lanes` positions; an item takes `chunk` tiles.

    The last `columns` positions are dot products of filters with columns of x, `dots` filters by vectors at a time.
    `prefetch`: x and the result fill the second-level cache, and what is needed next of them is fetched.
    """

    template: ClassVar[str] = "conv_pointwise"
    groups: int
    lanes: int
    vectors: int
    rows: int
    chunk: int
    columns: int
    dots: tuple[int, int]
    prefetch: bool


def plan(
    x: TensorType, w: TensorType, *, strides: Shape, pads: Pads, dilations: Shape, groups: int, target: Target
) -> Plan | None:
    """How to convolve x (N, C, *spatial) with w (O, C / groups, 1 ..), both row-major.

    None for larger kernels, strides or pads, for 16-bit floats, bool and empty operands, and where the last axis is 1:
    positions are counted along it.
    """
    supported = x.dtype.is_integer or x.dtype.name in ("f32", "f64")
    if not supported or w.dtype != x.dtype or not all((*x.shape, *w.shape)) or x.shape[-1] == 1:
        return None
    if {*w.shape[2:], *strides} != {1} or any(map(any, pads)):
        return None
    outputs, depth, positions = w.shape[0] // groups, w.shape[1], prod(x.shape[2:])
    lanes = target.lanes(x.dtype.bits)
    columns = positions % lanes
    if positions < lanes or columns * depth * x.dtype.bytes > STACK or not _worthwhile(columns, depth, lanes):
        columns = 0
    # Registers hold the sums, and the vectors of x of two steps.
    most = max(target.registers // (min(outputs, 6) + 2), 1)
    vectors, *panels = split(-(-(positions - columns) // lanes), most)
    rows, *tiles = split(outputs, max(target.registers // vectors - 2, 1))
    items = x.shape[0] * groups * sum(panels)
    return Plan(
        operand_layouts=(ROW_MAJOR, ROW_MAJOR),
        result_layout=ROW_MAJOR,
        groups=groups,
        lanes=lanes,
        vectors=vectors,
        rows=rows,
        chunk=-(-sum(tiles) // min(-(-_ITEMS // items), sum(tiles))),
        columns=columns,
        dots=dot_tile(target),
        prefetch=2 * (x.bytes + x.bytes // (depth * groups) * w.shape[0]) > target.l2,
    )


def _worthwhile(columns: int, depth: int, lanes: int) -> bool:
    """Whether products with columns take less time than one more vector: two multiply-adds a cycle for each filter.

    A product has a load for each multiply-add, and adds up its lanes.
    """
    return 0 < columns * (depth / lanes + 16) < 0.4 * depth


def build(name: str, plan: Plan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """fn(x, w, <epilogue>, begin, end): x (N, C, *spatial), w (O, C / groups, 1 ..), result (N, O, *spatial).

    The epilogue's vectors lie along the result's last axis and on over the ends of its rows. CompileError if x has
    pads.
    """
    if x.layout != ROW_MAJOR:
        raise CompileError(f"a 1x1 convolution of row-major data cannot read layout {x.layout}")
    return _Builder(name, plan, x, w, result, epilogue).kernel()


@dataclass(frozen=True)
class _Panel:
    """Positions of one group of an image: vectors at `offsets` behind position `start`, `active` lanes of each.

    After the last panel come the plan's columns. `x` and `channel` are where the group begins: an element of x, a
    channel of the result.
    """

    image: Index
    x: Index
    channel: Index
    start: Index
    offsets: tuple[int, ...]
    active: int
    is_last: bool = False


class _Builder:
    """What the parts of one kernel share while it is built."""

    def __init__(
        self, name: str, plan: Plan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue
    ) -> None:
        self.plan, self.epilogue, self.shape = plan, epilogue, result.shape
        self.depth, self.outputs = w.shape[1], w.shape[0] // plan.groups
        self.positions = prod(x.shape[2:])
        self.b = b = Builder(name)
        self.type = View.of(x).type
        self.x, self.w = b.input("x", self.type, x.elements), b.input("w", self.type, w.elements)
        epilogue.declare(b)
        self.begin, self.end = b.scalar("begin"), b.scalar("end")
        whole = self.positions - plan.columns
        self.panels = split(-(-whole // plan.lanes), plan.vectors)
        self.tiles = split(self.outputs, plan.rows)
        self.sums: Buffer | None = None
        if self.depth > _LONGEST:
            self.sums = b.alloc("sums", self.type, plan.rows * plan.vectors * plan.lanes)
        self.columns = b.alloc("columns", self.type, plan.columns * self.depth) if plan.columns else None

    def kernel(self) -> Kernel:
        """Every item in begin..end."""
        b, plan = self.b, self.plan
        _, whole, narrower = self.panels
        panels, pieces = whole + narrower, -(-sum(self.tiles[1:]) // plan.chunk)
        extents = (self.shape[0], plan.groups, panels, pieces)

        def item(number: Index, _: list[Operand]) -> None:
            image, group, panel, piece = unflatten(b, number, extents)
            x_at = b.mul(b.add(b.mul(image, plan.groups), group), self.depth * self.positions)
            first = b.mul(piece, plan.chunk)
            last = b.min(b.add(first, plan.chunk), sum(self.tiles[1:]))
            channel = b.mul(group, self.outputs)

            def of(start: Index, vectors: int, is_last: bool) -> None:
                offsets, active = self.places(vectors, is_last)
                if is_last:
                    self.copy_columns(x_at)
                self.rows(_Panel(image, x_at, channel, start, offsets, active, is_last), first, last)

            self.choose(panel, of)

        b.for_(self.begin, self.end, item)
        return Kernel(b.finish(), prod(extents), 2 * prod(self.shape) * self.depth)

    def choose(self, panel: Index, of: Callable[[Index, int, bool], None]) -> None:
        """Build `of(first position, vectors, whether it is the last panel and differs)` for a panel's number."""
        b, lanes = self.b, self.plan.lanes
        vectors, whole, narrower = self.panels
        differs = self.positions % lanes > 0
        last = whole + narrower - 1

        def wide() -> None:
            start = b.mul(b.sub(b.mul(panel, vectors), narrower), lanes)
            is_last = differs and (whole == 1 or b.compare("eq", panel, last))
            final = (last * vectors - narrower) * lanes
            b.if_(is_last, lambda: of(final, vectors, True), lambda: of(start, vectors, False))

        def narrow() -> None:
            of(b.mul(panel, (vectors - 1) * lanes), vectors - 1, False)

        b.if_(b.compare("lt", panel, narrower) if narrower else False, narrow, wide)

    def places(self, vectors: int, is_last: bool) -> tuple[tuple[int, ...], int]:
        """Where a panel's vectors lie behind its start, and their lanes; positions may end inside the last one."""
        lanes = self.plan.lanes
        offsets = [v * lanes for v in range(vectors)]
        rest = self.positions % lanes
        if not is_last or self.plan.columns:
            return tuple(offsets), lanes
        if vectors == 1:
            return tuple(offsets), rest
        return (*offsets[:-1], offsets[-1] - lanes + rest), lanes

    def first_row(self, tile: Index) -> Index:
        """The first row of a tile."""
        rows, whole, narrower = self.tiles
        b = self.b
        row: Index = b.mul(tile, rows)
        return b.sub(row, b.max(b.sub(tile, whole), 0)) if narrower else row

    def rows(self, panel: _Panel, first: Index, last: Index) -> None:
        """The tiles first..last of filters for a panel."""
        b = self.b
        rows, whole, narrower = self.tiles
        b.for_(first, b.min(last, whole), lambda tile, _: self.tile(panel, tile, rows))
        if narrower:
            b.for_(b.max(first, whole), last, lambda tile, _: self.tile(panel, tile, rows - 1))

    def tile(self, panel: _Panel, tile: Index, rows: int) -> None:
        """One tile, handed to the epilogue."""
        b, depth = self.b, self.depth
        row = b.add(panel.channel, self.first_row(tile))
        if self.sums is None:
            self.finish(panel, row, self.block(panel, tile, row, rows, 0, depth))
        else:
            self.long(panel, tile, row, rows, self.sums)
        if panel.is_last and self.plan.columns:
            b.for_(0, self.plan.columns, lambda column, _: self.products(panel, row, rows, column))

    def long(self, panel: _Panel, tile: Index, row: Index, rows: int, sums: Buffer) -> None:
        """A tile with so many products that blocks of them are added up in scratch."""
        b, lanes, depth = self.b, self.plan.lanes, self.depth

        def keep(values: list[Operand], add: bool) -> None:
            for i, value in enumerate(values):
                b.store(sums, i * lanes, b.add(value, b.load(sums, i * lanes, lanes)) if add else value)

        def block(lo: Index, _: list[Operand]) -> None:
            keep(self.block(panel, tile, row, rows, lo, b.add(lo, BLOCK)), True)

        rest = depth % BLOCK
        keep(self.block(panel, tile, row, rows, 0, rest), False)
        b.for_(rest, depth, block, step=BLOCK)
        self.finish(panel, row, [b.load(sums, i * lanes, lanes) for i in range(rows * len(panel.offsets))])

    def finish(self, panel: _Panel, row: Index, sums: list[Operand]) -> None:
        """Hand sums[row][vector] on."""
        for i, value in enumerate(sums):
            below, v = divmod(i, len(panel.offsets))
            self.epilogue.store(self.b, self.place(panel, row, below, panel.offsets[v]), value, panel.active)

    def place(self, panel: _Panel, row: Index, below: int, offset: int) -> list[tuple[Index, int]]:
        """The result's element `below` rows below `row`, `offset` positions behind the panel's start."""
        between: list[tuple[Index, int]] = [(0, 0)] * (len(self.shape) - 3)
        return [(panel.image, 0), (row, below), *between, (panel.start, offset)]

    def block(self, panel: _Panel, tile: Index, row: Index, rows: int, lo: Index, hi: Index) -> list[Operand]:
        """sums[row][vector] over steps lo..hi, whose number is even unless both are known."""
        b, plan, lanes = self.b, self.plan, self.plan.lanes
        vectors = len(panel.offsets)
        x_at, w_at = b.add(panel.x, panel.start), b.mul(row, self.depth)
        # A vector of each row of the next panel: another one for each tile.
        next_at = b.add(x_at, b.mul(b.add(b.min(tile, vectors - 1), vectors), lanes)) if plan.prefetch else 0

        def steps(k: Index, sums: list[Operand], count: int) -> list[Operand]:
            sums = list(sums)
            at, weights = b.add(x_at, b.mul(k, self.positions)), b.add(w_at, k)
            # The next tile's filters follow this one's, and come from afar in a network of many layers.
            following = b.add(w_at, b.mul(k, rows))
            for line in range(0, count * rows, _LINE // self.type.bytes):
                b.prefetch(self.w, following, offset=rows * self.depth + line)
            for step in range(count):
                below = step * self.positions
                if plan.prefetch:
                    b.prefetch(self.x, b.add(next_at, b.mul(k, self.positions)), offset=below)
                columns = [
                    b.load(self.x, at, lanes, offset=below + offset, active=panel.active) for offset in panel.offsets
                ]
                for r in range(rows):
                    weight = b.load_splat(self.w, weights, lanes, offset=r * self.depth + step)
                    for v, column in enumerate(columns):
                        sums[r * vectors + v] = multiply_add(b, weight, column, sums[r * vectors + v])
            return sums

        def storing(k: Index, sums: list[Operand]) -> list[Operand]:
            """Steps as many as there are rows, each of which fetches what the epilogue needs for one."""
            for step in range(_UNROLL):
                for offset in panel.offsets:
                    self.epilogue.prefetch(b, self.place(panel, b.add(row, k), step, offset))
            return steps(k, sums, _UNROLL)

        sums = zeros(self.type, lanes, rows * vectors)
        begin = lo
        if plan.prefetch and self.sums is None:
            begin = min(-(-rows // _UNROLL), self.depth // _UNROLL) * _UNROLL
            sums = b.for_(0, begin, storing, step=_UNROLL, carried=sums)
        odd = (hi - lo) % _UNROLL if isinstance(lo, int) and isinstance(hi, int) else 0
        end = b.sub(hi, odd)
        sums = b.for_(begin, end, lambda k, sums: steps(k, sums, _UNROLL), step=_UNROLL, carried=sums)
        return steps(end, sums, odd) if odd else sums

    def copy_columns(self, x_at: Index) -> None:
        """Copy the last positions of a group's rows, which begin at x_at: each becomes a row."""
        b, first = self.b, self.positions - self.plan.columns
        if self.columns is None:
            return
        columns = self.columns

        def copy(k: Index, _: list[Operand]) -> None:
            at = b.add(x_at, b.mul(k, self.positions))
            for column in range(self.plan.columns):
                b.store(columns, k, b.load(self.x, at, offset=first + column), offset=column * self.depth)

        b.for_(0, self.depth, copy)

    def products(self, panel: _Panel, row: Index, rows: int, column: Index) -> None:
        """One of the last positions for a tile."""
        b, plan, columns = self.b, self.plan, self.columns
        assert columns is not None
        count, vectors = plan.dots
        here = replace(panel, start=b.add(column, self.positions - plan.columns), offsets=(0,), active=1)

        def some(first: Index, count: int) -> None:
            at = b.add(row, first)
            filters = [(self.w, b.mul(at, self.depth), r * self.depth) for r in range(count)]
            against = (columns, b.mul(column, self.depth))
            self.finish(here, at, dots(b, plan.lanes, vectors, self.depth, filters, against))

        whole = rows // count * count
        b.for_(0, whole, lambda first, _: some(first, count), step=count)
        if whole < rows:
            some(whole, rows - whole)
