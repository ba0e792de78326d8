"""Sums of squares over neighbouring channels, in blocks and row-major, against float64, at every vector width."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, pack, widths
from support import Array, guarded

from tilewright.compiler import targets
from tilewright.compiler.ir.types import BF16, ROW_MAJOR, TensorType, from_numpy
from tilewright.compiler.kernels import channel_squares
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.targets import Target, host


def summed(x: Array, before: int, after: int, target: Target, blocked: bool, pad: int = 0) -> Array:
    """Our sums; blocked x lies among NaN, which must never be read."""
    x_type = TensorType(from_numpy(x.dtype), x.shape)
    plan = channel_squares.plan(x_type, before=before, after=after, blocked=blocked, target=target)
    assert plan is not None and plan.blocked == blocked
    around = ((0, 0), (0, 0), (pad, pad), (pad, pad)) if blocked else ()
    x_type = x_type.with_layout(plan.operand_layouts[0].with_pads(around))
    result = TensorType(x_type.dtype, x.shape, plan.result_layout.with_pads(around))
    kernel = channel_squares.build("sums", plan, x_type, result, StoreResult(View.of(result)))
    real = pack(np.ones_like(x), x_type.layout) == 1
    flat = pack(x, x_type.layout)
    lanes = x_type.layout.block(1)
    if x.shape[1] % lanes == 0:  # the last block's missing lanes must be zeros
        flat = guarded(np.where(real, flat, np.asarray(np.nan, x.dtype)))
    return compute(kernel, {"x": flat}, result)


def expected(x: Array, before: int, after: int) -> Array:
    """The same in float64."""
    channels = x.shape[1]
    spread = [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)]
    squares = np.pad(x.astype(np.float64) ** 2, spread)
    return np.asarray(sum(squares[:, k : k + channels] for k in range(before + after + 1)))


def check(shape: tuple[int, ...], before: int, after: int, target: Target, blocked: bool, pad: int = 0) -> None:
    x = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    got = summed(x, before, after, target, blocked, pad)
    np.testing.assert_allclose(got, expected(x, before, after), rtol=1e-6)


@pytest.mark.parametrize("target", widths(), ids=lambda target: f"{target.vector_bits}bit")
@pytest.mark.parametrize("blocked", [True, False])
@pytest.mark.parametrize(
    ("shape", "before", "after"),
    [((2, 48, 5, 7), 2, 2), ((1, 5, 3, 4), 2, 2), ((1, 33, 1, 9), 0, 3), ((1, 20, 2, 3), 9, 19), ((1, 9, 90, 3), 1, 0)],
)
def test_sums(shape: tuple[int, ...], before: int, after: int, target: Target, blocked: bool) -> None:
    check(shape, before, after, target, blocked, pad=shape[2] % 3)


@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 300, 2, 3), (2, 3, 2, 3, 4)])
def test_row_major_of_any_rank_and_window(shape: tuple[int, ...]) -> None:
    for before, after in ((0, 0), (2, 1), (100, 400)):
        check(shape, before, after, host(), blocked=False)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(1, 9), st.integers(0, 8), st.integers(0, 8), st.booleans()
)
def test_any_shape(channels: int, height: int, width: int, before: int, after: int, blocked: bool) -> None:
    check((1, channels, height, width), before, after, host(), blocked)


def test_special_values_stay_among_their_neighbours() -> None:
    x = np.ones((1, 32, 2, 2), np.float32)
    x[0, 3, 0, 0], x[0, 16, 0, 1], x[0, 31, 1, 1] = np.nan, np.inf, 1e30
    for blocked in (True, False):
        with np.errstate(over="ignore"):
            got = summed(x, 2, 1, host(), blocked)
            np.testing.assert_array_equal(got, expected(x, 2, 1).astype(np.float32))


def test_what_does_not_apply() -> None:
    empty, half = (TensorType(from_numpy(np.dtype(np.float32)), shape) for shape in ((0, 3, 4, 4), (1, 16, 4, 4)))
    target = targets.by_name("x86-64-v4")
    assert channel_squares.plan(empty, before=1, after=1, blocked=True, target=target) is None
    many = channel_squares.plan(half, before=40, after=40, blocked=True, target=target)
    narrow = channel_squares.plan(TensorType(BF16, (1, 16, 4, 4)), before=1, after=1, blocked=True, target=target)
    assert many is not None and narrow is not None
    assert many.result_layout == narrow.result_layout == ROW_MAJOR
