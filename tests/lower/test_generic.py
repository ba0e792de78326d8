"""Loop nests against the references: element-wise groups, reductions, transposes, at all vector widths."""

from typing import Any

import numpy as np
import pytest
from lower.lowered import check, narrow

from tilewright.compiler.ir import BOOL, F32, F64, I32, I64, U8, DType, Graph, Layout, TensorType, Value
from tilewright.compiler.ir.graph import Node
from tilewright.compiler.lower.nests import nest_supports
from tilewright.compiler.ops import GraphBuilder, composites
from tilewright.compiler.passes.fuse import fuse

RNG = np.random.default_rng(0)
ONES = np.ones(64, np.float32)


def random(shape: tuple[int, ...], dtype: DType = F32) -> Any:
    """Values of both signs, without zeros."""
    if dtype == BOOL:
        return RNG.random(shape) < 0.5
    if dtype.is_float:
        return RNG.standard_normal(shape).astype(dtype.numpy)
    return RNG.integers(1, 60, shape).astype(dtype.numpy)


def grouped(graph: Graph) -> Graph:
    """The whole graph as one group."""
    inside = {result for node in graph.nodes for result in node.results}
    operands = tuple(dict.fromkeys(o for n in graph.nodes for o in n.operands if o not in inside))
    assert nest_supports(graph.nodes), str(graph)
    node = Node("group", operands, (graph.nodes[-1].results[0],), body=graph.nodes)
    return graph.with_nodes([node])


def built(build: Any, *shapes: tuple[int, ...], dtype: DType = F32) -> tuple[Graph, list[Any]]:
    """The graph of `build(g, *inputs)` and random inputs."""
    g = GraphBuilder("test")
    values = [g.input(f"x{i}", TensorType(dtype, shape)) for i, shape in enumerate(shapes)]
    graph = g.finish({"y": build(g, *values)})
    return graph, [random(shape, dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [F32, F64, I32, I64, U8], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 17), (2, 40000)], ids=str)
def test_elementwise_chain(shape: tuple[int, ...], dtype: DType) -> None:
    graph, inputs = built(
        lambda g, x, y: g.op("max", g.op("mul", g.op("add", x, y), g.scalar(3, x)), y),
        shape,
        shape,
        dtype=dtype,
    )
    check(grouped(graph), inputs)


@pytest.mark.parametrize(
    "shapes",
    [((4, 5, 6), (5, 1)), ((2, 1, 33), (7, 1)), ((3, 8, 20), (8, 1)), ((1, 1), (9, 70)), ((6,), (3, 1, 1))],
    ids=str,
)
def test_broadcasting(shapes: tuple[tuple[int, ...], ...]) -> None:
    graph, inputs = built(lambda g, x, y: g.op("sub", g.op("relu", x), y), *shapes)
    check(grouped(graph), inputs)


def test_types_change_inside_a_group() -> None:
    def build(g: GraphBuilder, x: Value) -> Value:
        positive = g.op("less", g.scalar(0, x), x)
        return g.op("where", positive, g.op("cast", x, dtype=I64), g.constant(5))

    graph, inputs = built(build, (5, 37))
    check(grouped(graph), inputs)
    graph, inputs = built(lambda g, x: g.op("less", x, g.scalar(0, x)), (5, 37))
    check(grouped(graph), inputs)
    graph, inputs = built(lambda g, x: g.op("cast", g.op("not", x), dtype=F32), (3, 41), dtype=BOOL)
    check(grouped(graph), inputs)


