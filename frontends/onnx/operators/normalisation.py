"""Normalisations, as at inference."""

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError, UnsupportedError
from tilewright.frontends.onnx.operators.table import Call, operator

EPSILON = 1e-5


@operator("BatchNormalization", since=7)
def batch_normalization(call: Call) -> Value:
    """Results beyond the first exist in training only."""
    if call.whole("training_mode", 0):
        raise UnsupportedError("it is in training mode; export the model for inference")
    if call.results > 1:
        raise UnsupportedError(
            "its statistics are asked for, which exist in training only; export it for inference"
        )
    if not call.whole("spatial", 1):
        raise UnsupportedError("it normalises every position by itself (spatial=0); export with spatial=1")
    x, scale, bias, mean, variance = (call.operand(index) for index in range(5))
    return composites.batch_norm(call.g, x, scale, bias, mean, variance, call.number("epsilon", EPSILON))


@operator("InstanceNormalization", since=6)
def instance_normalization(call: Call) -> Value:
    x, scale, bias = (call.operand(index) for index in range(3))
    return composites.instance_norm(call.g, x, scale, bias, call.number("epsilon", EPSILON))


@operator("LRN", since=1)
def lrn(call: Call) -> Value:
    return composites.lrn(
        call.g,
        call.operand(0),
        size=call.whole("size"),
        alpha=call.number("alpha", 1e-4),
        beta=call.number("beta", 0.75),
        bias=call.number("bias", 1.0),
    )


@operator("LayerNormalization", since=17)
def layer_normalization(call: Call) -> list[Value]:
    """Normalises all axes from `axis` on; the mean and the inverse deviation are results, too."""
    g, x = call.g, call.operand(0)
    axes = tuple(range(call.axis(call.whole("axis", -1), x.type.rank), x.type.rank))
    normal, mean, factor = composites.normalise(g, x, axes, call.number("epsilon", EPSILON))
    scaled = g.op("mul", normal, call.operand(1))
    bias = call.optional(2)
    return [scaled if bias is None else g.op("add", scaled, bias), mean, factor]


@operator("RMSNormalization", since=23)
def rms_normalization(call: Call) -> Value:
    x = call.operand(0)
    axes = tuple(range(call.axis(call.whole("axis", -1), x.type.rank), x.type.rank))
    return composites.rms_norm(call.g, x, call.operand(1), axes, call.number("epsilon", EPSILON))


@operator("MeanVarianceNormalization", since=9)
def mean_variance_normalization(call: Call) -> Value:
    """(x - mean) / (standard deviation + 1e-9), as in the specification's function body."""
    g, x = call.g, call.operand(0)
    axes = call.axes(call.wholes("axes") or (0, 2, 3), x.type.rank)
    mean = composites.mean(g, x, axes, True)
    square = composites.mean(g, g.op("mul", x, x), axes, True)
    deviation = g.op("sqrt", g.op("sub", square, g.op("mul", mean, mean)))
    return g.op("div", g.op("sub", x, mean), g.op("add", deviation, g.scalar(1e-9, x)))


@operator("GroupNormalization", since=18)
def group_normalization_by_group(call: Call) -> Value:
    """Scale and bias have one element a group; spread them to one a channel."""
    g, x, groups = call.g, call.operand(0), call.whole("num_groups")
    if x.type.rank < 2 or groups < 1 or x.type.shape[1] % groups:
        raise GraphError(f"{groups} groups do not divide the channels of an operand of shape {x.type.shape}")
    size = x.type.shape[1] // groups

    def spread(vector: Value) -> Value:
        column = g.op("reshape", vector, shape=(groups, 1))
        return g.op("reshape", g.op("broadcast", column, shape=(groups, size)), shape=(groups * size,))

    scale, bias = spread(call.operand(1)), spread(call.operand(2))
    return composites.group_norm(g, x, groups, scale, bias, call.number("epsilon", EPSILON))


@operator("GroupNormalization", since=21)
def group_normalization(call: Call) -> Value:
    x, scale, bias = (call.operand(index) for index in range(3))
    return composites.group_norm(
        call.g, x, call.whole("num_groups"), scale, bias, call.number("epsilon", EPSILON)
    )
