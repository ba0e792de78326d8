"""What users may call the tensors of a model, and its layers.

    layers(model)   (Layer(0, "conv1_1", op="Conv", node="block1/Conv", tensor="block1/Relu:0"), ...)
    resolve(model, "conv1_2")  ->  "block2/Relu:0"

A layer is a convolution, a dense layer (Gemm, or MatMul with constant weights) or a pooling, in the model's
order; see tilewright.frontends.layers for their names.

A name is looked up as a tensor's name, then as a friendly name or a node's name (the result of the node;
where both fit, the friendly name wins if it names this very node, the node's own name otherwise). A number is
a layer's index.
"""

from collections.abc import Mapping, Sequence
from math import prod

from tilewright.errors import GraphError, UnknownNameError
from tilewright.frontends.layers import Layer, LayerNames, numbered
from tilewright.frontends.onnx.model import Model, Node
from tilewright.frontends.onnx.sorting import needed, wire

CONVOLUTIONS = {"Conv", "ConvTranspose"}
DENSE = {"Gemm", "MatMul"}
POOLS = {"MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"}
ACTIVATIONS = {
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish",
    "Tanh", "Softplus", "Softsign", "ThresholdedRelu", "Gelu", "Mish", "Swish",
}  # fmt: skip
NORMALISATIONS = {
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "LRN",
    "Dropout",
    "Identity",
}


def layers(model: Model) -> tuple[Layer, ...]:
    """The layers that the model's outputs need, in order; GraphError for a cyclic or incomplete graph."""
    wires = wire(model)
    nodes = needed(model, wires, [port.name for port in model.outputs])
    users: dict[str, list[Node]] = {}
    for node in nodes:
        for tensor in dict.fromkeys(node.inputs):
            users.setdefault(tensor, []).append(node)
    constants = _constants(model, nodes)
    names = LayerNames()
    found: list[Layer] = []
    for node in nodes:
        if node.domain or not node.outputs or not node.inputs:
            continue
        weights = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        taps = 0
        if node.op in CONVOLUTIONS:
            name = names.convolution()
        elif node.op == "Gemm" or (node.op == "MatMul" and weights is not None and len(weights) == 2):
            name = names.dense()
        elif node.op in POOLS:
            name = names.pool()
        else:
            continue
        if weights and node.op not in POOLS:
            rows = weights[-1] if node.op == "MatMul" or not node.attributes.get("transB") else weights[0]
            taps = prod(weights) // max(weights[0] if node.op in CONVOLUTIONS else rows, 1)
        sizes = [prod(constants[tensor]) for tensor in node.inputs if tensor in constants]
        tensor, bias = _after_activation(node, users, constants)
        found.append(
            Layer(len(found), name, node.name, node.op, node.outputs[0], tensor, sum(sizes) + bias, taps)
        )
    return tuple(found)


def resolve(model: Model, wanted: str | int) -> str:
    """The tensor that a user means; raises UnknownNameError with the closest names."""
    wires = wire(model)
    if isinstance(wanted, str) and wanted in wires:
        return wanted
    known: tuple[Layer, ...] = ()
    try:
        known = layers(model)
    except GraphError:
        pass  # a part that was not asked for may be broken: it has no layers, then
    if isinstance(wanted, int) or (wanted.isascii() and wanted.isdigit()):
        return numbered(known, wanted, model.name).tensor
    friendly = {alias: layer for layer in known for alias in layer.aliases}
    named = {node.name: node for node in reversed(model.nodes) if any(node.outputs)}
    layer, node = friendly.get(wanted), named.get(wanted)
    if layer is not None and (node is None or layer.node == node.name):
        return layer.tensor
    if node is not None:
        return next(filter(None, node.outputs))
    tensors = [tensor for tensor in wires if tensor not in wires.initializers]
    candidates = [*(layer.name for layer in known), *tensors, *named]
    raise UnknownNameError("tensor, node or layer", wanted, dict.fromkeys(candidates), model=model.name)


def _constants(model: Model, nodes: Sequence[Node]) -> Mapping[str, Sequence[int]]:
    """The shapes of the tensors that do not depend on the inputs, () where only computing it would tell."""
    found: dict[str, Sequence[int]] = {name: tensor.shape for name, tensor in model.initializers.items()}
    for node in nodes:
        if all(tensor in found for tensor in node.inputs):
            value = node.attributes.get("value")
            shape = getattr(value, "shape", ())
            source = (
                model.initializers.get(node.inputs[0])
                if node.op == "ConstantOfShape" and node.inputs
                else None
            )
            if source is not None and source.array is not None:
                shape = tuple(int(dim) for dim in source.array.reshape(-1))
            elif node.op == "Identity":
                shape = found[node.inputs[0]]
            found |= {tensor: shape for tensor in node.outputs}
    return found


def _after_activation(
    node: Node, users: Mapping[str, Sequence[Node]], constants: Mapping[str, Sequence[int]]
) -> tuple[str, int]:
    """The tensor after what belongs to a layer (bias, normalisation, activation), and their parameters."""
    tensor, parameters = node.outputs[0], 0
    if node.op in POOLS:
        return tensor, 0
    while True:
        following = users.get(tensor, ())
        if {user.op for user in following} == {"Sigmoid", "Mul"} and len(following) == 2:
            gate, product = sorted(following, key=lambda user: user.op, reverse=True)
            if gate.outputs[0] in product.inputs and tensor in product.inputs:
                return product.outputs[0], parameters
        if len(following) != 1 or following[0].domain or not following[0].outputs:
            return tensor, parameters
        (user,) = following
        others = [other for other in user.inputs if other and other != tensor]
        constant = all(other in constants for other in others)
        if user.op in ACTIVATIONS and constant:
            return user.outputs[0], parameters
        if (
            not (user.op in NORMALISATIONS or (user.op in ("Add", "Mul", "Sub", "Div") and others))
            or not constant
        ):
            return tensor, parameters
        tensor = user.outputs[0]
        parameters += sum(prod(constants[other]) for other in others)
