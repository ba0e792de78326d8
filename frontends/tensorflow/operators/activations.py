"""Activations and softmax."""

from functools import partial

import numpy as np

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.errors import UnsupportedError
from tilewright.frontends.tensorflow.operators.table import Call, operator

LEAKY_ALPHA = float(np.float32(0.2))
"""The default slope, a float32 as all attributes are."""


def activation(g: GraphBuilder, name: str, x: Value, alpha: float = LEAKY_ALPHA) -> Value:
    """The named activation of x, `alpha` LeakyRelu's slope; what fused operators end in, too."""
    match name:
        case "Relu" | "Sigmoid" | "Tanh":
            return g.op(name.lower(), x)
        case "Relu6":
            return composites.clip(g, x, 0.0, 6.0)
        case "LeakyRelu":
            return composites.leaky_relu(g, x, alpha)
        case "Elu":
            return composites.elu(g, x)
        case "Selu":
            return composites.selu(g, x)
        case "Softplus":
            return composites.softplus(g, x)
        case "Softsign":
            return composites.softsign(g, x)
        case "GeluExact" | "GeluApproximate":
            return composites.gelu(g, x, approximate=name == "GeluApproximate")
        case "_FusedHardSwish":
            return composites.hard_swish(g, x)
        case _:
            raise UnsupportedError(f"its fused activation '{name}' is not supported")


def _activation(name: str, call: Call) -> Value:
    alpha = call.number("alpha", LEAKY_ALPHA) if name == "LeakyRelu" else 0.0
    return activation(call.g, name, call.operand(0), alpha)


for _name in ("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign"):
    operator(_name)(partial(_activation, _name))


@operator("Prelu")
def prelu(call: Call) -> Value:
    return composites.prelu(call.g, call.operand(0), call.operand(1))


@operator("Softmax")
def softmax(call: Call) -> Value:
    return composites.softmax(call.g, call.operand(0), (-1,))


@operator("LogSoftmax")
def log_softmax(call: Call) -> Value:
    return composites.log_softmax(call.g, call.operand(0), (-1,))
