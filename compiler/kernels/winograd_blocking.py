"""How Winograd's tiles are taken together: blocks of them whose inputs are transformed at once.

    tile_counts((56, 56), 4, 3, ((1, 1), (1, 1)))      (14, 14) tiles of 4 x 4 outputs
    blocking(196, ...)                                 (25, 1): blocks of 25 tiles, chunks of one group of outputs
"""

from collections.abc import Sequence

from tilewright.compiler.ir.types import Shape
from tilewright.compiler.kernels.conv_tiles import split
from tilewright.compiler.targets import Target

FEW = 4
"""Strips that all of a layer's tiles make, where its filters are then fetched only once."""

ITEMS = 8
"""The least number of blocks, where there are so many tiles: threads share them."""


def tile_counts(spatial: Shape, tile: int, kernel: int, pads: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Tiles along each spatial axis."""
    return tuple(-(-(size + sum(pad) - kernel + 1) // tile) for size, pad in zip(spatial, pads, strict=True))


def blocking(
    tiles: int, products: int, blocks_in: int, blocks_out: int, vectors: int, pixels: int, target: Target
) -> tuple[int, int]:
    """(tiles of a block, groups of a chunk)."""
    line = target.vector_bits // 8
    filters = products * line * blocks_in * blocks_out * (target.vector_bits // 32)
    tile_inputs, tile_products = products * line * blocks_in, products * line * vectors
    all_groups = -(-blocks_out // vectors)
    room = (target.l2 * 7 // 8 - filters) // (tile_inputs + tile_products)
    if tiles <= FEW * pixels:
        # Filters may be read for every strip where they stay in the cache; short blocks leave other layers' data there.
        chosen = split(tiles, pixels)[0] if filters <= target.l2 // 4 else tiles
    elif room >= pixels:
        # Everything stays in the second-level cache.
        return split(tiles, room // pixels * pixels)[0], 1
    else:
        # Filters come from further away, for two strips at a time, with enough items for threads.
        chosen = split(tiles, max(min(2 * pixels, -(-tiles // ITEMS)), pixels))[0]
    groups = max(target.l2 // 8 // (tile_products * chosen), 1)
    return chosen, split(all_groups, groups)[0]
