"""Pairs of resamples become one, and compute the same."""

import numpy as np
import pytest
from lower.lowered import check

from tilewright.compiler import targets
from tilewright.compiler.ir import F32, Graph, TensorType
from tilewright.compiler.ops import GraphBuilder, evaluate
from tilewright.compiler.passes.layout import assign_layouts
from tilewright.compiler.passes.pair_resamples import pair_resamples
from tilewright.compiler.passes.select import select

RNG = np.random.default_rng(0)


def resized(order: tuple[int, ...], index_max: int = 0) -> Graph:
    """A 2 x 20 x 5 x 6 image resampled along these axes to 12 and 9."""
    g = GraphBuilder("test")
    y = g.input("x", TensorType(F32, (2, 20, 5, 6)))
    for axis in order:
        n = {1: 4, 2: 12, 3: 9}[axis]
        index = RNG.integers(0, index_max or (2, 20, 5, 6)[axis], (n, 2))
        weight = RNG.random((n, 2)).astype(np.float32)
        y = g.op("resample", y, g.constant(index), g.constant(weight), axis=axis)
    return g.finish({"y": y})


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_a_pair_becomes_one_node(order: tuple[int, ...]) -> None:
    graph = resized(order)
    paired = pair_resamples(graph)
    assert [node.op for node in paired.nodes] == ["resample2d"]
    x = RNG.standard_normal((2, 20, 5, 6)).astype(np.float32)
    check(paired, [x])
    check(assign_layouts(select(paired, targets.host())), [x])
    np.testing.assert_allclose(evaluate(paired, [x])[0], evaluate(graph, [x])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("graph", [resized((1, 2)), resized((2,)), resized((2, 3), index_max=40)])
def test_what_is_no_pair_stays(graph: Graph) -> None:
    assert [node.op for node in pair_resamples(graph).nodes] == [node.op for node in graph.nodes]
