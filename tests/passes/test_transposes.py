"""Transposes sink: golden graphs, what is left of networks with the channels last, and that values stay."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tilewright.compiler.ir import BOOL, F32, Graph, TensorType, Value
from tilewright.compiler.ir.verifier import verify
from tilewright.compiler.ops import GraphBuilder, composites, evaluate, verify_types
from tilewright.compiler.passes.cleanup import remove_dead
from tilewright.compiler.passes.transposes import inverse, keeps_order, move_transposes

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
CONV = {"strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1), "groups": 1}


def moved(graph: Graph) -> Graph:
    """The pass, checked: the graph is sound and computes the same."""
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(v.type.shape).astype(v.type.dtype.numpy) for v in graph.inputs]
    result = remove_dead(move_transposes(graph))
    verify(result)
    verify_types(result)
    for got, want in zip(evaluate(result, inputs), evaluate(graph, inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return result


def transposes(graph: Graph) -> int:
    return sum(node.op == "transpose" for node in graph.nodes)


def weight(g: GraphBuilder, *shape: int) -> Value:
    rng = np.random.default_rng(sum(shape))
    return g.constant(rng.standard_normal(shape).astype(np.float32), "w")


def image(g: GraphBuilder, *shape: int) -> Value:
    return g.input("x", TensorType(F32, shape or (2, 6, 5, 3)))


def conv(g: GraphBuilder, x: Value, filters: int) -> Value:
    """A convolution of images with the channels last."""
    y = g.op("conv", g.op("transpose", x, perm=FIRST), weight(g, filters, x.type.shape[3], 3, 3), **CONV)
    return g.op("transpose", y, perm=LAST)


def test_between_two_convolutions(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("two")
    y = g.op("relu", g.op("add", conv(g, image(g), 4), weight(g, 4)))
    golden(str(moved(g.finish({"y": conv(g, y, 2)}))))


def _pool(g: GraphBuilder, x: Value) -> Value:
    y = g.op(
        "max_pool", g.op("transpose", x, perm=FIRST), kernel=(2, 2), strides=(1, 1), dilations=(1, 1),
        pads=((0, 0), (0, 0)),
    )  # fmt: skip
    return g.op("transpose", y, perm=LAST)


def _squeeze_and_excite(g: GraphBuilder, x: Value) -> Value:
    pooled = composites.mean(g, x, (1, 2), keepdims=True)
    return g.op("mul", x, g.op("sigmoid", conv(g, pooled, x.type.shape[3])))


def _excite_reshaped(g: GraphBuilder, x: Value) -> Value:
    pooled = composites.mean(g, x, (1, 2))
    dense = g.op("matmul", pooled, weight(g, x.type.shape[3], x.type.shape[3]))
    return g.op("mul", x, g.op("reshape", dense, shape=(x.type.shape[0], 1, 1, x.type.shape[3])))


def _shuffle(g: GraphBuilder, x: Value) -> Value:
    n, h, w, c = x.type.shape
    apart = g.op("reshape", x, shape=(n, h, w, 2, c // 2))
    return g.op("reshape", g.op("transpose", apart, perm=(0, 1, 2, 4, 3)), shape=x.type.shape)


def _with_constant(g: GraphBuilder, op: str, *shape: int) -> Callable[[Value], Value]:
    return lambda x: g.op(op, x, weight(g, *shape))


BETWEEN: dict[str, Callable[[GraphBuilder, Value], Value]] = {
    "bias": lambda g, x: g.op("add", x, weight(g, 4)),
    "bias on the left": lambda g, x: g.op("sub", weight(g, 1, 1, 4), x),
    "a whole constant": lambda g, x: g.op("mul", x, weight(g, *x.type.shape)),
    "a column": lambda g, x: g.op("mul", x, weight(g, 6, 1, 1)),
    "clip": lambda g, x: composites.clip(g, x, 0.0, 6.0),
    "where": lambda g, x: g.op("where", g.op("less", x, g.scalar(0, x)), weight(g, 4), x),
    "itself": lambda g, x: g.op("mul", x, g.op("sigmoid", x)),
    "residual": lambda g, x: g.op("add", x, conv(g, x, 4)),
    "pad": lambda g, x: g.op("pad", x, low=(0, 1, 0, 0), high=(0, 0, 2, 3)),
    "slice": lambda g, x: composites.slice_axes(g, x, [1, 0], [-1, 2], [1, 3]),
    "concat": lambda g, x: g.op("concat", x, conv(g, x, 2), x, axis=3),
    "concat with a constant": lambda g, x: g.op("concat", weight(g, *x.type.shape), x, axis=1),
    "softmax": lambda g, x: composites.softmax(g, x),
    "pool": _pool,
    "resize": lambda g, x: composites.resize(g, x, (1, 2), (9, 4), composites.ResizeMode("linear")),
    "squeeze and excite": _squeeze_and_excite,
    "excite, reshaped": _excite_reshaped,
    "shuffle": _shuffle,
    "broadcast": lambda g, x: g.op("add", x, g.op("broadcast", weight(g, 2, 1, 1, 4), shape=x.type.shape)),
    "broadcast mean": lambda g, x: g.op("broadcast", composites.mean(g, x, (1, 2), True), shape=x.type.shape),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_only_the_first_and_the_last_transpose_stay(name: str) -> None:
    g = GraphBuilder("net")
    y = BETWEEN[name](g, conv(g, image(g), 4))
    left = moved(g.finish({"y": conv(g, y, 2)}))
    # A shuffle of channels is one of its own.
    assert transposes(left) == (3 if name == "shuffle" else 2)


def test_a_head_of_means_leaves_none_at_the_output() -> None:
    g = GraphBuilder("head")
    y = composites.mean(g, g.op("relu", conv(g, image(g), 4)), (1, 2))
    left = moved(g.finish({"y": composites.softmax(g, g.op("matmul", y, weight(g, 4, 7)))}))
    assert transposes(left) == 1


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_argmax_and_sums(axis: int, keepdims: bool) -> None:
    g = GraphBuilder("arg")
    x = conv(g, conv(g, image(g), 4), 3)
    at = g.op("argmax", x, axis=axis, keepdims=keepdims)
    total = g.op("reduce_sum", x, axes=(axis,), keepdims=keepdims)
    moved(g.finish({"at": at, "total": total}))


def test_a_pad_before_the_first_convolution_comes_behind_its_transpose() -> None:
    g = GraphBuilder("padded")
    x = g.op("pad", image(g), low=(0, 1, 1, 0), high=(0, 1, 1, 0))
    left = moved(g.finish({"y": conv(g, x, 4)}))
    assert [node.op for node in left.nodes] == ["transpose", "pad", "conv", "transpose"]


def test_an_input_joins_where_it_is_transposed_anyway() -> None:
    g = GraphBuilder("residual")
    x = image(g, 2, 6, 5, 4)
    y = g.op("add", x, conv(g, x, 4))
    assert transposes(moved(g.finish({"y": conv(g, y, 2)}))) == 2


def test_an_axis_of_one_element_is_a_reshape() -> None:
    g = GraphBuilder("one")
    x = image(g, 2, 1, 1, 4)
    y = g.op("relu", g.op("transpose", x, perm=FIRST))
    z = g.op("transpose", g.op("transpose", image(g, 2, 3, 4, 5), perm=FIRST), perm=LAST)
    left = moved(g.finish({"y": y, "z": z}))
    assert [node.op for node in left.nodes] == ["relu", "reshape"]


def test_what_does_not_help_is_left() -> None:
    g = GraphBuilder("attention")
    x = image(g, 2, 6, 3, 4)
    y = g.op("relu", g.op("transpose", x, perm=(0, 2, 1, 3)))
    graph = g.finish({"y": g.op("matmul", y, g.op("transpose", x, perm=(0, 2, 3, 1)))})
    assert str(moved(graph)) == str(graph)


@pytest.mark.parametrize(
    ("before", "perm", "after", "sinks"),
    [
        ((2, 4, 3, 5), LAST, (2, 3, 5, 2, 2), True),  # channels fall apart
        ((2, 4, 3, 5), LAST, (2, 15, 4), True),  # height and width become one
        ((2, 4, 3, 5), LAST, (2, 60), False),  # all of them
        ((2, 4, 1, 5), LAST, (2, 5, 4), True),
        ((2, 4, 3, 5), LAST, (1, 2, 3, 1, 5, 4), True),
        ((4, 3), (1, 0), (12,), False),
        ((1, 3), (1, 0), (3,), True),
        ((2, 3, 4), (2, 0, 1), (4, 6), True),
        ((2, 3, 4), (1, 0, 2), (3, 8), False),
    ],
)
def test_reshapes(before: tuple[int, ...], perm: tuple[int, ...], after: tuple[int, ...], sinks: bool) -> None:
    g = GraphBuilder("reshape")
    x = g.input("x", TensorType(F32, before))
    y = g.op("reshape", g.op("transpose", g.op("relu", x), perm=perm), shape=after)
    # Put back, so that a reshape in between that lets the transpose through leaves none.
    back = g.op("reshape", y, shape=tuple(before[axis] for axis in perm))
    left = moved(g.finish({"y": g.op("transpose", g.op("neg", back), perm=inverse(perm))}))
    assert (transposes(left) == 0) == sinks


def test_masks_and_numbers_of_other_types() -> None:
    g = GraphBuilder("mask")
    x = conv(g, image(g), 4)
    mask = g.op("less", x, g.constant(np.zeros((), np.float32)))
    kept = g.op("cast", mask, dtype=BOOL)
    assert transposes(moved(g.finish({"y": conv(g, g.op("where", kept, x, g.op("exp", x)), 2)}))) == 2


def test_keeps_order() -> None:
    assert keeps_order((2, 1, 3), (1, 0, 2)) and not keeps_order((2, 2, 3), (1, 0, 2))
    shape: Any = (1, 1, 1)
    assert keeps_order(shape, (2, 0, 1))
