"""Matrix product: (..., M, K) x (..., K, N), leading dimensions broadcast.

    x (..., M, K) row-major, rows perhaps padded
    w in panels of OCU vectors (..., N / (OCU*W), K, OCU*W), or row-major

    for item = (batch, chunk of row tiles, panel):
      sums[tile][row][OCU] = 0                        # scratch, a few kilobytes
      for k0 in blocks of K:                          # block and tile of x stay in L1
        for tile in chunk:
          acc[row][OCU] = 0                           # registers
          for k in block: load OCU vectors of w; a row: broadcast x, OCU fmas
          sums[tile] += acc
      for tile, row in chunk: epilogue(sums)

The block sums also keep chains of additions short, which is what accuracy asks for. Rows beyond the last
whole tile are a tile of their own size; columns beyond the last whole panel are zeros of the packing and are
not stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from tilewright.compiler.ir.types import ROW_MAJOR, Layout, Shape, TensorType
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import (
    BLOCK,
    multiply_add,
    split,
    tile_rows,
    total,
    unflatten,
    zeros,
)
from tilewright.compiler.loops import Buffer, Builder, Index, Operand
from tilewright.compiler.targets import Target

_SCRATCH_BYTES = 16 << 10
_LEAST_ITEMS = 16
_CACHE_LINE = 64
_SET_PERIOD = 2048
_SMALL_BLOCK = 64
_ROWS_WORTH_PACKING = 100


@dataclass(frozen=True)
class GemmPlan(KernelPlan):
    """The register tile: `rows` rows of `vectors` vectors of `lanes` elements, `unroll` steps of K at a time.

    `chunk` is how many row tiles one item takes, `block` how many steps of K one chain of additions. `chains`
    sets of accumulators take the steps in turn, where one set is too small to hide an fma's latency. `ahead`
    is how many steps of K w is prefetched ahead, 0 not at all. The vectors come from `streams` packed panels next
    to each other, whose number `streams` divides.
    """

    template: ClassVar[str] = "gemm"
    lanes: int
    vectors: int
    rows: int
    chunk: int
    unroll: int = 4
    chains: int = 1
    streams: int = 1
    block: int = BLOCK
    ahead: int = 8


def supported(a: TensorType, w: TensorType) -> bool:
    """Whether the element type is one of f32 f64 i32 i64 and nothing is empty."""
    number = a.dtype.name in ("f32", "f64", "i32", "i64") and w.dtype == a.dtype
    return number and min(a.rank, w.rank) >= 2 and all((*a.shape, *w.shape))


def flat_rows(a: TensorType, w: TensorType) -> int:
    """Rows of one product: where w has no leading dimensions, those of a count as rows."""
    return prod(a.shape[:-1]) if prod(w.shape[:-2]) == 1 else a.shape[-2]


def panels_layout(rank: int, width: int) -> Layout:
    """The packing of a (..., K, N) operand: panels of `width` columns, each K x width."""
    return Layout((*range(rank - 2), rank - 1, rank - 2), ((rank - 1, width),))


def plan(a: TensorType, w: TensorType, *, target: Target, constant: bool = True, times: int = 1) -> GemmPlan | None:
    """How to multiply a (..., M, K) by w (..., K, N); None for other element types or empty operands.

    `constant` says that packing w costs nothing at run time; where it does, w is packed only if it exceeds L2
    and enough rows share the cost. Rows of a are asked for with physical padding where they would all fall
    into the same sets of a cache; the kernel takes them without it too. Sums are added up, and w is packed, as for
    `times` as many rows.
    """
    if not supported(a, w):
        return None
    lanes, rows = target.lanes(a.dtype.bits), flat_rows(a, w)
    vectors = panel_vectors(target, rows * times, -(-w.shape[-1] // lanes))
    tile, whole, _ = split(rows, tile_rows(target, vectors))
    width = vectors * lanes
    large = w.shape[-1] * w.shape[-2] * w.dtype.bytes > target.l2
    packed = constant or (large and rows >= _ROWS_WORTH_PACKING)
    return GemmPlan(
        operand_layouts=(
            rows_layout(a, tile, w.shape[-1] // width),
            panels_layout(w.rank, width) if packed else ROW_MAJOR,
        ),
        result_layout=ROW_MAJOR,
        lanes=lanes,
        vectors=vectors,
        rows=tile,
        chunk=_chunk(w, tile, width, whole),
        block=BLOCK if rows * times > tile_rows(target, 2) else _SMALL_BLOCK,
    )


def rows_layout(a: TensorType, tile: int, panels: int) -> Layout:
    """Row-major; a cache line more a row where many rows that fall into the same sets are read often."""
    if tile <= 4 or panels < 4 or a.shape[-1] * a.dtype.bytes % _SET_PERIOD:
        return ROW_MAJOR
    return Layout().with_pads((*((0, 0),) * (a.rank - 1), (0, _CACHE_LINE // a.dtype.bytes)))


def panel_vectors(target: Target, rows: int, needed: int) -> int:
    """Vectors a panel: few rows leave registers for more; at most 8 % of them more than needed."""
    if rows <= tile_rows(target, 4):
        order = (4, 3, 2, 1)
    elif rows <= tile_rows(target, 3):
        order = (3, 2, 4, 1)
    else:
        order = (2, 3, 4, 1)
    computed = {vectors: -(-needed // vectors) * vectors for vectors in order}
    return next(vectors for vectors in order if computed[vectors] <= 1.08 * min(computed.values()))


def _chunk(w: TensorType, tile: int, width: int, whole: int) -> int:
    """Row tiles an item: as many as leave the sums in scratch, and enough items to share out."""
    most = _SCRATCH_BYTES // (tile * width * w.dtype.bytes)
    others = -(-w.shape[-1] // width) * prod(w.shape[:-2])
    return max(min(most, whole, whole * others // _LEAST_ITEMS), 1)


@dataclass(frozen=True)
class _Product:
    """A function under construction: its buffers, K, and what lies between elements along rows and K."""

    b: Builder
    plan: GemmPlan
    x: Buffer
    w: Buffer
    depth: int
    row_step: int
    k_step: int
    stream_step: int

    def terms(self, x_at: Index, w_at: Index, steps: int, sums: list[Operand], rows: int, active: int) -> list[Operand]:
        """Add `steps` steps of K, from elements x_at and w_at on, to sums[chain][row][vector]."""
        b, plan, sums = self.b, self.plan, list(sums)
        vectors, per_line = -(-active // plan.lanes), max(_CACHE_LINE // (plan.lanes * self.w.type.bytes), 1)
        for step in range(steps):
            columns = []
            for v in range(vectors):
                stream, place = divmod(v, plan.vectors // plan.streams)
                offset = step * self.k_step + stream * self.stream_step + place * plan.lanes
                if plan.ahead and v % per_line == 0:
                    b.prefetch(self.w, w_at, offset=offset + plan.ahead * self.k_step)
                count = min(active - v * plan.lanes, plan.lanes)
                columns.append(b.load(self.w, w_at, plan.lanes, offset=offset, active=count))
            for row in range(rows):
                value = b.load_splat(self.x, x_at, plan.lanes, offset=row * self.row_step + step)
                for v in range(vectors):
                    at = (step % plan.chains * rows + row) * vectors + v
                    sums[at] = multiply_add(b, value, columns[v], sums[at])
        return sums

    def block(self, x0: Index, w0: Index, lo: Index, hi: Index, rows: int, active: int, rest: int = 0) -> list[Operand]:
        """sums[row][vector] over steps lo..hi of K, a multiple of the unrolling, and `rest` more."""
        b, plan = self.b, self.plan
        count = rows * -(-active // plan.lanes)

        def body(k: Index, sums: list[Operand]) -> list[Operand]:
            w_at = b.add(w0, b.mul(k, self.k_step))
            return self.terms(b.add(x0, k), w_at, plan.unroll, sums, rows, active)

        sums = zeros(self.w.type, plan.lanes, plan.chains * count)
        sums = b.for_(lo, hi, body, step=plan.unroll, carried=sums)
        w_at = b.add(w0, b.mul(hi, self.k_step))
        sums = self.terms(b.add(x0, hi), w_at, rest, sums, rows, active)
        return [total(b, sums[at::count]) for at in range(count)]

    def tiles(
        self, x0: Index, w0: Index, count: Index, most: int, rows: int, active: int,
        finish: Callable[[Index, Buffer, Index], None],
    ) -> None:  # fmt: skip
        """Compute `count` <= `most` tiles of `rows` rows; `finish(tile, sums, index)` takes each one's."""
        b, plan = self.b, self.plan
        size = rows * plan.vectors * plan.lanes
        rest = self.depth % plan.unroll
        main = self.depth - rest
        blocks = max(round(main / plan.block), 1)
        step = -(-main // (blocks * plan.unroll)) * plan.unroll
        sums = b.alloc("sums", self.w.type, size * (most if blocks > 1 else 1))

        def place(v: int, width: int) -> int:
            """Where block()'s sum v lies in a tile's sums."""
            return (v // width * plan.vectors + v % width) * plan.lanes

        def keep(tile: Index, lo: Index, hi: Index, tail: int, add: bool) -> None:
            """Sum one block of one tile into scratch."""
            x_at = b.add(x0, b.mul(tile, rows * self.row_step))
            at = b.mul(tile, size) if blocks > 1 else 0
            for v, value in enumerate(self.block(x_at, w0, lo, hi, rows, active, tail)):
                offset = place(v, -(-active // plan.lanes))
                if add:
                    value = b.add(value, b.load(sums, at, plan.lanes, offset=offset))
                b.store(sums, at, value, offset=offset)

        def whole(tile: Index, _: list[Operand]) -> None:
            keep(tile, 0, main, rest, False)
            finish(tile, sums, 0)

        def block(lo: Index, _: list[Operand]) -> None:
            hi = b.min(b.add(lo, step), main)
            b.for_(0, count, lambda tile, _: keep(tile, lo, hi, 0, True))

        if blocks == 1:
            b.for_(0, count, whole)
            return
        b.for_(0, count, lambda tile, _: keep(tile, main, main, rest, False))
        b.for_(0, main, block, step=step)
        b.for_(0, count, lambda tile, _: finish(tile, sums, b.mul(tile, size)))


def build(name: str, plan: GemmPlan, a: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """fn(x, w, <epilogue>, begin, end): a (..., M, K), w in the plan's layout, the result (..., M, N)."""
    b = Builder(name)
    x_view, w_view = View.of(a), View.of(w)
    x, panels = b.input("x", x_view.type, x_view.size), b.input("w", w_view.type, w_view.size)
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")

    (depth, n), width, packed = w.shape[-2:], plan.vectors * plan.lanes, bool(w.layout.blocks)
    flat = prod(w.shape[:-2]) == 1
    batch = () if flat else result.shape[:-2]
    panel_count, last = -(-n // width), (n - 1) % width + 1
    whole, rest = divmod(flat_rows(a, w), plan.rows)
    chunks = max(-(-whole // plan.chunk), 1)
    panel_step = w_view.outer[-1] * (width // w_view.blocks[-1])
    stream_step = panel_step // plan.streams
    product = _Product(b, plan, x, panels, depth, x_view.outer[-2], w_view.outer[-2], stream_step)

    def item(number: Index, _: list[Operand]) -> None:
        *at, chunk, panel = unflatten(b, number, (*batch, chunks, panel_count))
        x0 = 0 if flat else batch_offset(b, at, a.shape[:-2], x_view)
        w0 = b.add(0 if flat else batch_offset(b, at, w.shape[:-2], w_view), b.mul(panel, panel_step))
        first = b.mul(chunk, plan.chunk)
        count = b.min(b.sub(whole, first), plan.chunk) if chunks > 1 else whole

        def on_last_panel(then: Callable[[int], None]) -> None:
            """`then(columns)`, apart for the last panel if it is partial."""
            is_last = panel_count == 1 or (last < width and b.compare("eq", panel, panel_count - 1))
            b.if_(is_last, lambda: then(last), lambda: then(width))

        def finish(start: Index, rows: int, active: int, sums: Buffer, at_sums: Index) -> None:
            """Hand the sums of `rows` rows from row `start` on to the epilogue."""

            def row(r: Index, _: list[Operand]) -> None:
                leading = unflatten(b, b.add(start, r), a.shape[:-1]) if flat else [*at, b.add(start, r)]
                outer = [(axis, 0) for axis in (*[0] * (result.rank - 1 - len(leading)), *leading)]
                index = b.add(at_sums, b.mul(r, width))
                for v in range(0, active, plan.lanes):
                    value = b.load(sums, index, plan.lanes, offset=v)
                    where = [*outer, (b.mul(panel, width), v)]
                    epilogue.store(b, where, value, min(active - v, plan.lanes))

            b.for_(0, rows, row)

        def tiles(start: Index, rows: int, count: Index, most: int) -> None:
            """The tiles of `rows` rows from row `start` on."""

            def columns(active: int) -> None:
                def done(tile: Index, sums: Buffer, index: Index) -> None:
                    begins = b.add(start, b.mul(tile, rows))
                    if packed:
                        on_last_panel(lambda stored: finish(begins, rows, stored, sums, index))
                    else:
                        finish(begins, rows, active, sums, index)

                product.tiles(b.add(x0, b.mul(start, x_view.outer[-2])), w0, count, most, rows, active, done)

            if packed:
                columns(width)
            else:
                on_last_panel(columns)

        if whole:
            tiles(b.mul(first, plan.rows), plan.rows, count, min(plan.chunk, whole))
        if rest:
            is_last = chunks == 1 or b.compare("eq", chunk, chunks - 1)
            b.if_(is_last, lambda: tiles(whole * plan.rows, rest, 1, 1))

    b.for_(begin, end, item)
    return Kernel(b.finish(), prod(batch) * chunks * panel_count, 2 * prod(result.shape) * depth)


def batch_offset(b: Builder, at: list[Index], shape: Shape, view: View) -> Index:
    """Where the batch at these coordinates of the result begins in an operand with leading `shape`."""
    offset: Index = 0
    for axis, extent in enumerate(shape):
        if extent > 1:
            offset = b.add(offset, b.mul(at[len(at) - len(shape) + axis], view.outer[axis]))
    return offset
