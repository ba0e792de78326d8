"""Matrix products with so few rows or columns that reading the matrix is all the time they take.

few rows     x (M <= 3, K), w packed (N / (4W), K, 4W): gemm's loop with several sets of accumulators and, for
             matrices that no cache keeps, prefetches; one stream through memory, or two
one column   x (..., M, K) row-major, w (..., K, 1): lanes along K, added up at the end

for item = chunk of rows:                          # one column
  for R rows:
    sums[R] = 0
    for k0 in blocks of K:
      acc[R][U] = 0                                # registers
      for k in block step U*W: load U vectors of w; a row: load U vectors of x, U fmas
      sums[R] += acc
    epilogue(lanes of sums added up)               # one number a row
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from tilewright.compiler.ir.types import ROW_MAJOR, TensorType
from tilewright.compiler.kernels import gemm
from tilewright.compiler.kernels.gemm import GemmPlan
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import BLOCK, multiply_add, total, unflatten, zeros
from tilewright.compiler.loops import Buffer, Builder, Index, Operand, Type
from tilewright.compiler.targets import Target

_FEW_ROWS = 3
_AHEAD_BYTES = 4096
_BLOCK = 64


@dataclass(frozen=True)
class GemvPlan(KernelPlan):
    """Few rows: `product` is gemm's plan. One column: it is None, and tiles are `rows` x `vectors` of x."""

    template: ClassVar[str] = "gemv"
    lanes: int
    rows: int
    vectors: int
    chunk: int
    product: GemmPlan | None = None


