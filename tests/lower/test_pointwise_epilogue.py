"""What follows a convolution of row-major data is computed with it: 1x1, on vectors that run over the ends of rows."""

import numpy as np
import pytest
import torch
from networks import export
from torch import nn

import tilewright as tw
from tilewright.compiler.targets import runnable
from tilewright.errors import UnsupportedError

Shape = tuple[int, ...]


class Residual(nn.Module):
    """A grouped convolution, its bias, numbers of the given shape and the input added."""

    def __init__(self, channels: int, groups: int, shift: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, groups=groups)
        self.shift = nn.Parameter(torch.randn(shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """relu(conv(x) + shift + x)."""
        return torch.relu(self.conv(x) + self.shift + x)


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(
    ("shape", "groups", "shift", "kernels"),
    [
        ((1, 12, 7, 7), 4, (12, 1, 1), 1),
        ((2, 12, 5, 9), 2, (5, 9), 1),
        ((2, 12, 5, 9), 2, (1, 1, 1), 1),
        ((1, 12, 5, 9), 2, (9,), 2),  # counted along rows: a loop nest of its own
        ((1, 12, 5, 9), 2, (12, 5, 1), 2),
        ((1, 6, 9, 1), 2, (6, 9, 1), 1),
    ],
)
def test_values(target: str, shape: Shape, groups: int, shift: Shape, kernels: int) -> None:
    templates = check(Residual(shape[1], groups, shift), shape, target)
    assert len(templates) == kernels, templates


class Shuffled(nn.Module):
    """A grouped convolution, relu, and its channels shuffled."""

    def __init__(self, channels: int, filters: int, kernel: int, groups: int, shuffled: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, groups=groups)
        self.shuffled = shuffled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channel g * K + k of `shuffled` groups of K becomes channel k * groups + g."""
        return self.shuffle(torch.relu(self.conv(x)))

    def shuffle(self, y: torch.Tensor) -> torch.Tensor:
        """As ShuffleNet does it."""
        batch, channels, height, width = y.shape
        parts = y.reshape(batch, self.shuffled, channels // self.shuffled, height, width)
        return parts.transpose(1, 2).reshape(batch, channels, height, width)


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "groups", "shuffled"),
    [
        ((1, 24, 28, 28), 136, 1, 4, 4),
        ((2, 12, 7, 7), 36, 1, 4, 3),
        ((1, 300, 7, 7), 10, 1, 2, 5),
        ((1, 64, 56, 56), 132, 1, 4, 4),
        ((2, 6, 9, 20), 34, 3, 2, 2),
        ((1, 6, 8, 7), 34, 3, 2, 17),
    ],
)
def test_shuffled_channels(target: str, shape: Shape, filters: int, kernel: int, groups: int, shuffled: int) -> None:
    net = Shuffled(shape[1], filters, kernel, groups, shuffled)
    assert check(net, shape, target) == ["conv_pointwise" if kernel == 1 else "conv_planar"]


def test_what_is_shuffled_may_be_wanted_too() -> None:
    class Both(Shuffled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.conv(x))
            return self.shuffle(y) - y

    assert check(Both(12, 20, 1, 2, 2), (1, 12, 5, 9), "host") == ["conv_pointwise", "nest"]


def check(net: nn.Module, shape: Shape, target: str) -> list[str]:
    """Compare with PyTorch; the templates of the kernels."""
    try:
        runnable(target)
    except UnsupportedError as error:
        pytest.skip(str(error))
    torch.manual_seed(sum(shape))
    x = torch.randn(shape)
    with torch.inference_mode():
        expected = net.eval()(x).numpy()
    model = tw.compile(export(net, shape), target=target, cache=False)
    np.testing.assert_allclose(model(x.numpy()), expected, rtol=1e-5, atol=1e-5)
    return [spec.template for spec in model.executable((shape,)).manifest.kernels]
