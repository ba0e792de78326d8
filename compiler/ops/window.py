"""Primitives over sliding windows of x: (N, C, *spatial).

    max_pool sum_pool {kernel, strides, dilations, pads}     pads: ((lo, hi), ...), one pair a spatial axis
    channel_squares {before, after}                          sums of squares over neighbouring channels

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


@dataclass(frozen=True)
class ChannelSquares(Attrs):
    """How many channels before and after each one, as far as there are any."""

    before: int
    after: int


def _infer_channel_squares(attrs: ChannelSquares, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    check_dtype(types[0], 0, "floats")
    check_rank(types[0], 0, 3)
    if min(attrs.before, attrs.after) < 0:
        raise GraphError(f"{attrs.before} channels before and {attrs.after} after each one: neither may be negative")
    return types


def _channel_squares(attrs: ChannelSquares, x: Array) -> tuple[Array]:
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    result, channels = np.zeros_like(wide), x.shape[1]
    for k in range(-min(attrs.before, channels), min(attrs.after, channels) + 1):
        reached = slice(max(-k, 0), max(channels - max(k, 0), 0))
        result[:, reached] += wide[:, max(k, 0) : channels + min(k, 0)] ** 2
    return (result.astype(x.dtype),)


primitive("max_pool", family="window", attrs=Pool, infer=_infer_pool, reference=_pool(np.maximum, lowest))
primitive(
    "sum_pool", family="window", attrs=Pool, infer=_infer_pool, reference=_pool(np.add, lambda dtype: 0)
)
primitive(
    "channel_squares", family="window", attrs=ChannelSquares, infer=_infer_channel_squares, reference=_channel_squares
)
