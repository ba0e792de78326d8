"""Primitives that multiply and sum.

conv{strides, pads, dilations, groups}    x (N, C, *spatial), w (O, C/groups, *kernel); no bias
matmul                                    (..., M, K) x (..., K, N), leading dimensions broadcast
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from tilewright.compiler.ir import Attrs, NoAttrs, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import (
    broadcast_shape,
    check_count,
    check_dtype,
    check_rank,
    check_same_dtype,
)
from tilewright.compiler.ops.registry import primitive
from tilewright.compiler.ops.window import Pads, window_shape
from tilewright.errors import GraphError


@dataclass(frozen=True)
class Conv(Attrs):
    """A cross-correlation: per spatial axis the windows' distance, (before, after) zeros, the taps' distance.

    Output channels `o` of group `g` see the input channels of group `g` only.
    """

    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int = 1


def _infer_conv(attrs: Conv, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 2)
    x, w = types
    check_rank(x, 0, 3)
    check_dtype(x, 0, "numbers")
    check_same_dtype(types)
    if w.rank != x.rank:
        raise GraphError(
            f"operand 1 has shape {w.shape}; expected {x.rank} dimensions as operand 0, {x.shape}"
        )
    if attrs.groups < 1 or x.shape[1] % attrs.groups or w.shape[0] % attrs.groups:
        raise GraphError(
            f"groups is {attrs.groups}, which does not divide the {x.shape[1]} input channels and the "
            f"{w.shape[0]} filters"
        )
    if x.shape[1] != w.shape[1] * attrs.groups:
        raise GraphError(
            f"operand 1 has shape {w.shape}: filters for {w.shape[1]} x {attrs.groups} groups channels; "
            f"operand 0 has {x.shape[1]}"
        )
    windows = window_shape(x.shape[2:], w.shape[2:], attrs.strides, attrs.dilations, attrs.pads)
    return (TensorType(x.dtype, (x.shape[0], w.shape[0], *windows)),)


def _reference_conv(attrs: Conv, x: Array, w: Array) -> tuple[Array]:
    """Windows as rows, then one matrix product a group and image."""
    groups, spatial = attrs.groups, x.ndim - 2
    batch, filters = x.shape[0], w.shape[0]
    kernel = w.shape[2:]
    windows = window_shape(x.shape[2:], kernel, attrs.strides, attrs.dilations, attrs.pads)
    padded = np.pad(x, ((0, 0), (0, 0), *attrs.pads))
    axes = tuple(range(2, 2 + spatial))
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, attrs.dilations, strict=True))
    every = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    strided = tuple(slice(None, None, stride) for stride in attrs.strides)
    dilated = tuple(slice(None, None, dilation) for dilation in attrs.dilations)
    chosen = every[(slice(None), slice(None), *strided, *dilated)]
    # (N, C, *windows, *kernel) -> (N, groups, C/groups * kernel, windows)
    order = (0, 1, *range(2 + spatial, 2 + 2 * spatial), *axes)
    depth = w.shape[1] * prod(kernel)
    columns = chosen.transpose(order).reshape(batch, groups, depth, prod(windows))
    rows = w.reshape(groups, filters // groups, depth)
    return (np.matmul(rows, columns).reshape(batch, filters, *windows),)


primitive("conv", family="contraction", attrs=Conv, infer=_infer_conv, reference=_reference_conv)


def _infer_matmul(attrs: NoAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 2)
    a, b = types
    check_rank(a, 0, 2)
    check_rank(b, 1, 2)
    check_dtype(a, 0, "numbers")
    check_same_dtype(types)
    if a.shape[-1] != b.shape[-2]:
        raise GraphError(
            f"operand 0 has shape {a.shape} and operand 1 {b.shape}; {a.shape[-1]} columns do not meet "
            f"{b.shape[-2]} rows"
        )
    leading = [TensorType(type.dtype, type.shape[:-2]) for type in types]
    return (TensorType(a.dtype, (*broadcast_shape(leading), a.shape[-2], b.shape[-1])),)


primitive(
    "matmul", family="contraction", infer=_infer_matmul, reference=lambda attrs, a, b: (np.matmul(a, b),)
)
