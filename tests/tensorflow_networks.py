"""Networks written twice with the same weights: for TensorFlow with the channels last, and for ONNX with them first.

    frozen, exported = mobilenet(TensorFlowNet), mobilenet(OnnxNet)     bytes of a GraphDef and of a ModelProto

Inputs are called "x", outputs "y". A network is a function of a writer: `net.conv(x, 32, 3, stride=2)` and so on; `x`
is always the name of a tensor, of `net.channels[x]` channels.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tensorflow_graphs import GraphDefWriter

Array = NDArray[np.float32]


class Weights:
    """Weights drawn one after the other, so that two writers of one network draw the same."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def draw(self, *shape: int, spread: float = 1.0, around: float = 0.0) -> Array:
        """Normally distributed numbers."""
        return (self.rng.standard_normal(shape) * spread + around).astype(np.float32)

    def filters(self, size: int, channels: int, count: int, *, depthwise: bool = False) -> Array:
        """(height, width, channels, count), He-initialised."""
        fan = size * size * (1 if depthwise else channels)
        return self.draw(size, size, channels, count, spread=(2 / fan) ** 0.5)

    def statistics(self, channels: int) -> tuple[Array, Array, Array, Array]:
        """Scale, offset, mean and variance of a normalisation."""
        return (
            self.draw(channels, spread=0.1, around=1), self.draw(channels, spread=0.1),
            self.draw(channels, spread=0.1), np.abs(self.draw(channels, spread=0.1, around=1)),
        )  # fmt: skip


class TensorFlowNet:
    """Writes a GraphDef with the channels last, as Keras and TF-Slim do."""

    def __init__(self, size: int) -> None:
        self.size, self.weights, self.g = size, Weights(), GraphDefWriter()
        self.channels: dict[str, int] = {}
        self.count = 0

    def node(self, op: str, *inputs: str, channels: int, **attrs: Any) -> str:
        self.count += 1
        name = self.g.node(f"{op}_{self.count}", op, *inputs, T=np.float32, **attrs)
        self.channels[name] = channels
        return name

    def constant(self, array: NDArray[Any]) -> str:
        self.count += 1
        return self.g.constant(f"const_{self.count}", array)

    def input(self, channels: int) -> str:
        self.channels["x"] = channels
        return self.g.placeholder("x", np.float32, (1, self.size, self.size, channels))

    def conv(self, x: str, filters: int, size: int, stride: int = 1, *, dilation: int = 1, bias: bool = False) -> str:
        """Dilated ones as TensorFlow 1 wrote them: between SpaceToBatchND and BatchToSpaceND."""
        w = self.constant(self.weights.filters(size, self.channels[x], filters))
        if dilation > 1:
            side, reach = self.size, (size - 1) * dilation
            more = -(side + reach) % dilation
            block = self.constant(np.array([dilation] * 2, np.int32))
            pads = self.constant(np.array([[reach // 2, reach - reach // 2 + more]] * 2, np.int32))
            x = self.node("SpaceToBatchND", x, block, pads, channels=self.channels[x], Tblock_shape=np.int32,
                          Tpaddings=np.int32)  # fmt: skip
        y = self.node("Conv2D", x, w, channels=filters, strides=[1, stride, stride, 1],
                      padding="VALID" if dilation > 1 else "SAME")  # fmt: skip
        if bias:
            y = self.node("BiasAdd", y, self.constant(self.weights.draw(filters, spread=0.1)), channels=filters)
        if dilation > 1:
            crops = self.constant(np.array([[0, more]] * 2, np.int32))
            y = self.node("BatchToSpaceND", y, block, crops, channels=filters, Tblock_shape=np.int32, Tcrops=np.int32)
        return y

    def depthwise(self, x: str, size: int, stride: int = 1) -> str:
        w = self.constant(self.weights.filters(size, self.channels[x], 1, depthwise=True))
        return self.node("DepthwiseConv2dNative", x, w, channels=self.channels[x], strides=[1, stride, stride, 1],
                         padding="SAME")  # fmt: skip

    def batch_norm(self, x: str) -> str:
        statistics = map(self.constant, self.weights.statistics(self.channels[x]))
        return self.node("FusedBatchNormV3", x, *statistics, channels=self.channels[x], U=np.float32, epsilon=1e-3,
                         is_training=False)  # fmt: skip

    def activation(self, x: str, name: str) -> str:
        return self.node(name, x, channels=self.channels[x])

    def add(self, x: str, y: str) -> str:
        return self.node("AddV2", x, y, channels=self.channels[x])

    def max_pool(self, x: str) -> str:
        return self.node("MaxPool", x, channels=self.channels[x], ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1],
                         padding="VALID")  # fmt: skip

    def mean(self, x: str) -> str:
        axes = self.constant(np.array([1, 2], np.int32))
        return self.node("Mean", x, axes, channels=self.channels[x], Tidx=np.int32, keep_dims=False)

    def dense(self, x: str, units: int) -> str:
        w = self.constant(self.weights.draw(self.channels[x], units, spread=self.channels[x] ** -0.5))
        y = self.node("MatMul", x, w, channels=units)
        return self.node("BiasAdd", y, self.constant(self.weights.draw(units, spread=0.1)), channels=units)

    def softmax(self, x: str) -> str:
        return self.node("Softmax", x, channels=self.channels[x])

    def finish(self, y: str) -> bytes:
        self.g.node("y", "Identity", y, T=np.float32)
        return self.g.bytes()


class OnnxNet:
    """Writes a ModelProto with the channels first."""

    def __init__(self, size: int) -> None:
        self.size, self.weights = size, Weights()
        self.channels: dict[str, int] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op: str, *inputs: str, channels: int, **attrs: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attrs))
        self.channels[name] = channels
        return name

    def constant(self, array: NDArray[Any]) -> str:
        name = f"const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def input(self, channels: int) -> str:
        self.channels["x"] = channels
        return "x"

    def conv(self, x: str, filters: int, size: int, stride: int = 1, *, dilation: int = 1, bias: bool = False) -> str:
        w = self.constant(self.weights.filters(size, self.channels[x], filters).transpose(3, 2, 0, 1))
        more = [self.constant(self.weights.draw(filters, spread=0.1))] if bias else []
        return self.node("Conv", x, w, *more, channels=filters, strides=[stride] * 2, dilations=[dilation] * 2,
                         auto_pad="SAME_UPPER")  # fmt: skip

    def depthwise(self, x: str, size: int, stride: int = 1) -> str:
        channels = self.channels[x]
        w = self.constant(self.weights.filters(size, channels, 1, depthwise=True).transpose(2, 3, 0, 1))
        return self.node("Conv", x, w, channels=channels, strides=[stride] * 2, group=channels,
                         auto_pad="SAME_UPPER")  # fmt: skip

    def batch_norm(self, x: str) -> str:
        statistics = map(self.constant, self.weights.statistics(self.channels[x]))
        return self.node("BatchNormalization", x, *statistics, channels=self.channels[x], epsilon=1e-3)

    def activation(self, x: str, name: str) -> str:
        if name == "Relu6":
            limits = (self.constant(np.float32(limit)) for limit in (0, 6))
            return self.node("Clip", x, *limits, channels=self.channels[x])
        return self.node(name, x, channels=self.channels[x])

    def add(self, x: str, y: str) -> str:
        return self.node("Add", x, y, channels=self.channels[x])

    def max_pool(self, x: str) -> str:
        return self.node("MaxPool", x, channels=self.channels[x], kernel_shape=[2, 2], strides=[2, 2])

    def mean(self, x: str) -> str:
        pooled = self.node("GlobalAveragePool", x, channels=self.channels[x])
        return self.node("Flatten", pooled, channels=self.channels[x])

    def dense(self, x: str, units: int) -> str:
        w = self.constant(self.weights.draw(self.channels[x], units, spread=self.channels[x] ** -0.5))
        return self.node("Gemm", x, w, self.constant(self.weights.draw(units, spread=0.1)), channels=units)

    def softmax(self, x: str) -> str:
        return self.node("Softmax", x, channels=self.channels[x])

    def finish(self, y: str) -> bytes:
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        shape = (1, self.channels["x"], self.size, self.size)
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], self.constants,
        )  # fmt: skip
        return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


