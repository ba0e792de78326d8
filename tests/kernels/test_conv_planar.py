"""Planar convolution against PyTorch in float64, at every vector width, in hostile memory."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, pack, widths
from support import Array

from tilewright.compiler import targets
from tilewright.compiler.ir.types import BF16, F32, Layout, TensorType, from_numpy
from tilewright.compiler.kernels import conv_planar
from tilewright.compiler.kernels.conv_planar import lane_block
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.targets import Target

Shape = tuple[int, ...]


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


def reference(
    x: Array, w: Array, strides: Shape, pads: tuple[Shape, ...], dilations: Shape, groups: int
) -> Array:
    """PyTorch's convolution in float64."""
    padded = np.pad(x.astype("f8"), ((0, 0), (0, 0), *pads))
    convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[x.ndim - 3]
    operands = torch.from_numpy(padded), torch.from_numpy(w.astype("f8"))
    found: Array = convolve(*operands, None, strides, 0, dilations, groups).numpy()
    return found


def convolve(x: Array, w: Array, target: Target, extra: int = 0, **how: Any) -> Array:
    """Our convolution; `extra` more zeros lie around x than the plan asks for."""
    dtype = from_numpy(x.dtype)
    x_type, w_type = TensorType(dtype, x.shape), TensorType(dtype, w.shape)
    plan = conv_planar.plan(x_type, w_type, **how, target=target)
    assert plan is not None
    layout = plan.operand_layouts[0]
    if extra:
        wider = [(a + extra, b + extra) for a, b in layout.pads or ((0, 0),) * x.ndim]
        layout = Layout().with_pads((*((0, 0),) * 2, *wider[2:]))
    result = TensorType(dtype, reference(x, w, **how).shape)
    kernel = conv_planar.build(
        "conv", plan, x_type.with_layout(layout), w_type, result, StoreResult(View.of(result))
    )
    return compute(kernel, {"x": pack(x, layout), "w": pack(w, Layout())}, result)


def check(
    x_shape: Shape, w_shape: Shape, target: Target, dtype: str = "f4", *, strides: Shape = (),
    pads: tuple[Shape, ...] = (), dilations: Shape = (), groups: int = 1, extra: int = 0,
) -> None:  # fmt: skip
    rank = len(x_shape) - 2
    chance = np.random.default_rng(sum(x_shape))
    x, w = (
        (chance.standard_normal(shape) * (1 if dtype[0] == "f" else 50)).astype(dtype)
        for shape in (x_shape, w_shape)
    )
    how: dict[str, Any] = {
        "strides": strides or (1,) * rank, "pads": pads or ((0, 0),) * rank,
        "dilations": dilations or (1,) * rank, "groups": groups,
    }  # fmt: skip
    got = convolve(x, w, target, extra, **how)
    if dtype[0] == "i":
        np.testing.assert_array_equal(got, reference(x, w, **how))
        return
    bound = 8 * np.finfo(dtype).eps * reference(np.abs(x), np.abs(w), **how) + np.finfo(dtype).tiny
    assert (np.abs(got - reference(x, w, **how)) <= bound).all()


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 8, 15, 16, 17, 67])
def test_widths(target: Target, width: int) -> None:
    check((1, 3, width), (5, 3, 1), target)
    check((1, 2, 5, width), (3, 2, 3, 3), target, pads=((1, 1), (1, 1)))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("outputs", [1, 2, 6, 7, 15, 29])
def test_output_channels(target: Target, outputs: int) -> None:
    check((2, 3, 4, 18), (outputs, 3, 2, 3), target)
    check((2, 3, 3, 5), (outputs, 3, 2, 3), target)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
def test_element_types(target: Target, dtype: str) -> None:
    check((1, 4, 6, 19), (6, 2, 3, 3), target, dtype, groups=2, strides=(1, 2), pads=((1, 1), (0, 2)))
    check((1, 8, 3, 3), (5, 8, 3, 3), target, dtype)
    check((1, 2, 30), (5, 2, 3), target, dtype, strides=(7,))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    "x, w, how",
    [
        ((1, 6, 40), (4, 3, 5), {"strides": (2,), "pads": ((2, 2),), "groups": 2}),
        ((1, 1, 200), (3, 1, 25), {"strides": (4,), "dilations": (2,)}),
        ((2, 4, 9, 9), (8, 1, 3, 3), {"groups": 4, "pads": ((1, 1), (1, 1))}),
        ((1, 6, 11, 35), (6, 1, 5, 5), {"groups": 6, "dilations": (2, 1), "strides": (1, 3)}),
        ((1, 2, 4, 7, 7), (3, 2, 3, 3, 3), {"strides": (2, 2, 2), "pads": ((1, 1), (1, 1), (1, 1))}),
        ((1, 2, 3, 3, 3), (3, 2, 2, 2, 2), {}),
        ((2, 3, 5, 4, 20), (15, 3, 2, 1, 3), {"dilations": (2, 1, 1)}),
        ((1, 3, 1, 1), (20, 3, 3, 3), {"pads": ((1, 1), (1, 1))}),
        ((1, 3, 2, 2), (4, 3, 1, 1), {"strides": (2, 2)}),
        ((1, 3, 4, 5), (4, 3, 2, 2), {"pads": ((3, 0), (0, 4))}),
    ],
)
def test_windows(target: Target, x: Shape, w: Shape, how: dict[str, Any]) -> None:
    check(x, w, target, **how)
    check(x, w, target, **how, extra=2)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("x, w, groups", [
    ((3, 70, 1, 1), (13, 70, 1, 1), 1), ((2, 12, 3, 5), (8, 3, 3, 5), 4), ((1, 5, 7), (1, 5, 7), 1),
    ((1, 2, 2, 3, 4), (130, 2, 2, 3, 4), 1),
])  # fmt: skip
def test_kernels_as_large_as_the_input(target: Target, x: Shape, w: Shape, groups: int) -> None:
    check(x, w, target, groups=groups)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("x, w", [
    ((1, 700, 20), (3, 700, 1)), ((1, 1, 1500), (3, 1, 1200)), ((1, 60, 6, 20), (3, 60, 3, 3)),
    ((1, 2, 40, 40), (2, 2, 33, 30)), ((1, 301, 2, 3), (15, 301, 1, 1)),
])  # fmt: skip
def test_long_sums(target: Target, x: Shape, w: Shape) -> None:
    check(x, w, target)


