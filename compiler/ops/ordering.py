"""Primitives that put elements in order.

    top_k{axis, k, largest} -> i64      where the k largest (or smallest) elements of an axis lie, the best first

Of equal elements the first counts as better; a NaN counts as the largest element, also where the smallest are
looked for: then it comes last.
"""

from dataclasses import dataclass

import numpy as np

from tilewright.compiler.ir import I64, Attrs, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import check_axis, check_count, check_dtype
from tilewright.compiler.ops.registry import primitive
from tilewright.errors import GraphError


@dataclass(frozen=True)
class TopK(Attrs):
    """The axis to search, how many to find, and at which end of the order."""

    axis: int
    k: int
    largest: bool = True


def _infer_top_k(attrs: TopK, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    check_dtype(x, 0, "numbers")
    check_axis(attrs.axis, x.rank)
    if not 0 <= attrs.k <= x.shape[attrs.axis]:
        raise GraphError(f"axis {attrs.axis} of operand 0 has {x.shape[attrs.axis]} elements; {attrs.k} are asked for")
    return (TensorType(I64, (*x.shape[: attrs.axis], attrs.k, *x.shape[attrs.axis + 1 :])),)


def _reference_top_k(attrs: TopK, x: Array) -> tuple[Array]:
    if attrs.largest:
        # Sorting backwards and reading backwards keeps equal elements in order.
        backwards = np.argsort(np.flip(x, attrs.axis), axis=attrs.axis, kind="stable")
        order = x.shape[attrs.axis] - 1 - np.flip(backwards, attrs.axis)
    else:
        order = np.argsort(x, axis=attrs.axis, kind="stable")
    return (order.take(np.arange(attrs.k), axis=attrs.axis).astype(np.int64, copy=False),)


primitive("top_k", family="gather", attrs=TopK, infer=_infer_top_k, reference=_reference_top_k)
