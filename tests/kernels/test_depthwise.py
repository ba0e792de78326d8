"""Depthwise convolution against PyTorch, at every vector width this machine has, in hostile memory."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, pack, widths
from support import Array

from tilewright.compiler import targets
from tilewright.compiler.ir.types import F32, F64, DType, TensorType
from tilewright.compiler.kernels import conv_tiles, depthwise
from tilewright.compiler.kernels.conv_tiles import Pads, Pair
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.targets import Target

NONE: Pads = ((0, 0), (0, 0))
SAME: Pads = ((1, 1), (1, 1))


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


def convolve(
    x: Array, w: Array, target: Target, dtype: DType, strides: Pair, pads: Pads, dilations: Pair, extra: Pads
) -> Array:
    channels = x.shape[1]
    x_type, w_type = TensorType(dtype, x.shape), TensorType(dtype, w.shape)
    plan = depthwise.plan(
        x_type, w_type, strides=strides, pads=pads, dilations=dilations, groups=channels, target=target
    )
    assert plan is not None
    x_layout, w_layout = plan.operand_layouts
    wider = tuple(
        (x_layout.pad(axis)[0] + more[0], x_layout.pad(axis)[1] + more[1])
        for axis, more in enumerate(((0, 0), (0, 0), *extra))
    )
    x_type, w_type = x_type.with_layout(x_layout.with_pads(wider)), w_type.with_layout(w_layout)
    size = [
        conv_tiles.output_size(*axis)
        for axis in zip(x.shape[2:], w.shape[2:], strides, pads, dilations, strict=True)
    ]
    result = TensorType(
        dtype, (x.shape[0], channels, *size), plan.result_layout.with_pads(((0, 0),) * 2 + extra)
    )
    kernel = depthwise.build("depthwise", plan, x_type, w_type, result, StoreResult(View.of(result)))
    return compute(kernel, {"x": pack(x, x_type.layout), "w": pack(w, w_type.layout)}, result)


def check(
    x_shape: tuple[int, ...], kernel: Pair, target: Target, dtype: DType = F32, *, strides: Pair = (1, 1),
    pads: Pads = NONE, dilations: Pair = (1, 1), extra: Pads = NONE,
) -> None:  # fmt: skip
    rng = np.random.default_rng(sum(x_shape))
    x = rng.standard_normal(x_shape).astype(dtype.numpy)
    w = rng.standard_normal((x_shape[1], 1, *kernel)).astype(dtype.numpy)
    got = convolve(x, w, target, dtype, strides, pads, dilations, extra)
    padded = torch.from_numpy(np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads)))
    expected = torch.nn.functional.conv2d(
        padded, torch.from_numpy(w.astype(np.float64)), stride=strides, dilation=dilations, groups=x_shape[1]
    ).numpy()
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=40 * np.finfo(x.dtype).eps * np.prod(kernel) ** 0.5
    )


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("channels", [1, -1, 0, 17, 37, 48])
def test_channels(target: Target, channels: int) -> None:
    channels = channels if channels > 0 else max(target.lanes(32) + channels, 1)
    check((2, channels, 6, 7), (3, 3), target, pads=SAME)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (1, 17), (17, 1), (13, 40), (35, 12)])
def test_sizes(target: Target, size: Pair) -> None:
    check((1, target.lanes(32), *size), (3, 3), target, pads=SAME)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "dilations"),
    [
        ((3, 3), (2, 2), SAME, (1, 1)),
        ((5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
        ((5, 5), (2, 2), ((1, 2), (1, 2)), (1, 1)),
        ((7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1)),
        ((7, 7), (3, 2), ((3, 0), (0, 3)), (1, 1)),
        ((3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2)),
        ((9, 1), (1, 1), ((4, 4), (0, 0)), (1, 1)),
        ((1, 7), (1, 3), ((0, 0), (3, 3)), (1, 2)),
        ((1, 1), (1, 1), NONE, (1, 1)),
        ((2, 4), (3, 1), ((1, 0), (0, 2)), (3, 1)),
    ],
)
def test_windows(target: Target, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair) -> None:
    check((2, 9, 15, 14), kernel, target, strides=strides, pads=pads, dilations=dilations)


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_f64_and_wider_pads(target: Target) -> None:
    check((1, 11, 9, 8), (3, 3), target, F64, pads=SAME, strides=(2, 1))
    check((2, 11, 9, 8), (5, 3), target, F64, pads=((1, 0), (0, 2)), extra=((2, 1), (1, 3)))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_any(target: Target, data: st.DataObject) -> None:
    draw = data.draw
    kernel, strides, dilations = (
        (draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (7, 3, 3)
    )
    top, bottom, left, right = (draw(st.integers(0, 3)) for _ in range(4))
    pads = ((top, bottom), (left, right))
    size = tuple(
        max(draw(st.integers(1, 17)), (k - 1) * d + 1 - sum(pad))
        for k, d, pad in zip(kernel, dilations, pads, strict=True)
    )
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3 * target.lanes(32))), *size)
    check(shape, kernel, target, strides=strides, pads=pads, dilations=dilations)


def test_refusals() -> None:
    def plan(x: tuple[int, ...], w: tuple[int, ...], groups: int, **how: Any) -> depthwise.Plan | None:
        kinds: dict[str, Any] = {"strides": (1, 1), "pads": NONE, "dilations": (1, 1)}
        return depthwise.plan(
            TensorType(F32, x), TensorType(F32, w), groups=groups, target=targets.host(), **(kinds | how)
        )

    assert plan((1, 8, 5, 5), (8, 1, 3, 3), 8) is not None
    assert plan((1, 8, 5, 5), (16, 1, 3, 3), 8) is None
    assert plan((1, 8, 5, 5), (8, 2, 3, 3), 4) is None
    assert plan((1, 8, 9, 9), (8, 1, 3, 8), 8) is None
    assert plan((1, 8, 2, 5), (8, 1, 3, 3), 8) is None
    assert plan((1, 8, 5, 5), (8, 1, 3, 3), 8, pads=((-1, 0), (0, 0))) is None
