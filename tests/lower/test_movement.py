"""Relayouts, concatenation, padding, gathers, resampling and argmax against the references."""

from typing import Any

import numpy as np
import pytest
from lower.lowered import check, poisoned
from support import compiled

from tilewright.compiler.ir import F32, F64, I32, I64, U8, DType, Graph, Layout, TensorType, Value
from tilewright.compiler.ir.graph import Node
from tilewright.compiler.kernels import borders
from tilewright.compiler.ops import GraphBuilder
from tilewright.compiler.ops.layout import Relayout

RNG = np.random.default_rng(0)
WIDTHS = (32, 128, 512)


def random(shape: tuple[int, ...], dtype: DType = F32) -> Any:
    """Distinct-looking values."""
    if dtype.is_float:
        return RNG.standard_normal(shape).astype(dtype.numpy)
    return RNG.integers(0, 100, shape).astype(dtype.numpy)


def built(build: Any, *shapes: tuple[int, ...], dtype: DType = F32) -> tuple[Graph, list[Any]]:
    """The graph of `build(g, *inputs)` and random inputs."""
    g = GraphBuilder("test")
    values = [g.input(f"x{i}", TensorType(dtype, shape)) for i, shape in enumerate(shapes)]
    return g.finish({"y": build(g, *values)}), [random(shape, dtype) for shape in shapes]


LAYOUTS = {
    "row": Layout(),
    "blocked": Layout(blocks=((1, 16),)),
    "blocked8": Layout(blocks=((1, 8),)),
    "padded": Layout(blocks=((1, 16),), pads=((0, 0), (0, 0), (1, 1), (2, 3))),
    "planar padded": Layout(pads=((0, 0), (0, 0), (1, 1), (2, 0))),
    "nhwc": Layout(axes=(0, 2, 3, 1)),
    "filter": Layout(axes=(0, 1, 2, 3), blocks=((1, 16), (0, 32))),
    "filter16": Layout(axes=(0, 1, 2, 3), blocks=((1, 16), (0, 16))),
    "outer first": Layout(axes=(1, 2, 3, 0), blocks=((0, 16),)),
}


@pytest.mark.parametrize("target", [name for name in LAYOUTS if name != "row"])
@pytest.mark.parametrize("shape", [(2, 32, 5, 7), (33, 20, 3, 3), (40, 3, 9, 17), (64, 64, 1, 1)], ids=str)
def test_relayout_there_and_back(shape: tuple[int, ...], target: str) -> None:
    x = random(shape)
    for source, result in ((LAYOUTS["row"], LAYOUTS[target]), (LAYOUTS[target], LAYOUTS["row"])):
        value = Value("x", TensorType(F32, shape, source))
        moved = Value("y", TensorType(F32, shape, result))
        node = Node("relayout", (value,), (moved,), Relayout(layout=result, source=source, shape=shape))
        graph = Graph("test", (value,), (moved,), ("y",), (node,), {})
        check(graph, [x], wanted=[x], widths=WIDTHS)


def test_large_images_are_cut_in_pieces() -> None:
    x = random((1, 20, 130, 131))
    for source, result in (("row", "padded"), ("padded", "row")):
        value = Value("x", TensorType(F32, x.shape, LAYOUTS[source]))
        moved = Value("y", TensorType(F32, x.shape, LAYOUTS[result]))
        attrs = Relayout(layout=LAYOUTS[result], source=LAYOUTS[source], shape=x.shape)
        node = Node("relayout", (value,), (moved,), attrs)
        check(Graph("test", (value,), (moved,), ("y",), (node,), {}), [x], wanted=[x], widths=(512,))
    blocked = Value("x", TensorType(F32, x.shape, LAYOUTS["blocked"]))
    row = Value("y", TensorType(F32, x.shape))
    node = Node("relayout", (blocked,), (row,), Relayout(layout=Layout(), source=LAYOUTS["blocked"], shape=x.shape))
    check(Graph("test", (blocked,), (row,), ("y",), (node,), {}), [x], wanted=[x], widths=(128, 512))


def test_relayout_between_blocked_layouts() -> None:
    x = random((2, 40, 5, 6))
    source, result = LAYOUTS["blocked"], LAYOUTS["padded"]
    value, moved = Value("x", TensorType(F32, x.shape, source)), Value("y", TensorType(F32, x.shape, result))
    node = Node("relayout", (value,), (moved,), Relayout(layout=result, source=source, shape=x.shape))
    check(Graph("test", (value,), (moved,), ("y",), (node,), {}), [x], wanted=[x], widths=WIDTHS)


