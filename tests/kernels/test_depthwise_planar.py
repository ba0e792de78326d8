"""Depthwise convolution of row-major data against PyTorch in float64, at every vector width, in hostile memory."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, pack, widths
from networks import export
from support import Array
from torch import nn

import tilewright as tw
from tilewright.compiler import targets
from tilewright.compiler.ir.types import F16, F32, Layout, TensorType, from_numpy
from tilewright.compiler.kernels import depthwise_planar
from tilewright.compiler.kernels.conv_tiles import output_size
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.targets import Target

Shape = tuple[int, ...]
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def reference(x: Array, w: Array, strides: Pair, pads: Pads, dilations: Pair) -> Array:
    """PyTorch's convolution in float64."""
    padded = np.pad(x.astype("f8"), ((0, 0), (0, 0), *pads))
    operands = torch.from_numpy(padded), torch.from_numpy(w.astype("f8"))
    found: Array = torch.conv2d(*operands, None, strides, 0, dilations, x.shape[1]).numpy()
    return found


def convolve(x: Array, w: Array, target: Target, strides: Pair, pads: Pads, dilations: Pair) -> Array:
    """Our convolution."""
    x_type, w_type = (TensorType(from_numpy(array.dtype), array.shape) for array in (x, w))
    plan = depthwise_planar.plan(
        x_type, w_type, strides=strides, pads=pads, dilations=dilations, groups=x.shape[1], target=target
    )
    assert plan is not None
    height, width = (
        output_size(*axis) for axis in zip(x.shape[2:], w.shape[2:], strides, pads, dilations, strict=True)
    )
    result = TensorType(x_type.dtype, (*x.shape[:2], height, width))
    kernel = depthwise_planar.build("conv", plan, x_type, w_type, result, StoreResult(View.of(result)))
    return compute(kernel, {"x": pack(x, Layout()), "w": pack(w, Layout())}, result)


def check(
    shape: Shape, kernel: Pair, target: Target, dtype: str = "f4", strides: Pair = (1, 1),
    pads: Pads = ((1, 1), (1, 1)), dilations: Pair = (1, 1),
) -> None:  # fmt: skip
    chance = np.random.default_rng(sum(shape))
    x, w = (chance.standard_normal(size).astype(dtype) for size in (shape, (shape[1], 1, *kernel)))
    got, exact = convolve(x, w, target, strides, pads, dilations), reference(x, w, strides, pads, dilations)
    bound = 8 * np.finfo(dtype).eps * reference(np.abs(x), np.abs(w), strides, pads, dilations)
    assert (np.abs(got - exact) <= bound + np.finfo(dtype).tiny).all()


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


all_widths = pytest.mark.parametrize("target", widths(), ids=width_id)


@all_widths
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 7), (14, 14), (5, 17), (28, 28), (9, 40)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 3)])
def test_sizes(target: Target, size: Pair, strides: Pair) -> None:
    check((2, 5, *size), (3, 3), target, strides=strides)


@all_widths
@pytest.mark.parametrize("kernel, pads, dilations", [
    ((1, 1), ((0, 0), (0, 0)), (1, 1)), ((5, 5), ((2, 2), (2, 2)), (1, 1)), ((3, 3), ((2, 2), (2, 2)), (2, 2)),
    ((2, 4), ((0, 1), (3, 0)), (1, 1)), ((7, 7), ((3, 3), (3, 3)), (1, 1)), ((3, 3), ((9, 0), (0, 9)), (1, 3)),
    ((1, 3), ((0, 0), (30, 30)), (1, 1)),
])  # fmt: skip
def test_windows(target: Target, kernel: Pair, pads: Pads, dilations: Pair) -> None:
    for strides in ((1, 1), (2, 2)):
        check((1, 3, 11, 20), kernel, target, "f4", strides, pads, dilations)
    check((1, 40, 11, 20), kernel, target, "f8", (2, 1), pads, dilations)


@given(data=st.data())
@settings(max_examples=40)
def test_any(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> Pair:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, strides, dilations, pads = pair(1, 5), pair(1, 4), pair(1, 3), (pair(0, 4), pair(0, 4))
    rooms = pair(0, 40)
    height, width = (
        max((k - 1) * d + 1 - sum(p), 1) + room for k, d, p, room in zip(kernel, dilations, pads, rooms, strict=True)
    )
    batch, channels = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 40))
    check(
        (batch, channels, height, width), kernel,
        data.draw(st.sampled_from([p.values[0] for p in widths() if not p.marks[0].args[0]])),
        data.draw(st.sampled_from(["f4", "f8"])), strides, pads, dilations,
    )  # fmt: skip


def test_nan_stays_in_its_windows() -> None:
    x, w = np.ones((1, 2, 9, 20), np.float32), np.ones((2, 1, 3, 3), np.float32)
    x[0, 1, 0, 19] = x[0, 1, 5, 3] = np.nan
    got = convolve(x, w, targets.host(), (1, 1), ((1, 1), (1, 1)), (1, 1))
    nans = np.zeros_like(got, bool)
    nans[:, 1, :2, 18:] = nans[:, 1, 4:7, 2:5] = True
    np.testing.assert_array_equal(np.isnan(got), nans)


def test_refusals() -> None:
    def plan(x: Shape, w: Shape, dtype: Any = F32, **other: Any) -> depthwise_planar.Plan | None:
        how: dict[str, Any] = {
            "strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1), "groups": x[1], "target": targets.host(),
        } | other  # fmt: skip
        return depthwise_planar.plan(TensorType(dtype, x), TensorType(dtype, w), **how)

    assert plan((1, 4, 9, 9), (4, 1, 3, 3)) is not None
    assert plan((1, 4, 9, 9), (4, 1, 3, 3), F16) is None
    assert plan((1, 4, 9, 9), (8, 1, 3, 3)) is None
    assert plan((1, 4, 9, 9), (4, 2, 3, 3), groups=2) is None
    assert plan((1, 4, 9, 9), (4, 1, 9, 9)) is None
    assert plan((1, 4, 2, 2), (4, 1, 5, 5)) is None
    assert plan((1, 4, 9, 9), (4, 1, 3, 3), pads=((-1, 1), (1, 1))) is None
    assert plan((1, 4, 2000, 2000), (4, 1, 3, 3)) is None
    # Small images that with their zeros would not fit the stack.
    assert plan((1, 4, 9, 9), (4, 1, 2, 2), pads=((2000, 2000), (2000, 2000)), dilations=(4000, 4000)) is None
    assert plan((1, 4, 60_000, 1), (4, 1, 1, 1), pads=((0, 0), (0, 0))) is None


@pytest.mark.parametrize("groups, template", [(2, "depthwise_planar"), (1, "depthwise")])
def test_what_lies_between_row_major_data_is_row_major(groups: int, template: str) -> None:
    def point() -> nn.Conv2d:
        return nn.Conv2d(34, 34, 1, groups=groups)

    torch.manual_seed(0)
    middle = nn.Conv2d(34, 34, 3, 2, 1, groups=34)
    net = nn.Sequential(point(), nn.ReLU(), middle, nn.Hardswish(), point()).eval()
    x = torch.randn(2, 34, 15, 22)
    model = tw.compile(export(net, x.shape), cache=False)
    with torch.inference_mode():
        np.testing.assert_allclose(model(x.numpy()), net(x).numpy(), rtol=1e-4, atol=1e-5)
    templates = [spec.template for spec in model.executable((tuple(x.shape),)).manifest.kernels]
    assert template in templates
    assert ("relayout" in templates) == (groups == 1), templates
