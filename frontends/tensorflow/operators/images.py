"""Operators on images: resizing, and blocks of pixels as channels or as images of their own."""

from tilewright.compiler.ir import F32, Shape, Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.builder import FOLD_LIMIT
from tilewright.errors import GraphError, ResourceError
from tilewright.frontends.tensorflow.operators.formats import Image
from tilewright.frontends.tensorflow.operators.table import Call, operator


def _resize(call: Call, x: Value, mode: str, transform: str, nearest: str = "floor") -> Value:
    sizes = call.integers(1, "size")
    if len(sizes) != 2 or not all(0 < size <= FOLD_LIMIT for size in sizes):
        raise ResourceError(f"operand 1 (size) is {sizes}; it takes a height and a width, at most 2**28")
    image = Image(call, "NHWC")
    how = composites.ResizeMode(mode, transform, nearest)
    return image.back(composites.resize(call.g, image.first(x), (2, 3), sizes, how))


def _corners(call: Call) -> tuple[bool, bool]:
    align, half = call.flag("align_corners", False), call.flag("half_pixel_centers", False)
    if align and half:
        raise GraphError("attributes 'align_corners' and 'half_pixel_centers' exclude each other")
    return align, half


@operator("ResizeBilinear")
def resize_bilinear(call: Call) -> Value:
    """The result is float32 whatever the operand."""
    align, half = _corners(call)
    transform = "align_corners" if align else "half_pixel" if half else "asymmetric"
    return _resize(call, call.cast(call.operand(0), F32), "linear", transform)


@operator("ResizeNearestNeighbor")
def resize_nearest(call: Call) -> Value:
    align, half = _corners(call)
    transform = "align_corners" if align else "tf_half_pixel_for_nn" if half else "asymmetric"
    return _resize(call, call.operand(0), "nearest", transform, "round_prefer_ceil" if align else "floor")


@operator("DepthToSpace")
def depth_to_space(call: Call) -> Value:
    image = Image(call)
    return image.back(composites.depth_to_space(call.g, image.first(call.operand(0)), call.whole("block_size")))


@operator("SpaceToDepth")
def space_to_depth(call: Call) -> Value:
    image = Image(call)
    return image.back(composites.space_to_depth(call.g, image.first(call.operand(0)), call.whole("block_size")))


def _block(call: Call) -> Shape:
    block = call.integers(1, "block_shape")
    if any(size < 1 for size in block) or len(block) >= call.operand(0).type.rank:
        raise GraphError(f"blocks of {block} do not fit an operand of shape {call.operand(0).type.shape}")
    return block


@operator("SpaceToBatchND")
def space_to_batch_nd(call: Call) -> Value:
    return composites.space_to_batch(call.g, call.operand(0), _block(call), call.pairs(2, "paddings"))


@operator("BatchToSpaceND")
def batch_to_space_nd(call: Call) -> Value:
    return composites.batch_to_space(call.g, call.operand(0), _block(call), call.pairs(2, "crops"))


@operator("SpaceToBatch")
def space_to_batch(call: Call) -> Value:
    size = call.whole("block_size")
    return composites.space_to_batch(call.g, call.operand(0), (size, size), call.pairs(1, "paddings"))


@operator("BatchToSpace")
def batch_to_space(call: Call) -> Value:
    size = call.whole("block_size")
    return composites.batch_to_space(call.g, call.operand(0), (size, size), call.pairs(1, "crops"))
