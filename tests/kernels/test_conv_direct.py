"""Direct convolution against PyTorch, at every vector width this machine has, in hostile memory."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, fill_lanes, pack, physical, widths
from support import Array

from tilewright.compiler import targets
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import assembly
from tilewright.compiler.ir.types import F32, F64, DType, Layout, TensorType, from_numpy
from tilewright.compiler.kernels import conv_direct, conv_tiles
from tilewright.compiler.kernels.conv_tiles import Pads, Pair
from tilewright.compiler.kernels.kernel import Kernel, StoreResult, View
from tilewright.compiler.targets import Target
from tilewright.errors import CompileError

NONE: Pads = ((0, 0), (0, 0))
SAME: Pads = ((1, 1), (1, 1))


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


def reference(x: Array, w: Array, strides: Pair, pads: Pads, dilations: Pair, groups: int) -> Array:
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads))
    y = torch.nn.functional.conv2d(
        torch.from_numpy(padded), torch.from_numpy(w.astype(np.float64)),
        stride=strides, dilation=dilations, groups=groups,
    )  # fmt: skip
    return y.numpy()


def convolve(
    x: Array, w: Array, target: Target, *, strides: Pair = (1, 1), pads: Pads = NONE,
    dilations: Pair = (1, 1), groups: int = 1, blocked: bool = True, axes: tuple[int, ...] = (),
    extra: Pads = NONE,
) -> tuple[Array, Kernel] | None:  # fmt: skip
    """Our convolution, x with `extra` more zeros around than needed, the result too; None if refused."""
    dtype = from_numpy(x.dtype)
    x_type, w_type = TensorType(dtype, x.shape, Layout(axes)), TensorType(dtype, w.shape)
    plan = conv_direct.plan(
        x_type, w_type, strides=strides, pads=pads, dilations=dilations, groups=groups,
        x_is_blocked_source=blocked, target=target,
    )  # fmt: skip
    if plan is None:
        return None
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
        dtype, (x.shape[0], w.shape[0], *size), plan.result_layout.with_pads(((0, 0),) * 2 + extra)
    )
    kernel = conv_direct.build("conv", plan, x_type, w_type, result, StoreResult(View.of(result)))
    inputs = {"x": pack(x, x_type.layout), "w": pack(w, w_type.layout)}
    return compute(kernel, inputs, result), kernel


def check(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], target: Target, dtype: DType = F32, **how: Any
) -> None:
    rng = np.random.default_rng(sum(x_shape) + sum(w_shape))
    x, w = (rng.standard_normal(shape).astype(dtype.numpy) for shape in (x_shape, w_shape))
    got = convolve(x, w, target, **how)
    assert got is not None
    kinds = {"strides": (1, 1), "pads": NONE, "dilations": (1, 1), "groups": 1}
    expected = reference(x, w, **{key: how.get(key, default) for key, default in kinds.items()})
    eps = np.finfo(x.dtype).eps
    reduction = np.prod(w_shape[1:])
    np.testing.assert_allclose(got[0], expected, rtol=0, atol=40 * eps * float(reduction) ** 0.5)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    ("channels", "outputs"), [(1, 1), (-1, 1), (0, -1), (1, 33), (7, 0), (17, 37), (48, 80), (33, 16)]
)
def test_channels(target: Target, channels: int, outputs: int) -> None:
    lanes = target.lanes(32)
    channels = channels if channels > 0 else max(lanes + channels, 1)
    outputs = outputs if outputs > 0 else max(lanes + outputs, 1)
    for blocked in (True, False):
        check((1, channels, 5, 6), (outputs, channels, 3, 3), target, pads=SAME, blocked=blocked)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (7, 7), (1, 17), (17, 1), (5, 16), (13, 15), (3, 31), (4, 90)]
)
def test_sizes(target: Target, size: Pair) -> None:
    lanes = target.lanes(32)
    check((2, lanes, *size), (2 * lanes + 1, lanes, 1, 1), target)
    check((1, lanes + 1, *size), (3 * lanes, lanes + 1, 3, 3), target, pads=SAME)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "dilations"),
    [
        ((7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)),
        ((3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1)),
        ((3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2)),
        ((2, 5), (3, 1), ((1, 0), (4, 2)), (1, 3)),
        ((1, 1), (3, 2), NONE, (1, 1)),
        ((1, 3), (1, 1), ((0, 0), (1, 1)), (1, 2)),
        ((11, 12), (1, 1), NONE, (1, 1)),
        ((1, 1), (1, 1), ((2, 0), (0, 3)), (1, 1)),
    ],
)
def test_windows(target: Target, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair) -> None:
    for blocked in (True, False):
        check((2, 20, 11, 12), (19, 20, *kernel), target,
              strides=strides, pads=pads, dilations=dilations, blocked=blocked)  # fmt: skip


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(2, 1, 1), (3, 2, 3), (4, 1, 2)])
def test_groups(target: Target, groups: int, inputs: int, outputs: int) -> None:
    lanes = target.lanes(32)
    shape = (groups * outputs * lanes, inputs * lanes, 3, 3)
    check((2, groups * inputs * lanes, 6, 7), shape, target, pads=SAME, groups=groups)
    check((1, groups * 3, 6, 7), (shape[0], 3, 3, 3), target, pads=SAME, groups=groups, blocked=False)


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_long_sums_in_several_chains_and_bands(target: Target) -> None:
    check((1, 150, 6, 40), (40, 150, 3, 3), target, pads=SAME)
    check((2, 1000, 3, 5), (17, 1000, 1, 1), target)
    check((1, 300, 7, 7), (64, 300, 3, 3), target, pads=SAME, blocked=False)


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_f64(target: Target) -> None:
    check((2, 19, 7, 9), (21, 19, 3, 3), target, F64, pads=SAME)
    check((1, 3, 17, 15), (9, 3, 7, 7), target, F64, pads=((3, 3), (3, 3)), strides=(2, 2), blocked=False)


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_unblocked_orders_of_axes_and_wider_pads(target: Target) -> None:
    how: dict[str, Any] = {"pads": ((1, 0), (0, 2)), "extra": ((2, 1), (1, 3))}
    check((2, 3, 9, 8), (20, 3, 3, 3), target, blocked=False, axes=(0, 2, 3, 1), **how)
    check((2, 3, 9, 8), (20, 3, 3, 3), target, blocked=False, **how)
    check((2, 18, 9, 8), (20, 18, 3, 3), target, **how)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_any(target: Target, data: st.DataObject) -> None:
    lanes = target.lanes(32)
    draw = data.draw
    groups, blocked = draw(st.sampled_from([1, 1, 2])), draw(st.booleans())
    channels = draw(st.sampled_from([1, 2, lanes])) * lanes if groups > 1 else draw(st.integers(1, 3 * lanes))
    outputs = draw(st.integers(1, 3)) * lanes if groups > 1 else draw(st.integers(1, 5 * lanes))
    channels, outputs = (
        min(channels, 48),
        min(outputs, 80) // (lanes if groups > 1 else 1) * (lanes if groups > 1 else 1),
    )
    kernel, strides, dilations = (
        (draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (4, 3, 3)
    )
    top, bottom, left, right = (draw(st.integers(0, 3)) for _ in range(4))
    pads = ((top, bottom), (left, right))
    size = tuple(
        max(draw(st.integers(1, 17)), (k - 1) * d + 1 - sum(pad))
        for k, d, pad in zip(kernel, dilations, pads, strict=True)
    )
    check(
        (draw(st.integers(1, 3)), channels * groups, *size), (outputs * groups, channels, *kernel), target,
        strides=strides, pads=pads, dilations=dilations, groups=groups, blocked=blocked,
    )  # fmt: skip


def test_fill_lanes_of_the_result_are_zero() -> None:
    target = targets.host()
    lanes = target.lanes(32)
    x_type, w_type = TensorType(F32, (1, 4, 3, 3)), TensorType(F32, (lanes + 1, 4, 1, 1))
    plan = conv_direct.plan(
        x_type,
        w_type,
        strides=(1, 1),
        pads=NONE,
        dilations=(1, 1),
        groups=1,
        x_is_blocked_source=True,
        target=target,
    )
    assert plan is not None
    x_type, w_type = (t.with_layout(at) for t, at in zip((x_type, w_type), plan.operand_layouts, strict=True))
    result = TensorType(F32, (1, lanes + 1, 3, 3), plan.result_layout)
    kernel = conv_direct.build("conv", plan, x_type, w_type, result, StoreResult(View.of(result)))
    ones = {"x": pack(np.ones(x_type.shape, np.float32), x_type.layout),
            "w": pack(np.ones(w_type.shape, np.float32), w_type.layout)}  # fmt: skip
    flat: list[Array] = []
    compute(kernel, ones, result, keep=flat)
    assert (fill_lanes(flat[0], result) == 0).all()
    assert (flat[0][physical(result.shape, result.layout) >= 0] == 4).all()


def test_errors_of_long_sums_are_no_worse_than_torch() -> None:
    rng = np.random.default_rng(7)
    for channels, kernel, pads in ((512, 3, SAME), (2048, 1, NONE), (64, 7, ((3, 3), (3, 3)))):
        x = rng.standard_normal((1, channels, 7, 7)).astype(np.float32)
        w = rng.standard_normal((32, channels, kernel, kernel)).astype(np.float32)
        exact = reference(x, w, (1, 1), pads, (1, 1), 1)
        got = convolve(x, w, targets.host(), pads=pads)
        assert got is not None
        with torch.inference_mode():
            torch_y = torch.nn.functional.conv2d(
                torch.from_numpy(x), torch.from_numpy(w), padding=pads[0][0]
            ).numpy()
        ours, theirs = (float(np.sqrt(np.mean((y - exact) ** 2))) for y in (got[0], torch_y))
        assert ours <= 1.5 * theirs, (channels, kernel)


def test_nan_and_infinity_stay_in_their_windows() -> None:
    x = np.ones((1, 20, 6, 6), np.float32)
    x[0, 3, 0, 0], x[0, 18, 5, 5] = np.nan, np.inf
    got = convolve(x, np.ones((17, 20, 3, 3), np.float32), targets.host(), pads=SAME)
    assert got is not None
    y = got[0]
    assert np.isnan(y[0, :, :2, :2]).all() and np.isposinf(y[0, :, 4:, 4:]).all()
    assert np.isfinite(y[0, :, 2:4, :]).all() and np.isfinite(y[0, :, :2, 2:]).all()


def test_refusals() -> None:
    target = targets.narrowed(targets.host(), 128)

    def plan(
        x: tuple[int, ...], w: tuple[int, ...], dtype: DType = F32, **how: Any
    ) -> conv_direct.Plan | None:
        kinds: dict[str, Any] = {"strides": (1, 1), "pads": NONE, "dilations": (1, 1), "groups": 1,
                                 "x_is_blocked_source": True}  # fmt: skip
        return conv_direct.plan(TensorType(dtype, x), TensorType(dtype, w), target=target, **(kinds | how))

    assert plan((1, 4, 5, 5), (4, 4, 3, 3)) is not None
    assert plan((1, 4, 5), (4, 4, 3)) is None
    assert plan((1, 4, 2, 5), (4, 4, 3, 3)) is None
    assert plan((0, 4, 5, 5), (4, 4, 3, 3)) is None
    assert plan((1, 6, 5, 5), (8, 3, 3, 3), groups=2) is None
    assert plan((1, 8, 5, 5), (6, 4, 3, 3), groups=2) is None
    assert plan((1, 4, 5, 5), (4, 4, 3, 3), pads=((-1, 0), (0, 0))) is None
    assert plan((1, 4, 5, 5), (4, 4, 3, 3), from_numpy(np.float16)) is None


@pytest.mark.parametrize("name", [*(row.name for row in targets.ROWS), "i686-unknown-linux-gnu"])
def test_tiles_hold_whole_windows(name: str) -> None:
    """Two rows of two pixels at least, on machines with registers for that."""
    x, w = TensorType(F32, (1, 3, 26, 22)), TensorType(F32, (70, 3, 3, 3))
    plan = conv_direct.plan(
        x, w, strides=(1, 1), pads=NONE, dilations=(1, 1), groups=1, x_is_blocked_source=False,
        target=targets.by_name(name), pooled=True,
    )  # fmt: skip
    assert plan is not None
    assert plan.unit == (1 if name.startswith("i686") else 2)
    assert plan.rows % plan.unit == plan.pixels % plan.unit == 0


def test_missing_zeros_are_an_error() -> None:
    target = targets.host()
    x, w = TensorType(F32, (1, 16, 5, 5)), TensorType(F32, (16, 16, 3, 3))
    plan = conv_direct.plan(
        x, w, strides=(1, 1), pads=SAME, dilations=(1, 1), groups=1, x_is_blocked_source=True, target=target
    )
    assert plan is not None
    bare = x.with_layout(plan.operand_layouts[0].with_pads(()))
    w = w.with_layout(plan.operand_layouts[1])
    result = TensorType(F32, (1, 16, 5, 5), plan.result_layout)
    with pytest.raises(CompileError, match="1, 1 zeros around axis 2"):
        conv_direct.build("conv", plan, bare, w, result, StoreResult(View.of(result)))


def text_for(
    target: Target, size: int, channels: int, outputs: int, kernel: int
) -> tuple[conv_direct.Plan, str]:
    """The LLVM IR of a layer made for `target`, which need not be this machine."""
    x, w = TensorType(F32, (1, channels, size, size)), TensorType(F32, (outputs, channels, kernel, kernel))
    pad = (kernel // 2, kernel // 2)
    plan = conv_direct.plan(
        x, w, strides=(1, 1), pads=(pad, pad), dilations=(1, 1), groups=1, x_is_blocked_source=True,
        target=target,
    )  # fmt: skip
    assert plan is not None
    x, w = (t.with_layout(layout) for t, layout in zip((x, w), plan.operand_layouts, strict=True))
    result = TensorType(F32, (1, outputs, size, size), plan.result_layout)
    kernel_ = conv_direct.build("conv", plan, x, w, result, StoreResult(View.of(result)))
    return plan, emit_module([kernel_.function], linkage="")


@pytest.mark.parametrize("layer", [(28, 64, 64, 3), (7, 64, 128, 1), (24, 64, 48, 1), (14, 64, 256, 1)])
@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v3", "aarch64"])
def test_main_tiles_do_not_spill(name: str, layer: tuple[int, int, int, int]) -> None:
    target = targets.by_name(name)
    plan, text = text_for(target, *layer)
    listing = assembly(text, target)
    # The totals lie on the stack too; innermost loops are blocks that end in a jump to their start.
    loops = re.findall(r"^(\.L\w+):.*\n((?:\t.*\n)*?)\t(?:j\w+|b\.\w+)\t\1$", listing, re.MULTILINE)
    inner = [body for _, body in loops if re.search("vfmadd|fmla", body)]
    stack = r"[yz]mm.*%r[sb]p|(?:ldr|str|ldp|stp)\tq.*\[sp"
    spilled = [line for body in inner for line in body.splitlines() if re.search(stack, line)]
    assert inner and not spilled, (plan, spilled)


@pytest.mark.parametrize(("size", "most"), list(itertools.product(range(1, 40), (1, 2, 7, 14))))
def test_split_covers_exactly(size: int, most: int) -> None:
    wide, count, narrower = conv_tiles.split(size, most)
    assert wide <= most and count * wide + narrower * (wide - 1) == size and count > 0
