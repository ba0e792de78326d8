"""Regions that transpose: tiles of vectors turned in registers; see `kernels.nest`.

    y[.., t, l] = f(x[.., l, t])        x is contiguous along t, y along l
      load S rows of x along t, turn the S x S tile, store S rows along l

A bare copy stores the turned rows at once; other expressions take them from scratch, one row at a time.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from tilewright.compiler.kernels.nest_data import Input, Region
from tilewright.compiler.kernels.nest_loops import RegionEmitter
from tilewright.compiler.kernels.nest_plan import ITEM_WORK, Place
from tilewright.compiler.loops import Buffer, Builder, Index, Operand

MAX_TILE = 16
"""Rows of a tile: what the registers hold."""
BLOCK = 16
"""Tiles along t before the next ones along l: whole cache lines of both arrays come together."""


def tile_axis(region: Region, lanes: int) -> int | None:
    """The axis t along which a region's largest transposed input is contiguous; None if there is none."""
    lane = len(region.extents) - 1
    if region.reduced or min(lanes, region.extents[lane]) < 3 or region.output.access.strides[lane] != 1:
        return None
    found = [
        (region.extents[axis], axis)
        for access in region.inputs
        if access.strides[lane] not in (0, 1, -1)
        for axis, stride in enumerate(access.strides)
        if stride == 1 and axis != lane and region.extents[axis] >= 3
    ]
    return max(found)[1] if found else None


