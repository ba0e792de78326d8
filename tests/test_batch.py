"""Where samples lie in a graph, which graphs mix them, and that what is accepted computes each sample alone."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.compiler.batch import batch_graphs, batch_shapes, follow, resized, tile_sizes
from tilewright.compiler.ir import F32, I64, Graph, TensorType, Value
from tilewright.compiler.ops import PRIMITIVES, GraphBuilder, composites, evaluate, verify_types
from tilewright.compiler.samples import RULES, Along
from tilewright.errors import GraphError, ShapeNeededError, TilewrightError, UnsupportedError

Array = NDArray[Any]
Build = Callable[[GraphBuilder, Value], Value]


def numbers(*shape: int) -> Array:
    """Random numbers, for one shape always the same."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def graph_of(build: Build, samples: int, shape: Sequence[int] = (4, 6)) -> Graph:
    """A graph with input x of `samples` x `shape` and, shared by all samples, input s of `shape`."""
    g = GraphBuilder("test")
    x = g.input("x", TensorType(F32, (samples, *shape)))
    g.input("s", TensorType(F32, tuple(shape)))
    with g.at("the_node"):
        return g.finish({"y": build(g, x)})


def check(build: Build, shape: Sequence[int] = (4, 6)) -> dict[Value, Along]:
    """`follow` accepts the graph, and resizing it computes what the graph for that size does, sample by sample."""
    two, three = (graph_of(build, samples, shape) for samples in (2, 3))
    places = follow(two, three)
    x, s = numbers(5, *shape), numbers(*shape)
    (expected,) = evaluate(graph_of(build, 5, shape), [x, s])
    for samples in (1, 2, 5):
        graph = resized(two, places, samples)
        verify_types(graph)
        (actual,) = evaluate(graph, [x[:samples], s])
        np.testing.assert_allclose(actual, expected[:samples], rtol=1e-4, atol=1e-4)
    alone = resized(two, places, 1)
    for sample in range(5):
        (actual,) = evaluate(alone, [x[sample : sample + 1], s])
        np.testing.assert_allclose(actual, expected[sample : sample + 1], rtol=1e-4, atol=1e-4)
    return places


WEIGHT, IMAGE_WEIGHT = numbers(6, 5), numbers(3, 4, 3, 3)
POOL = {"kernel": (2, 2), "strides": (1, 1), "dilations": (1, 1), "pads": ((0, 0), (0, 0))}
ROWS = np.array([2, 0, -1], np.int64)


