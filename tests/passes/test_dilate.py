"""Images cut into batches around a convolution: the batch goes, the values stay."""

from collections.abc import Callable

import numpy as np
import pytest

from tilewright.compiler.ir import F32, Graph, TensorType, Value
from tilewright.compiler.ir.verifier import verify
from tilewright.compiler.ops import GraphBuilder, composites, evaluate, verify_types
from tilewright.compiler.ops.contraction import Conv
from tilewright.compiler.passes.cleanup import remove_dead
from tilewright.compiler.passes.dilate import dilate

Pads = tuple[tuple[int, int], tuple[int, int]]
NONE: Pads = ((0, 0), (0, 0))


def weight(g: GraphBuilder, *shape: int) -> Value:
    return g.constant(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32), "w")


def framed(
    between: Callable[[GraphBuilder, Value], Value] = lambda g, y: y,
    *,
    size: tuple[int, int] = (7, 9),
    block: tuple[int, int] = (2, 3),
    pads: Pads = ((2, 3), (3, 3)),
    crops: Pads = ((0, 1), (0, 0)),
    inside: Pads = NONE,
    groups: int = 1,
) -> Graph:
    """A 3x3 convolution between space to batch and batch to space."""
    g = GraphBuilder("framed")
    x = g.input("x", TensorType(F32, (2, *size, 4)))
    small = g.op("transpose", composites.space_to_batch(g, x, block, pads), perm=(0, 3, 1, 2))
    w = weight(g, 4, 4 // groups, 3, 3)
    y = g.op("conv", small, w, strides=(1, 1), pads=inside, dilations=(1, 1), groups=groups)
    y = between(g, g.op("transpose", y, perm=(0, 2, 3, 1)))
    return g.finish({"y": composites.batch_to_space(g, y, block, crops)})


def dilated(graph: Graph) -> Graph:
    """The pass, checked."""
    x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.shape).astype(np.float32)
    result = remove_dead(dilate(graph))
    verify(result)
    verify_types(result)
    for got, want in zip(evaluate(result, [x]), evaluate(graph, [x]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return result


def test_golden(golden: Callable[[str], None]) -> None:
    golden(str(dilated(framed(lambda g, y: g.op("relu", g.op("add", y, weight(g, 4)))))))


@pytest.mark.parametrize(
    ("graph", "pads"),
    [
        (framed(), ((2, 2), (3, 3))),
        (framed(pads=((0, 1), (0, 0)), crops=((0, 1), (0, 0))), ((0, 0), (0, 0))),
        (framed(inside=((1, 1), (1, 0)), pads=((0, 1), (0, 0)), crops=((1, 0), (2, 0))), ((1, 3), (1, 0))),
        (framed(groups=4), ((2, 2), (3, 3))),
        (framed(lambda g, y: composites.clip(g, g.op("mul", y, weight(g, 1, 1, 1, 4)), 0.0, 6.0)), ((2, 2), (3, 3))),
    ],
)
def test_becomes_one_convolution(graph: Graph, pads: Pads) -> None:
    (conv,) = [node for node in dilated(graph).nodes if node.op == "conv"]
    assert isinstance(conv.attrs, Conv) and conv.attrs.dilations == (2, 3) and conv.attrs.pads == pads
    assert conv.operands[0].type.shape == (2, 4, 7, 9)


@pytest.mark.parametrize(
    "graph",
    [
        framed(crops=((3, 1), (0, 0))),  # less than no pads
        framed(lambda g, y: g.op("mul", y, weight(g, *y.type.shape))),  # each small image has its own factor
        framed(lambda g, y: g.op("mul", y, g.op("sigmoid", y))),
        framed(lambda g, y: composites.softmax(g, y, (1,))),
    ],
)
def test_other_graphs_are_left(graph: Graph) -> None:
    assert str(dilated(graph)) == str(graph)
