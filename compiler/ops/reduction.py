"""Primitives that reduce whole axes.

reduce_sum reduce_prod reduce_max reduce_min {axes, keepdims}
argmax argmin {axis, keepdims, last} -> i64
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.compiler.ir import I64, Attrs, Shape, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import check_axes, check_axis, check_count, check_dtype
from tilewright.compiler.ops.registry import Reference, primitive
from tilewright.errors import GraphError


@dataclass(frozen=True)
class Reduce(Attrs):
    """Which axes to reduce, and whether they stay as dimensions of 1."""

    axes: tuple[int, ...]
    keepdims: bool = False


@dataclass(frozen=True)
class ArgReduce(Attrs):
    """Which axis to search; of equal elements the first, or the `last`, is found."""

    axis: int
    keepdims: bool = False
    last: bool = False


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape left after reducing `axes`."""
    if keepdims:
        return tuple(1 if axis in axes else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in axes)


def _infer_reduce(attrs: Reduce, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    check_dtype(x, 0, "numbers")
    check_axes(attrs.axes, x.rank)
    return (TensorType(x.dtype, reduced_shape(x.shape, attrs.axes, attrs.keepdims)),)


def lowest(dtype: np.dtype[Any]) -> Any:
    """What never wins a maximum."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def highest(dtype: np.dtype[Any]) -> Any:
    """What never wins a minimum."""
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _accumulating(reduce: Callable[..., Any]) -> Reference:
    """Floats accumulate in float64, so that the oracle is better than what it judges."""

    def reference(attrs: Reduce, x: Array) -> tuple[Array]:
        wide = np.float64 if x.dtype.kind == "f" else x.dtype
        return (
            np.asarray(reduce(x, axis=attrs.axes, keepdims=attrs.keepdims, dtype=wide)).astype(
                x.dtype, copy=False
            ),
        )

    return reference


def _extremum(reduce: Callable[..., Any], empty: Callable[[np.dtype[Any]], Any]) -> Reference:
    """NaN wins; of no elements at all the result is the operation's neutral element."""

    def reference(attrs: Reduce, x: Array) -> tuple[Array]:
        found = reduce(x, axis=attrs.axes, keepdims=attrs.keepdims, initial=empty(x.dtype))
        return (np.asarray(found, dtype=x.dtype),)

    return reference


primitive(
    "reduce_sum", family="reduction", attrs=Reduce, infer=_infer_reduce, reference=_accumulating(np.sum)
)
primitive(
    "reduce_prod", family="reduction", attrs=Reduce, infer=_infer_reduce, reference=_accumulating(np.prod)
)
primitive(
    "reduce_max", family="reduction", attrs=Reduce, infer=_infer_reduce, reference=_extremum(np.max, lowest)
)
primitive(
    "reduce_min", family="reduction", attrs=Reduce, infer=_infer_reduce, reference=_extremum(np.min, highest)
)


def _infer_arg(attrs: ArgReduce, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    check_dtype(x, 0, "numbers")
    check_axis(attrs.axis, x.rank)
    if x.shape[attrs.axis] == 0:
        raise GraphError(f"axis {attrs.axis} of operand 0 is empty; there is no extreme element")
    return (TensorType(I64, reduced_shape(x.shape, (attrs.axis,), attrs.keepdims)),)


def _arg(find: Callable[..., Any]) -> Reference:
    """A NaN counts as the extreme element, as in NumPy and PyTorch."""

    def reference(attrs: ArgReduce, x: Array) -> tuple[Array]:
        if not attrs.last:
            return (np.asarray(find(x, axis=attrs.axis, keepdims=attrs.keepdims), dtype=np.int64),)
        found = find(np.flip(x, attrs.axis), axis=attrs.axis, keepdims=attrs.keepdims)
        return (np.asarray(x.shape[attrs.axis] - 1 - found, dtype=np.int64),)

    return reference


primitive("argmax", family="reduction", attrs=ArgReduce, infer=_infer_arg, reference=_arg(np.argmax))
primitive("argmin", family="reduction", attrs=ArgReduce, infer=_infer_arg, reference=_arg(np.argmin))
