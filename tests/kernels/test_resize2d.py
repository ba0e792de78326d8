"""Both image axes resampled at once, from blocked and planar sources, against NumPy."""

from typing import Any

import numpy as np
import pytest
from kernels.packing import compute, pack, widths
from support import guarded

from tilewright.compiler import targets
from tilewright.compiler.ir import F32, F64, I64, DType, TensorType
from tilewright.compiler.kernels import resize2d
from tilewright.compiler.targets import Target

RNG = np.random.default_rng(0)


def reference(x: Any, ih: Any, wh: Any, iw: Any, ww: Any) -> Any:
    rows = np.einsum("nchtw,ht->nchw", x.astype(np.float64)[:, :, ih], wh)
    return np.einsum("nchwt,wt->nchw", rows[..., iw], ww)


@pytest.mark.parametrize("target", widths(), ids=str)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize(
    ("shape", "size", "taps"),
    [((1, 32, 7, 7), (28, 32), (2, 2)), ((2, 20, 5, 18), (9, 21), (2, 4)), ((1, 3, 6, 40), (40, 6), (1, 2))],
)
def test_resize(
    shape: tuple[int, ...],
    size: tuple[int, int],
    taps: tuple[int, int],
    blocked: bool,
    dtype: DType,
    target: Target,
) -> None:
    x = RNG.standard_normal(shape).astype(dtype.numpy)
    tables = []
    for dim, n, t in zip(shape[2:], size, taps, strict=True):
        tables += [RNG.integers(0, dim, (n, t)), RNG.standard_normal((n, t)).astype(dtype.numpy)]
    ih, wh, iw, ww = tables
    wanted = reference(x, *tables)
    types = [TensorType(I64, (n, t)) for n, t in zip(size, taps, strict=True)]
    plan = resize2d.plan(TensorType(dtype, shape), *types, blocked=blocked, target=target)
    if target.lanes(dtype.bits) < 4:
        assert plan is None
        return
    assert plan is not None
    layout = plan.operand_layouts[0]
    if blocked:
        layout = layout.with_pads(((0, 0), (0, 0), (1, 1), (0, 2)))
    result = TensorType(dtype, (*shape[:2], *size))
    kernel = resize2d.build("resize", plan, TensorType(dtype, shape, layout), *types, result)
    inputs = {"x": pack(x, layout), "index_h": guarded(ih), "weight_h": guarded(wh)}
    inputs |= {"index_w": guarded(iw), "weight_w": guarded(ww)}
    np.testing.assert_allclose(compute(kernel, inputs, result), wanted, rtol=1e-4, atol=1e-5)


def test_unfit_sizes_have_no_plan() -> None:
    table = TensorType(I64, (10, 2))
    wide = TensorType(F32, (1, 3, 4, 10000))
    assert resize2d.plan(wide, table, table, blocked=False, target=targets.host()) is None
    assert (
        resize2d.plan(TensorType(I64, (1, 3, 4, 5)), table, table, blocked=False, target=targets.host())
        is None
    )
