"""Golden graphs of the passes, one behaviour each, and the verifier's complaints.

Every graph also runs through the references before and after: a pass must not change what is computed.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tilewright.compiler.ir import F32, I32, DType, Graph, TensorType, Value
from tilewright.compiler.ir.verifier import verify
from tilewright.compiler.ops import GraphBuilder, builder, composites, evaluate, verify_types
from tilewright.compiler.passes import cleanup
from tilewright.compiler.passes.canonicalise import canonicalise
from tilewright.compiler.passes.cleanup import fold_constants, merge_equal, remove_dead
from tilewright.compiler.passes.fold_scales import fold_scales
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.passes.layout import assign_layouts
from tilewright.compiler.passes.memory import find_aliases, placed_operands, plan_memory
from tilewright.compiler.passes.own_outputs import own_outputs
from tilewright.compiler.passes.select import select
from tilewright.compiler.pipeline import compile_graph, lower_graph, optimise
from tilewright.compiler.targets import by_name, host
from tilewright.errors import GraphError
from tilewright.runtime.executable import Executable

TARGET = replace(by_name("x86-64-v4"), l1=32 << 10, l2=1 << 20)
CONV = {"strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1), "groups": 1}
Pass = Callable[[Graph], Graph]


def checked(graph: Graph, *passes: Pass) -> Graph:
    """Apply passes; verify after each, and compare what the graph computes before and after."""
    rng = np.random.default_rng(0)
    inputs = [
        rng.integers(-9, 9, v.type.shape).astype(v.type.dtype.numpy)
        if v.type.dtype.is_integer
        else rng.standard_normal(v.type.shape).astype(v.type.dtype.numpy)
        for v in graph.inputs
    ]
    expected = evaluate(graph, inputs)
    for apply in passes:
        graph = apply(graph)
        verify(graph)
        verify_types(graph)
        if not any(value.type.layout.blocks for node in graph.nodes for value in node.results):
            for got, want in zip(evaluate(graph, inputs), expected, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return graph


def weight(g: GraphBuilder, *shape: int, name: str = "w") -> Value:
    """A constant of small random numbers."""
    rng = np.random.default_rng(sum(shape))
    return g.constant(rng.standard_normal(shape).astype(np.float32), name)


def test_canonicalise_sums_of_integers(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("sums")
    x = g.input("x", TensorType(I32, (4,)))
    y = g.op("sub", x, g.constant(np.int32(2)))
    y = g.op("add", y, g.constant(np.int32(5)))
    y = g.op("add", g.constant(np.int32(100)), y)
    golden(str(remove_dead(checked(g.finish({"y": y}), canonicalise))))


def test_canonicalise_movements(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("movements")
    x = g.input("x", TensorType(F32, (2, 3, 4)))
    y = g.op("transpose", g.op("transpose", x, perm=(0, 2, 1)), perm=(0, 2, 1))
    y = g.op("reshape", g.op("reshape", y, shape=(6, 4)), shape=(24,))
    golden(str(remove_dead(checked(g.finish({"y": y}), canonicalise))))


def test_canonicalise_mean_of_an_image(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("mean")
    x = g.input("x", TensorType(F32, (2, 3, 4, 5)))
    golden(str(remove_dead(checked(g.finish({"y": composites.mean(g, x, (2, 3))}), canonicalise))))


@pytest.mark.parametrize("shape", [(32, 1, 1), (4, 5), (32, 4, 5)])
def test_operands_of_fewer_axes_keep_images_in_blocks(shape: tuple[int, ...]) -> None:
    g = GraphBuilder("scales")
    x = g.input("x", TensorType(F32, (2, 32, 4, 5)))
    y = g.op("conv", x, weight(g, 32, 32, 1, 1), **(CONV | {"pads": ((0, 0), (0, 0))}))
    y = g.op("relu", g.op("mul", weight(g, *shape, name="scale"), y))
    y = g.op("conv", g.op("add", y, y), weight(g, 32, 32, 1, 1, name="v"), **(CONV | {"pads": ((0, 0), (0, 0))}))
    graph = checked(g.finish({"y": y}), canonicalise, remove_dead)
    assert all(operand.type.rank == 4 for node in graph.nodes if node.op == "mul" for operand in node.operands)
    kernels = [kernel.template for kernel in compile_graph(graph, host()).manifest.kernels]
    assert "nest" not in kernels, kernels
    assert kernels.count("relayout") <= 2, kernels  # of the network's input and output


@pytest.mark.parametrize("dtype", [F32, I32])
def test_only_sums_of_integers_are_joined(dtype: DType) -> None:
    g = GraphBuilder("sums")
    x = g.input("x", TensorType(dtype, (4,)))
    one = g.constant(np.ones((), dtype.numpy))
    y = g.op("add", g.op("sub", x, one), one)
    graph = remove_dead(checked(g.finish({"y": y}), canonicalise))
    assert [node.op for node in graph.nodes] == (["sub", "add"] if dtype.is_float else ["add"])


def test_sums_of_integers_wrap_around() -> None:
    g = GraphBuilder("wrap")
    x = g.input("x", TensorType(I32, (3,)))
    y = x
    for amount in (2**31 - 1, 2**31 - 1, 7):
        y = g.op("add", y, g.constant(np.int32(amount)))
    graph = canonicalise(g.finish({"y": y}))
    numbers = np.array([0, 2**31 - 1, -(2**31)], np.int32)
    wide = (numbers.astype(np.int64) + 2 * (2**31 - 1) + 7).astype(np.int32)
    np.testing.assert_array_equal(evaluate(graph, [numbers])[0], wide)
    assert len(remove_dead(graph).nodes) == 1


def test_canonicalise_pad_before_conv(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("pad_conv")
    x = g.input("x", TensorType(F32, (1, 2, 5, 5)))
    padded = g.op(
        "pad", x, low=(0, 0, 1, 2), high=(0, 0, 1, 0), interior=(0, 0, 0, 0), mode="constant", value=0.0
    )
    y = g.op("conv", padded, weight(g, 3, 2, 3, 3), **CONV)
    golden(str(remove_dead(checked(g.finish({"y": y}), canonicalise))))


@pytest.mark.parametrize(
    ("op", "first", "low", "merges"),
    [
        ("max_pool", "relu", 1, True),
        ("max_pool", "relu", 3, False),  # a window of zeros alone
        ("max_pool", "neg", 1, False),  # zeros win over negative numbers
        ("sum_pool", "neg", 3, True),
    ],
)
def test_canonicalise_pad_before_pool(op: str, first: str, low: int, merges: bool) -> None:
    g = GraphBuilder("pad_pool")
    x = g.op(first, g.input("x", TensorType(F32, (1, 2, 5, 5))))
    padded = g.op("pad", x, low=(0, 0, low, 0), high=(0, 0, 0, 1))
    y = g.op(op, padded, kernel=(3, 3), strides=(2, 2), dilations=(1, 1), pads=((0, 0), (0, 1)))
    graph = remove_dead(checked(g.finish({"y": y}), canonicalise))
    assert [node.op for node in graph.nodes] == ([first, op] if merges else [first, "pad", op])


def test_fold_scales_batch_norm(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("batch_norm")
    x = g.input("x", TensorType(F32, (1, 2, 5, 5)))
    y = g.op("add", g.op("conv", x, weight(g, 3, 2, 3, 3), **CONV), weight(g, 1, 3, 1, 1, name="bias"))
    y = g.op("add", g.op("mul", y, weight(g, 1, 3, 1, 1, name="scale")), weight(g, 3, 1, 1, name="shift"))
    golden(str(checked(g.finish({"y": y}), fold_scales, remove_dead)))


def test_fold_scales_leaves_shared_results() -> None:
    g = GraphBuilder("shared")
    x = g.input("x", TensorType(F32, (1, 2, 5, 5)))
    y = g.op("conv", x, weight(g, 3, 2, 3, 3), **CONV)
    z = g.op("mul", y, weight(g, 1, 3, 1, 1))
    graph = checked(g.finish({"y": y, "z": z}), fold_scales, remove_dead)
    assert [node.op for node in graph.nodes] == ["conv", "mul"]


def test_fold_scales_into_dense_layer() -> None:
    g = GraphBuilder("dense")
    x = g.input("x", TensorType(F32, (2, 4)))
    y = g.op("mul", g.op("matmul", x, weight(g, 4, 3)), weight(g, 3))
    y = g.op("div", y, weight(g, 1, 3))
    graph = checked(g.finish({"y": y}), fold_scales, remove_dead)
    assert [node.op for node in graph.nodes] == ["matmul"]


def test_merge_equal_and_remove_dead(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("cse")
    x = g.input("x", TensorType(F32, (4,)))
    a, b = g.op("exp", x), g.op("exp", x)
    g.op("neg", a)
    golden(str(checked(g.finish({"y": g.op("add", a, b)}), merge_equal, remove_dead)))


def test_own_outputs(golden: Callable[[str], None]) -> None:
    g = GraphBuilder("outputs")
    x = g.input("x", TensorType(F32, (4,)))
    a = g.op("exp", x)
    golden(str(checked(g.finish({"same": x, "a": a, "b": a}), own_outputs)))


def conv_net() -> Graph:
    """conv, bias, relu, pooling, conv with a residual: what most networks are made of."""
    g = GraphBuilder("net")
    x = g.input("x", TensorType(F32, (1, 3, 8, 8)))
    y = g.op("conv", x, weight(g, 16, 3, 3, 3, name="w1"), **CONV)
    y = g.op("relu", g.op("add", y, weight(g, 1, 16, 1, 1, name="b1")))
    pooled = g.op("max_pool", y, kernel=(2, 2), strides=(2, 2), dilations=(1, 1), pads=((0, 0), (0, 0)))
    z = g.op("conv", pooled, weight(g, 16, 16, 3, 3, name="w2"), **CONV)
    return g.finish({"z": g.op("relu", g.op("add", z, pooled))})


def test_select_layout_fuse(golden: Callable[[str], None]) -> None:
    graph = checked(
        conv_net(), lambda graph: select(graph, TARGET), assign_layouts, fold_constants,
        lambda graph: fuse(graph, lambda nodes: False),
    )  # fmt: skip
    golden(re.sub(r"<(\w+) .*?>", r"<\1>", str(graph)))  # the tile is the templates' business


def test_epilogue_takes_a_value_used_twice() -> None:
    g = GraphBuilder("swish")
    x = g.input("x", TensorType(F32, (1, 16, 8, 8)))
    y = g.op("conv", x, weight(g, 16, 16, 3, 3), **CONV)
    y = g.op("mul", y, g.op("sigmoid", y))
    graph = fuse(assign_layouts(select(g.finish({"y": y}), TARGET)), lambda nodes: False)
    groups = [[inner.op for inner in node.body] for node in graph.nodes if node.op == "group"]
    assert groups == [["conv", "sigmoid", "mul"]]


def test_epilogue_stops_at_an_output() -> None:
    g = GraphBuilder("inner")
    x = g.input("x", TensorType(F32, (1, 16, 8, 8)))
    y = g.op("conv", x, weight(g, 16, 16, 3, 3), **CONV)
    graph = fuse(assign_layouts(select(g.finish({"z": g.op("relu", y), "y": y}), TARGET)), lambda nodes: False)
    assert [[inner.op for inner in node.body] for node in graph.nodes if node.op == "group"] == [["conv"]]


def test_aliases_of_reshape_and_concat() -> None:
    g = GraphBuilder("alias")
    x = g.input("x", TensorType(F32, (1, 4, 2)))
    a, b = g.op("exp", x), g.op("neg", x)
    joined = g.op("concat", a, b, axis=1)
    flat = g.op("reshape", joined, shape=(16,))
    graph = g.finish({"y": g.op("exp", flat)})
    places = find_aliases(graph)
    assert {value.name: place.offset for value, place in places.items()} == {"exp": 0, "neg": 8, "concat": 0}
    assert len({place.root for place in places.values()}) == 1
    placed = {node.op: placed_operands(node, places) for node in graph.nodes}
    assert placed == {"exp": frozenset(), "neg": frozenset(), "concat": {0, 1}, "reshape": {0}}


def test_concat_copies_only_what_is_not_in_place() -> None:
    g = GraphBuilder("half")
    x = g.input("x", TensorType(F32, (1, 4, 2)))
    a = g.op("exp", x)
    graph = g.finish({"y": g.op("concat", x, a, axis=1)})
    program = lower_graph(optimise(graph, host()), host())
    (copy,) = [step for step in program.steps if step.template == "concat"]
    assert [value.name for value in copy.arguments] == ["x", "concat"]
    array = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    result = np.empty((1, 8, 2), np.float32)
    Executable(compile_graph(graph, host())).run([array], [result])
    np.testing.assert_allclose(result, np.concatenate([array, np.exp(array)], 1), rtol=1e-6)


def test_memory_plan_reuses_buffers_by_lifetime() -> None:
    a, b, c = (Value(name, TensorType(F32, (1024,))) for name in "abc")
    plan = plan_memory([[a], [a, b], [b, c], [c]], {a: 4096, b: 8192, c: 4096})
    assert plan.bytes == plan.lower_bound == 12288
    assert plan.offsets[a] == plan.offsets[c] == 8192 and plan.offsets[b] == 0


def test_verifier_names_what_is_wrong() -> None:
    graph = conv_net()
    with pytest.raises(GraphError, match="used before it is defined"):
        verify(replace(graph, nodes=graph.nodes[::-1]))
    with pytest.raises(GraphError, match="a second time"):
        verify(replace(graph, nodes=(*graph.nodes, graph.nodes[-1])))
    stray = Value("stray", TensorType(F32, (1,)))
    with pytest.raises(GraphError, match="output %stray is never defined"):
        verify(replace(graph, outputs=(stray,)))
    wrong = replace(graph.nodes[0], results=(Value("conv", TensorType(F32, (1, 1, 1, 1))),))
    with pytest.raises(GraphError, match=r"declared f32 1x1x1x1 but is f32 1x16x8x8"):
        verify_types(replace(graph, nodes=(wrong,)))


def test_folding_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "FOLD_LIMIT", 0)  # leave the nodes to the pass
    monkeypatch.setattr(cleanup, "FOLD_BUDGET", 100)
    g = GraphBuilder("net")
    short = g.op("neg", g.input("x", TensorType(F32, (4,))))
    known = g.op("neg", weight(g, 4))
    grown = g.op("broadcast", known, shape=(1024, 4))
    graph = checked(g.finish({"y": g.op("add", g.op("neg", grown), short)}), fold_constants)
    assert [node.op for node in graph.nodes] == ["neg", "broadcast", "neg", "add"]
    assert graph.nodes[1].operands[0] in graph.constants