@pytest.mark.parametrize("result, lanes, axis, span", [
    ((100,), 16, 0, 16), ((5,), 16, 0, 5), ((5, 7), 16, 0, 2), ((5, 9), 16, 1, 9), ((2, 2, 2), 16, 0, 2),
    ((9, 2, 2), 16, 0, 4), ((9, 4, 4), 16, 1, 4), ((3, 1, 1), 1, 2, 1), ((1, 1), 16, 0, 1),
    ((50, 1), 16, 0, 16),
])  # fmt: skip
def test_vectors_take_whole_rows_where_several_fit(result: Shape, lanes: int, axis: int, span: int) -> None:
    assert lane_block(result, lanes) == (axis, span)


@given(data=st.data())
@settings(max_examples=40)
def test_any(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> Shape:
        return data.draw(st.tuples(*[st.integers(low, high)] * rank))

    kernel, strides, dilations = sizes(1, 4), sizes(1, 6), sizes(1, 2)
    pads = tuple(zip(sizes(0, 2), sizes(0, 2), strict=True))
    room = sizes(0, {1: 80, 2: 20, 3: 6}[rank])
    spatial = tuple(
        max((k - 1) * d + 1 - sum(p), 1) + r for k, d, p, r in zip(kernel, dilations, pads, room, strict=True)
    )
    groups, c, o = (data.draw(st.integers(1, most)) for most in (3, 5, 17))
    check(
        (data.draw(st.integers(1, 2)), groups * c, *spatial), (groups * o, c, *kernel),
        data.draw(st.sampled_from([p.values[0] for p in widths() if not p.marks[0].args[0]])),
        data.draw(st.sampled_from(["f4", "f8", "i4", "i8"])),
        strides=strides, pads=pads, dilations=dilations, groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize(
    "x_shape, w_shape", [((1, 512, 8, 20), (8, 512, 3, 3)), ((1, 1, 9000), (4, 1, 4096))]
)
def test_errors_of_long_sums_are_no_worse_than_torch(x_shape: Shape, w_shape: Shape) -> None:
    rank = len(x_shape) - 2
    chance = np.random.default_rng(5)
    x, w = (chance.standard_normal(shape, np.float32) for shape in (x_shape, w_shape))
    how: dict[str, Any] = {
        "strides": (1,) * rank,
        "pads": ((0, 0),) * rank,
        "dilations": (1,) * rank,
        "groups": 1,
    }
    exact = reference(x, w, **how)
    theirs = (torch.conv1d, torch.conv2d)[rank - 1](torch.from_numpy(x), torch.from_numpy(w)).numpy()
    mine, torchs = (
        np.sqrt(np.mean((got - exact) ** 2)) for got in (convolve(x, w, targets.host(), **how), theirs)
    )
    assert mine <= 1.5 * torchs, f"{mine:.3g}, torch's is {torchs:.3g}"


def test_nan_stays_in_its_windows() -> None:
    x, w = np.ones((1, 2, 6, 21), np.float32), np.ones((3, 2, 3, 3), np.float32)
    x[0, 1, 2, 7] = np.nan
    got = convolve(x, w, targets.host(), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=1)
    nans = np.zeros_like(got, bool)
    nans[:, :, 1:4, 6:9] = True
    np.testing.assert_array_equal(np.isnan(got), nans)


def test_refusals() -> None:
    how: dict[str, Any] = {
        "strides": (1,),
        "pads": ((0, 0),),
        "dilations": (1,),
        "groups": 1,
        "target": targets.host(),
    }
    w = TensorType(F32, (3, 2, 3))
    assert conv_planar.plan(TensorType(F32, (1, 2, 9)), w, **how) is not None
    assert conv_planar.plan(TensorType(F32, (0, 2, 9)), w, **how) is None
    assert conv_planar.plan(TensorType(BF16, (1, 2, 9)), TensorType(BF16, (3, 2, 3)), **how) is None
    assert conv_planar.plan(TensorType(F32, (1, 0, 9)), TensorType(F32, (3, 0, 3)), **how) is None
