"""What the templates over row-major data share: register tiles, multiply-add, item numbers taken apart.

    vectors, rows = 2, tile_rows(target, 2)        14 rows of 2 vectors on 32 registers of AVX-512
    batch, panel = unflatten(b, item, (batches, panels))
"""

from collections.abc import Sequence
from math import prod

from tilewright.compiler.loops import Builder, Const, Index, Operand, Type
from tilewright.compiler.targets import Target

BLOCK = 256
"""Terms summed in one chain of additions before they join a total: long chains lose accuracy."""


def tile_rows(target: Target, vectors: int) -> int:
    """How many rows of `vectors` accumulators fit the registers beside what one step loads.

    AVX-512 broadcasts from memory within an instruction; others hold the broadcast in a register, and where
    vectors are short more than sixteen accumulators gain nothing.
    """
    rows = (target.registers - vectors - 2) // vectors
    if target.vector_bits < 512 and target.registers > 16:
        rows = min(rows, 16 // vectors)
    return max(rows, 1)


def fuses(target: Target) -> bool:
    """Whether the target multiplies and adds in one instruction; LLVM calls a library function where not."""
    return not target.triple.startswith(("x86_64", "i686")) or target.vector_bits >= 256


def multiply_add(b: Builder, x: Operand, y: Operand, total: Operand, fused: bool) -> Operand:
    """x * y + total: rounded once on floats of a target that can."""
    if fused and total.type.is_float:
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
