"""The networks that tests and benchmarks share, as PyTorch modules with random weights, and their ONNX export.

    module, shape = build("resnet50")
    data = export(module, shape)             bytes of an ONNX model: input "x", output "y"

Weights are He-initialised and normalisation statistics drawn at random, so that no layer is trivial.
"""

import io
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


def vgg16() -> nn.Module:
    """VGG-16 (Simonyan and Zisserman 2014), configuration D."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width == 0:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    dense = [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, *dense, nn.Dropout(), nn.Linear(4096, 1000))


class Bottleneck(nn.Module):
    """A residual block of ResNet-50 (He et al. 2015), stride in the 3x3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        )  # fmt: skip
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != 4 * width:
            self.skip = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Body and skip, added."""
        return torch.relu(self.body(x) + self.skip(x))


def resnet50() -> nn.Module:
    """ResNet-50."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(count):
            layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class InvertedResidual(nn.Module):
    """A block of MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()]
        layers += [nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU6()]
        layers += [nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Body, added to the input where shapes agree."""
        return x + self.body(x) if self.residual else self.body(x)


def mobilenetv2() -> nn.Module:
    """MobileNetV2 at width 1."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    channels = 32
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, width, count, stride in rows:
        for block in range(count):
            layers.append(InvertedResidual(channels, width, stride if block == 0 else 1, expansion))
            channels = width
    layers += [nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


def mnist_convnet() -> nn.Module:
    """The MNIST ConvNet: two 5x5 convolutions of 32 channels, each pooled, then 256 and 10 dense units."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10), nn.Softmax(-1),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "vgg16": (vgg16, (1, 3, 224, 224)),
    "resnet50": (resnet50, (1, 3, 224, 224)),
    "mobilenetv2": (mobilenetv2, (1, 3, 224, 224)),
    "mnist": (mnist_convnet, (1, 1, 28, 28)),
}


def build(name: str) -> tuple[nn.Module, Shape]:
    """A network in inference mode with reproducible weights, and its input shape."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return draw_weights(make()).eval(), shape


def draw_weights(module: nn.Module) -> nn.Module:
    """The module with new random weights and statistics, from PyTorch's generator."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0, 0.01)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.05)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, 0, 0.05)
    return module


def export(module: nn.Module, shape: Shape, batch: str | None = None) -> bytes:
    """The module as an ONNX model with input "x" of `shape` and output "y"; `batch` names their leading dimension."""
    file = io.BytesIO()
    axes = None if batch is None else {"x": {0: batch}, "y": {0: batch}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter is deprecated, the other one needs onnxscript
        torch.onnx.export(
            module, (torch.zeros(shape),), file, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"],
            dynamic_axes=axes,
        )  # fmt: skip
    return file.getvalue()