class TileEmitter(RegionEmitter):
    """Emits a region tile by tile."""

    def __init__(
        self, b: Builder, region: Region, inputs: Sequence[Buffer], result: Buffer, lanes: int
    ) -> None:
        axis = tile_axis(region, lanes)
        assert axis is not None
        self.across_axis = axis
        super().__init__(b, region, inputs, result, min(lanes, MAX_TILE))

    def plan_lanes(self) -> int:
        """A tile is as long as it is wide."""
        return self.lanes

    def plan_unroll(self) -> int:
        """A tile is one vector wide."""
        return 1

    def plan_items(self) -> tuple[int, int, int]:
        """(unused, elements along t an item takes, such chunks along t)."""
        self.turned = [
            position
            for position, access in enumerate(self.region.inputs)
            if access.strides[self.lane] not in (0, 1, -1) and access.strides[self.across_axis] == 1
        ]
        self.outer = [axis for axis in self.kept if axis not in (self.across_axis, self.lane)]
        n, grain = self.region.extents[self.across_axis], self.lanes * BLOCK
        wanted = max(ITEM_WORK // (self.region.extents[self.lane] * grain), 1)
        blocks = -(-n // grain)
        chunks = -(-blocks // wanted)
        self.block = -(-blocks // chunks) * grain
        # A few rows along t only (the lanes of a block of channels): cut the columns too.
        columns = self.region.extents[self.lane] // self.lanes
        parts = max(min(n, self.block) * self.region.extents[self.lane] // (8 * ITEM_WORK), 1)
        self.columns = max(-(-columns // parts), 1)
        self.pieces = max(-(-columns // self.columns), 1)
        return len(self.outer), self.block, -(-n // self.block)

    @property
    def items(self) -> int:
        """Items of the region."""
        return prod(self.region.extents[axis] for axis in self.outer) * self.chunks * self.pieces

    @items.setter
    def items(self, value: int) -> None:
        """The base class counts otherwise."""

    def item(self, item: Index) -> None:
        """Emit one item: a chunk along t and a part along l, at one index of the other axes."""
        b = self.b
        for position in self.turned:
            source = self.places[position]
            if ("source", position) not in self.places:
                self.places["source", position] = source
        copies = isinstance(self.region.output.expr, Input)
        if not copies:
            for position in self.turned:
                buffer = b.alloc("tile", self.places["source", position].buffer.type, self.lanes * self.lanes)
                steps = [0] * len(self.region.extents)
                steps[self.across_axis] = self.lanes
                self.places[position] = Place(buffer, 0, tuple(steps), 1)
        self.memo, self.done = [{}], 0
        self.bases = [{key: 0 for key in self.places}]
        self.part: Index = 0
        if self.pieces > 1:
            self.part, item = b.rem(item, self.pieces), b.div(item, self.pieces)
        chunk: Index = 0
        if self.chunks > 1:
            chunk, item = (b.rem(item, self.chunks), b.div(item, self.chunks)) if self.outer else (item, 0)
        coordinates: list[Index] = []
        for axis in reversed(self.outer):
            first = axis == self.outer[0]
            coordinates.append(item if first else b.rem(item, self.region.extents[axis]))
            item = b.div(item, self.region.extents[axis])
        for axis, at in zip(self.outer, reversed(coordinates), strict=True):
            self.enter(axis, at)
        root = [self.region.output.expr]
        self.hoist(root, {self.across_axis, self.lane})
        n = self.region.extents[self.across_axis]
        whole = n // self.lanes * self.lanes
        lo = b.mul(chunk, self.block)
        hi: Index = b.add(lo, self.block)
        hi = b.min(hi, whole) if self.chunks * self.block > whole else hi

        grain = self.lanes * BLOCK

        def block(start: Any, _: list[Operand]) -> None:
            end = b.min(b.add(start, grain), hi)
            self.along_lanes(start, end, self.lanes)

        b.for_(lo, hi, block, step=grain)
        if whole < n:
            in_last: Any = b.compare("eq", chunk, self.chunks - 1) if self.chunks > 1 else True
            b.if_(in_last, lambda: self.along_lanes(whole, n, n - whole))

    def along_lanes(self, lo: Index, hi: Index, rows: int) -> None:
        """Tiles of `rows` rows from t = lo to hi, and the item's part along l; the last one takes the rest."""
        b, n, size = self.b, self.region.extents[self.lane], self.lanes
        end = max(n, self.region.output.fill)

        def column(at: Any, active: int, stored: int) -> None:
            def tile(t: Any, _: list[Operand]) -> None:
                self.enter(self.across_axis, t)
                self.enter(self.lane, at)
                self.tile(rows, active, stored)
                self.leave()
                self.leave()

            b.for_(lo, hi, tile, step=size)

        def rest() -> None:
            for at in range(n // size * size, end, size):
                column(at, max(min(n - at, size), 0), min(end - at, size))

        step, whole = self.columns * size, n // size * size
        first = b.mul(self.part, step)
        last = b.min(b.add(first, step), whole) if self.pieces * step > whole else b.add(first, step)
        b.for_(first, last, lambda at, _: column(at, size, size), step=size)
        if whole < end:
            in_last: Any = b.compare("eq", self.part, self.pieces - 1) if self.pieces > 1 else True
            b.if_(in_last, rest)

    def tile(self, rows: int, active: int, stored: int) -> None:
        """One tile of `rows` along t and `active` along l, of which `stored` are written."""
        b, size = self.b, self.lanes
        expr = self.region.output.expr
        turned: dict[int, list[Operand]] = {}
        for position in self.turned:
            source = self.places["source", position]
            index = self.bases[-1]["source", position]
            zero = b.const(0, source.buffer.type.vector(size))
            vectors: list[Operand] = [
                b.load(source.buffer, index, size, offset=source.origin + lane * source.lane, active=rows)
                for lane in range(active)
            ]
            turned[position] = transposed(b, vectors + [zero] * (size - active))
        self.active = active
        fill = stored if stored > active else 0
        if isinstance(expr, Input):
            for t in range(rows):
                y = self.places["y"]
                b.store(
                    y.buffer, self.bases[-1]["y"], turned[expr.position][t],
                    offset=y.origin + t * y.steps[self.across_axis], active=stored,
                )  # fmt: skip
            return
        for position, vectors in turned.items():
            self.bases[-1][position] = 0
            for t in range(rows):
                b.store(self.places[position].buffer, 0, vectors[t], offset=t * size)
        self.hoist([expr], {self.across_axis})

        def row(t: Any, _: list[Operand]) -> None:
            self.enter(self.across_axis, t)
            self.step(0, [], active, fill)
            self.leave()

        b.for_(0, rows, row)


def transposed(b: Builder, rows: Sequence[Operand]) -> list[Operand]:
    """The columns of a square tile given by rows, by shuffles that map to single instructions.

    Inside every 128 bits rows are interleaved pair by pair, in ever larger pieces; then the 128-bit quarters
    change places.
    """
    size = len(rows)
    inside = min(size, 128 // rows[0].type.bits) if rows[0].type.kind != "b" else min(size, 16)
    groups = [_interleaved(b, rows[start : start + inside], 1) for start in range(0, size, inside)]
    columns: list[Operand] = [rows[0]] * size
    for j in range(inside):
        for q, column in enumerate(_quarters(b, [group[j] for group in groups], inside)):
            columns[q * inside + j] = column
    return columns


def _interleaved(b: Builder, rows: Sequence[Operand], piece: int) -> list[Operand]:
    """Column j of each 128 bits, for each j: pairs of rows interleaved in pieces of `piece` elements."""
    if len(rows) == 1:
        return list(rows)
    size = rows[0].type.lanes
    inside = len(rows) * piece
    half = inside // piece // 2

    def pattern(first: int) -> list[int]:
        return [
            source + start + chunk * piece + element
            for start in range(0, size, inside)
            for chunk in range(first, first + half)
            for source in (0, size)
            for element in range(piece)
        ]

    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    low = [b.shuffle(x, y, pattern(0)) for x, y in pairs]
    high = [b.shuffle(x, y, pattern(half)) for x, y in pairs]
    return _interleaved(b, low, 2 * piece) + _interleaved(b, high, 2 * piece)


def _quarters(b: Builder, vectors: Sequence[Operand], inside: int) -> list[Operand]:
    """Vector q holds piece q (of `inside` elements) of every vector, in order."""
    if len(vectors) == 1:
        return list(vectors)
    size = vectors[0].type.lanes
    pieces = size // inside

    def pattern(first: int) -> list[int]:
        return [
            source + piece * inside + element
            for source in (0, size)
            for piece in range(first, pieces, 2)
            for element in range(inside)
        ]

    pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
    even = _quarters(b, [b.shuffle(x, y, pattern(0)) for x, y in pairs], inside)
    odd = _quarters(b, [b.shuffle(x, y, pattern(1)) for x, y in pairs], inside)
    return [vector for pair in zip(even, odd, strict=True) for vector in pair]
