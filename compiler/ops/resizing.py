"""Resizing as a chain of `resample`, one axis at a time.

    axis_table(...) -> index (n, taps), weight (n, taps), outside (n,)     for n output positions

Modes carry ONNX's names (operator Resize, opset 19); TensorFlow's and PyTorch's resizes are settings of them.
Tables are computed in float64 and rounded once to x's dtype. A scale that is a rounded quotient of whole
sizes stands for that quotient, so that positions halfway between elements stay there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tilewright.compiler.ir import BOOL, F32, Value
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.errors import GraphError, ResourceError, UnsupportedError

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Policy = Literal["stretch", "not_larger", "not_smaller"]

MAX_POSITIONS = 1 << 22
"""Tables have a row for each position; no picture is longer, and a larger table would take minutes."""

NEAREST: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class ResizeMode:
    """How to resize; the field names are ONNX's attributes, shortened.

    mode: nearest, linear or cubic. transform: how an output position maps to an input position: half_pixel,
    half_pixel_symmetric, pytorch_half_pixel, align_corners, asymmetric, tf_half_pixel_for_nn or
    tf_crop_and_resize. nearest: how mode nearest rounds. cubic_coeff: the cubic kernel's a. exclude_outside:
    positions beyond the border weigh nothing, else they hold the border's value. antialias: widen the kernel
    where the axis shrinks (linear and cubic). extrapolation: tf_crop_and_resize's value beyond the border.
    """

    mode: str = "nearest"
    transform: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_coeff: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


def resized_sizes(
    sizes: Sequence[int], wanted: Sequence[int], policy: Policy = "stretch"
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output sizes and scales of axes of `sizes` that should become `wanted`.

    "stretch" takes `wanted`; the others keep the proportions, no axis larger or none smaller.
    """
    scales = [out / size for size, out in zip(sizes, wanted, strict=True)]
    if policy == "stretch":
        return tuple(wanted), tuple(scales)
    if policy not in ("not_larger", "not_smaller"):
        raise GraphError(
            f"keep_aspect_ratio_policy '{policy}' is unknown; expected stretch, not_larger, not_smaller"
        )
    scale = (min if policy == "not_larger" else max)(scales)
    return tuple(int(scale * size + 0.5) for size in sizes), (scale,) * len(scales)


def scaled_sizes(sizes: Sequence[int], scales: Sequence[float]) -> tuple[int, ...]:
    """Output sizes of axes scaled by float32 factors: the floor of the float32 product."""
    return tuple(
        int(np.floor(np.float32(size) * np.float32(scale))) for size, scale in zip(sizes, scales, strict=True)
    )


def _positions(transform: str, size: int, out: int, scale: float, roi: tuple[float, float]) -> Floats:
    """The input position of each output position."""
    position = np.arange(out, dtype=np.float64)
    length = scale * size
    if abs(length - out) <= out * 2.0**-22:
        length = float(out)
    match transform:
        case "half_pixel" | "tf_half_pixel_for_nn":
            offset = 0.0 if transform == "tf_half_pixel_for_nn" else 0.5
            return (position + 0.5) * size / length - offset
        case "pytorch_half_pixel":
            return (position + 0.5) * size / length - 0.5 if out > 1 else np.zeros(out)
        case "half_pixel_symmetric":
            return size / 2 * (1 - out / length) + (position + 0.5) * size / length - 0.5
        case "asymmetric":
            return position * size / length
        case "align_corners":
            return position * (size - 1) / (length - 1) if length != 1 else np.zeros(out)
        case "tf_crop_and_resize":
            start, end = roi
            if out == 1:
                return np.full(1, (start + end) * (size - 1) / 2)
            return start * (size - 1) + position * (end - start) * (size - 1) / (length - 1)
    raise UnsupportedError(f"coordinate transformation '{transform}' is unknown")


def _kernel(how: ResizeMode) -> tuple[Callable[[Floats], Floats], int]:
    """The interpolation kernel as a function of the distance, and its radius."""
    if how.mode == "linear":
        return lambda d: np.maximum(1 - np.abs(d), 0), 1
    a = how.cubic_coeff

    def cubic(distance: Floats) -> Floats:
        d = np.abs(distance)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return cubic, 2