@pytest.mark.parametrize("layout", ["padded", "planar padded"])
@pytest.mark.parametrize("channels", [3, 32])
def test_borders_write_the_pads_only(layout: str, channels: int) -> None:
    type = TensorType(F32, (2, channels, 5, 7), LAYOUTS[layout])
    kernel = borders.build("borders", type)
    whole = poisoned(type)
    compiled(kernel.function)(whole.ctypes.data, 0, kernel.items)
    parts = poisoned(type)
    for item in reversed(range(kernel.items)):
        compiled(kernel.function)(parts.ctypes.data, item, item + 1)
    np.testing.assert_array_equal(whole, parts)
    dims = type.layout.physical_shape(type.shape)
    (top, bottom), (left, right) = type.layout.pads[2:]
    expected = np.zeros(dims, np.float32)
    expected[:, :, top : dims[2] - bottom, left : dims[3] - right] = np.nan
    np.testing.assert_array_equal(whole.reshape(dims), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [F32, I64, U8], ids=str)
def test_concat(axis: int, dtype: DType) -> None:
    shapes = [tuple(n if a == axis else d for a, d in enumerate((2, 5, 7))) for n in (3, 1, 20)]
    graph, inputs = built(lambda g, *xs: g.op("concat", *xs, axis=axis), *shapes, dtype=dtype)
    check(graph, inputs, widths=WIDTHS)


def test_blocked_concat() -> None:
    layout = LAYOUTS["padded"]
    values = [Value(f"x{i}", TensorType(F32, (2, c, 5, 6), LAYOUTS["blocked"])) for i, c in enumerate((16, 32, 7))]
    result = Value("y", TensorType(F32, (2, 55, 5, 6), layout))
    from tilewright.compiler.ops.movement import Concat

    graph = Graph("test", tuple(values), (result,), ("y",), (Node("concat", tuple(values), (result,), Concat(1)),), {})
    inputs = [random(value.type.shape) for value in values]
    check(graph, inputs, wanted=[np.concatenate(inputs, axis=1)], widths=WIDTHS)


PADS: list[dict[str, Any]] = [
    {"low": (0, 1, 2), "high": (1, 0, 3)},
    {"low": (0, -1, 2), "high": (0, 2, -3), "value": 2.0},
    {"low": (0, 0, 1), "high": (0, 2, 0), "interior": (0, 1, 2), "value": -1.0},
    {"low": (0, -4, -40), "high": (0, 0, 50)},
    *({"low": (0, 3, 2), "high": (1, 2, 4), "mode": mode} for mode in ("reflect", "edge", "wrap")),
    {"low": (0, -2, 9), "high": (0, 1, 0), "mode": "reflect"},
]


@pytest.mark.parametrize("pad", PADS, ids=str)
def test_pad(pad: dict[str, Any]) -> None:
    graph, inputs = built(lambda g, x: g.op("pad", x, **pad), (2, 5, 21))
    check(graph, inputs, widths=WIDTHS)


@pytest.mark.parametrize("shape", [(5,), (2, 5, 21), (5, 300), (3, 4, 2)], ids=str)
@pytest.mark.parametrize("index_type", [I32, I64], ids=str)
def test_gather(shape: tuple[int, ...], index_type: DType) -> None:
    for axis in range(len(shape)):
        for count in ((3,), (2, 40), ()):
            g = GraphBuilder("test")
            x, i = g.input("x", TensorType(F32, shape)), g.input("i", TensorType(index_type, count))
            graph = g.finish({"y": g.op("gather", x, i, axis=axis)})
            indices = RNG.integers(-shape[axis] - 2, shape[axis] + 2, count).astype(index_type.numpy)
            check(graph, [random(shape), indices], widths=(32, 512))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_elements(axis: int) -> None:
    for dtype in (F32, I64):
        g = GraphBuilder("test")
        x, i = g.input("x", TensorType(dtype, (4, 6, 37))), g.input("i", TensorType(I64, (3, 5, 35)))
        graph = g.finish({"y": g.op("gather_elements", x, i, axis=axis)})
        indices = RNG.integers(-9, 9, (3, 5, 35))
        check(graph, [random((4, 6, 37), dtype), indices], widths=WIDTHS)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("taps", [1, 2, 11])
def test_resample(axis: int, taps: int) -> None:
    shape = (3, 10, 21)
    for dtype in (F32, F64):
        g = GraphBuilder("test")
        x, i = g.input("x", TensorType(dtype, shape)), g.input("i", TensorType(I64, (25, taps)))
        w = g.input("w", TensorType(dtype, (25, taps)))
        graph = g.finish({"y": g.op("resample", x, i, w, axis=axis)})
        inputs = [random(shape, dtype), RNG.integers(0, shape[axis], (25, taps)), random((25, taps), dtype)]
        check(graph, inputs, widths=WIDTHS)


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [F32, I32, U8], ids=str)
def test_argreduce(op: str, dtype: DType) -> None:
    for shape, axis in (((5, 37), 1), ((5, 3), 1), ((9, 21), 0), ((2, 11, 6), 1), ((70, 1000), 1)):
        for last in (False, True):
            graph, _ = built(
                lambda g, x, a=axis, s=last: g.op(op, x, axis=a, keepdims=True, last=s), shape, dtype=dtype
            )
            x = RNG.integers(0, 5, shape).astype(dtype.numpy)
            if dtype.is_float:
                x[RNG.random(shape) < 0.05] = np.nan
            check(graph, [x], widths=(32, 512))
