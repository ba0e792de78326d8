"""Resize and its predecessor Upsample."""

from collections.abc import Sequence
from math import prod
from typing import cast

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.builder import FOLD_LIMIT
from tilewright.compiler.ops.registry import MAX_ELEMENTS
from tilewright.compiler.ops.resizing import Policy
from tilewright.errors import GraphError, ResourceError
from tilewright.frontends.onnx.operators.table import Call, operator


def _scale(
    call: Call, x: Value, scales: Sequence[float], axes: Sequence[int], how: composites.ResizeMode
) -> Value:
    if len(scales) != len(axes):
        raise GraphError(f"scales is {tuple(scales)}; it takes {len(axes)} numbers")
    if not all(0 < scale < MAX_ELEMENTS for scale in scales):
        raise GraphError(f"scales is {tuple(scales)}; scales are positive and finite")
    sizes = composites.scaled_sizes([x.type.shape[axis] for axis in axes], scales)
    return _resize(call, x, axes, sizes, how, scales)


def _resize(
    call: Call,
    x: Value,
    axes: Sequence[int],
    sizes: Sequence[int],
    how: composites.ResizeMode,
    scales: Sequence[float] | None,
    roi: Sequence[tuple[float, float]] | None = None,
) -> Value:
    kept = prod(dim for axis, dim in enumerate(x.type.shape) if axis not in axes)
    if kept * prod(sizes) > MAX_ELEMENTS or max(sizes, default=0) > FOLD_LIMIT:
        raise ResourceError(
            f"the result would have axes of {tuple(sizes)}, more than 2**36 elements or 2**28 along an axis"
        )
    return composites.resize(call.g, x, axes, sizes, how, scales, roi)


def _asymmetric(call: Call, scales: Sequence[float]) -> Value:
    """What both operators did before opset 11: the output position over the scale.

    The specification left open how nearest rounds; engines round down where the axis grows and up where it
    shrinks.
    """
    x, mode = call.operand(0), call.text("mode", "nearest")
    if len(scales) != x.type.rank:
        raise GraphError(f"scales is {tuple(scales)}; it takes {x.type.rank} numbers")
    mode = "linear" if mode == "bilinear" else mode
    for rounding, shrinks in (("ceil", True), ("floor", False)):
        axes = [axis for axis, scale in enumerate(scales) if (scale < 1) == shrinks]
        how = composites.ResizeMode(mode, "asymmetric", rounding)
        x = _scale(call, x, [scales[axis] for axis in axes], axes, how)
    return x


@operator("Upsample", since=7)
def upsample_attribute(call: Call) -> Value:
    scales = call.numbers("scales")
    if scales is None:
        raise GraphError("attribute 'scales' is missing")
    return _asymmetric(call, scales)


@operator("Upsample", since=9)
@operator("Resize", since=10)
def resize_by_scales(call: Call) -> Value:
    return _asymmetric(call, call.known_floats(1, "scales") or ())


@operator("Resize", since=11)
def resize(call: Call) -> Value:
    """Operands: x, roi, scales, sizes; exactly one of the last two is given and not empty."""
    x = call.operand(0)
    axes = call.axes(call.wholes("axes") or range(x.type.rank), x.type.rank)
    how = composites.ResizeMode(
        mode=call.text("mode", "nearest"),
        transform=call.text("coordinate_transformation_mode", "half_pixel"),
        nearest=call.text("nearest_mode", "round_prefer_floor"),
        cubic_coeff=call.number("cubic_coeff_a", -0.75),
        exclude_outside=bool(call.whole("exclude_outside", 0)),
        antialias=bool(call.whole("antialias", 0)),
        extrapolation=call.number("extrapolation_value", 0.0),
    )
    scales, wanted = call.known_floats(2, "scales"), call.known_ints(3, "sizes")
    roi = None
    if how.transform == "tf_crop_and_resize":
        bounds = call.known_floats(1, "roi") or ()
        if len(bounds) != 2 * len(axes):
            raise GraphError(f"roi is {bounds}; {len(axes)} axes take {2 * len(axes)} numbers")
        roi = tuple(zip(bounds[: len(axes)], bounds[len(axes) :], strict=True))
    if not wanted:
        if not scales:
            raise GraphError("it has neither scales nor sizes")
        if roi is None:
            return _scale(call, x, scales, axes, how)
        # The part that is cut out counts: the floor of size * (end - start) * scale.
        parts = [x.type.shape[axis] * (end - start) for axis, (start, end) in zip(axes, roi, strict=True)]
        sizes = tuple(int(part * scale) for part, scale in zip(parts, scales, strict=True))
        return _resize(call, x, axes, sizes, how, scales, roi)
    if len(wanted) != len(axes):
        raise GraphError(f"sizes is {wanted}; it takes {len(axes)} numbers")
    policy = cast(Policy, call.text("keep_aspect_ratio_policy", "stretch"))
    if any(x.type.shape[axis] == 0 for axis in axes):
        raise GraphError(f"an operand of shape {x.type.shape} has nothing to resize")
    sizes, factors = composites.resized_sizes([x.type.shape[axis] for axis in axes], wanted, policy)
    return _resize(call, x, axes, sizes, how, factors, roi)
