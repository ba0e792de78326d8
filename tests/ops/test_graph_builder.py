"""GraphBuilder: names, folding, and what `finish` keeps."""

import numpy as np
import pytest

from tilewright.compiler.ir import F32, I64, Graph, Layout, Node, TensorType, Value
from tilewright.compiler.ops import GraphBuilder, builder, evaluate, verify_types
from tilewright.errors import GraphError


def test_constants_fold_and_only_what_is_needed_stays() -> None:
    g = GraphBuilder("net")
    x = g.input("x", TensorType(F32, (2, 3)))
    shape = g.op("add", g.constant(np.array([1, 2])), g.constant(np.array([3, 3])))
    known = g.constant_of(shape)
    assert known is not None and known.tolist() == [4, 5] and shape.type == TensorType(I64, (2,))
    with g.at("act"):
        y = g.op("relu", x)
        g.op("neg", x)
    graph = g.finish({"out": g.op("add", y, g.scalar(1, y))})
    assert [(node.op, node.source) for node in graph.nodes] == [("relu", "act"), ("add", "")]
    assert [array.shape for array in graph.constants.values()] == [()]
    assert graph.nodes[0].result.name == "act" and graph.output_names == ("out",)
    (result,) = evaluate(graph, [np.full((2, 3), -1, np.float32)])
    np.testing.assert_array_equal(result, np.ones((2, 3), np.float32))


def test_names_are_unique() -> None:
    g = GraphBuilder("net")
    x = g.input("x", TensorType(F32, ()))
    names = [g.input(name, x.type).name for name in ("x.1", "x", "x", "x.1.1", "x.1")]
    names += [g.op("neg", x).name for _ in range(3)]
    assert len({x.name, *names}) == 9


def test_errors_name_the_node() -> None:
    g = GraphBuilder("net")
    with g.at("fc1"), pytest.raises(GraphError, match=r"node 'fc1' \(matmul\): operand 0 has shape"):
        g.op("matmul", g.constant(np.zeros((2, 3))), g.constant(np.zeros((4, 5))))


def test_folded_layouts_are_kept() -> None:
    g = GraphBuilder("net")
    w = g.constant(np.ones((3, 5), np.float32))
    layout = Layout(blocks=((1, 4),))
    packed = g.op("relayout", w, layout=layout, source=Layout(), shape=(3, 5))
    array = g.constant_of(packed)
    assert packed.type == TensorType(F32, (3, 5), layout) and array is not None and array.shape == (3, 2, 4)


def test_foreign_byte_order_becomes_native() -> None:
    g = GraphBuilder("net")
    array = g.constant_of(g.constant(np.array([1.5, 2.5], ">f4")))
    assert array is not None and array.dtype.isnative and array.tolist() == [1.5, 2.5]


def test_verify_types_finds_a_wrong_result() -> None:
    x, y = Value("x", TensorType(F32, (2, 3))), Value("y", TensorType(F32, (3, 2)))
    graph = Graph("net", (x,), (y,), ("y",), (Node("relu", (x,), (y,), source="r"),), {})
    with pytest.raises(GraphError, match=r"node 'r' \(relu\): %y is declared f32 3x2 but is f32 2x3"):
        verify_types(graph)


def test_folding_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "FOLD_BUDGET", 100)
    g = GraphBuilder("net")
    value = g.constant(np.arange(10, dtype=np.float32))
    chain = [value := g.op("add", value, value) for _ in range(4)]
    assert [g.constant_of(value) is not None for value in chain] == [True, True, False, False]
    (result,) = evaluate(g.finish({"y": value}), [])
    np.testing.assert_array_equal(result, 16 * np.arange(10, dtype=np.float32))
