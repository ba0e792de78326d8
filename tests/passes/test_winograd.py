"""Where Winograd is chosen, what the graph looks like then, and that conv="direct" never gets it."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.ir import F32, F64, DType, Graph, TensorType
from tilewright.compiler.ir.verifier import verify
from tilewright.compiler.ops import GraphBuilder, evaluate, verify_types
from tilewright.compiler.ops.contraction import Conv
from tilewright.compiler.passes.cleanup import fold_constants
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.passes.layout import assign_layouts
from tilewright.compiler.passes.select import select
from tilewright.compiler.passes.winograd import best_tile, choose_winograd
from tilewright.compiler.pipeline import compile_graph, optimise
from tilewright.compiler.targets import by_name, host
from tilewright.errors import CallError
from tilewright.runtime.executable import Executable

TARGET = replace(by_name("x86-64-v4"), l1=32 << 10, l2=1 << 20)


def net(channels: int = 32, outputs: int = 48, size: int = 28, constant: bool = True) -> Graph:
    g = GraphBuilder("net")
    rng = np.random.default_rng(0)
    x = g.input("x", TensorType(F32, (1, channels, size, size)))
    w = rng.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    filters = g.constant(w, "w") if constant else g.input("w", TensorType(F32, w.shape))
    y = g.op("conv", x, filters, strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=1)
    bias = g.constant(rng.standard_normal((1, outputs, 1, 1)).astype(np.float32), "bias")
    return g.finish({"y": g.op("relu", g.op("add", y, bias))})


def test_choose_select_layout_fuse(golden: Callable[[str], None]) -> None:
    graph = net()
    for apply in (
        lambda graph: choose_winograd(graph, TARGET), lambda graph: select(graph, TARGET), assign_layouts,
        fold_constants, lambda graph: fuse(graph, lambda nodes: False),
    ):  # fmt: skip
        graph = apply(graph)
        verify(graph)
        verify_types(graph)
    golden(re.sub(r"<(\w+) .*?>", r"<\1>", str(graph)))  # the blocking is the template's business


def test_it_computes_the_same() -> None:
    graph = net()
    x = np.random.default_rng(1).standard_normal((1, 32, 28, 28)).astype(np.float32)
    chosen = choose_winograd(graph, TARGET)
    assert [node.op for node in chosen.nodes] == ["winograd_filter", "winograd_conv", "add", "relu"]
    np.testing.assert_allclose(evaluate(chosen, [x])[0], evaluate(graph, [x])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "outputs", "size", "kernel", "tile"),
    [
        (64, 64, 224, 3, 4),
        (16, 16, 28, 3, 4),
        (256, 256, 56, 3, 4),
        (512, 512, 28, 3, 4),
        (32, 32, 12, 5, 2),
        (64, 64, 3, 3, None),
        (3, 64, 224, 3, None),
        (64, 8, 56, 3, None),
        (64, 64, 56, 1, None),
        (64, 64, 56, 7, None),
    ],
)
def test_choice_by_shape(channels: int, outputs: int, size: int, kernel: int, tile: int | None) -> None:
    assert _tile((1, channels, size, size), (outputs, channels, kernel, kernel)) == tile


def _tile(
    x: tuple[int, ...], w: tuple[int, ...], dtype: DType = F32, stride: int = 1, dilation: int = 1, groups: int = 1
) -> int | None:
    pad = (w[2] // 2, w[2] // 2)
    attrs = Conv(strides=(stride,) * 2, pads=(pad, pad), dilations=(dilation,) * 2, groups=groups)
    return best_tile(TensorType(dtype, x), TensorType(dtype, w), attrs, TARGET)


def test_what_does_not_qualify() -> None:
    x, w = (1, 64, 56, 56), (64, 64, 3, 3)
    assert _tile(x, w) == 4
    assert _tile(x, w, dtype=F64) is None
    assert _tile(x, w, stride=2) is None
    assert _tile(x, w, dilation=2) is None
    assert _tile(x, (64, 32, 3, 3), groups=2) is None
    assert _tile((0, 64, 56, 56), w) is None
    assert _tile(x, (64, 64, 3, 5)) is None
    runtime = choose_winograd(net(constant=False), TARGET)
    assert [node.op for node in runtime.nodes] == ["conv", "add", "relu"]


def test_many_filters_for_few_tiles_stay_as_they_are() -> None:
    graph = net(256, 512, 14)
    chosen = choose_winograd(graph, TARGET)
    assert [node.op for node in chosen.nodes] == ["winograd_conv", "add", "relu"]
    verify_types(chosen)
    x = np.random.default_rng(1).standard_normal((1, 256, 14, 14)).astype(np.float32)
    expected = evaluate(graph, [x])[0]
    executable = Executable(compile_graph(graph, host()))
    got = np.empty_like(expected)
    executable.run([x], [got])
    for y in (got, evaluate(chosen, [x])[0]):
        assert np.abs(y - expected).max() <= 2e-5 * np.abs(expected).max()


def test_direct_never_gets_it() -> None:
    ops = {node.op for node in optimise(net(), TARGET, conv="direct").nodes for node in (node, *node.body)}
    assert "conv" in ops and "winograd_conv" not in ops
    auto = compile_graph(net(), TARGET)
    direct = compile_graph(net(), TARGET, conv="direct")
    assert "conv_winograd" in [kernel.template for kernel in auto.manifest.kernels]
    assert "conv_winograd" not in [kernel.template for kernel in direct.manifest.kernels]


def test_other_ways_are_refused() -> None:
    with pytest.raises(CallError, match="conv is 'fast'; it can be 'auto' or 'direct'"):
        tw.compile("net.onnx", conv="fast")  # type: ignore[arg-type]
