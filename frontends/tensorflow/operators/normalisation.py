"""Normalisations, as at inference."""

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.errors import UnsupportedError
from tilewright.frontends.tensorflow.operators.formats import Image
from tilewright.frontends.tensorflow.operators.table import Call, operator


@operator("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def fused_batch_norm(call: Call) -> list[Value]:
    """Results beyond the first are of use in training only."""
    if call.flag("is_training", True):
        raise UnsupportedError("it is in training mode; freeze the model for inference")
    x, scale, offset, mean, variance = (call.operand(index) for index in range(5))
    axis = Image(call).axis
    return [composites.batch_norm(call.g, x, scale, offset, mean, variance, call.number("epsilon", 1e-4), axis)]


@operator("LRN")
def lrn(call: Call) -> Value:
    """x / (bias + alpha s) ** beta, s the sum of squares over the channels at most `depth_radius` away."""
    image = Image(call, "NHWC")
    x = image.first(call.operand(0))
    size = 2 * min(call.whole("depth_radius", 5), x.type.shape[1]) + 1  # a larger radius reaches no further channels
    y = composites.lrn(
        call.g,
        x,
        size=size,
        alpha=call.number("alpha", 1.0) * size,
        beta=call.number("beta", 0.5),
        bias=call.number("bias", 1.0),
    )
    return image.back(y)
