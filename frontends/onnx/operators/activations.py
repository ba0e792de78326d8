"""Activations and softmax."""

import numpy as np

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError
from tilewright.frontends.onnx.operators.table import Call, operator


@operator("Relu", since=6)
def relu(call: Call) -> Value:
    return call.g.op("relu", call.operand(0))


@operator("Sigmoid", since=6)
def sigmoid(call: Call) -> Value:
    return call.g.op("sigmoid", call.operand(0))


@operator("Tanh", since=6)
def tanh(call: Call) -> Value:
    return call.g.op("tanh", call.operand(0))


@operator("LeakyRelu", since=6)
def leaky_relu(call: Call) -> Value:
    return composites.leaky_relu(call.g, call.operand(0), call.number("alpha", 0.01))


@operator("PRelu", since=7)
def prelu(call: Call) -> Value:
    """The slope broadcasts to the operand; a vector of as many slopes as channels means one a channel.

    That is not what the specification says, but what old exporters wrote and every engine accepts; it is
    taken only where the slope does not broadcast.
    """
    g, x, slope = call.g, call.operand(0), call.operand(1)
    if slope.type.rank == 1 and x.type.rank > 2 and slope.type.shape[0] not in (1, x.type.shape[-1]):
        if slope.type.shape[0] != x.type.shape[1]:
            raise GraphError(f"a slope of shape {slope.type.shape} does not broadcast to {x.type.shape}")
        slope = g.op("reshape", slope, shape=(slope.type.shape[0], *[1] * (x.type.rank - 2)))
    return composites.prelu(g, x, slope)


@operator("ThresholdedRelu", since=10)
def thresholded_relu(call: Call) -> Value:
    return composites.thresholded_relu(call.g, call.operand(0), call.number("alpha", 1.0))


@operator("Elu", since=6)
def elu(call: Call) -> Value:
    return composites.elu(call.g, call.operand(0), call.number("alpha", 1.0))


@operator("Celu", since=12)
def celu(call: Call) -> Value:
    return composites.celu(call.g, call.operand(0), call.number("alpha", 1.0))


@operator("Selu", since=6)
def selu(call: Call) -> Value:
    return composites.selu(
        call.g,
        call.operand(0),
        call.number("alpha", 1.6732631921768188),
        call.number("gamma", 1.0507010221481323),
    )


@operator("Softplus", since=1)
def softplus(call: Call) -> Value:
    return composites.softplus(call.g, call.operand(0))


@operator("Softsign", since=1)
def softsign(call: Call) -> Value:
    return composites.softsign(call.g, call.operand(0))


@operator("HardSigmoid", since=6)
def hard_sigmoid(call: Call) -> Value:
    return composites.hard_sigmoid(
        call.g, call.operand(0), call.number("alpha", 0.2), call.number("beta", 0.5)
    )


@operator("HardSwish", since=14)
def hard_swish(call: Call) -> Value:
    return composites.hard_swish(call.g, call.operand(0))


@operator("Gelu", since=20)
def gelu(call: Call) -> Value:
    form = call.text("approximate", "none")
    if form not in ("none", "tanh"):
        raise GraphError(f"attribute 'approximate' is '{form}'; it can be none or tanh")
    return composites.gelu(call.g, call.operand(0), approximate=form == "tanh")


@operator("Mish", since=18)
def mish(call: Call) -> Value:
    return composites.mish(call.g, call.operand(0))


@operator("Swish", since=24)
def swish(call: Call) -> Value:
    return composites.swish(call.g, call.operand(0), call.number("alpha", 1.0))


@operator("Shrink", since=9)
def shrink(call: Call) -> Value:
    return composites.shrink(call.g, call.operand(0), call.number("lambd", 0.5), call.number("bias", 0.0))


def _softmax_axes(call: Call) -> tuple[int, ...]:
    """The axes normalised together: one, but before opset 13 all from `axis` on."""
    rank = call.operand(0).type.rank
    if call.node.opset >= 13:
        return (call.axis(call.whole("axis", -1), rank),)
    axis = call.whole("axis", 1)
    first = axis if axis == rank else call.axis(axis, rank)
    return tuple(range(first, rank))


@operator("Softmax", since=1)
def softmax(call: Call) -> Value:
    return composites.softmax(call.g, call.operand(0), _softmax_axes(call))


@operator("LogSoftmax", since=1)
def log_softmax(call: Call) -> Value:
    return composites.log_softmax(call.g, call.operand(0), _softmax_axes(call))


@operator("Hardmax", since=13)
def hardmax(call: Call) -> Value:
    """1 at the first maximum along the axis, 0 elsewhere."""
    g, x = call.g, call.operand(0)
    axis = call.axis(call.whole("axis", -1), x.type.rank)
    where = g.op("argmax", x, axis=axis, keepdims=True)
    shape = [1] * x.type.rank
    shape[axis] = x.type.shape[axis]
    positions = g.constant(np.arange(x.type.shape[axis], dtype=np.int64).reshape(shape))
    return g.op("cast", g.op("equal", where, positions), dtype=x.type.dtype)