@pytest.mark.parametrize(
    ("shape", "perm"),
    [
        ((5, 7), (1, 0)), ((64, 96), (1, 0)), ((33, 50), (1, 0)), ((2, 3, 20, 21), (0, 2, 3, 1)),
        ((2, 37, 5, 9), (0, 2, 3, 1)), ((2, 6, 10, 19), (0, 3, 1, 2)), ((2, 12, 4, 32), (0, 2, 1, 3)),
        ((3, 4, 5, 6), (3, 2, 1, 0)), ((4, 1, 9), (2, 1, 0)),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [F32, I64, U8, BOOL], ids=str)
def test_transpose(shape: tuple[int, ...], perm: tuple[int, ...], dtype: DType) -> None:
    graph, inputs = built(lambda g, x: g.op("transpose", x, perm=perm), shape, dtype=dtype)
    check(grouped(graph), inputs)


def test_transposed_operands_in_an_expression() -> None:
    def build(g: GraphBuilder, x: Value, y: Value, z: Value) -> Value:
        turned = g.op("transpose", g.op("exp", x), perm=(1, 0))
        return g.op("add", g.op("mul", turned, y), z)

    graph, inputs = built(build, (37, 50), (50, 37), (37,))
    check(grouped(graph), inputs)


@pytest.mark.parametrize("start, size, step", [
    ((1, 2), (4, 33), (1, 1)), ((0, 1), (7, 20), (1, 2)), ((6, 39), (7, 40), (-1, -1)),
    ((1, 39), (3, 13), (2, -3)),
])  # fmt: skip
def test_slice(start: tuple[int, ...], size: tuple[int, ...], step: tuple[int, ...]) -> None:
    graph, inputs = built(lambda g, x: g.op("relu", g.op("slice", x, start=start, size=size, step=step)), (7, 41))
    check(grouped(graph), inputs)


def test_reshapes_inside_a_group() -> None:
    def shuffle(g: GraphBuilder, x: Value) -> Value:
        split = g.op("reshape", x, shape=(2, 4, 3, 5, 6))
        return g.op("reshape", g.op("transpose", split, perm=(0, 2, 1, 3, 4)), shape=(2, 12, 30))

    graph, inputs = built(shuffle, (2, 12, 5, 6))
    check(grouped(graph), inputs)


@pytest.mark.parametrize("op", ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 50), (1,)), ((3, 700), (1,)), ((40, 33), (0,)), ((2, 3, 9, 11), (2, 3)),
        ((2, 9, 11, 20), (1, 2)),
        ((2, 20, 37), (1,)), ((4, 5, 6), (0, 2)), ((4, 5, 6), (0, 1, 2)), ((3, 4), ()), ((5, 1), (1,)),
    ],
    ids=str,
)  # fmt: skip
def test_reductions(op: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    for dtype in (F32, I32):
        for keepdims in (False, True):
            graph, inputs = built(lambda g, x, k=keepdims: g.op(op, x, axes=axes, keepdims=k), shape, dtype=dtype)
            check(grouped(graph), inputs, rtol=1e-4)


def test_maximum_keeps_nan() -> None:
    graph, (x,) = built(lambda g, x: g.op("reduce_max", x, axes=(1,), keepdims=False), (40, 37))
    x[np.arange(37), np.arange(37)] = np.nan
    check(grouped(graph), [x])


GROUPS: dict[str, Any] = {
    "softmax": lambda axes: lambda g, x: composites.softmax(g, x, axes),
    "log_softmax": lambda axes: lambda g, x: composites.log_softmax(g, x, axes),
    "variance": lambda axes: lambda g, x: composites.variance(g, x, axes, keepdims=True),
    "centred": lambda axes: lambda g, x: g.op("sub", x, composites.mean(g, x, axes, keepdims=True)),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((6, 1000), (-1,)), ((5, 33), (-1,)), ((2, 21, 50), (1,)), ((2, 3, 9, 11), (2, 3)), ((3, 70, 24), (1,))],
    ids=str,
)
def test_dependent_reductions(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    axes = tuple(axis % len(shape) for axis in axes)
    graph, inputs = built(GROUPS[name](axes), shape)
    check(grouped(graph), inputs)


def test_layer_norm() -> None:
    graph, inputs = built(lambda g, x, s, c: composites.layer_norm(g, x, s, c), (2, 9, 77), (77,), (77,))
    check(grouped(graph), inputs)


@pytest.mark.parametrize(
    "build",
    [
        lambda g, x: composites.layer_norm(g, x, g.constant(ONES), g.constant(ONES)),
        lambda g, x: composites.softmax(g, x, (2,)),
        lambda g, x: composites.log_softmax(g, x, (1,)),
        lambda g, x: composites.gelu(g, x),
        lambda g, x: composites.variance(g, x, (2,)),
    ],
)
def test_composites_become_one_group(build: Any) -> None:
    graph, inputs = built(build, (2, 50, 64))
    fused = fuse(graph, nest_supports)
    assert [node.op for node in fused.nodes] == ["group"]
    check(fused, inputs, widths=(512,))


def test_costly_values_are_not_computed_again_for_every_row() -> None:
    g = GraphBuilder("test")
    x, v = g.input("x", TensorType(F32, (50, 64))), g.input("v", TensorType(F32, (64,)))
    graph = g.finish({"y": g.op("mul", x, g.op("exp", v))})
    assert len(fuse(graph, nest_supports).nodes) == 2
    g = GraphBuilder("test")
    x, v = g.input("x", TensorType(F32, (50, 64))), g.input("v", TensorType(F32, (50, 1)))
    graph = g.finish({"y": g.op("mul", x, g.op("exp", v))})
    assert len(fuse(graph, nest_supports).nodes) == 1


def test_reduction_over_elements_of_a_group_in_f64() -> None:
    graph, inputs = built(GROUPS["softmax"]((1,)), (3, 20001), dtype=F64)
    check(grouped(graph), inputs)


def test_long_sums_are_accurate() -> None:
    x = (RNG.random((2, 1 << 20)) + 0.5).astype(np.float32)
    from lower.lowered import run_lowered

    for axes, shape in (((1,), (2, 1 << 20)), ((0,), (1 << 17, 16))):
        graph, _ = built(lambda g, x, a=axes: g.op("reduce_sum", x, axes=a, keepdims=False), shape)
        data = x.reshape(-1)[: shape[0] * shape[1]].reshape(shape)
        (found,) = run_lowered(grouped(graph), [data], narrow(512))
        exact = data.astype(np.float64).sum(axis=axes)
        np.testing.assert_allclose(found, exact, rtol=3e-7)


BLOCKED = Layout(blocks=((1, 16),))
PADDED = Layout(blocks=((1, 16),), pads=((0, 0), (0, 0), (1, 1), (2, 1)))


def with_layouts(graph: Graph, layouts: dict[str, Layout], default: Layout) -> Graph:
    """The graph with other layouts: those named, and `default` for tensors of rank 4."""
    renamed: dict[Value, Value] = {}

    def moved(value: Value) -> Value:
        if value not in renamed:
            layout = layouts.get(value.name, default if value.type.rank == 4 else Layout())
            renamed[value] = Value(value.name, value.type.with_layout(layout))
        return renamed[value]

    nodes = [Node(n.op, tuple(map(moved, n.operands)), tuple(map(moved, n.results)), n.attrs) for n in graph.nodes]
    inputs, outputs = tuple(map(moved, graph.inputs)), tuple(map(moved, graph.outputs))
    constants = {moved(value): array for value, array in graph.constants.items()}
    return Graph(graph.name, inputs, outputs, graph.output_names, tuple(nodes), constants)


@pytest.mark.parametrize("channels", [16, 32, 20, 5, 33])
@pytest.mark.parametrize("padded", [False, True])
def test_blocked_elementwise(channels: int, padded: bool) -> None:
    shape = (2, channels, 5, 7)
    graph, inputs = built(
        lambda g, x, y, c: g.op("add", g.op("exp", g.op("add", x, y)), c), shape, shape, (1, channels, 1, 1)
    )
    layouts = {"x0": PADDED, graph.outputs[0].name: PADDED} if padded else {}
    check(grouped(with_layouts(graph, layouts, BLOCKED)), inputs)


@pytest.mark.parametrize("channels", [32, 20])
def test_blocked_global_pool(channels: int) -> None:
    graph, inputs = built(lambda g, x: composites.mean(g, x, (2, 3), keepdims=True), (2, channels, 7, 9))
    check(grouped(with_layouts(graph, {"x0": PADDED}, BLOCKED)), inputs)
