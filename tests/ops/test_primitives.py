"""Every primitive has rows; its reference agrees with PyTorch on them, and `infer` with both."""

from typing import Any

import numpy as np
import pytest
import torch
from primitive_rows import ROWS, Row, floats

from tilewright.compiler.ir import F32, F64, I32, I64, U8, TensorType
from tilewright.compiler.ir.types import DType, from_numpy
from tilewright.compiler.ops import PRIMITIVES, compute, infer
from tilewright.compiler.ops.elementwise import Cast
from tilewright.compiler.ops.reduction import Reduce


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_every_primitive_has_rows_and_is_complete(name: str) -> None:
    primitive = PRIMITIVES[name]
    assert any(row.op == name for row in ROWS), f"{name} has no row in ROWS"
    assert callable(primitive.infer) and callable(primitive.reference)
    assert (primitive.formula is not None) == (primitive.family == "elementwise")


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row}" for n, row in enumerate(ROWS)])
def test_reference_is_pytorchs_and_as_inferred(row: Row) -> None:
    attrs = PRIMITIVES[row.op].attrs(**row.attrs)
    hash(attrs)
    types = [TensorType(from_numpy(a.dtype), a.shape) for a in row.operands]
    if row.op == "relayout":
        types = [TensorType(types[0].dtype, row.attrs["shape"], row.source)]
    (inferred,) = infer(row.op, attrs, types)
    before = [a.copy() for a in row.operands]
    (result,) = compute(row.op, attrs, row.operands)
    assert isinstance(result, np.ndarray)
    assert result.dtype == inferred.dtype.numpy
    assert result.shape == inferred.layout.physical_shape(inferred.shape)
    for array, copy in zip(row.operands, before, strict=True):
        np.testing.assert_array_equal(array, copy)  # references leave their operands alone
    expected = row.oracle(*map(torch.from_numpy, row.operands)).numpy()
    if row.exact:
        np.testing.assert_array_equal(result, expected)
    else:
        tolerance = 1e-5 if result.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [F32, F64, I32, I64], ids=str)
def test_extrema_of_nothing_are_neutral(dtype: DType) -> None:
    x = np.zeros((2, 0), dtype.numpy)
    attrs = Reduce(axes=(1,))
    (largest,) = compute("reduce_max", attrs, [x])
    (smallest,) = compute("reduce_min", attrs, [x])
    assert np.all(largest < smallest) and largest.dtype == dtype.numpy


def test_float_to_integer_saturates() -> None:
    x = np.array([1e30, -1e30, np.nan, np.inf, -np.inf, 2.9, -2.9, 255.5, -0.5], np.float32)
    for dtype in (I32, I64, U8):
        number: Any = dtype.numpy
        limits = np.iinfo(number)
        high, low = limits.max, limits.min
        expected = [high, low, 0, high, low, 2, max(low, -2), 255, 0]
        np.testing.assert_array_equal(compute("cast", Cast(dtype), [x])[0], np.array(expected, dtype.numpy))


@pytest.mark.parametrize(
    ("op", "expected"), [("div", [0, 0, -128, -3]), ("mod", [0, 0, 0, -1]), ("rem", [0, 0, 0, 1])]
)
def test_integer_division_never_fails(op: str, expected: list[int]) -> None:
    x, y = np.array([7, -128, -128, 7], np.int8), np.array([0, 0, -1, -2], np.int8)
    (result,) = compute(op, PRIMITIVES[op].attrs(), [x, y])
    np.testing.assert_array_equal(result, np.array(expected, np.int8))


def test_views_where_numpy_can() -> None:
    x = floats(4, 6)
    uses: dict[str, dict[str, Any]] = {
        "reshape": {"shape": (24,)}, "transpose": {"perm": (1, 0)}, "broadcast": {"shape": (5, 4, 6)},
        "slice": {"start": (0, 5), "size": (4, 3), "step": (1, -2)}, "pad": {"low": (-1, 0), "high": (0, -2)},
    }  # fmt: skip
    for op, attrs in uses.items():
        (result,) = compute(op, PRIMITIVES[op].attrs(**attrs), [x])
        assert np.shares_memory(result, x), op
