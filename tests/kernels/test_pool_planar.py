"""Planar pooling against NumPy and PyTorch, at every vector width, in hostile memory."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, pack, widths
from support import Array, guarded

from tilewright.compiler import targets
from tilewright.compiler.ir.types import F16, F32, Layout, TensorType, from_numpy
from tilewright.compiler.kernels import pool_planar
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.kernels.pool_planar import Mode
from tilewright.compiler.targets import Target

Shape = tuple[int, ...]
Pads = tuple[Shape, ...]


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


def reference(x: Array, mode: Mode, kernel: Shape, strides: Shape, dilations: Shape, pads: Pads) -> Array:
    """Every window's maximum or sum (in float64 of floats), in NumPy."""
    if x.dtype.kind == "f":
        x = x.astype("f8")
        nothing: Any = -np.inf if mode == "max" else 0
    else:
        nothing = np.iinfo(x.dtype).min if mode == "max" else 0
    padded = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=nothing)
    axes = tuple(range(2, x.ndim))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    every = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)  # type: ignore[call-overload]
    chosen = every[(..., *(slice(None, None, s) for s in (1, 1, *strides, *dilations)))]
    inside = tuple(range(x.ndim, chosen.ndim))
    found: Array = chosen.max(inside) if mode == "max" else chosen.sum(inside, dtype=x.dtype)
    return found


def pooled(
    x: Array, shape: Shape, target: Target, extra: Shape = (), *, mode: Mode, kernel: Shape, strides: Shape,
    dilations: Shape, pads: Pads,
) -> Array:  # fmt: skip
    """Our pooling to a result of `shape`; pads of x by `extra` elements hold NaN or the largest number."""
    dtype = from_numpy(x.dtype)
    x_type, result = TensorType(dtype, x.shape), TensorType(dtype, shape)
    plan = pool_planar.plan(
        x_type,
        result,
        mode=mode,
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        target=target,
    )
    assert plan is not None
    layout = Layout().with_pads(tuple((n, n) for n in extra))
    kernel_ = pool_planar.build(
        "pool", plan, x_type.with_layout(layout), result, StoreResult(View.of(result))
    )
    hostile = np.nan if x.dtype.kind == "f" else np.iinfo(x.dtype).max
    flat = np.where(pack(np.ones(x.shape, bool), layout), pack(x, layout), x.dtype.type(hostile))
    return compute(kernel_, {"x": guarded(flat)}, result)


def check(
    shape: Shape, kernel: Shape, target: Target, dtype: str = "f4", *, strides: Shape = (),
    dilations: Shape = (), pads: Pads = (), extra: Shape = (),
) -> None:  # fmt: skip
    rank = len(kernel)
    x = (np.random.default_rng(sum(shape)).standard_normal(shape) * 30 - 50).astype(dtype)
    modes: tuple[Mode, ...] = ("max", "sum")
    for mode in modes:
        how: dict[str, Any] = {
            "mode": mode, "kernel": kernel, "strides": strides or (1,) * rank,
            "dilations": dilations or (1,) * rank, "pads": pads or ((0, 0),) * rank,
        }  # fmt: skip
        expected = reference(x, **how)
        got = pooled(x, expected.shape, target, extra, **how)
        if mode == "max" or dtype[0] in "iu":
            np.testing.assert_array_equal(got, expected)
        else:
            bound = 8 * np.finfo(dtype).eps * reference(np.abs(x), **how)
            assert (np.abs(got - expected) <= bound).all()


def test_the_reference_is_torch() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 11))
    theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, (2, 1), 1, dilation=(1, 2)).numpy()
    np.testing.assert_array_equal(reference(x, "max", (3, 3), (2, 1), (1, 2), ((1, 1), (1, 1))), theirs)
    sums = torch.nn.functional.avg_pool2d(torch.from_numpy(x), 2, divisor_override=1).numpy()
    np.testing.assert_allclose(reference(x, "sum", (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0))), sums)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("width", [3, 4, 5, 8, 15, 16, 17, 18, 67])
