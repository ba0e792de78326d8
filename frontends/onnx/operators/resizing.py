"""Resize and its predecessor Upsample."""

from collections.abc import Sequence
from math import prod
from typing import cast

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.registry import MAX_ELEMENTS
from tilewright.compiler.ops.resizing import Policy
from tilewright.errors import GraphError, ResourceError
from tilewright.frontends.onnx.operators.table import Call, operator


def _scale(call: Call, scales: Sequence[float], axes: Sequence[int], how: composites.ResizeMode) -> Value:
    x = call.operand(0)
    if len(scales) != len(axes):
        raise GraphError(f"scales is {tuple(scales)}; it takes {len(axes)} numbers")
    if not all(0 < scale < MAX_ELEMENTS for scale in scales):
        raise GraphError(f"scales is {tuple(scales)}; scales are positive and finite")
    sizes = composites.scaled_sizes([x.type.shape[axis] for axis in axes], scales)
    return _resize(call, axes, sizes, how, scales)


def _resize(
    call: Call,
    axes: Sequence[int],
    sizes: Sequence[int],
    how: composites.ResizeMode,
    scales: Sequence[float] | None,
    roi: Sequence[tuple[float, float]] | None = None,
) -> Value:
    x = call.operand(0)
    kept = prod(dim for axis, dim in enumerate(x.type.shape) if axis not in axes)
    if kept * prod(sizes) > MAX_ELEMENTS:
        raise ResourceError(f"the result would have axes of {tuple(sizes)}, more than 2**36 elements")
    return composites.resize(call.g, x, axes, sizes, how, scales, roi)


def _asymmetric(call: Call) -> composites.ResizeMode:
    """What both operators did before opset 11: output position over scale, rounded down."""
    mode = call.text("mode", "nearest")
    return composites.ResizeMode("linear" if mode == "bilinear" else mode, "asymmetric", "floor")


@operator("Upsample", since=7)
def upsample_attribute(call: Call) -> Value:
    scales = call.numbers("scales")
    if scales is None:
        raise GraphError("attribute 'scales' is missing")
    return _scale(call, scales, range(call.operand(0).type.rank), _asymmetric(call))


@operator("Upsample", since=9)
@operator("Resize", since=10)
def resize_by_scales(call: Call) -> Value:
    return _scale(call, call.known_floats(1, "scales") or (), range(call.operand(0).type.rank), _asymmetric(call))


@operator("Resize", since=11)
def resize(call: Call) -> Value:
    """Operands: x, roi, scales, sizes; exactly one of the last two is given and not empty."""
    x = call.operand(0)
    axes = call.axes(call.integers("axes") or range(x.type.rank), x.type.rank)
    how = composites.ResizeMode(
        mode=call.text("mode", "nearest"),
        transform=call.text("coordinate_transformation_mode", "half_pixel"),
        nearest=call.text("nearest_mode", "round_prefer_floor"),
        cubic_coeff=call.number("cubic_coeff_a", -0.75),
        exclude_outside=bool(call.integer("exclude_outside", 0)),
        antialias=bool(call.integer("antialias", 0)),
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
            return _scale(call, scales, axes, how)
        # The part that is cut out counts: the floor of size * (end - start) * scale.
        parts = [x.type.shape[axis] * (end - start) for axis, (start, end) in zip(axes, roi, strict=True)]
        sizes = tuple(int(part * scale) for part, scale in zip(parts, scales, strict=True))
        return _resize(call, axes, sizes, how, scales, roi)
    if len(wanted) != len(axes):
        raise GraphError(f"sizes is {wanted}; it takes {len(axes)} numbers")
    policy = cast(Policy, call.text("keep_aspect_ratio_policy", "stretch"))
    if any(x.type.shape[axis] == 0 for axis in axes):
        raise GraphError(f"an operand of shape {x.type.shape} has nothing to resize")
    sizes, factors = composites.resized_sizes([x.type.shape[axis] for axis in axes], wanted, policy)
    return _resize(call, axes, sizes, how, factors, roi)
