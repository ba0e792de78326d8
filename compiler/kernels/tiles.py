"""What the templates over row-major data share: register tiles, multiply-add, item numbers taken apart.

vectors, rows = 2, tile_rows(target, 2)        14 rows of 2 vectors on 32 registers of AVX-512
batch, panel = unflatten(b, item, (batches, panels))
"""

from collections.abc import Sequence
from math import prod

from tilewright.compiler.ir.types import Shape
from tilewright.compiler.loops import Buffer, Builder, Const, Index, Operand, Type
from tilewright.compiler.targets import Target

Pads = tuple[tuple[int, int], ...]

_MOST_RUNS = 4

STACK = 64 << 10
"""Bytes of scratch that a kernel may have on the stack, whatever the model: that of a thread may be small."""

BLOCK = 256
"""Terms summed in one chain of additions before they join a total: long chains lose accuracy."""


def tile_rows(target: Target, vectors: int) -> int:
    """How many rows of `vectors` accumulators fit the registers beside what one step loads.

    That is its vectors, a broadcast, and one to spare. Where vectors are short more than sixteen accumulators
    gain nothing.
    """
    rows = (target.registers - vectors - 2) // vectors
    if target.vector_bits < 512 and target.registers > 16:
        rows = min(rows, 16 // vectors)
    return max(rows, 1)


def multiply_add(b: Builder, x: Operand, y: Operand, total: Operand) -> Operand:
    """x * y + total, rounded once on floats."""
    if total.type.is_float:
        return b.fma(x, y, total)
    added: Operand = b.add(total, b.mul(x, y))
    return added


def zeros(type: Type, lanes: int, count: int) -> list[Operand]:
    """Accumulators before the first term."""
    return [Const(type.vector(lanes), 0) for _ in range(count)]


def unflatten(b: Builder, index: Index, extents: Sequence[int]) -> list[Index]:
    """The coordinates of element `index` of a row-major array of these extents."""
    found: list[Index] = []
    for position in range(len(extents)):
        inner = prod(extents[position + 1 :])
        coordinate = b.div(index, inner)
        found.append(coordinate if prod(extents[:position]) == 1 else b.rem(coordinate, extents[position]))
    return [0 if extent == 1 else at for at, extent in zip(found, extents, strict=True)]


def total(b: Builder, terms: Sequence[Operand]) -> Operand:
    """The sum, added in pairs."""
    left = list(terms)
    while len(left) > 1:
        pairs = [b.add(x, y) for x, y in zip(left[::2], left[1::2], strict=False)]
        left = pairs + left[len(left) // 2 * 2 :]
    return left[0]


def split(extent: int, most: int) -> tuple[int, int, int]:
    """(size, whole, rest): `whole` tiles of `size` <= most, as equal as can be, then one of `rest` < size."""
    size = -(-extent // -(-extent // most))
    return size, extent // size, extent % size


def window_counts(spatial: Shape, kernel: Shape, strides: Shape, dilations: Shape, pads: Pads) -> Shape:
    """How many windows fit along each spatial axis."""
    return tuple(
        (size + before + after - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, stride, dilation, (before, after) in zip(
            spatial, kernel, strides, dilations, pads, strict=True
        )
    )


def load_points(
    b: Builder, x: Buffer, at: Index, offset: int, points: tuple[int, ...], lanes: int
) -> Operand:
    """A vector of the elements at these increasing distances from `at + offset`.

    Lanes beyond them hold anything. Loads as few runs of memory as cover them and shuffles them together, or
    gathers where that takes many. What lies before the first element and after the last one is not read.
    """
    starts: list[int] = []
    number = []
    for point in points:
        if not starts or point >= starts[-1] + lanes:
            starts.append(point)
        number.append(len(starts) - 1)
    if len(starts) > _MOST_RUNS:
        steps = [*points, *[points[-1]] * (lanes - len(points))]
        return b.gather(x, at, steps, offset=offset, active=len(points))
    # A run that would reach beyond the last element begins earlier instead: whole loads need no mask.
    starts = [max(min(start, points[-1] - lanes + 1), points[0]) for start in starts]
    runs: list[Operand] = [
        b.load(x, at, lanes, offset=offset + start, active=min(points[-1] - start + 1, lanes))
        for start in starts
    ]
    place = [point - starts[run] for point, run in zip(points, number, strict=True)]
    if len(runs) == 1:
        same = place == list(range(len(points)))
        return runs[0] if same else b.shuffle(runs[0], runs[0], [*place, *[0] * (lanes - len(points))])
    merged = runs[0]
    for count, run in enumerate(runs[1:], start=1):
        # Lanes of earlier runs lie in place once two runs have been merged.
        chosen = [at if count == 1 else lane for lane, at in enumerate(place)]
        chosen = [
            lanes + at if of == count else kept for kept, at, of in zip(chosen, place, number, strict=True)
        ]
        merged = b.shuffle(
            merged, run, [*(lane % (2 * lanes) for lane in chosen), *[0] * (lanes - len(points))]
        )
    return merged
