"""Primitives that read elements at positions given by data.

    gather{axis}            x, indices (integers, any shape): whole slices of x, as numpy.take
    gather_elements{axis}   x, indices (integers, x's rank): single elements, as numpy.take_along_axis
    resample{axis}          x, index i64 (n, taps), weight (n, taps): weighted sums of x's slices
    resample2d              x (N, C, H, W), index and weight of H, index and weight of W: both axes at once

Negative indices count from the end; indices beyond either end are clamped, so nothing outside is ever read.
"""

from dataclasses import dataclass

import numpy as np

from tilewright.compiler.ir import I64, Attrs, NoAttrs, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import check_axis, check_count, check_dtype
from tilewright.compiler.ops.registry import primitive
from tilewright.errors import GraphError


@dataclass(frozen=True)
class Gather(Attrs):
    """The axis of x that the indices count along."""

    axis: int


def _in_range(indices: Array, size: int) -> Array:
    """Indices as i64 in 0..size-1."""
    wide = indices.astype(np.int64, copy=False)
    return np.where(wide < 0, wide + size, wide).clip(0, size - 1)


def _check_source(attrs: Gather, x: TensorType, indices: TensorType) -> None:
    check_axis(attrs.axis, x.rank)
    check_dtype(indices, 1, "integers")
    if x.shape[attrs.axis] == 0 and indices.elements:
        raise GraphError(f"axis {attrs.axis} of operand 0 is empty; operand 1 has nothing to choose from")


def _infer_gather(attrs: Gather, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 2)
    x, indices = types
    _check_source(attrs, x, indices)
    shape = (*x.shape[: attrs.axis], *indices.shape, *x.shape[attrs.axis + 1 :])
    return (TensorType(x.dtype, shape),)


primitive(
    "gather",
    family="gather",
    attrs=Gather,
    infer=_infer_gather,
    reference=lambda attrs, x, indices: (
        np.asarray(np.take(x, _in_range(indices, x.shape[attrs.axis]), axis=attrs.axis)),
    ),
)


def _infer_gather_elements(attrs: Gather, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 2)
    x, indices = types
    _check_source(attrs, x, indices)
    if indices.rank != x.rank:
        raise GraphError(f"operand 1 has shape {indices.shape}; expected {x.rank} dimensions as operand 0")
    for axis, (dim, limit) in enumerate(zip(indices.shape, x.shape, strict=True)):
        if axis != attrs.axis and dim > limit:
            raise GraphError(f"operand 1 has {dim} elements along axis {axis}; operand 0 has only {limit}")
    return (TensorType(x.dtype, indices.shape),)


def _reference_gather_elements(attrs: Gather, x: Array, indices: Array) -> tuple[Array]:
    axis = attrs.axis
    kept = tuple(slice(None) if a == axis else slice(dim) for a, dim in enumerate(indices.shape))
    return (np.take_along_axis(x[kept], _in_range(indices, x.shape[axis]), axis=axis),)


primitive(
    "gather_elements",
    family="gather",
    attrs=Gather,
    infer=_infer_gather_elements,
    reference=_reference_gather_elements,
)


@dataclass(frozen=True)
class Resample(Attrs):
    """The axis of x to sum along: out[.., i, ..] = sum over t of weight[i, t] * x[.., index[i, t], ..]."""

    axis: int


def _infer_resample(attrs: Resample, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 3)
    x, index, weight = types
    check_dtype(x, 0, "numbers")
    check_axis(attrs.axis, x.rank)
    if index.dtype != I64 or index.rank != 2:
        raise GraphError(f"operand 1 is {index}; expected i64 indices of shape (n, taps)")
    if weight.dtype != x.dtype or weight.shape != index.shape:
        raise GraphError(
            f"operand 2 is {weight}; expected {x.dtype} weights of operand 1's shape {index.shape}"
        )
    if x.shape[attrs.axis] == 0 and index.elements:
        raise GraphError(f"axis {attrs.axis} of operand 0 is empty; operand 1 has nothing to choose from")
    shape = (*x.shape[: attrs.axis], index.shape[0], *x.shape[attrs.axis + 1 :])
    return (TensorType(x.dtype, shape),)


def _reference_resample(attrs: Resample, x: Array, index: Array, weight: Array) -> tuple[Array]:
    axis = attrs.axis
    inside = _in_range(index, x.shape[axis])
    shape = (*x.shape[:axis], len(index), *x.shape[axis + 1 :])
    # One factor an output position, aligned with `axis`.
    factors = weight.T.reshape(weight.shape[1], len(index), *[1] * (x.ndim - axis - 1))
    result = np.zeros(shape, x.dtype)
    for tap, factor in enumerate(factors):
        result += np.take(x, inside[:, tap], axis=axis) * factor
    return (result,)


primitive("resample", family="gather", attrs=Resample, infer=_infer_resample, reference=_reference_resample)


def _infer_resample2d(attrs: NoAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 5)
    x, index_h, weight_h, index_w, weight_w = types
    if x.rank != 4:
        raise GraphError(f"operand 0 has shape {x.shape}; expected 4 dimensions")
    (rows,) = _infer_resample(Resample(2), x, index_h, weight_h)
    return _infer_resample(Resample(3), rows, index_w, weight_w)


def _reference_resample2d(
    attrs: NoAttrs, x: Array, index_h: Array, weight_h: Array, index_w: Array, weight_w: Array
) -> tuple[Array]:
    (rows,) = _reference_resample(Resample(2), x, index_h, weight_h)
    return _reference_resample(Resample(3), rows, index_w, weight_w)


primitive("resample2d", family="gather", infer=_infer_resample2d, reference=_reference_resample2d)
