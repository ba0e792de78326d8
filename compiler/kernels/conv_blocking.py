"""How a direct convolution's register tiles are taken together: areas of them that share their filters.

    blocking(Work(bands=7, across=1, ..), target)     Blocking(row_tiles=7, column_tiles=1, .., chain=8)
"""

from dataclasses import dataclass

from tilewright.compiler.kernels.conv_tiles import split
from tilewright.compiler.targets import Target

CHAIN = 128
"""Products added up in one register before the sum moves on to a block's total: their filters stay in the first-level
cache. Half as many where the next chain's filters come from memory for few tiles: the cache holds both."""

FEW = 4
"""That few tiles."""

SHORT = 256
"""Products that are one chain where there are no more: totals would take longer than filters from further away."""

ONCE = 2
"""Areas that use a filter before it is done with: where there are that few, filters come from memory, whose latency
prefetches hide. With more areas most come from the second-level cache, and prefetches would only take time."""

ITEMS = 8
"""The least number of items, where there are so many tiles: threads share them."""


@dataclass(frozen=True)
class Work:
    """What there is to do: `groups` of output channels, each `bands` by `across` tiles of `tile_bytes`.

    The groups are those of all images. A result takes `reduction` products, in `blocks` of `products` or fewer.
    """

    groups: int
    bands: int
    across: int
    tile_bytes: int
    weight_bytes: int
    x_bytes: int
    reduction: int
    blocks: int
    products: int


@dataclass(frozen=True)
class Blocking:
    """The loops around a register tile.

    An area has up to `row_tiles` by `column_tiles` tiles, and `chain` counts input blocks. `rows_outer`: all groups of
    an area are consecutive items, rather than all areas of a group. Up to `joined` consecutive areas of a group are
    computed as one where a range has them: it reads the filters once. `prefetch`: the next chain's filters are fetched
    while one is in use.
    """

    row_tiles: int
    column_tiles: int
    rows_outer: bool
    joined: int
    prefetch: bool
    chain: int

    @property
    def tiles(self) -> int:
        """The most that share their filters."""
        return self.row_tiles * self.joined * self.column_tiles


def blocking(work: Work, target: Target) -> Blocking:
    """Areas whose totals fill half of the first-level cache, or smaller ones where those would be few items."""
    tiles = max(target.l1 // 2 // work.tile_bytes, 1)
    column_tiles = split(work.across, tiles)[0]
    together = row_tiles = split(work.bands, max(tiles // column_tiles, 1))[0]
    while row_tiles > 1 and work.groups * -(-work.bands // row_tiles) < ITEMS:
        row_tiles = -(-row_tiles // 2)
    rows_outer = 2 * work.weight_bytes <= target.l2 < 2 * work.x_bytes
    joined = 1 if rows_outer or column_tiles < work.across else -(-together // row_tiles)
    areas = -(-work.bands // (row_tiles * joined)) * -(-work.across // column_tiles)
    prefetch = work.weight_bytes > target.l2 // 2 or areas <= ONCE
    few = prefetch and row_tiles * joined * column_tiles <= FEW
    longest = CHAIN // 2 if few else SHORT if work.reduction <= SHORT else CHAIN
    chain = max(longest // work.products, 1)
    return Blocking(row_tiles, column_tiles, rows_outer, joined, prefetch, split(work.blocks, chain)[0])
