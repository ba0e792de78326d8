"""1x1 convolution of row-major data against PyTorch in float64, at every vector width, in hostile memory."""

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
from tilewright.compiler.kernels import conv_pointwise
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.targets import Target
from tilewright.errors import CompileError

Shape = tuple[int, ...]


def how(rank: int, groups: int) -> dict[str, Any]:
    """The attributes of a 1x1 convolution over `rank` axes."""
    return {"strides": (1,) * rank, "pads": ((0, 0),) * rank, "dilations": (1,) * rank, "groups": groups}


def reference(x: Array, w: Array, groups: int) -> Array:
    """PyTorch's convolution in float64."""
    found: Array = torch.conv1d(
        torch.from_numpy(x.astype("f8")).flatten(2), torch.from_numpy(w.astype("f8")).flatten(2), groups=groups
    ).numpy()
    return found.reshape(x.shape[0], w.shape[0], *x.shape[2:])


def convolve(x: Array, w: Array, groups: int, target: Target) -> Array:
    """Our convolution."""
    x_type, w_type = (TensorType(from_numpy(array.dtype), array.shape) for array in (x, w))
    plan = conv_pointwise.plan(x_type, w_type, **how(x.ndim - 2, groups), target=target)
    assert plan is not None
    result = TensorType(x_type.dtype, (x.shape[0], w.shape[0], *x.shape[2:]))
    kernel = conv_pointwise.build("conv", plan, x_type, w_type, result, StoreResult(View.of(result)))
    return compute(kernel, {"x": pack(x, Layout()), "w": pack(w, Layout())}, result)


def operands(x_shape: Shape, outputs: int, groups: int, dtype: str) -> tuple[Array, Array]:
    """Random numbers."""
    chance = np.random.default_rng(sum(x_shape))
    w_shape = (outputs, x_shape[1] // groups, *(1,) * (len(x_shape) - 2))
    x, w = (
        (chance.standard_normal(shape) * (1 if dtype[0] == "f" else 50)).astype(dtype) for shape in (x_shape, w_shape)
    )
    return x, w


def check(x_shape: Shape, outputs: int, groups: int, target: Target, dtype: str = "f4") -> None:
    x, w = operands(x_shape, outputs, groups, dtype)
    got = convolve(x, w, groups, target)
    if dtype[0] == "i":
        np.testing.assert_array_equal(got, reference(x, w, groups))
        return
    bound = 8 * np.finfo(dtype).eps * reference(np.abs(x), np.abs(w), groups) + np.finfo(dtype).tiny
    assert (np.abs(got - reference(x, w, groups)) <= bound).all()


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


all_widths = pytest.mark.parametrize("target", widths(), ids=width_id)


@all_widths
@pytest.mark.parametrize("spatial", [(2,), (3, 5), (4, 4), (17,), (7, 7), (14, 14), (1, 64), (5, 13), (2, 3, 11)])
def test_positions(target: Target, spatial: Shape) -> None:
    check((1, 6, *spatial), 10, 2, target)
    check((2, 5, *spatial), 3, 1, target)


@all_widths
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 6, 7, 13, 31])
def test_outputs(target: Target, outputs: int) -> None:
    check((1, 9, 6, 12), 3 * outputs, 3, target)


@all_widths
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
def test_element_types(target: Target, dtype: str) -> None:
    check((1, 8, 5, 19), 12, 2, target, dtype)
    check((1, 400, 33), 3, 1, target, dtype)


@all_widths
@pytest.mark.parametrize("depth", [1, 2, 255, 384, 385, 512, 701])
def test_depths(target: Target, depth: int) -> None:
    check((1, depth, 4, 5), 5, 1, target)


@all_widths
def test_a_position_behind_whole_vectors_is_a_product(target: Target) -> None:
    check((2, 272, 7, 7), 34, 2, target)
    check((1, 150, 2, 33), 5, 1, target)


def test_long_columns_do_not_lie_on_the_stack() -> None:
    x, w = TensorType(F32, (1, 2_000_000, 7, 7)), TensorType(F32, (4, 2_000_000, 1, 1))
    plan = conv_pointwise.plan(x, w, **how(2, 1), target=targets.host())
    assert plan is not None and plan.columns == 0


