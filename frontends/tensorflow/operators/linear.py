"""Convolutions, matrix products and pooling, and what they are fused with."""

from collections.abc import Callable
from functools import partial

from tilewright.compiler.ir import Shape, Value
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError
from tilewright.frontends.tensorflow.operators.activations import LEAKY_ALPHA, activation
from tilewright.frontends.tensorflow.operators.formats import Image, Pads
from tilewright.frontends.tensorflow.operators.table import Call, operator

# ---- convolutions


def _attribute(call: Call, image: Image, name: str) -> tuple[int, int]:
    return image.spatial(call.wholes(name) or (1, 1, 1, 1), name)


def _filter(w: Value) -> Shape:
    """The spatial shape of a filter (height, width, ., .)."""
    if w.type.rank != 4:
        raise GraphError(f"a filter of shape {w.type.shape} is none for images; those have 4 axes")
    return w.type.shape[:2]


def _conv(call: Call, x: Value, w: Value, groups: int, kernel: Shape) -> Value:
    """Convolution of an image in the node's format by filters (O, C/groups, height, width)."""
    image = Image(call)
    x = image.first(x)
    strides, dilations = _attribute(call, image, "strides"), _attribute(call, image, "dilations")
    pads = image.pads(call, x.type.shape[2:], kernel, strides, dilations)
    y = call.g.op("conv", x, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    return image.back(y)


@operator("Conv2D")
def conv2d(call: Call) -> Value:
    """Filters are (height, width, channels / groups, filters)."""
    x, w = call.operand(0), call.operand(1)
    kernel = _filter(w)
    axis = Image(call).axis
    channels = x.type.shape[axis] if x.type.rank == 4 else 0
    if not w.type.shape[2] or channels % w.type.shape[2]:
        raise GraphError(f"filters of shape {w.type.shape} do not fit an operand of shape {x.type.shape}")
    turned = call.g.op("transpose", w, perm=(3, 2, 0, 1))
    return _conv(call, x, turned, channels // w.type.shape[2], kernel)


@operator("DepthwiseConv2dNative")
def depthwise(call: Call) -> Value:
    """Filters are (height, width, channels, multiplier); a channel's results stand side by side."""
    x, w = call.operand(0), call.operand(1)
    kernel = _filter(w)
    channels, multiplier = w.type.shape[2:]
    turned = call.g.op("transpose", w, perm=(2, 3, 0, 1))
    turned = call.g.op("reshape", turned, shape=(channels * multiplier, 1, *kernel))
    return _conv(call, x, turned, channels, kernel)


@operator("Conv2DBackpropInput")
def conv2d_transpose(call: Call) -> Value:
    """Operands: the result's shape (or its height and width), filters (height, width, result's channels, x's), x."""
    g, w, x = call.g, call.operand(1), call.operand(2)
    image = Image(call)
    wanted = call.integers(0, "input_sizes")
    height = 2 if image.axis == 1 else 1
    size = wanted if len(wanted) == 2 else wanted[height : height + 2]
    if len(wanted) not in (2, 4) or any(dim < 0 for dim in wanted):
        raise GraphError(f"operand 0 (input_sizes) is {wanted}; it takes the shape of a batch of images")
    kernel = _filter(w)
    x = image.first(x)
    strides, dilations = _attribute(call, image, "strides"), _attribute(call, image, "dilations")
    pads = image.pads(call, size, kernel, strides, dilations)
    extra = []
    for axis, (low, high) in enumerate(pads):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        extra.append(size[axis] - ((x.type.shape[2 + axis] - 1) * strides[axis] + reach - low - high))
    if any(not 0 <= more < stride for more, stride in zip(extra, strides, strict=True)):
        raise GraphError(f"no convolution turns {size} positions into the {x.type.shape[2:]} of operand 2")
    if w.type.shape[3] != x.type.shape[1] or (len(wanted) == 4 and w.type.shape[2] != wanted[image.axis]):
        raise GraphError(f"filters of shape {w.type.shape} do not turn {x.type.shape[1]} channels into {wanted}")
    turned = g.op("transpose", w, perm=(3, 2, 0, 1))
    y = composites.conv_transpose(
        g, x, turned, strides=strides, pads=pads, dilations=dilations, output_padding=tuple(extra)
    )
    return image.back(y)


# ---- bias, and the fused forms


def _add_bias(call: Call, x: Value, bias: Value, axis: int) -> Value:
    if x.type.rank < 2 or bias.type.shape != (x.type.shape[axis],):
        raise GraphError(f"a bias of shape {bias.type.shape} does not fit an operand of shape {x.type.shape}")
    return call.g.op("add", x, composites.along(call.g, bias, x.type.rank, axis))


@operator("BiasAdd", "BiasAddV1")
def bias_add(call: Call) -> Value:
    """Channels are the last axis, or axis 1 of NCHW (and of NCDHW)."""
    axis = 1 if call.text("data_format", "NHWC").startswith("NC") else -1
    return _add_bias(call, call.operand(0), call.operand(1), axis)


def _fused(call: Call, y: Value, axis: int, first: int) -> Value:
    """Apply what attribute 'fused_ops' lists to y; their operands start with operand `first`."""
    at = first
    for name in call.texts("fused_ops"):
        match name:
            case "BiasAdd":
                y = _add_bias(call, y, call.operand(at), axis)
                at += 1
            case "Add":
                y = call.g.op("add", y, call.operand(at))
                at += 1
            case "FusedBatchNorm":
                scale, offset, mean, variance = (call.operand(at + index) for index in range(4))
                y = composites.batch_norm(
                    call.g, y, scale, offset, mean, variance, call.number("epsilon", 1e-4), axis
                )
                at += 4
            case _:
                y = activation(call.g, name, y, call.number("leakyrelu_alpha", LEAKY_ALPHA))
    return y


@operator("_FusedConv2D", "FusedConv2D")
def fused_conv2d(call: Call) -> Value:
    return _fused(call, conv2d(call), Image(call).axis, 2)


@operator("_FusedDepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
def fused_depthwise(call: Call) -> Value:
    return _fused(call, depthwise(call), Image(call).axis, 2)


# ---- matrix products


@operator("MatMul")
def matmul(call: Call) -> Value:
    a, b = call.operand(0), call.operand(1)
    for index, matrix in enumerate((a, b)):
        if matrix.type.rank != 2:
            raise GraphError(f"operand {index} has shape {matrix.type.shape}; it takes matrices")
    transpose_a, transpose_b = call.flag("transpose_a", False), call.flag("transpose_b", False)
    return composites.gemm(call.g, a, b, transpose_a=transpose_a, transpose_b=transpose_b)


@operator("_FusedMatMul")
def fused_matmul(call: Call) -> Value:
    return _fused(call, matmul(call), -1, 2)


@operator("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_matmul(call: Call) -> Value:
    a, b = call.operand(0), call.operand(1)
    if a.type.rank < 2 or b.type.rank < 2:
        raise GraphError(f"operands of shapes {a.type.shape} and {b.type.shape}; it takes matrices")
    a = composites.transpose_last(call.g, a) if call.flag("adj_x", False) else a
    b = composites.transpose_last(call.g, b) if call.flag("adj_y", False) else b
    return composites.matmul(call.g, a, b)


# ---- pooling

Pool = Callable[[Value, Shape, Shape, Pads], Value]


def _pool(call: Call, kernel: tuple[int, ...], strides: tuple[int, ...], pool: Pool) -> Value:
    image = Image(call)
    x = image.first(call.operand(0))
    taps, steps = image.spatial(kernel, "ksize"), image.spatial(strides, "strides")
    pads = image.pads(call, x.type.shape[2:], taps, steps, (1, 1))
    return image.back(pool(x, taps, steps, pads))


@operator("MaxPool")
def max_pool(call: Call) -> Value:
    """A NaN is the largest element of its window, always; TensorFlow keeps or drops it by its position."""
    pool = partial(composites.max_pool, call.g)
    return _pool(call, call.wholes("ksize") or (), call.wholes("strides") or (), pool)


@operator("MaxPoolV2")
def max_pool_operands(call: Call) -> Value:
    pool = partial(composites.max_pool, call.g)
    return _pool(call, call.integers(1, "ksize"), call.integers(2, "strides"), pool)


@operator("AvgPool")
def avg_pool(call: Call) -> Value:
    """Pads do not count."""
    pool = partial(composites.avg_pool, call.g)
    return _pool(call, call.wholes("ksize") or (), call.wholes("strides") or (), pool)