def axis_table(
    size: int, out: int, scale: float, how: ResizeMode, roi: tuple[float, float] = (0.0, 1.0)
) -> tuple[Indices, Floats, npt.NDArray[np.bool_]]:
    """What each of `out` positions sums: element indices (in range) and weights, (out, taps) both.

    Also, for tf_crop_and_resize, which positions lie outside. `size` is the axis's, `out` wanted, `scale`
    their nominal quotient; `roi` the (start, end) of tf_crop_and_resize in fractions of the axis. Raises
    ResourceError for more than MAX_POSITIONS.
    """
    if out > MAX_POSITIONS:
        raise ResourceError(f"an axis resized to {out} positions is beyond 2**22; ask for a smaller size")
    x = _positions(how.transform, size, out, scale, roi)
    outside = (x < 0) | (x > size - 1) if how.transform == "tf_crop_and_resize" else np.zeros(out, np.bool_)
    if how.mode == "nearest":
        if how.nearest not in NEAREST:
            raise UnsupportedError(
                f"nearest mode '{how.nearest}' is unknown; expected one of {', '.join(NEAREST)}"
            )
        chosen = NEAREST[how.nearest](x).astype(np.int64).clip(0, size - 1)
        return chosen[:, None], np.ones((out, 1)), outside
    if how.mode not in ("linear", "cubic"):
        raise UnsupportedError(f"resize mode '{how.mode}' is unknown; expected nearest, linear or cubic")
    kernel, radius = _kernel(how)
    shrink = min(scale, 1.0) if how.antialias else 1.0
    reach = int(np.ceil(radius / shrink))
    index = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    weight = kernel((index - x[:, None]) * shrink)
    if how.exclude_outside:
        weight[(index < 0) | (index >= size)] = 0
    if how.exclude_outside or how.antialias:
        total = weight.sum(axis=1, keepdims=True)
        weight = weight / np.where(total == 0, 1, total)
    used = np.flatnonzero(np.any(weight != 0, axis=0))
    if used.size:
        index, weight = index[:, used[0] : used[-1] + 1], weight[:, used[0] : used[-1] + 1]
    return index.clip(0, size - 1), weight, outside


def resize(
    g: GraphBuilder,
    x: Value,
    axes: Sequence[int],
    sizes: Sequence[int],
    how: ResizeMode,
    scales: Sequence[float] | None = None,
    roi: Sequence[tuple[float, float]] | None = None,
) -> Value:
    """x with `axes` resized to `sizes`; the largest reduction is done first.

    `scales` are the nominal factors where they differ from the quotients of sizes; `roi` the (start, end) of
    each axis for tf_crop_and_resize. Integers are computed in float32 unless the mode is nearest.
    """
    dtype = x.type.dtype
    if not dtype.is_float and (how.mode != "nearest" or dtype.kind == "bool"):
        wide = resize(g, g.op("cast", x, dtype=F32), axes, sizes, how, scales, roi)
        return g.op("cast", wide, dtype=dtype)
    rank = x.type.rank
    outside = np.zeros([1] * rank, np.bool_)
    steps = []
    for position, (axis, out) in enumerate(zip(axes, sizes, strict=True)):
        axis, size = axis % rank, x.type.shape[axis]
        if size == 0 or out <= 0:
            raise GraphError(f"axis {axis} cannot be resized from {size} to {out} elements", node=g.source)
        scale = out / size if scales is None else float(scales[position])
        if not scale > 0:
            raise GraphError(f"axis {axis} has scale {scale}; expected a positive number", node=g.source)
        index, weight, beyond = axis_table(
            size, out, scale, how, (0.0, 1.0) if roi is None else roi[position]
        )
        if beyond.any():
            outside = outside | beyond.reshape([out if a == axis else 1 for a in range(rank)])
        same = index.shape == (size, 1) and np.array_equal(index[:, 0], np.arange(size))
        if not (same and np.all(weight == 1)):
            steps.append((out / size, axis, index, weight))
    for _, axis, index, weight in sorted(steps, key=lambda step: step[0]):
        table = g.constant(index, dtype=np.int64), g.constant(weight, dtype=dtype.numpy)
        x = g.op("resample", x, *table, axis=axis)
    if outside.any():
        x = g.op("where", g.constant(outside, dtype=BOOL.numpy), g.scalar(how.extrapolation, x), x)
    return x


def adaptive_average(g: GraphBuilder, x: Value, axes: Sequence[int], sizes: Sequence[int]) -> Value:
    """Each of `sizes[i]` positions along `axes[i]` averages its share of elements: adaptive pooling.

    Position p of n covers elements floor(p size / n) to ceil((p + 1) size / n), the last exclusive.
    """
    for axis, out in zip(axes, sizes, strict=True):
        size = x.type.shape[axis]
        p = np.arange(out)
        first, end = p * size // out, -(-(p + 1) * size // out)
        index = first[:, None] + np.arange((end - first).max(initial=1))
        weight = (index < end[:, None]) / (end - first)[:, None]
        table = (
            g.constant(index.clip(0, size - 1), dtype=np.int64),
            g.constant(weight, dtype=x.type.dtype.numpy),
        )
        x = g.op("resample", x, *table, axis=axis % x.type.rank)
    return x
