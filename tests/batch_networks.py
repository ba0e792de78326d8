"""Networks whose leading dimension is left open, for the tests of models compiled for any number of samples.

module, data, sample = exported("mnist")     a PyTorch module, its ONNX model with input "x", the shape of a sample
numbers(3, *sample)                          random numbers, for one shape always the same
"""

import warnings
from typing import Any

import numpy as np
import torch
from networks import Bottleneck, InvertedResidual, draw_weights, export, mnist_convnet
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]


class Block(nn.Module):
    """Attention over 12 tokens and a class token, as a transformer for images has it; the samples may move axes."""

    def __init__(self, leading: bool) -> None:
        super().__init__()
        self.leading = leading
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.places = nn.Parameter(torch.randn(1, 13, 32))
        self.attention = nn.MultiheadAttention(32, 4, batch_first=leading)
        self.before, self.after = nn.LayerNorm(32), nn.LayerNorm(32)
        self.dense = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        """The class token's result."""
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        h = self.before(x)
        if self.leading:
            mixed = self.attention(h, h, h, need_weights=False)[0]
        else:
            h = h.transpose(0, 1)
            mixed = self.attention(h, h, h, need_weights=False)[0].transpose(0, 1)
        x = x + mixed
        return (x + self.dense(self.after(x)))[:, 0]


def small_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Bottleneck(32, 16, 1),
        Bottleneck(64, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def small_mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6(), InvertedResidual(16, 16, 1, 6),
        InvertedResidual(16, 24, 2, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10), nn.Softmax(-1),
    )  # fmt: skip


def large_convolutions() -> nn.Module:
    """Work enough that samples are computed one by one."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(),
        nn.Linear(64 * 256, 20),
    )  # fmt: skip


MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mnist": (mnist_convnet, (1, 28, 28)),
    "resnet": (small_resnet, (3, 32, 32)),
    "mobilenet": (small_mobilenet, (3, 32, 32)),
    "attention": (lambda: Block(True), (12, 32)),
    "attention, tokens first": (lambda: Block(False), (12, 32)),
    "large": (large_convolutions, (3, 64, 64)),
}


def exported(name: str) -> tuple[nn.Module, bytes, tuple[int, ...]]:
    """A module with random weights, its ONNX model with leading dimension "N", and the shape of a sample."""
    make, sample = MODULES[name]
    torch.manual_seed(1)
    torch.backends.mha.set_fastpath_enabled(False)  # which has no ONNX form
    module = draw_weights(make()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module, export(module, (2, *sample), batch="N"), sample


def numbers(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)