def test_widths(target: Target, width: int) -> None:
    check((1, 2, 5, width), (3, 3), target, pads=((1, 1), (1, 1)))
    check((1, 2, 5, width), (2, 2), target, strides=(2, 2))
    check((1, 2, width), (3,), target, strides=(2,), pads=((1, 1),))


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1"])
def test_element_types(target: Target, dtype: str) -> None:
    check((2, 2, 7, 40), (3, 2), target, dtype, strides=(1, 2), pads=((1, 1), (0, 1)))
    check((1, 2, 7, 7), (7, 7), target, dtype)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    "shape, kernel, how",
    [
        ((2, 3, 60), (5,), {"dilations": (3,), "pads": ((4, 6),)}),
        ((1, 2, 50), (40,), {"pads": ((20, 20),)}),
        ((1, 2, 50), (40,), {"pads": ((20, 9),), "strides": (2,), "dilations": (1,)}),
        ((1, 1, 3, 41), (3, 20), {"pads": ((1, 1), (19, 30)), "dilations": (1, 2)}),
        ((1, 2, 12, 90), (3, 4), {"strides": (2, 4)}),
        ((1, 2, 12, 90), (2, 3), {"strides": (3, 7), "dilations": (2, 1)}),
        ((2, 2, 5, 6, 20), (3, 2, 3), {"strides": (2, 1, 2), "pads": ((1, 1), (0, 1), (1, 1))}),
        ((1, 3, 1, 1), (3, 3), {"pads": ((1, 1), (1, 1))}),
        ((1, 2, 9, 33), (9, 33), {}),
        ((1, 2, 6, 20), (1, 1), {"strides": (2, 3)}),
        ((1, 3, 28, 28), (3, 3), {"strides": (2, 2), "pads": ((1, 1), (1, 1))}),
        ((2, 2, 14, 14), (3, 5), {"strides": (2, 2), "dilations": (1, 2), "pads": ((1, 1), (4, 5))}),
        ((1, 2, 4, 3), (2, 3), {"strides": (1, 1), "pads": ((1, 1), (6, 7))}),
    ],
)
def test_windows(target: Target, shape: Shape, kernel: Shape, how: dict[str, Any]) -> None:
    check(shape, kernel, target, **how)
    check(shape, kernel, target, **how, extra=(0, 0, *[2] * len(kernel)))


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_windows_without_an_element(target: Target) -> None:
    x = np.ones((1, 1, 3, 3), np.float32)
    how: dict[str, Any] = {"kernel": (2, 2), "strides": (3, 3), "dilations": (1, 1), "pads": ((2, 3), (2, 3))}
    np.testing.assert_array_equal(
        pooled(x, (1, 1, 3, 3), target, mode="sum", **how)[0, 0], [[0, 0, 0], [0, 4, 0], [0, 0, 0]]
    )
    lowest = pooled(x, (1, 1, 3, 3), target, mode="max", **how)
    assert lowest[0, 0, 1, 1] == 1 and (lowest == -np.inf).sum() == 8


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_more_windows_than_the_pads_allow(target: Target) -> None:
    x = np.random.default_rng(2).standard_normal((1, 2, 6, 38), np.float32)
    theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, 2, ceil_mode=True).numpy()
    none = ((0, 0), (0, 0))
    got = pooled(
        x, theirs.shape, target, mode="max", kernel=(3, 3), strides=(2, 2), dilations=(1, 1), pads=none
    )
    np.testing.assert_array_equal(got, theirs)


@given(data=st.data())
@settings(max_examples=40)
def test_any(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> Shape:
        return data.draw(st.tuples(*[st.integers(low, high)] * rank))

    kernel, strides, dilations = sizes(1, {1: 40, 2: 5, 3: 3}[rank]), sizes(1, 5), sizes(1, 2)
    pads = tuple(zip(sizes(0, 3), sizes(0, 3), strict=True))
    room = sizes(0, {1: 80, 2: 20, 3: 6}[rank])
    spatial = tuple(
        max((k - 1) * d + 1 - sum(p), 1) + r for k, d, p, r in zip(kernel, dilations, pads, room, strict=True)
    )
    target = data.draw(st.sampled_from([p.values[0] for p in widths() if not p.marks[0].args[0]]))
    dtype = data.draw(st.sampled_from(["f4", "f8", "i4", "i8"]))
    check((1, 2, *spatial), kernel, target, dtype, strides=strides, dilations=dilations, pads=pads)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    "kernel, strides", [((3, 3), (1, 1)), ((2, 2), (2, 2)), ((4, 40), (1, 1)), ((3, 3), (1, 3))]
)
def test_nan_wins_from_every_place_of_a_window(target: Target, kernel: Shape, strides: Shape) -> None:
    how: dict[str, Any] = {"mode": "max", "kernel": kernel, "strides": strides, "dilations": (1, 1)}
    how["pads"] = ((1, 1), (1, 1))
    for place in np.ndindex(2, 5):
        x = np.zeros((1, 1, 5, 42), np.float32)
        x[0, 0, place[0], place[1] * 7] = np.nan
        expected = reference(x, **how)
        np.testing.assert_array_equal(pooled(x, expected.shape, target, **how), expected)


def test_refusals() -> None:
    how: dict[str, Any] = {
        "mode": "max",
        "kernel": (2,),
        "strides": (1,),
        "dilations": (1,),
        "pads": ((0, 0),),
    }
    how["target"] = targets.host()
    assert pool_planar.plan(TensorType(F32, (1, 2, 9)), TensorType(F32, (1, 2, 8)), **how) is not None
    assert pool_planar.plan(TensorType(F16, (1, 2, 9)), TensorType(F16, (1, 2, 8)), **how) is None
    assert pool_planar.plan(TensorType(F32, (0, 2, 9)), TensorType(F32, (0, 2, 8)), **how) is None
