"""Matrix products (gemm and gemv) against NumPy and PyTorch, at every vector width, in hostile memory."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.packing import compute, pack, widths
from support import Array

from tilewright.compiler import targets
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import assembly, compile_module
from tilewright.compiler.ir.types import F16, F32, Layout, TensorType, from_numpy
from tilewright.compiler.kernels import gemm, gemv
from tilewright.compiler.kernels.kernel import StoreResult, View
from tilewright.compiler.targets import Target
from tilewright.runtime.jit import undefined_symbols

DTYPES = ("f4", "f8", "i4", "i8")


def width_id(target: Target) -> str:
    return f"{target.vector_bits}bit"


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * (1 if dtype[0] == "f" else 100)).astype(dtype)


def multiply(a: Array, w: Array, target: Target, *, constant: bool = True, pad: int = 0) -> Array:
    """Our product by gemv where it applies, else by gemm; `pad` is added to the rows of a."""
    a_type, w_type = (TensorType(from_numpy(array.dtype), array.shape) for array in (a, w))
    module: Any = gemv if gemv.plan(a_type, w_type, target=target) else gemm
    plan = module.plan(a_type, w_type, target=target, constant=constant)
    assert plan is not None
    rows, columns = plan.operand_layouts
    if pad:
        rows = Layout().with_pads((*((0, 0),) * (a.ndim - 1), (0, pad)))
    shape = (*np.broadcast_shapes(a.shape[:-2], w.shape[:-2]), a.shape[-2], w.shape[-1])
    result = TensorType(a_type.dtype, shape)
    kernel = module.build(
        "product",
        plan,
        a_type.with_layout(rows),
        w_type.with_layout(columns),
        result,
        StoreResult(View.of(result)),
    )
    assert kernel.flops == 2 * result.elements * a.shape[-1]
    return compute(kernel, {"x": pack(a, rows), "w": pack(w, columns)}, result)


def check(a_shape: tuple[int, ...], w_shape: tuple[int, ...], target: Target, dtype: str = "f4", **how: Any) -> None:
    a, w = numbers(a_shape, dtype, 1), numbers(w_shape, dtype, 2)
    got = multiply(a, w, target, **how)
    if dtype[0] == "i":
        np.testing.assert_array_equal(got, np.matmul(a, w))
        return
    bound = np.finfo(dtype).eps * np.matmul(np.abs(a).astype("f8"), np.abs(w).astype("f8")) * 8
    assert (np.abs(got - np.matmul(a.astype("f8"), w.astype("f8"))) <= bound).all()


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 6, 7, 14, 15, 29])
def test_rows(target: Target, m: int) -> None:
    check((m, 19), (19, 37), target)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("n", [1, 2, 4, 5, 15, 16, 17, 67])
def test_columns(target: Target, n: int) -> None:
    check((5, 9), (9, n), target)
    check((17, 9), (9, n), target)
    check((1, 9), (9, n), target)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("k", [1, 3, 4, 5, 257, 385, 386, 1031])
def test_depths(target: Target, k: int) -> None:
    check((1, k), (k, 5), target)
    check((16, k), (k, 5), target)
    check((7, k), (k, 1), target)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("dtype", DTYPES)
def test_element_types(target: Target, dtype: str) -> None:
    check((18, 40), (40, 35), target, dtype)
    check((2, 40), (40, 35), target, dtype)
    check((9, 700), (700, 1), target, dtype)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize(
    "a, w",
    [
        ((2, 3, 5, 7), (7, 9)), ((2, 3, 5, 7), (1, 1, 1, 7, 9)), ((4, 7), (3, 7, 9)),
        ((2, 1, 5, 7), (3, 7, 9)),
        ((3, 16, 30), (3, 30, 20)), ((5, 1, 7), (7, 9)), ((5, 1, 7), (5, 7, 9)), ((2, 4, 7), (2, 7, 1)),
        ((2, 1, 3, 7), (4, 7, 1)), ((2, 3, 7), (7, 1)), ((3, 7), (2, 7, 1)),
    ],
)  # fmt: skip
def test_leading_dimensions_broadcast(target: Target, a: tuple[int, ...], w: tuple[int, ...]) -> None:
    check(a, w, target)
    check(a, w, target, constant=False)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("a, w", [((1, 50), (50, 77)), ((3, 8), (8, 64)), ((6, 50), (50, 33)), ((8, 3), (3, 2))])
def test_columns_that_are_not_packed(target: Target, a: tuple[int, int], w: tuple[int, int]) -> None:
    check(a, w, target, constant=False)


@pytest.mark.parametrize("target", widths(), ids=width_id)
@pytest.mark.parametrize("n", [256, 250, 192, 130])
def test_two_panels_side_by_side(target: Target, n: int) -> None:
    small = replace(target, l2=1024)
    plan = gemv.plan(TensorType(F32, (1, 75)), TensorType(F32, (75, 256)), target=small)
    assert plan is not None and plan.product is not None and plan.product.streams == 2
    check((1, 75), (75, n), small)
    check((2, 1, 75), (2, 75, n), small)


def test_padded_rows() -> None:
    check((30, 32), (32, 40), targets.host(), pad=16)
    check((2, 15, 32), (2, 32, 40), targets.host(), pad=3)
    check((4, 100), (100, 1), targets.host(), pad=5)


def test_rows_a_power_of_two_apart_ask_for_padding() -> None:
    a, w = TensorType(F32, (64, 1024)), TensorType(F32, (1024, 1024))
    plan = gemm.plan(a, w, target=targets.host())
    assert plan is not None and plan.operand_layouts[0] == Layout(pads=((0, 0), (0, 16)))
    check(a.shape, (1024, 256), targets.host())
    few = gemm.plan(a, TensorType(F32, (1024, 10)), target=targets.host())
    assert few is not None and few.operand_layouts[0].is_row_major


@pytest.mark.parametrize("target", widths(), ids=width_id)
def test_many_rows_in_several_chunks(target: Target) -> None:
    check((301, 530), (530, 33), target)
    check((1000, 7), (7, 3), target)


@given(data=st.data())
@settings(max_examples=30)
def test_any(data: st.DataObject) -> None:
    sizes = st.integers(1, 70)
    m, k, n = data.draw(st.integers(1, 40)), data.draw(sizes), data.draw(sizes)
    lead = data.draw(st.lists(st.integers(1, 3), max_size=2))
    kept = data.draw(st.integers(0, len(lead)))
    target = data.draw(st.sampled_from([p.values[0] for p in widths() if not p.marks[0].args[0]]))
    dtype, constant = data.draw(st.sampled_from(DTYPES)), data.draw(st.booleans())
    check((*lead, m, k), (*lead[kept:], k, n), target, dtype, constant=constant)


@pytest.mark.parametrize("shape", [(1, 4096, 64), (2, 8192, 64), (4, 4096, 128), (64, 4096, 128), (64, 4096, 1)])
def test_errors_of_long_sums_are_no_worse_than_torch(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, w = numbers((m, k), "f4", 3), numbers((k, n), "f4", 4)
    exact = np.matmul(a.astype("f8"), w.astype("f8"))
    theirs = torch.nn.functional.linear(torch.from_numpy(a), torch.from_numpy(w.T.copy())).numpy()
    mine, torchs = (np.sqrt(np.mean((got - exact) ** 2)) for got in (multiply(a, w, targets.host()), theirs))
    assert mine <= 1.5 * torchs, f"{mine:.3g}, torch's is {torchs:.3g}"


def test_nan_and_infinity_stay_in_their_rows_and_columns() -> None:
    a, w = numbers((20, 30), "f4"), numbers((30, 40), "f4")
    a[3, 5], w[7, 39] = np.nan, np.inf
    finite = np.isfinite(multiply(a, w, targets.host()))
    assert not finite[3].any() and not finite[:, 39].any()
    assert finite[np.arange(20) != 3, :39].all()


def test_columns_computed_at_run_time_are_packed_only_where_it_pays() -> None:
    target = targets.by_name("x86-64-v4")

    def packed(m: int, k: int, n: int) -> bool:
        a, w = TensorType(F32, (m, k)), TensorType(F32, (k, n))
        plan = gemm.plan(a, w, target=target, constant=False)
        assert plan is not None
        return bool(plan.operand_layouts[1].blocks)

    assert packed(128, 1024, 1024) and not packed(20, 1024, 1024) and not packed(128, 128, 64)


@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v3", "aarch64"])
@pytest.mark.parametrize("shape", [(126, 768, 768), (6, 512, 512), (1, 512, 1000), (9, 100, 1)])
def test_tiles_do_not_spill_and_call_no_library(name: str, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    target = targets.by_name(name)
    a, w, result = TensorType(F32, (m, k)), TensorType(F32, (k, n)), TensorType(F32, (m, n))
    module: Any = gemv if gemv.plan(a, w, target=target) else gemm
    plan = module.plan(a, w, target=target)
    w = w.with_layout(plan.operand_layouts[1])
    kernel = module.build("product", plan, a, w, result, StoreResult(View.of(result)))
    text = emit_module([kernel.function], linkage="")
    assert undefined_symbols(compile_module(text, target)) == []
    # The sums lie on the stack too; innermost loops are blocks that end in a jump to their start.
    loops = re.findall(r"^(\.L\w+):.*\n((?:\t.*\n)*?)\t(?:j\w+|b\.\w+)\t\1$", assembly(text, target), re.MULTILINE)
    inner = [body for _, body in loops if re.search("vfmadd|fmla", body)]
    assert inner and not [body for body in inner if re.search(r"\(%rsp|%rbp\)|\[sp", body)]


def test_refusals() -> None:
    host, w = targets.host(), TensorType(F32, (7, 9))
    half = TensorType(F16, (5, 7)), TensorType(F16, (7, 9))
    for module in (gemm, gemv):
        assert module.plan(*half, target=host) is None
        assert module.plan(TensorType(F32, (0, 7)), w, target=host) is None
        assert module.plan(TensorType(F32, (5, 0)), TensorType(F32, (0, 9)), target=host) is None
    assert gemv.plan(TensorType(F32, (4, 7)), w, target=host) is None
    assert gemv.plan(TensorType(F32, (2, 2, 7)), w, target=host) is None
    assert gemv.plan(TensorType(F32, (3, 1, 7)), w, target=host) is not None
