"""Normalisations, as at inference."""

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError, UnsupportedError
from tilewright.frontends.onnx.operators.table import Call, operator

EPSILON = 1e-5


@operator("BatchNormalization", since=7)
def batch_normalization(call: Call) -> Value:
    """Results beyond the first exist in training only."""
    if call.integer("training_mode", 0):
        raise UnsupportedError("it is in training mode; export the model for inference")
    if call.results > 1:
        raise UnsupportedError("its statistics are asked for, which exist in training only; export it for inference")
    if not call.integer("spatial", 1):
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
        size=call.integer("size"),
        alpha=call.number("alpha", 1e-4),
        beta=call.number("beta", 0.75),
        bias=call.number("bias", 1.0),
    )


@operator("LayerNormalization", since=17)
def layer_normalization(call: Call) -> list[Value]:
    """Normalises all axes from `axis` on; the mean and the inverse deviation are results, too."""
    g, x = call.g, call.operand(0)
    first = call.axis(call.integer("axis", -1), x.type.rank)
    axes = tuple(range(first, x.type.rank))
    scale, bias = call.operand(1), call.optional(2)
    epsilon = call.number("epsilon", EPSILON)
    normal = composites.layer_norm(g, x, axes, scale, bias, epsilon)
    if call.results < 2:
        return [normal]
    mean = composites.mean(g, x, axes, True)
    deviation = g.op("sqrt", g.op("add", composites.variance(g, x, axes, True), g.scalar(epsilon, x)))
    return [normal, mean, g.op("reciprocal", deviation)]


@operator("RMSNormalization", since=23)
def rms_normalization(call: Call) -> Value:
    g, x = call.g, call.operand(0)
    axes = tuple(range(call.axis(call.integer("axis", -1), x.type.rank), x.type.rank))
    square = composites.mean(g, g.op("mul", x, x), axes, True)
    norm = g.op("sqrt", g.op("add", square, g.scalar(call.number("epsilon", EPSILON), x)))
    return g.op("mul", g.op("div", x, norm), call.operand(1))


@operator("MeanVarianceNormalization", since=9)
def mean_variance_normalization(call: Call) -> Value:
    """(x - mean) / (standard deviation + 1e-9), as in the specification's function body."""
    g, x = call.g, call.operand(0)
    axes = call.axes(call.integers("axes") or (0, 2, 3), x.type.rank)
    mean = composites.mean(g, x, axes, True)
    square = composites.mean(g, g.op("mul", x, x), axes, True)
    deviation = g.op("sqrt", g.op("sub", square, g.op("mul", mean, mean)))
    return g.op("div", g.op("sub", x, mean), g.op("add", deviation, g.scalar(1e-9, x)))


def _group_normalization(call: Call, scale_a_group: bool) -> Value:
    """Normalise each of `num_groups` groups of channels; scale and bias stand a group, since opset 21 a channel."""
    g, x = call.g, call.operand(0)
    groups = call.integer("num_groups")
    if x.type.rank < 2 or groups < 1 or x.type.shape[1] % groups:
        raise GraphError(f"{groups} groups do not divide the channels of an operand of shape {x.type.shape}")
    batch, channels, *rest = x.type.shape
    grouped = g.op("reshape", x, shape=(batch, groups, channels // groups, *rest))
    axes = tuple(range(2, grouped.type.rank))
    normal = composites.layer_norm(g, grouped, axes, None, None, call.number("epsilon", EPSILON))

    def spread(vector: Value) -> Value:
        if scale_a_group:
            return g.op("reshape", vector, shape=(groups, *[1] * (len(rest) + 1)))
        return g.op("reshape", vector, shape=(groups, channels // groups, *[1] * len(rest)))

    scaled = g.op("add", g.op("mul", normal, spread(call.operand(1))), spread(call.operand(2)))
    return g.op("reshape", scaled, shape=x.type.shape)


@operator("GroupNormalization", since=18)
def group_normalization_scaled_by_group(call: Call) -> Value:
    return _group_normalization(call, scale_a_group=True)


@operator("GroupNormalization", since=21)
def group_normalization(call: Call) -> Value:
    return _group_normalization(call, scale_a_group=False)
