"""What users may call the tensors of a model, and its layers.

    layers(model)   (Layer(0, "conv1_1", op="Conv2D", node="conv1/Conv2D", tensor="conv1/Relu"), ...)
    resolve(model, "conv1_2")  ->  Input("block2/Relu", 0)

A layer is a convolution, a dense layer (MatMul with constant weights) or a pooling, in the model's order; see
tilewright.frontends.layers for their names.

A name is looked up as a signature's output, as a tensor (`name`, `name:1`), as a friendly name, and at last as the end
of one node's name (`dense/MatMul` for `model/call/dense/MatMul`). A number is a layer's index.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np

from tilewright.compiler.ir import Shape
from tilewright.errors import GraphError, TilewrightError, UnknownNameError
from tilewright.frontends.layers import Layer, LayerNames, numbered
from tilewright.frontends.tensorflow.attributes import read_input
from tilewright.frontends.tensorflow.model import Input, Model, Node, Tensor
from tilewright.frontends.tensorflow.sorting import in_order, reachable, wire
from tilewright.frontends.tensorflow.tracing import PASSING, constant, follow

# Convolutions: the operand that is the filter is number 1, of shape (H, W, I, O), or (H, W, C, multiplier).
DEPTHWISE = {"DepthwiseConv2dNative", "FusedDepthwiseConv2dNative", "_FusedDepthwiseConv2dNative"}
CONVOLUTIONS = {"Conv2D", "_FusedConv2D", "Conv2DBackpropInput"} | DEPTHWISE
DENSE = {"MatMul", "_FusedMatMul"}
POOLS = {"MaxPool", "MaxPoolV2", "AvgPool"}
ACTIVATIONS = {
    "Relu", "Relu6", "LeakyRelu", "Prelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign",
}  # fmt: skip
NORMALISATIONS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "LRN", "BiasAdd"} | PASSING
ARITHMETIC = {"Add", "AddV2", "BiasAdd", "Mul", "Sub", "RealDiv"}


def layers(model: Model) -> tuple[Layer, ...]:
    """The layers that the model's outputs need, in order; GraphError for a cyclic or incomplete graph."""
    names = wire(model)
    outputs = [tensor for tensor in model.outputs.values() if tensor.node in names]
    nodes = in_order(model, reachable(model, names, outputs))
    users: dict[Input, list[Node]] = {}
    for node in nodes:
        for tensor in dict.fromkeys(node.inputs):
            users.setdefault(tensor, []).append(node)
    constants = _constants(nodes, model)
    counted = LayerNames()
    found: list[Layer] = []
    for node in nodes:
        weights = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        taps = 0
        if node.op in CONVOLUTIONS:
            name = counted.convolution()
        elif node.op in DENSE and weights is not None and len(weights) == 2:
            name = counted.dense()
        elif node.op in POOLS:
            name = counted.pool()
        else:
            continue
        sizes = []
        if node.op not in POOLS:
            taps = _taps(node, weights or ())
            sizes = [prod(constants[tensor]) for tensor in node.inputs if tensor in constants]
            if node.op == "Conv2DBackpropInput":
                sizes = sizes[1:]  # the first one is the result's shape
        raw = Input(node.name)
        tensor, more = _after_activation(node, users, constants)
        found.append(Layer(len(found), name, node.name, node.op, str(raw), str(tensor), sum(sizes) + more, taps))
    return tuple(found)


def resolve(model: Model, wanted: str | int) -> Input:
    """The tensor that a user means; raises UnknownNameError with the closest names."""
    names = wire(model)
    if isinstance(wanted, str):
        if wanted in model.outputs:
            return model.outputs[wanted]
        exact = _exact(model, names, wanted)
        if exact is not None:
            return exact
    known: tuple[Layer, ...] = ()
    try:
        known = layers(model)
    except GraphError:
        pass  # a part that was not asked for may be broken: it has no layers, then
    if isinstance(wanted, int) or (wanted.isascii() and wanted.isdigit()):
        return read_input(numbered(known, wanted, model.name).tensor)
    for layer in known:
        if wanted in layer.aliases:
            return read_input(layer.tensor)
    ends = [name for name in _tails(wanted, (*names, *(alias.node for alias in model.aliases)))]
    if len(ends) == 1:
        exact = _exact(model, names, ends[0] + wanted[len(wanted.partition(":")[0]) :])
        if exact is not None:
            return exact
    candidates = [*(layer.name for layer in known), *model.outputs, *(port.name for port in model.inputs.values())]
    computed = (node.name for node in model.nodes if node.op != "Const")
    raise UnknownNameError(
        "tensor, node or layer", wanted, ends[:5] or dict.fromkeys((*candidates, *computed)), model=model.name
    )