# ---- networks

Net = TensorFlowNet | OnnxNet
Writer = type[TensorFlowNet] | type[OnnxNet]


def _separable(net: Net, x: str, filters: int, stride: int) -> str:
    x = net.activation(net.batch_norm(net.depthwise(x, 3, stride)), "Relu6")
    return net.activation(net.batch_norm(net.conv(x, filters, 1)), "Relu6")


def mobilenet(writer: Writer, size: int = 224) -> bytes:
    """MobileNet-v1 (Howard et al. 2017)."""
    net = writer(size)
    x = net.activation(net.batch_norm(net.conv(net.input(3), 32, 3, 2)), "Relu6")
    for filters, stride in (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1),
    ):  # fmt: skip
        x = _separable(net, x, filters, stride)
    return net.finish(net.softmax(net.dense(net.mean(x), 1000)))


def residual(writer: Writer, size: int = 32) -> bytes:
    """Two residual blocks, the second with dilated convolutions."""
    net = writer(size)
    x = net.activation(net.batch_norm(net.conv(net.input(3), 32, 3)), "Relu")
    for dilation in (1, 2):
        y = net.activation(net.conv(x, 32, 3, dilation=dilation, bias=True), "Relu")
        x = net.activation(net.add(x, net.batch_norm(net.conv(y, 32, 3, dilation=dilation))), "Relu")
    return net.finish(net.softmax(net.dense(net.mean(x), 10)))


def vgg(writer: Writer, size: int = 32, widths: Sequence[int] = (16, 32, 48)) -> bytes:
    """Pairs of 3x3 convolutions with biases, and pooling."""
    net = writer(size)
    x = net.input(3)
    for width in widths:
        for _ in range(2):
            x = net.activation(net.conv(x, width, 3, bias=True), "Relu")
        x = net.max_pool(x)
    return net.finish(net.softmax(net.dense(net.mean(x), 10)))


NETWORKS = {"mobilenet": mobilenet, "residual": residual, "vgg": vgg}


def image(size: int, seed: int = 0) -> Array:
    """An input with the channels last."""
    count = prod((1, size, size, 3))
    return np.random.default_rng(seed).random(count, dtype=np.float32).reshape(1, size, size, 3)
