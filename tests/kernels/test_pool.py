"""Max and sum pooling against PyTorch, at every vector width this machine has, in hostile memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, pack, widths
from support import Array, guarded

from tilewright.compiler import targets
from tilewright.compiler.ir.types import F32, F64, DType, TensorType, from_numpy
from tilewright.compiler.kernels import pool
from tilewright.compiler.kernels.conv_tiles import Pads, Pair
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.kernels.pool import Mode
from tilewright.compiler.targets import Target

NONE: Pads = ((0, 0), (0, 0))
SAME: Pads = ((1, 1), (1, 1))


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


def pooled(
    x: Array, size: Pair, target: Target, mode: Mode, kernel: Pair, strides: Pair, pads: Pads,
    dilations: Pair, extra: Pads,
) -> Array:  # fmt: skip
    """Our pooling; x lies among NaN, which must never be read."""
    dtype = from_numpy(x.dtype)
    x_type = TensorType(dtype, x.shape)
    result = TensorType(dtype, (*x.shape[:2], *size))
    plan = pool.plan(
        x_type,
        result,
        mode=mode,
        kernel=kernel,
        strides=strides,
        pads=pads,
        dilations=dilations,
        target=target,
    )
    assert plan is not None
    around = ((0, 0), (0, 0), *extra)
    x_type = x_type.with_layout(plan.operand_layouts[0].with_pads(around))
    result = result.with_layout(plan.result_layout.with_pads(around))
    kernel_ = pool.build("pool", plan, x_type, result, StoreResult(View.of(result)))
    real = pack(np.ones_like(x), x_type.layout) == 1
    flat = pack(x, x_type.layout)
    return compute(kernel_, {"x": guarded(np.where(real, flat, np.asarray(np.nan, x.dtype)))}, result)


def expected(
    x: Array, size: Pair, mode: Mode, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair
) -> Array:
    """Every window's maximum or float64 sum, in NumPy; padding is -infinity or 0."""
    nothing = -np.inf if mode == "max" else 0.0
    room = [
        max((n - 1) * s + (k - 1) * d + 1 - have - pad[0], pad[1])
        for n, s, k, d, have, pad in zip(size, strides, kernel, dilations, x.shape[2:], pads, strict=True)
    ]
    padded = np.pad(
        x.astype(np.float64),
        ((0, 0), (0, 0), (pads[0][0], room[0]), (pads[1][0], room[1])),
        constant_values=nothing,
    )
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)], axis=(2, 3)
    )
    chosen = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]][
        :, :, : size[0], : size[1]
    ]
    return np.asarray(chosen.max((-2, -1)) if mode == "max" else chosen.sum((-2, -1)))


def check(
    shape: tuple[int, ...], kernel: Pair, target: Target, dtype: DType = F32, *, strides: Pair = (1, 1),
    pads: Pads = NONE, dilations: Pair = (1, 1), extra: Pads = NONE, up: bool = False,
) -> None:  # fmt: skip
    x = np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype.numpy)
    spans = [
        have + sum(pad) - (k - 1) * d - 1
        for have, pad, k, d in zip(shape[2:], pads, kernel, dilations, strict=True)
    ]
    high, wide = ((-(-span // s) if up else span // s) + 1 for span, s in zip(spans, strides, strict=True))
    size = (high, wide)
    for mode in ("max", "sum"):
        got = pooled(x, size, target, mode, kernel, strides, pads, dilations, extra)
        want = expected(x, size, mode, kernel, strides, pads, dilations)
        bound = 0 if mode == "max" else 8 * np.finfo(x.dtype).eps * float(np.prod(kernel))
        np.testing.assert_allclose(got, want, rtol=0, atol=bound)


def test_the_reference_is_torch() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 11))
    at = torch.from_numpy(x)
    size = (5, 6)
    max_pool = torch.nn.functional.max_pool2d(at, 3, 2, 1).numpy()
    np.testing.assert_array_equal(expected(x, size, "max", (3, 3), (2, 2), SAME, (1, 1)), max_pool)
    sums = torch.nn.functional.avg_pool2d(at, 3, 2, 1).numpy() * 9
    np.testing.assert_allclose(expected(x, size, "sum", (3, 3), (2, 2), SAME, (1, 1)), sums)
    dilated = torch.nn.functional.max_pool2d(at, (2, 3), (1, 2), (1, 1), dilation=(2, 1)).numpy()
    got = expected(x, dilated.shape[2:], "max", (2, 3), (1, 2), SAME, (2, 1))
    np.testing.assert_array_equal(got, dilated)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("channels", [1, -1, 0, 17, 37, 48])
def test_channels(target: Target, channels: int) -> None:
    channels = channels if channels > 0 else max(target.lanes(32) + channels, 1)
    check((2, channels, 6, 7), (3, 3), target, pads=SAME)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (1, 17), (17, 1), (13, 40), (40, 13)])
