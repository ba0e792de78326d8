"""How register tiles are taken together: items enough for threads, filters read once where one range has them all."""

import numpy as np
import pytest
from kernels.packing import widths
from kernels.test_conv_direct import SAME, check, width_id

from tilewright.compiler import targets
from tilewright.compiler.kernels.conv_blocking import ITEMS, Blocking, Work, blocking
from tilewright.compiler.targets import Target

V4 = targets.by_name("x86-64-v4")
TILE = 2 * 14 * 64
"""Bytes of two vectors by 14 pixels."""


def work(groups: int, bands: int, across: int = 1, inputs: int = 512, side: int = 7) -> Work:
    """1x1 filters from blocks of 16 channels to groups of 32."""
    weight_bytes, x_bytes = groups * 32 * inputs * 4, inputs * side * side * 4
    return Work(groups, bands, across, TILE, weight_bytes, x_bytes, inputs, inputs // 16, 16)


def test_few_groups_make_smaller_items_that_a_range_joins() -> None:
    assert blocking(work(16, 4), V4) == Blocking(4, 1, False, 1, True, 4)
    assert blocking(work(4, 4), V4) == Blocking(2, 1, False, 2, True, 4)
    assert blocking(work(1, 4), V4) == Blocking(1, 1, False, 4, True, 4)


def test_filters_that_are_used_once_are_fetched_ahead() -> None:
    small, large = work(4, 14, side=14), work(4, 28, across=2, side=28)
    assert blocking(small, V4) == Blocking(7, 1, False, 1, True, 8)
    assert not blocking(large, V4).prefetch and small.weight_bytes == large.weight_bytes


def test_every_tile_is_in_an_area() -> None:
    chance = np.random.default_rng(0)
    for _ in range(200):
        groups, bands, across, blocks = (int(chance.integers(1, 40)) for _ in range(4))
        found = blocking(work(groups, bands, across, blocks * 16, 20), V4)
        assert 1 <= found.row_tiles <= bands and 1 <= found.column_tiles <= across and 1 <= found.chain <= blocks
        assert found.tiles * TILE <= V4.l1 // 2 or found.tiles == 1
        assert found.row_tiles == 1 or groups * -(-bands // found.row_tiles) >= ITEMS
        assert found.joined == 1 or found.column_tiles == across


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("size", [(7, 7), (13, 5), (40, 3), (3, 14)])
def test_joined_areas_compute_the_same(target: Target, size: tuple[int, int]) -> None:
    """In ranges that have all of a group's areas, or begin and end among them."""
    lanes = target.lanes(32)
    check((1, 9 * lanes, *size), (2 * lanes, 9 * lanes, 1, 1), target)
    check((2, 2 * lanes + 1, *size), (lanes + 1, 2 * lanes + 1, 3, 3), target, pads=SAME)
    check((1, 150, *size), (5 * lanes, 150, 3, 3), target, pads=SAME)
