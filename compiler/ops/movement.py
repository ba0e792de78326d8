"""Primitives that move elements and compute nothing.

    reshape{shape}  transpose{perm}  broadcast{shape}  slice{start, size, step}  concat{axis}
    pad{low, high, interior, mode, value}

References return views where NumPy can: constants may be large.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tilewright.compiler.ir import Attrs, Node, Shape, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import check_axis, check_count, check_length, check_same_dtype
from tilewright.compiler.ops.registry import primitive
from tilewright.errors import GraphError

# ---- reshape


@dataclass(frozen=True)
class Reshape(Attrs):
    """The result's shape, with as many elements as the operand's."""

    shape: Shape


def _infer_reshape(attrs: Reshape, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    if any(dim < 0 for dim in attrs.shape) or prod(attrs.shape) != x.elements:
        raise GraphError(
            f"operand 0 has shape {x.shape}, {x.elements} elements; it cannot become {attrs.shape}"
        )
    return (TensorType(x.dtype, attrs.shape),)


primitive(
    "reshape",
    family="movement",
    attrs=Reshape,
    infer=_infer_reshape,
    reference=lambda attrs, x: (x.reshape(attrs.shape),),
)


# ---- transpose


@dataclass(frozen=True)
class Transpose(Attrs):
    """Axis `i` of the result is axis `perm[i]` of the operand."""

    perm: tuple[int, ...]


def _infer_transpose(attrs: Transpose, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    if sorted(attrs.perm) != list(range(x.rank)):
        raise GraphError(f"perm {attrs.perm} is not a permutation of operand 0's {x.rank} axes")
    return (TensorType(x.dtype, tuple(x.shape[axis] for axis in attrs.perm)),)


primitive(
    "transpose",
    family="movement",
    attrs=Transpose,
    infer=_infer_transpose,
    reference=lambda attrs, x: (np.transpose(x, attrs.perm),),
)


def shuffled_groups(nodes: Sequence[Node]) -> int:
    """How many groups of channels nodes shuffle, each of which reads the one before; 0 if they do something else.

    (N, G * K, *spatial) -> reshape (N, G, K, *spatial) -> transpose (N, K, G, *spatial)
    -> reshape (N, K * G, *spatial): channel g * K + k becomes channel k * G + g.
    """
    if [node.op for node in nodes] != ["reshape", "transpose", "reshape"]:
        return 0
    split, swap, merge = nodes
    shape, parts = split.operands[0].type.shape, split.results[0].type.shape
    is_split = len(shape) > 2 and len(parts) == len(shape) + 1 and (parts[0], *parts[3:]) == (shape[0], *shape[2:])
    is_swap = isinstance(swap.attrs, Transpose) and swap.attrs.perm == (0, 2, 1, *range(3, len(parts)))
    return parts[1] if is_split and is_swap and merge.results[0].type.shape == shape else 0


# ---- broadcast


@dataclass(frozen=True)
class Broadcast(Attrs):
    """The result's shape; the operand must broadcast to it as NumPy's broadcast_to does."""

    shape: Shape


def _infer_broadcast(attrs: Broadcast, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    aligned = attrs.shape[len(attrs.shape) - x.rank :] if len(attrs.shape) >= x.rank else None
    if aligned is None or any(dim not in (1, wanted) for dim, wanted in zip(x.shape, aligned, strict=True)):
        raise GraphError(f"operand 0 has shape {x.shape}, which does not broadcast to {attrs.shape}")
    return (TensorType(x.dtype, attrs.shape),)


primitive(
    "broadcast",
    family="movement",
    attrs=Broadcast,
    infer=_infer_broadcast,
    reference=lambda attrs, x: (np.broadcast_to(x, attrs.shape),),
)


# ---- slice


@dataclass(frozen=True)
class Slice(Attrs):
    """Element `i` of a result's axis is the operand's element `start + i * step`; it has `size` of them."""

    start: tuple[int, ...]
    size: tuple[int, ...]
    step: tuple[int, ...]


def _infer_slice(attrs: Slice, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    for name in ("start", "size", "step"):
        check_length(getattr(attrs, name), x.rank, name)
    for axis, (start, size, step) in enumerate(zip(attrs.start, attrs.size, attrs.step, strict=True)):
        if step == 0:
            raise GraphError(f"step of axis {axis} is 0")
        if size < 0:
            raise GraphError(f"size of axis {axis} is {size}")
        last = start + (size - 1) * step
        if size and not (0 <= start < x.shape[axis] and 0 <= last < x.shape[axis]):
            raise GraphError(
                f"axis {axis} of operand 0 has {x.shape[axis]} elements; the slice takes {start} to {last}"
            )
    return (TensorType(x.dtype, attrs.size),)


def slices(attrs: Slice) -> tuple[slice, ...]:
    """The same as Python slices, one an axis."""
    found = []
    for start, size, step in zip(attrs.start, attrs.size, attrs.step, strict=True):
        stop = start + size * step
        found.append(slice(0, 0) if size == 0 else slice(start, None if stop < 0 else stop, step))
    return tuple(found)


primitive(
    "slice",
    family="movement",
    attrs=Slice,
    infer=_infer_slice,
    reference=lambda attrs, x: (x[(*slices(attrs), ...)],),
)


# ---- pad

PadMode = Literal["constant", "reflect", "symmetric", "edge", "wrap"]


@dataclass(frozen=True)
class Pad(Attrs):
    """`low` elements before and `high` after each axis (negative: elements dropped).

    `interior` elements stand between neighbours (mode "constant" only; empty means none). New elements hold
    `value`, or for the other modes the element that the mode's index map names.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    interior: tuple[int, ...] = ()
    mode: PadMode = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        if not self.interior:
            object.__setattr__(self, "interior", (0,) * len(self.low))