@all_widths
def test_data_beyond_the_second_level_cache(target: Target) -> None:
    check((1, 66, 56, 57), 46, 2, target)


@pytest.mark.parametrize("size, columns, prefetch", [(28, 0, True), (14, 0, False), (7, 1, False)])
def test_plans(size: int, columns: int, prefetch: bool) -> None:
    channels = 28 // size * 136
    x, w = TensorType(F32, (1, channels, size, size)), TensorType(F32, (channels, channels // 4, 1, 1))
    plan = conv_pointwise.plan(x, w, **how(2, 4), target=targets.by_name("x86-64-v4"))
    assert plan is not None
    assert (plan.columns, plan.prefetch) == (columns, prefetch)
    assert plan.vectors * plan.rows == 24


@given(data=st.data())
@settings(max_examples=40)
def test_any(data: st.DataObject) -> None:
    groups, depth, outputs = (data.draw(st.integers(1, most)) for most in (3, 90, 17))
    spatial = data.draw(st.lists(st.integers(1, 20), min_size=0, max_size=1))
    check(
        (data.draw(st.integers(1, 2)), groups * depth, *spatial, data.draw(st.integers(2, 40))), groups * outputs,
        groups, data.draw(st.sampled_from([p.values[0] for p in widths() if not p.marks[0].args[0]])),
        data.draw(st.sampled_from(["f4", "f8", "i4", "i8"])),
    )  # fmt: skip


@pytest.mark.parametrize("positions", [49, 64])
def test_errors_of_long_sums_are_no_worse_than_torch(positions: int) -> None:
    x, w = operands((1, 2048, positions), 8, 1, "f4")
    exact = reference(x, w, 1)
    theirs = torch.conv1d(torch.from_numpy(x), torch.from_numpy(w)).numpy()
    mine, torchs = (np.sqrt(np.mean((got - exact) ** 2)) for got in (convolve(x, w, 1, targets.host()), theirs))
    assert mine <= 1.5 * torchs, f"{mine:.3g}, torch's is {torchs:.3g}"


def test_nan_stays_at_its_position() -> None:
    x, w = np.ones((1, 136, 7, 7), np.float32), np.ones((3, 136, 1, 1), np.float32)
    x[0, 1, 2, 6] = x[0, 5, 6, 6] = np.nan
    nans = np.zeros((1, 3, 7, 7), bool)
    nans[:, :, (2, 6), 6] = True
    np.testing.assert_array_equal(np.isnan(convolve(x, w, 1, targets.host())), nans)


def test_refusals() -> None:
    def plan(x: Shape, w: Shape, dtype: Any = F32, **other: Any) -> conv_pointwise.Plan | None:
        given = how(len(x) - 2, 1) | other
        return conv_pointwise.plan(TensorType(dtype, x), TensorType(dtype, w), **given, target=targets.host())

    assert plan((1, 2, 9), (3, 2, 1)) is not None
    assert plan((1, 2, 9), (3, 2, 2)) is None
    assert plan((1, 2, 9), (3, 2, 1), strides=(2,)) is None
    assert plan((1, 2, 9), (3, 2, 1), pads=((0, 1),)) is None
    assert plan((1, 2, 9), (3, 2, 1), BF16) is None
    assert plan((1, 2, 9, 1), (3, 2, 1, 1)) is None
    assert plan((0, 2, 9), (3, 2, 1)) is None
    assert plan((1, 0, 9), (3, 0, 1)) is None


def test_padded_data_is_refused() -> None:
    x, w, result = (TensorType(F32, shape) for shape in ((1, 2, 9), (3, 2, 1), (1, 3, 9)))
    plan = conv_pointwise.plan(x, w, **how(1, 1), target=targets.host())
    assert plan is not None
    padded = x.with_layout(Layout().with_pads(((0, 0), (0, 0), (1, 1))))
    with pytest.raises(CompileError, match="1x1 convolution"):
        conv_pointwise.build("conv", plan, padded, w, result, StoreResult(View.of(result)))