def attention(g: GraphBuilder, x: Value) -> Value:
    """Heads as a longer batch, in PyTorch's way: (N, L, H * D) to (L, N * H, D) and so on."""
    n, length, width = x.type.shape
    first = g.op("transpose", x, perm=(1, 0, 2))
    rows = g.op("matmul", g.op("reshape", first, shape=(length * n, width)), g.constant(numbers(width, width)))
    heads = g.op("reshape", rows, shape=(length, n * 2, width // 2))
    q = g.op("transpose", heads, perm=(1, 0, 2))
    scores = composites.softmax(g, g.op("matmul", q, g.op("transpose", q, perm=(0, 2, 1))), (2,))
    mixed = g.op("transpose", g.op("matmul", scores, q), perm=(1, 0, 2))
    back = g.op("reshape", mixed, shape=(length, n, width))
    return g.op("add", g.op("transpose", back, perm=(1, 0, 2)), x)


def class_token(g: GraphBuilder, x: Value) -> Value:
    """A constant for each sample, all the same, in front of each sequence."""
    n, _, width = x.type.shape
    token = g.op("broadcast", g.constant(np.arange(width, dtype=np.float32)), shape=(n, 1, width))
    return g.op("concat", token, x, axis=1)


ACCEPTED: dict[str, Build] = {
    "elementwise": lambda g, x: g.op("mul", g.op("relu", x), g.constant(numbers(4, 1))),
    "a shared input": lambda g, x: g.op("add", x, next(iter(g._inputs[1:]))),
    "a shared input, computed with": lambda g, x: g.op("sub", x, g.op("exp", next(iter(g._inputs[1:])))),
    "transpose there and back": lambda g, x: g.op(
        "transpose", g.op("relu", g.op("transpose", x, perm=(2, 0, 1))), perm=(1, 2, 0)
    ),
    "flatten": lambda g, x: g.op("reshape", x, shape=(x.type.shape[0], 24)),
    "merge and split": lambda g, x: g.op(
        "reshape", g.op("relu", g.op("reshape", x, shape=(x.type.shape[0] * 4, 6))), shape=x.type.shape
    ),
    "split off heads": lambda g, x: g.op("reshape", x, shape=(x.type.shape[0], 4, 2, 3)),
    "broadcast": lambda g, x: g.op(
        "broadcast", g.op("reshape", x, shape=(x.type.shape[0], 1, 24)), shape=(x.type.shape[0], 3, 24)
    ),
    "slice": lambda g, x: g.op("slice", x, start=(0, 3, 1), size=(x.type.shape[0], 2, 4), step=(1, -1, 1)),
    "pad": lambda g, x: g.op("pad", x, low=(0, 1, 0), high=(0, 2, 3)),
    "concat": lambda g, x: g.op("concat", x, g.op("neg", x), axis=2),
    "a class token": class_token,
    "gather rows": lambda g, x: g.op("gather", x, g.constant(ROWS), axis=1),
    "gather one": lambda g, x: g.op("gather", x, g.constant(np.int64(1)), axis=2),
    "look up": lambda g, x: g.op("gather", g.constant(numbers(9, 3)), g.op("cast", x, dtype=I64), axis=0),
    "gather elements": lambda g, x: g.op(
        "gather_elements", x, g.op("argmax", x, axis=2, keepdims=True), axis=2
    ),
    "top k": lambda g, x: g.op("top_k", x, axis=2, k=3),
    "resample": lambda g, x: g.op(
        "resample", x, g.constant(np.array([[0, 1], [2, 3]])), g.constant(numbers(2, 2)), axis=1
    ),
    "reduce": lambda g, x: g.op("reduce_sum", x, axes=(1,)),
    "reduce before": lambda g, x: g.op("reduce_max", g.op("transpose", x, perm=(1, 0, 2)), axes=(0, 2)),
    "argmax": lambda g, x: g.op("argmin", x, axis=1),
    "softmax": lambda g, x: composites.softmax(g, x, (2,)),
    "rows times a constant": lambda g, x: g.op("matmul", x, g.constant(WEIGHT)),
    "a constant times columns": lambda g, x: g.op(
        "transpose", g.op("matmul", g.constant(numbers(5, 24)), g.op(
            "transpose", g.op("reshape", x, shape=(x.type.shape[0], 24)), perm=(1, 0)
        )), perm=(1, 0),
    ),
    "samples times themselves": lambda g, x: g.op("matmul", x, g.op("transpose", x, perm=(0, 2, 1))),
    "attention": attention,
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    check(ACCEPTED[name])


IMAGES: dict[str, Build] = {
    "conv": lambda g, x: g.op(
        "conv", x, g.constant(IMAGE_WEIGHT), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1)
    ),
    "max_pool": lambda g, x: g.op("max_pool", x, **POOL),
    "global pooling": lambda g, x: g.op("reduce_sum", x, axes=(2, 3)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_accepted(name: str) -> None:
    check(IMAGES[name], (4, 6, 6))


def test_where_samples_lie() -> None:
    def build(g: GraphBuilder, x: Value) -> Value:
        first = g.op("transpose", x, perm=(1, 0, 2))
        rows = g.op("reshape", first, shape=(4 * x.type.shape[0], 6))
        heads = g.op("reshape", rows, shape=(4, x.type.shape[0] * 2, 3))
        return g.op("transpose", g.op("reshape", heads, shape=(4, x.type.shape[0], 6)), perm=(1, 0, 2))

    two, three = graph_of(build, 2), graph_of(build, 3)
    places = follow(two, three)
    found = [places[node.result] for node in two.nodes]
    assert found == [Along(1), Along(0, outer=4), Along(1, inner=2), Along(1), Along(0)]
    assert resized(two, places, 7).nodes[2].result.type.shape == (4, 14, 3)
    assert two.inputs[1] not in places


REFUSED: dict[str, tuple[Build, str]] = {
    "mean of the batch": (
        lambda g, x: g.op("sub", x, g.op("reduce_sum", x, axes=(0,), keepdims=True)),
        r"node 'the_node' \(reduce_sum\): it reduces the axis of the samples to one number; one compiled form",
    ),
    "maximum": (lambda g, x: g.op("reduce_max", x, axes=(0, 1)), r"\(reduce_max\): it reduces"),
    "argmax": (lambda g, x: g.op("argmax", x, axis=0), r"\(argmax\): it reduces"),
    "a cumulative axis": (lambda g, x: g.op("top_k", x, axis=0, k=2), r"\(top_k\): it works along the axis"),
    "all with all": (
        lambda g, x: g.op("matmul", *(lambda f: (f, g.op("transpose", f, perm=(1, 0))))(
            g.op("reshape", x, shape=(x.type.shape[0], 24)))),
        r"\(matmul\): it multiplies each sample with all others",
    ),
    "sum over samples": (
        lambda g, x: g.op("matmul", *(lambda f: (g.op("transpose", f, perm=(1, 0)), f))(
            g.op("reshape", x, shape=(x.type.shape[0], 24)))),
        r"\(matmul\): it sums over the axis of the samples",
    ),
    "divided by how many": (
        lambda g, x: g.op("div", x, g.scalar(x.type.shape[0], x)),
        r"\(div\): it takes numbers that are computed from the number of samples",
    ),
    "numbered samples": (
        lambda g, x: g.op("add", x, g.constant(np.arange(x.type.shape[0], dtype=np.float32).reshape(-1, 1, 1))),
        r"\(add\): it takes numbers that differ from sample to sample",
    ),
    "the first": (
        lambda g, x: g.op("slice", x, start=(0, 0, 0), size=(1, 4, 6), step=(1, 1, 1)), r"\(slice\): it picks some"
    ),
    "turned around": (
        lambda g, x: g.op(
            "slice", x, start=(x.type.shape[0] - 1, 0, 0), size=x.type.shape, step=(-1, 1, 1)
        ),
        r"\(slice\): which elements it takes depends on the number",
    ),
    "chosen": (lambda g, x: g.op("gather", x, g.constant(np.int64(1)), axis=0), r"\(gather\): it picks samples"),
    "twice": (lambda g, x: g.op("concat", x, x, axis=0), r"\(concat\): it works along the axis"),
    "one more": (lambda g, x: g.op("pad", x, low=(1, 0, 0), high=(0, 0, 0)), r"\(pad\): it adds samples"),
    "joined": (
        lambda g, x: g.op("reshape", x, shape=(6, 4 * x.type.shape[0])),
        r"\(reshape\): its result of shape 6x8 has no axis along which the samples lie",
    ),
    "samples as channels": (
        lambda g, x: g.op(
            "conv", g.op("reshape", x, shape=(1, x.type.shape[0], 4, 6)), g.constant(numbers(x.type.shape[0], 1, 1, 1)),
            strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1), groups=x.type.shape[0],
        ),
        r"\(conv\): ",
    ),
    "pooled over": (
        lambda g, x: g.op("max_pool", g.op("transpose", g.op("reshape", x, shape=(x.type.shape[0], 1, 4, 6)),
                                           perm=(1, 2, 0, 3)), **POOL),
        r"\(max_pool\): it works along the axis",
    ),
    "different axes": (
        lambda g, x: g.op("add", *(lambda f: (g.op("reshape", f, shape=(x.type.shape[0], 1)), f))(
            g.op("reduce_sum", x, axes=(1, 2)))),
        r"\(add\): its operands have their samples along different axes",
    ),
    "more of them": (
        lambda g, x: g.op("relu", g.op("neg", x)) if x.type.shape[0] > 2 else g.op("relu", x),
        r"what it computes depends on the number of samples",
    ),
    "not leading": (
        lambda g, x: g.op("transpose", x, perm=(1, 0, 2)),
        r"output 'y' does not have its samples along its leading axis; its shape for 2 of them is 4x2x6",
    ),
    "not split": (
        lambda g, x: g.op("reshape", x, shape=(x.type.shape[0] * 4, 6)), r"output 'y' does not have its samples"
    ),
    "the same for all": (lambda g, x: g.op("relu", g._inputs[1]), r"output 'y' is the same for every sample"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        follow(*(graph_of(build, samples) for samples in (2, 3)))


def test_every_primitive_has_a_rule_or_is_refused() -> None:
    """A new primitive must be thought about here: those without a rule are refused for batches."""
    without = {
        name for name, primitive in PRIMITIVES.items() if primitive.family != "elementwise" and name not in RULES
    }
    # Passes make these later than batches are looked at.
    assert {"relayout", "winograd_filter", "winograd_conv"} <= without
    assert RULES.keys() <= PRIMITIVES.keys()


# ---- random graphs


def recipe(seed: int, steps: int) -> Build:
    """A graph of random operations, many of which mix samples, or do with some sizes only."""

    def build(g: GraphBuilder, x: Value) -> Value:
        rng = random.Random(seed)
        values = [x, g._inputs[1]]
        for _ in range(steps):
            value = rng.choice(values[-3:])
            choice, a, b = rng.randrange(14), rng.random(), rng.random()
            shape, rank = value.type.shape, value.type.rank
            axis = int(a * rank)
            perm = list(range(rank))
            rng.shuffle(perm)
            if rank == 0:
                continue
            match choice:
                case 0 | 1:
                    made = g.op("transpose", value, perm=tuple(perm))
                case 2 if rank > 1:
                    axis = min(axis, rank - 2)
                    made = g.op(
                        "reshape", value, shape=(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
                    )
                case 3 | 4 if shape[axis] % 2 == 0:
                    parts = (2, shape[axis] // 2) if b < 0.5 else (shape[axis] // 2, 2)
                    made = g.op("reshape", value, shape=(*shape[:axis], *parts, *shape[axis + 1 :]))
                case 5:
                    made = g.op("reduce_sum", value, axes=(axis,), keepdims=b < 0.5)
                case 6:
                    made = g.op("concat", value, g.op("neg", value), axis=axis)
                case 7:
                    size = tuple(dim - 1 if at == axis and dim > 1 and b < 0.5 else dim for at, dim in enumerate(shape))
                    made = g.op("slice", value, start=(0,) * rank, size=size, step=(1,) * rank)
                case 8:
                    other = rng.choice(values)
                    made = g.op("add", value, other)
                case 9 if rank > 1:
                    order = (*range(rank - 2), rank - 1, rank - 2)
                    made = g.op("matmul", value, g.op("transpose", value, perm=order))
                case 10:
                    made = composites.softmax(g, value, (axis,))
                case 11:
                    made = g.op("gather", value, g.constant(np.array([[0, -1]])), axis=axis)
                case 12:
                    made = g.op(
                        "mul",
                        value,
                        g.constant(
                            np.linspace(1, 2, shape[axis], dtype=np.float32).reshape(
                                [-1 if at == axis else 1 for at in range(rank)]
                            )
                        ),
                    )
                case _:
                    made = g.op("tanh", value)
            values.append(made)
        return values[-1]

    return build


def accepted(build: Build) -> bool:
    """Whether the graph is refused; if it is not, its results are checked."""
    try:
        graphs = [graph_of(build, samples, (2, 4)) for samples in (2, 3)]
    except GraphError:
        return False  # it only fits some sizes
    try:
        follow(graphs[0], graphs[1])
    except UnsupportedError:
        return False
    check(build, (2, 4))
    return True


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_what_is_accepted_computes_each_sample_alone(seed: int, steps: int) -> None:
    accepted(recipe(seed, steps))


def test_many_random_graphs_are_accepted() -> None:
    """So that the test above says something."""
    assert sum(accepted(recipe(seed, 1 + seed % 6)) for seed in range(200)) > 40


# ---- the two graphs


def test_batch_graphs_and_shapes() -> None:
    def make(shapes: Any) -> Graph:
        g = GraphBuilder("test")
        x, mask = (g.input(name, TensorType(F32, shapes[name])) for name in ("x", "mask"))
        return g.finish({"y": g.op("mul", x, mask)})

    two, three = batch_graphs(make, {"x": ("N", 3), "mask": (3,)})
    assert [value.type.shape for value in (*two.inputs, *three.inputs)] == [(2, 3), (3,), (3, 3), (3,)]
    assert batch_shapes(two, three, "N") == {"x": ("N", 3), "mask": (3,)}


def test_a_model_for_one_sample() -> None:
    def make(shapes: Any) -> Graph:
        return graph_of(lambda g, x: g.op("reshape", x, shape=(1, 24)), shapes["x"][0])

    with pytest.raises(UnsupportedError, match=r"'the_node' \(reshape\): the model takes one sample, not several: .*"
                       "it cannot become .*Export it with a dynamic leading dimension"):  # fmt: skip
        batch_graphs(make, {"x": ("N", 4, 6)})


@pytest.mark.parametrize("error", [ShapeNeededError({"z": None}), GraphError("it is wrong")])
def test_other_errors_stay_what_they_are(error: TilewrightError) -> None:
    def make(shapes: Any) -> Graph:
        raise error

    with pytest.raises(type(error)) as raised:
        batch_graphs(make, {"x": ("N", 4, 6)})
    assert raised.value is error


def test_only_small_networks_compute_samples_together() -> None:
    small = graph_of(lambda g, x: g.op("matmul", x, g.constant(WEIGHT)), 1)
    large = graph_of(lambda g, x: g.op("matmul", x, g.constant(numbers(1000, 1000))), 1, (100, 1000))
    assert tile_sizes(small)[0] > 1 == tile_sizes(small)[-1]
    assert tile_sizes(large) == (1,)