def _exact(model: Model, names: Mapping[str, int], wanted: str) -> Input | None:
    """The tensor of this very name, None if there is none."""
    try:
        tensor = read_input(wanted)
    except GraphError:
        return None
    tensor = follow(model.aliases, tensor)
    if tensor in model.inputs or tensor.node in names:
        return tensor
    return next((given for given, port in model.inputs.items() if port.name == wanted), None)


def _tails(wanted: str, names: Iterable[str]) -> list[str]:
    """The names that end in `/wanted`, its index left out."""
    end = "/" + wanted.partition(":")[0]
    return list(dict.fromkeys(name for name in names if name.endswith(end)))


def _taps(node: Node, weights: Sequence[int]) -> int:
    """Multiply-adds for one element of a layer's result."""
    if node.op in DENSE:
        return weights[-1] if node.attributes.get("transpose_b") else weights[0]
    if len(weights) != 4:
        return 0
    if node.op in DEPTHWISE:
        return weights[0] * weights[1]
    if node.op == "Conv2DBackpropInput":
        strides = node.attributes.get("strides")
        apart = prod(step for step in strides if isinstance(step, int)) if isinstance(strides, tuple) else 1
        return weights[0] * weights[1] * weights[3] // max(apart, 1)
    return weights[0] * weights[1] * weights[2]


def _constants(nodes: Sequence[Node], model: Model) -> Mapping[Input, Shape]:
    """The shapes of the tensors that do not depend on the inputs, () where only computing it would tell."""
    found: dict[Input, Shape] = {}
    known = {node.name: node for node in nodes}
    for node in nodes:
        value = node.attributes.get("value")
        if node.op == "Const" and isinstance(value, Tensor):
            found[Input(node.name)] = tuple(max(dim, 0) for dim in value.shape)
        elif node.inputs and all(given in found and given not in model.inputs for given in node.inputs):
            shapes = [found[given] for given in node.inputs]
            try:  # arithmetic on weights; anything else that fits has as many elements, or is not a layer's
                shape = np.broadcast_shapes(*shapes)
            except ValueError:
                shape = shapes[0]
            if node.op == "ExpandDims":
                shape = _expanded(shapes[0], constant(known, node.inputs[-1]))
            found[Input(node.name)] = shapes[0] if node.op in ("Reshape", "Squeeze") else shape
    return found


def _expanded(shape: Shape, axis: Tensor | None) -> Shape:
    """A shape with another dimension of 1, if it is known where."""
    try:
        array = None if axis is None else axis.array
    except TilewrightError:
        return shape
    if array is None or array.size != 1 or array.dtype.kind not in "iu":
        return shape
    at = int(array.item())
    if not -len(shape) <= at + 1 <= len(shape) + 1:
        return shape
    at %= len(shape) + 1
    return (*shape[:at], 1, *shape[at:])


def _after_activation(
    node: Node, users: Mapping[Input, Sequence[Node]], constants: Mapping[Input, Shape]
) -> tuple[Input, int]:
    """The tensor after what belongs to a layer (bias, normalisation, activation), and their parameters."""
    tensor, parameters = Input(node.name), 0
    if node.op in POOLS:
        return tensor, 0
    while True:
        following = users.get(tensor, ())
        if {user.op for user in following} == {"Sigmoid", "Mul"} and len(following) == 2:
            gate, product = sorted(following, key=lambda user: user.op, reverse=True)
            if Input(gate.name) in product.inputs and tensor in product.inputs:
                return Input(product.name), parameters
        if len(following) != 1:
            return tensor, parameters
        (user,) = following
        others = [other for other in user.inputs if other != tensor]
        constant = all(other in constants for other in others)
        if user.op in ACTIVATIONS and constant:
            return Input(user.name), parameters
        reshaped = user.op in ("Squeeze", "Reshape") and _goes_on(users.get(Input(user.name), ()))
        if not constant or not (user.op in NORMALISATIONS or (user.op in ARITHMETIC and others) or reshaped):
            return tensor, parameters
        tensor = Input(user.name)
        if not reshaped:
            parameters += sum(prod(constants[other]) for other in others)


def _goes_on(users: Sequence[Node]) -> bool:
    """Whether a change of shape stands between a layer and its bias or activation, as Keras writes some."""
    return len(users) == 1 and users[0].op in ACTIVATIONS | ARITHMETIC | NORMALISATIONS
