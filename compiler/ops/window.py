"""Primitives over sliding windows of x: (N, C, *spatial).

    max_pool sum_pool {kernel, strides, dilations, pads}     pads: ((lo, hi), ...), one pair a spatial axis

Padding never wins a maximum and adds nothing to a sum; average pooling divides a sum_pool by counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from tilewright.compiler.ir import Attrs, Shape, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import check_count, check_dtype, check_length, check_rank
from tilewright.compiler.ops.reduction import lowest
from tilewright.compiler.ops.registry import Reference, primitive
from tilewright.errors import GraphError

Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pool(Attrs):
    """Along each spatial axis: the window's elements, the windows' distance, the elements' distance, pads."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads


def window_shape(
    spatial: Shape, kernel: Shape, strides: tuple[int, ...], dilations: tuple[int, ...], pads: Pads
) -> Shape:
    """How many windows fit along each spatial axis; raises GraphError where none does."""
    for name, values in (("kernel", kernel), ("strides", strides), ("dilations", dilations), ("pads", pads)):
        check_length(values, len(spatial), name, "spatial axis")
    for name, values in (("kernel", kernel), ("strides", strides), ("dilations", dilations)):
        if any(value < 1 for value in values):
            raise GraphError(f"{name} {values} must be at least 1 along every axis")
    if any(pad < 0 for pair in pads for pad in pair):
        raise GraphError(f"pads {pads} are negative; drop elements with pad first")
    found = []
    for axis, size in enumerate(spatial):
        padded = size + sum(pads[axis])
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if padded < reach:
            raise GraphError(
                f"the window covers {reach} elements of spatial axis {axis}, which has {padded} with its pads"
            )
        found.append((padded - reach) // strides[axis] + 1)
    return tuple(found)


def window_views(
    padded: Array, windows: Shape, kernel: Shape, strides: tuple[int, ...], dilations: tuple[int, ...]
) -> Iterator[Array]:
    """For each kernel element, in order, the (N, C, *windows) view of what it meets."""
    for offset in product(*map(range, kernel)):
        chosen = [
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, count, stride in zip(offset, dilations, windows, strides, strict=True)
        ]
        yield padded[(slice(None), slice(None), *chosen)]


def _infer_pool(attrs: Pool, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    check_dtype(x, 0, "numbers")
    check_rank(x, 0, 3)
    windows = window_shape(x.shape[2:], attrs.kernel, attrs.strides, attrs.dilations, attrs.pads)
    return (TensorType(x.dtype, (*x.shape[:2], *windows)),)


def _pool(combine: Callable[..., Any], neutral: Callable[[np.dtype[Any]], Any]) -> Reference:
    def reference(attrs: Pool, x: Array) -> tuple[Array]:
        padded = np.pad(x, ((0, 0), (0, 0), *attrs.pads), constant_values=neutral(x.dtype))
        windows = window_shape(x.shape[2:], attrs.kernel, attrs.strides, attrs.dilations, attrs.pads)
        views = window_views(padded, windows, attrs.kernel, attrs.strides, attrs.dilations)
        result = next(views).copy()
        for view in views:
            combine(result, view, out=result)
        return (result,)

    return reference


primitive("max_pool", family="window", attrs=Pool, infer=_infer_pool, reference=_pool(np.maximum, lowest))
primitive(
    "sum_pool", family="window", attrs=Pool, infer=_infer_pool, reference=_pool(np.add, lambda dtype: 0)
)