def _infer_pad(attrs: Pad, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    for name in ("low", "high", "interior"):
        check_length(getattr(attrs, name), x.rank, name)
    if attrs.mode not in get_args(PadMode):
        raise GraphError(f"mode '{attrs.mode}' is unknown; expected one of {', '.join(get_args(PadMode))}")
    if any(gap < 0 for gap in attrs.interior):
        raise GraphError(f"interior {attrs.interior} is negative")
    if attrs.mode != "constant" and any(attrs.interior):
        raise GraphError(f"interior {attrs.interior} needs mode constant, not {attrs.mode}")
    dims = []
    for axis, dim in enumerate(x.shape):
        low, high, gap = attrs.low[axis], attrs.high[axis], attrs.interior[axis]
        padded = dim + max(dim - 1, 0) * gap + low + high
        if padded < 0:
            raise GraphError(
                f"pads ({low}, {high}) drop more than the {padded - low - high} elements of axis {axis}"
            )
        if attrs.mode != "constant" and dim == 0 and padded:
            raise GraphError(f"axis {axis} of operand 0 is empty; mode {attrs.mode} has nothing to repeat")
        dims.append(padded)
    return (TensorType(x.dtype, tuple(dims)),)


def source_indices(mode: PadMode, size: int, low: int, high: int) -> npt.NDArray[np.int64]:
    """The element that each of an axis's `low + size + high` padded positions copies; not "constant"."""
    wanted = np.arange(-low, size + high, dtype=np.int64)
    if mode == "edge":
        return wanted.clip(0, size - 1)
    if mode == "wrap":
        return wanted % size
    if mode == "symmetric":
        folded = wanted % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    period = max(2 * (size - 1), 1)
    folded = wanted % period
    return np.minimum(folded, period - folded) if size > 1 else np.zeros_like(wanted)


def _reference_pad(attrs: Pad, x: Array) -> tuple[Array]:
    if attrs.mode != "constant":
        for axis, (low, high) in enumerate(zip(attrs.low, attrs.high, strict=True)):
            if low or high:
                x = x.take(source_indices(attrs.mode, x.shape[axis], low, high), axis=axis)
        return (x,)
    shape: list[int] = []
    source: list[Any] = []
    target: list[Any] = []
    for size, low, high, gap in zip(x.shape, attrs.low, attrs.high, attrs.interior, strict=True):
        stride = gap + 1
        padded = size + max(size - 1, 0) * gap + low + high
        # Element i lands at low + i * stride; those that land outside are dropped.
        first = max(0, -(low // stride))
        count = max(0, min(size, (padded - 1 - low) // stride + 1) - first)
        start = low + first * stride
        shape.append(padded)
        source.append(slice(first, first + count))
        target.append(slice(start, start + (count - 1) * stride + 1, stride) if count else slice(0, 0))
    kept = x[(*source, ...)]
    if kept.shape == tuple(shape):
        return (kept,)
    result = np.empty(shape, x.dtype)
    result[...] = np.asarray(attrs.value).astype(x.dtype)
    result[(*target, ...)] = kept
    return (result,)


primitive("pad", family="movement", attrs=Pad, infer=_infer_pad, reference=_reference_pad)


# ---- concat


@dataclass(frozen=True)
class Concat(Attrs):
    """The axis along which the operands follow one another."""

    axis: int


def _infer_concat(attrs: Concat, *types: TensorType) -> tuple[TensorType, ...]:
    if not types:
        raise GraphError("takes at least one operand")
    first = types[0]
    check_axis(attrs.axis, first.rank)
    check_same_dtype(types)

    def others(shape: Shape) -> Shape:
        return shape[: attrs.axis] + shape[attrs.axis + 1 :]

    for position, type in enumerate(types):
        if type.rank != first.rank or others(type.shape) != others(first.shape):
            raise GraphError(
                f"operand {position} has shape {type.shape}, which differs from operand 0's {first.shape} "
                f"outside axis {attrs.axis}"
            )
    total = sum(type.shape[attrs.axis] for type in types)
    return (TensorType(first.dtype, (*first.shape[: attrs.axis], total, *first.shape[attrs.axis + 1 :])),)


primitive(
    "concat",
    family="movement",
    attrs=Concat,
    infer=_infer_concat,
    reference=lambda attrs, *arrays: (
        np.concatenate(arrays, axis=attrs.axis) if len(arrays) > 1 else arrays[0],
    ),
)
