"""What the pictures show: means, groups, chosen maps, clusters."""

from typing import Any

import numpy as np
import pytest

from tilewright.errors import CallError
from tilewright.pictures import choose_maps, cluster, file_name, groups, mean_map

RANDOM = np.random.default_rng(11)
COLUMNS = RANDOM.standard_normal((12, 20, 30)).astype(np.float32)


def test_mean_of_a_layer_and_of_a_group() -> None:
    np.testing.assert_allclose(mean_map(COLUMNS, [slice(0, 4)]), COLUMNS[:4].mean(0), rtol=1e-5)
    grouped = mean_map(COLUMNS * np.float32(1000), [slice(0, 4), slice(4, 12)])
    layers = [COLUMNS[:4].mean(0), COLUMNS[4:].mean(0)]
    expected = sum((m - m.mean()) / m.std() for m in layers) / 2
    np.testing.assert_allclose(grouped, expected, atol=1e-4)
    assert not mean_map(np.ones((4, 3, 3), np.float32), [slice(0, 2), slice(2, 4)]).any()


def test_groups() -> None:
    layers = ["conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"]
    assert groups(layers) == {"shallow": ["conv1_2", "conv2_2"], "deep": ["conv4_3", "conv5_3"]}
    assert groups(layers[:3]) == {}


def test_chosen_maps_vary_and_differ() -> None:
    """Flat channels and copies of others come last."""
    columns = COLUMNS.copy()
    columns[1] = 0
    columns[2] = 3 * columns[5]  # most varied, and the same picture as channel 5
    assert choose_maps(columns, slice(0, 8), 6) == [0, 2, 3, 4, 6, 7]
    columns[9] *= 2
    assert choose_maps(columns, slice(4, 12), 1) == [9]
    assert len(choose_maps(columns, slice(0, 3), 8)) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_clusters_are_found(count: int) -> None:
    """Stripes of widths 4, 3, 2 .. times as many columns; labels count from the largest."""
    edges = {1: [30], 2: [20, 30], 3: [15, 25, 30]}[count]
    truth = np.zeros((20, 30), int)
    for label, edge in enumerate(edges[:-1]):
        truth[:, edge:] = label + 1
    centres = RANDOM.standard_normal((count, 12)).astype(np.float32) * 20
    columns = np.moveaxis(centres[truth], -1, 0) + COLUMNS
    np.testing.assert_array_equal(cluster(columns, count), truth)
    np.testing.assert_array_equal(cluster(columns, count), cluster(columns, count))


def test_pixels_that_are_all_the_same_are_one_cluster() -> None:
    assert not cluster(np.ones((5, 8, 8), np.float32), 3).any()


@pytest.mark.parametrize("count", [0, 65])
def test_impossible_numbers_of_clusters(count: int) -> None:
    with pytest.raises(CallError, match=f"{count} clusters of 64 pixels"):
        cluster(np.ones((5, 8, 8), np.float32), count)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("conv1_2", "conv1_2"), ("a/b:0", "a_b_0"), ("..", "_"), ("", "_"), ("é-1.w", "é-1.w")],
)
def test_file_names(name: str, expected: Any) -> None:
    assert file_name(name) == expected