def test_sizes(target: Target, size: Pair) -> None:
    check((1, target.lanes(32), *size), (3, 3), target, pads=SAME, strides=(2, 2))
    check((1, target.lanes(32), *size), size, target)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "dilations"),
    [
        ((2, 2), (2, 2), NONE, (1, 1)),
        ((3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1)),
        ((5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
        ((3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2)),
        ((2, 5), (3, 1), ((1, 0), (4, 2)), (3, 2)),
        ((1, 1), (2, 3), NONE, (1, 1)),
        ((12, 1), (1, 1), ((5, 6), (0, 0)), (1, 1)),
        ((3, 18), (1, 2), ((0, 0), (9, 8)), (1, 1)),
        ((20, 25), (4, 3), ((10, 9), (12, 12)), (1, 1)),
    ],
)
def test_windows(target: Target, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair) -> None:
    for up in (False, True):
        check((2, 9, 15, 14), kernel, target, strides=strides, pads=pads, dilations=dilations, up=up)


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_f64_and_pads_that_are_not_read(target: Target) -> None:
    check((1, 11, 9, 8), (3, 3), target, F64, pads=SAME, strides=(2, 1))
    check((2, 11, 9, 8), (3, 2), target, F64, pads=((1, 0), (0, 1)), extra=((2, 1), (1, 3)))


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_windows_wholly_in_padding(target: Target) -> None:
    check((1, 5, 2, 3), (2, 2), target, pads=((3, 3), (4, 2)))
    check((1, 5, 2, 1), (2, 2), target, pads=((1, 1), (1, 1)), dilations=(3, 2), strides=(2, 2))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_any(target: Target, data: st.DataObject) -> None:
    draw = data.draw
    kernel, strides, dilations = (
        (draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (6, 3, 3)
    )
    top, bottom, left, right = (draw(st.integers(0, 3)) for _ in range(4))
    pads = ((top, bottom), (left, right))
    size = tuple(
        max(draw(st.integers(1, 17)), (k - 1) * d + 1 - sum(pad))
        for k, d, pad in zip(kernel, dilations, pads, strict=True)
    )
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3 * target.lanes(32))), *size)
    check(shape, kernel, target, strides=strides, pads=pads, dilations=dilations, up=draw(st.booleans()))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_nan_propagates_from_every_place_of_a_window(target: Target, mode: Mode) -> None:
    for place in range(9):
        x = np.zeros((1, 3, 3, 3), np.float32)
        x[0, 1].flat[place] = np.nan
        y = pooled(x, (1, 1), target, mode, (3, 3), (1, 1), NONE, (1, 1), NONE)
        assert np.isnan(y[0, 1, 0, 0]) and (y[0, ::2] == 0).all()
        wide = np.zeros((1, 3, 3, 40), np.float32)
        wide[0, 1].flat[place * 13] = np.nan
        y = pooled(wide, (1, 1), target, mode, (3, 40), (1, 1), NONE, (1, 1), NONE)
        assert np.isnan(y[0, 1, 0, 0]) and (y[0, ::2] == 0).all()


def test_long_sums_keep_their_digits() -> None:
    x = np.random.default_rng(3).uniform(0.9, 1.1, (1, 16, 112, 112)).astype(np.float32)
    y = pooled(x, (1, 1), targets.host(), "sum", (112, 112), (1, 1), NONE, (1, 1), NONE)
    np.testing.assert_allclose(y[..., 0, 0], x.astype(np.float64).sum((2, 3)), rtol=1e-6)


def test_refusals() -> None:
    def plan(dtype: DType, shape: tuple[int, ...], pads: Pads = NONE) -> pool.Plan | None:
        return pool.plan(
            TensorType(dtype, shape), TensorType(dtype, (*shape[:2], 2, 2)[: len(shape)]), mode="max",
            kernel=(2, 2), strides=(1, 1), pads=pads, dilations=(1, 1), target=targets.host(),
        )  # fmt: skip

    assert plan(F32, (1, 4, 3, 3)) is not None
    assert plan(F32, (1, 4, 3)) is None
    assert plan(F32, (0, 4, 3, 3)) is None
    assert plan(F32, (1, 4, 3, 3), ((-1, 0), (0, 0))) is None
    assert plan(from_numpy(np.int32), (1, 4, 3, 3)) is None
