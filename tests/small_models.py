"""Small ONNX models for the tests of the public interface, and what PyTorch makes of them.

    small_network()          conv1_1, pool1, conv2_1, global pooling, fc3; input "image" 1x3x16x24
    reference(x)             {"conv1_1": .., "conv2_1": .., "fc3": ..} for x: (1, 3, H, W)

Weights are fixed random numbers.
"""

from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

_RANDOM = np.random.default_rng(3)
WEIGHTS: dict[str, Array] = {
    "w1": _RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32) / 5,
    "b1": _RANDOM.standard_normal(4).astype(np.float32),
    "w2": _RANDOM.standard_normal((6, 4, 3, 3)).astype(np.float32) / 6,
    "b2": _RANDOM.standard_normal(6).astype(np.float32),
    "w3": _RANDOM.standard_normal((6, 5)).astype(np.float32),
    "b3": _RANDOM.standard_normal(5).astype(np.float32),
}


def model_of(
    nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], weights: dict[str, Array]
) -> bytes:
    """An ONNX file of float tensors."""
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", *ports, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def small_network(shape: tuple[int | str, ...] = (1, 3, 16, 24), channels_last: bool = False) -> bytes:
    """Two convolutions with ReLU, pooling between them, a dense layer; input `image`, output `scores`."""
    node = helper.make_node
    nodes = [node("Transpose", ["image"], ["planar"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes += [
        node("Conv", ["planar" if channels_last else "image", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], name="first_relu"),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], name="second", pads=[1] * 4),
        node("Relu", ["c2"], ["r2"], name="second_relu"),
        node("GlobalAveragePool", ["r2"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("Gemm", ["flat", "w3", "b3"], ["scores"], name="dense"),
    ]
    return model_of(nodes, {"image": list(shape)}, {"scores": [shape[0], 5]}, WEIGHTS)


def reference(x: Array) -> dict[str, Array]:
    """Each layer's output for (N, 3, H, W), by PyTorch."""
    w = {name: torch.from_numpy(array) for name, array in WEIGHTS.items()}
    first = F.relu(F.conv2d(torch.from_numpy(x), w["w1"], w["b1"], padding=1))
    second = F.relu(F.conv2d(F.max_pool2d(first, 2), w["w2"], w["b2"], padding=1))
    scores = second.mean((2, 3)) @ w["w3"] + w["b3"]
    return {"conv1_1": first.numpy(), "conv2_1": second.numpy(), "scores": scores.numpy()}