def plan(a: TensorType, w: TensorType, *, target: Target, constant: bool = True, times: int = 1) -> GemvPlan | None:
    """How to multiply a (..., M, K) by w (..., K, N): None unless N is 1 or there are at most 3 rows.

    `constant` says that packing w costs nothing at run time; otherwise few rows read it row-major. Rows count `times`
    as many.
    """
    if not gemm.supported(a, w):
        return None
    lanes, rows = target.lanes(a.dtype.bits), gemm.flat_rows(a, w)
    if w.shape[-1] == 1:
        tile = dot_tile(target)
        layouts = (ROW_MAJOR, ROW_MAJOR)
        return GemvPlan(layouts, ROW_MAJOR, lanes, *tile, dot_chunk(a.shape[-1], tile[0]))
    if rows * times > _FEW_ROWS:
        return None
    vectors = 4 if target.registers >= 32 or rows < _FEW_ROWS else 2
    vectors = min(vectors, -(-w.shape[-1] // lanes))
    # More than one stream through memory keeps more of it on the way.
    pairs = -(-w.shape[-1] // (vectors * lanes)) % 2 == 0 and rows == 1 and target.registers > 16
    streams = 2 if pairs and constant and w.bytes > target.l2 else 1
    product = GemmPlan(
        operand_layouts=(ROW_MAJOR, gemm.panels_layout(w.rank, vectors * lanes) if constant else ROW_MAJOR),
        result_layout=ROW_MAJOR,
        lanes=lanes,
        vectors=vectors * streams,
        rows=rows,
        chunk=1,
        chains=_chains(vectors * streams * rows, 8),
        streams=streams,
        unroll=8,
        block=_BLOCK,
        # A prefetch takes as long as a load from the second-level cache, where small matrices stay from call to call.
        ahead=max(_AHEAD_BYTES // (vectors * lanes * a.dtype.bytes), 1) if 2 * w.bytes > target.l2 else 0,
    )
    return GemvPlan(product.operand_layouts, ROW_MAJOR, lanes, rows, vectors, 1, product)


def _chains(accumulators: int, wanted: int) -> int:
    """Sets of accumulators, a power of two, that make about `wanted`."""
    chains = 1
    while accumulators * chains * 2 <= wanted:
        chains *= 2
    return chains


def dot_tile(target: Target) -> tuple[int, int]:
    """(rows, vectors) of x that one column takes together."""
    return (4, 4) if target.registers >= 32 else (4, 2)


def dot_chunk(depth: int, rows: int) -> int:
    """Rows an item: about 64 K elements of x, in whole tiles."""
    return max((1 << 16) // (depth * rows), 1) * rows


def build(name: str, plan: GemvPlan, a: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """fn(x, w, <epilogue>, begin, end): a (..., M, K), w in the plan's layout, the result (..., M, N)."""
    if plan.product is not None:
        return gemm.build(name, plan.product, a, w, result, epilogue)
    b = Builder(name)
    x_view, w_view = View.of(a), View.of(w)
    x, column = b.input("x", x_view.type, x_view.size), b.input("w", w_view.type, w_view.size)
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")
    flat, depth, rows = prod(w.shape[:-2]) == 1, a.shape[-1], gemm.flat_rows(a, w)
    batch = () if flat else result.shape[:-2]
    chunk = min(plan.chunk, rows)
    chunks = -(-rows // chunk)
    row_step = x_view.outer[-2]

    def item(number: Index, _: list[Operand]) -> None:
        *at, piece = unflatten(b, number, (*batch, chunks))
        x0 = 0 if flat else gemm.batch_offset(b, at, a.shape[:-2], x_view)
        w0 = 0 if flat else gemm.batch_offset(b, at, w.shape[:-2], w_view)
        first = b.mul(piece, chunk)
        stop = b.min(b.add(first, chunk), rows) if chunks > 1 else rows

        def some(row: Index, count: int) -> None:
            sums = dots(
                b, plan.lanes, plan.vectors, depth,
                [(x, b.add(x0, b.mul(row, row_step)), r * row_step) for r in range(count)], (column, w0),
            )  # fmt: skip
            for r, value in enumerate(sums):
                leading = unflatten(b, b.add(row, r), a.shape[:-1]) if flat else [*at, b.add(row, r)]
                ones = [0] * (result.rank - 1 - len(leading))
                epilogue.store(b, [*((axis, 0) for axis in (*ones, *leading)), (0, 0)], value, 1)

        whole = b.mul(b.div(stop, plan.rows), plan.rows)
        b.for_(first, whole, lambda row, _: some(row, plan.rows), step=plan.rows)
        b.for_(whole, stop, lambda row, _: some(row, 1))

    b.for_(begin, end, item)
    return Kernel(b.finish(), prod(batch) * chunks, 2 * prod(result.shape) * depth)


def dots(
    b: Builder, lanes: int, vectors: int, depth: int,
    rows: list[tuple[Buffer, Index, int]], other: tuple[Buffer, Index],
) -> list[Operand]:  # fmt: skip
    """The products of rows of `depth` elements, each from (buffer, index, offset) on, with one other."""
    against, index = other
    type: Type = against.type
    count = len(rows)

    def step(k: Index, sums: list[Operand], widths: list[int]) -> list[Operand]:
        """Add a vector a width to sums[row][vector]."""
        sums = list(sums)
        at = b.add(index, k)
        loaded = [b.load(against, at, lanes, offset=v * lanes, active=n) for v, n in enumerate(widths)]
        for r, (buffer, start, offset) in enumerate(rows):
            row_at = b.add(start, k)
            for v, n in enumerate(widths):
                value = b.load(buffer, row_at, lanes, offset=offset + v * lanes, active=n)
                i = r * vectors + v
                sums[i] = multiply_add(b, value, loaded[v], sums[i])
        return sums

    stride = vectors * lanes
    main, rest = depth // stride * stride, depth % stride
    widths = [min(rest - v, lanes) for v in range(0, rest, lanes)]

    def block(lo: Index, hi: Index, tail: list[int]) -> list[Operand]:
        sums = zeros(type, lanes, count * vectors)
        sums = b.for_(lo, hi, lambda k, acc: step(k, acc, [lanes] * vectors), step=stride, carried=sums)
        if tail:
            sums = step(hi, sums, tail)
        return [total(b, sums[r * vectors : (r + 1) * vectors]) for r in range(count)]

    def further(lo: Index, sums: list[Operand]) -> list[Operand]:
        return [b.add(x, y) for x, y in zip(sums, block(lo, b.add(lo, long), []), strict=True)]

    long = BLOCK * stride
    first = main % long
    sums = block(0, first, []) if first else zeros(type, lanes, count)
    sums = b.for_(first, main, further, step=long, carried=sums)
    if rest:
        sums = [b.add(x, y) for x, y in zip(sums, block(main, main, widths), strict=True)]
    return [b.reduce("add", value) for value in sums]
