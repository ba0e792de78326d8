"""Winograd convolution against PyTorch, at every vector width this machine has, in hostile memory."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, fill_lanes, pack, physical, widths
from support import Array, guarded, run

from tilewright.compiler import targets
from tilewright.compiler.ir.types import F32, F64, Layout, TensorType
from tilewright.compiler.kernels import conv_winograd
from tilewright.compiler.kernels.conv_winograd import Pads
from tilewright.compiler.kernels.kernel import Kernel, StoreResult, View
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops import compute as run_primitive
from tilewright.compiler.targets import Target
from tilewright.compiler.winograd import Scheme
from tilewright.errors import CompileError

NONE: Pads = ((0, 0), (0, 0))
SAME: Pads = ((1, 1), (1, 1))
SCHEMES = [(2, 3), (4, 3), (6, 3), (3, 3), (2, 5), (4, 5), (6, 5), (2, 2), (5, 3)]


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


def reference(x: Array, w: Array, pads: Pads) -> Array:
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads))
    y = torch.nn.functional.conv2d(torch.from_numpy(padded), torch.from_numpy(w.astype(np.float64)))
    return y.numpy()


def filters(w: Array, tile: int) -> Array:
    """The transformed filters."""
    return run_primitive("winograd_filter", PRIMITIVES["winograd_filter"].attrs(tile=tile), [w])[0]


def convolve(
    x: Array,
    w: Array,
    target: Target,
    tile: int,
    pads: Pads,
    extra: Pads = NONE,
    keep: list[Array] | None = None,
    raw: bool = False,
) -> tuple[Array, Kernel, conv_winograd.Plan]:
    """Our convolution, x with `extra` more zeros around than needed, the result too."""
    u = w if raw else filters(w, tile)
    x_type, u_type = TensorType(F32, x.shape), TensorType(F32, u.shape)
    plan = conv_winograd.plan(x_type, u_type, tile=tile, kernel=w.shape[2], pads=pads, target=target)
    assert plan is not None
    x_layout, u_layout = plan.operand_layouts
    wider = tuple(
        (x_layout.pad(axis)[0] + more[0], x_layout.pad(axis)[1] + more[1])
        for axis, more in enumerate(((0, 0), (0, 0), *extra))
    )
    x_type, u_type = x_type.with_layout(x_layout.with_pads(wider)), u_type.with_layout(u_layout)
    size = [s + sum(pad) - w.shape[2] + 1 for s, pad in zip(x.shape[2:], pads, strict=True)]
    layout = plan.result_layout.with_pads(((0, 0),) * 2 + extra)
    result = TensorType(F32, (x.shape[0], w.shape[0], *size), layout)
    kernel = conv_winograd.build("conv", plan, x_type, u_type, result, StoreResult(View.of(result)))
    inputs = {
        "x": pack(x, x_type.layout),
        "u": pack(u, u_type.layout),
        "scratch": guarded(np.full(kernel.scratch // 4, np.nan, np.float32)),
    }
    if plan.shared:
        v_type = conv_winograd.inputs_type(plan, x_type, result)
        inputs["v"] = guarded(np.full(v_type.shape, np.nan, np.float32))
        first = conv_winograd.build_inputs("inputs", plan, x_type, result)
        for begin in range(first.items):
            run(first.function, inputs, {"begin": begin, "end": begin + 1})
    return compute(kernel, inputs, result, keep), kernel, plan


def check(
    x_shape: tuple[int, ...], outputs: int, target: Target, *, tile: int = 4, kernel: int = 3, pads: Pads = SAME,
    extra: Pads = NONE,
) -> None:  # fmt: skip
    rng = np.random.default_rng(sum(x_shape) + outputs)
    x = rng.standard_normal(x_shape).astype(np.float32)
    w = rng.standard_normal((outputs, x_shape[1], kernel, kernel)).astype(np.float32)
    expected = reference(x, w, pads)
    # Errors grow with the number of points; the bounds of whole layers are tested below.
    growth = {4: 1, 5: 4, 6: 4, 7: 10, 8: 20, 9: 60, 10: 120, 3: 1}[tile + kernel - 1]
    scale = float(np.sqrt(x_shape[1] * kernel * kernel))
    for raw in (False, True):
        got, _, _ = convolve(x, w, target, tile, pads, extra, raw=raw)
        np.testing.assert_allclose(got, expected, rtol=0, atol=40 * growth * np.finfo(np.float32).eps * scale)


@pytest.mark.parametrize(("tile", "kernel"), SCHEMES)
def test_matrices_convolve_exactly(tile: int, kernel: int) -> None:
    scheme = Scheme(tile, kernel)
    d = [Fraction(k * k % 7 - 3) for k in range(scheme.window)]
    w = [Fraction(3 * k - 4) for k in range(kernel)]

    def times(matrix: tuple[tuple[Fraction, ...], ...], vector: list[Fraction]) -> list[Fraction]:
        return [sum((a * x for a, x in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]

    products = [a * c for a, c in zip(times(scheme.filters, w), times(scheme.inputs, d), strict=True)]
    direct = [sum((w[k] * d[i + k] for k in range(kernel)), Fraction(0)) for i in range(tile)]
    assert times(scheme.outputs, products) == direct


def test_points_that_are_missing() -> None:
    with pytest.raises(ValueError, match="no points for Winograd tiles of 10 with filters of 5"):
        Scheme(10, 5)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(("tile", "kernel"), SCHEMES)
def test_schemes(target: Target, tile: int, kernel: int) -> None:
    lanes = target.lanes(32)
    check((2, lanes + 1, 13, 11), 2 * lanes + 1, target, tile=tile, kernel=kernel, pads=((1, 0), (0, 2)))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (-1, 1), (0, -1), (1, 33), (7, 0), (17, 37), (150, 80)])
def test_channels(target: Target, channels: int, outputs: int) -> None:
    lanes = target.lanes(32)
    channels = channels if channels > 0 else max(lanes + channels, 1)
    outputs = outputs if outputs > 0 else max(lanes + outputs, 1)
    check((1, channels, 9, 10), outputs, target)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (1, 17), (17, 1), (5, 16), (33, 31), (3, 90)])
def test_sizes(target: Target, size: tuple[int, int]) -> None:
    lanes = target.lanes(32)
    check((3, lanes, *size), 2 * lanes + 1, target)
    check((1, lanes + 1, *size), lanes, target, pads=((2, 2), (2, 2)), extra=((1, 2), (0, 3)))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_any(target: Target, data: st.DataObject) -> None:
    lanes = target.lanes(32)
    draw = data.draw
    tile, kernel = draw(st.sampled_from([(2, 3), (4, 3), (6, 3), (2, 5), (4, 5)]))
    counts = st.one_of(st.integers(1, 3 * lanes), st.sampled_from([1, max(lanes - 1, 1), lanes, lanes + 1]))
    channels, outputs = min(draw(counts), 40), min(draw(counts), 60)
    top, bottom, left, right = (draw(st.integers(0, 2)) for _ in range(4))
    size = (
        max(draw(st.integers(1, 33)), kernel - top - bottom),
        max(draw(st.integers(1, 33)), kernel - left - right),
    )
    batch = draw(st.integers(1, 3))
    check((batch, channels, *size), outputs, target, tile=tile, kernel=kernel, pads=((top, bottom), (left, right)))


def test_fill_lanes_of_the_result_are_zero() -> None:
    target = targets.host()
    lanes = target.lanes(32)
    flat: list[Array] = []
    x, w = np.ones((1, 4, 5, 5), np.float32), np.ones((lanes + 1, 4, 3, 3), np.float32)
    _, _, plan = convolve(x, w, target, 4, SAME, keep=flat)
    result = TensorType(F32, (1, lanes + 1, 5, 5), plan.result_layout)
    assert (fill_lanes(flat[0], result) == 0).all()
    assert (flat[0][physical(result.shape, result.layout) >= 0] > 10).all()


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(("channels", "size", "tile"), [(64, 56, 4), (256, 28, 4), (512, 14, 4), (512, 7, 2)])
def test_errors_are_at_most_five_times_those_of_torch(channels: int, size: int, tile: int, raw: bool) -> None:
    rng = np.random.default_rng(7)
    x = np.maximum(rng.standard_normal((1, channels, size, size)), 0).astype(np.float32)
    w = (rng.standard_normal((48, channels, 3, 3)) / channels**0.5).astype(np.float32)
    exact = reference(x, w, SAME)
    got, _, _ = convolve(x, w, targets.host(), tile, SAME, raw=raw)
    with torch.inference_mode():
        peer = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1).numpy()
    ours, theirs = (float(np.sqrt(np.mean((y - exact) ** 2))) for y in (got, peer))
    assert ours <= 5 * theirs, (ours, theirs)


def test_nan_stays_in_the_tiles_that_read_it() -> None:
    x = np.ones((1, 20, 12, 12), np.float32)
    x[0, 3, 0, 0] = np.nan
    got, _, _ = convolve(x, np.ones((17, 20, 3, 3), np.float32), targets.host(), 4, SAME)
    assert np.isnan(got[0, :, :2, :2]).all()
    assert np.isfinite(got[0, :, 4:, :]).all() and np.isfinite(got[0, :, :, 4:]).all()


def test_refusals() -> None:
    target = targets.narrowed(targets.host(), 128)

    def plan(x: tuple[int, ...], u: tuple[int, ...], dtype: Any = F32, pads: Pads = SAME) -> object:
        return conv_winograd.plan(
            TensorType(dtype, x), TensorType(dtype, u), tile=4, kernel=3, pads=pads, target=target
        )

    assert plan((1, 4, 5, 5), (36, 4, 4)) is not None
    assert plan((1, 4, 5), (36, 4, 4)) is None
    assert plan((0, 4, 5, 5), (36, 4, 4)) is None
    assert plan((1, 4, 2, 5), (36, 4, 4), pads=NONE) is None
    assert plan((1, 4, 5, 5), (36, 4, 4), pads=((-1, 0), (0, 0))) is None
    assert plan((1, 4, 5, 5), (36, 4, 4), F64) is None


def test_missing_zeros_are_an_error() -> None:
    x, u = TensorType(F32, (1, 16, 5, 5)), TensorType(F32, (36, 16, 16))
    plan = conv_winograd.plan(x, u, tile=4, kernel=3, pads=SAME, target=targets.host())
    assert plan is not None
    # Two tiles of four cover five outputs: the last one's window ends three beyond the usual zero.
    assert plan.operand_layouts[0].pads[2] == (1, 4)
    bare = x.with_layout(Layout(blocks=plan.operand_layouts[0].blocks, pads=((0, 0), (0, 0), *SAME)))
    u = u.with_layout(plan.operand_layouts[1])
    result = TensorType(F32, (1, 16, 5, 5), plan.result_layout)
    with pytest.raises(CompileError, match="1, 4 zeros around axis 2"):
        conv_winograd.build("conv", plan, bare, u, result, StoreResult(View.of(result)))
