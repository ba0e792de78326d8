"""A 2 x 2 maximum behind a convolution is computed with it where tiles hold whole windows."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from networks import export
from torch import nn

import tilewright as tw
from tilewright.compiler.targets import runnable
from tilewright.errors import UnsupportedError

Shape = tuple[int, ...]


class Net(nn.Module):
    """A convolution, then a rectifier and a maximum in either order, and perhaps a sum behind them."""

    def __init__(self, channels: int, filters: int, kernel: int, first: str, behind: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, padding=kernel // 2)
        self.shift = nn.Parameter(torch.randn(filters, 1, 1))
        self.first, self.behind = first, behind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.first == "relu":
            y = torch.max_pool2d(torch.relu(y), 2)
        else:
            y = torch.relu(torch.max_pool2d(y, 2))
        return y + self.shift if self.behind else y


@pytest.mark.parametrize("conv", ["auto", "direct"])
@pytest.mark.parametrize("target", ["host", "x86-64-v4", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "first", "behind", "fused"),
    [
        ((1, 16, 28, 28), 32, 3, "relu", False, True),
        ((2, 16, 30, 26), 32, 3, "pool", True, True),  # tiles of 4 x 4 that reach beyond the result
        ((1, 64, 56, 56), 50, 3, "relu", True, True),  # a partial block of channels
        ((3, 32, 24, 24), 50, 5, "pool", False, True),
        ((1, 64, 29, 28), 64, 3, "relu", False, False),  # the last row is in no window
    ],
)
def test_values(
    conv: Literal["auto", "direct"], target: str, shape: Shape, filters: int, kernel: int, first: str, behind: bool,
    fused: bool,
) -> None:  # fmt: skip
    check(Net(shape[1], filters, kernel, first, behind), shape, fused, target=target, conv=conv)


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(
    ("shape", "filters", "kernel"),
    [
        ((1, 1, 28, 28), 32, 5),
        ((2, 1, 22, 30), 33, 5),
        ((2, 3, 20, 34), 48, 3),
        ((1, 3, 64, 2), 16, 7),
        ((1, 2, 2, 6), 9, 1),
        ((1, 3, 10, 10), 3, 3),
        ((2, 3, 21, 20), 24, 3),
    ],
)
def test_few_channels(target: str, shape: Shape, filters: int, kernel: int) -> None:
    check(Net(shape[1], filters, kernel, "relu", True), shape, shape[2] % 2 == 0, target=target)


def check(net: Net, shape: Shape, fused: bool, **how: Any) -> None:
    """Compare with PyTorch; `fused` says whether there is no kernel for the maxima."""
    try:
        runnable(how["target"])
    except UnsupportedError as error:
        pytest.skip(str(error))
    torch.manual_seed(sum(shape))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(shape)
    with torch.inference_mode():
        expected = net.eval()(x).numpy()
    model = tw.compile(export(net, shape), cache=False, **how)
    got = model(x.numpy())
    assert np.abs(got - expected).max() <= 5e-6 * np.abs(expected).max()
    templates = [spec.template for spec in model.executable((shape,)).manifest.kernels]
    assert {"conv_winograd", "conv_direct"} & set(templates) and ("pool" in templates) != fused, templates


def test_a_result_with_other_uses_is_stored() -> None:
    class Both(Net):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
            y = torch.relu(self.conv(x))
            return torch.max_pool2d(y, 2), y

    torch.manual_seed(0)
    net, x = Both(16, 32, 3, "relu", False).eval(), torch.randn(1, 16, 28, 28)
    with torch.inference_mode():
        expected = net(x)
    for got, want in zip(tw.compile(export(net, (1, 16, 28, 28)), cache=False)(x.numpy()), expected, strict=True):
        assert np.abs(got - want.numpy()).max() <= 5e-6 * float(want.abs().max())


def test_nan_stays_in_its_window() -> None:
    torch.manual_seed(0)
    net, x = Net(16, 32, 3, "relu", False).eval(), torch.randn(1, 16, 28, 28)
    x[0, 3, 20, 9] = float("nan")
    with torch.inference_mode():
        expected = net(x).numpy()
    got = tw.compile(export(net, (1, 16, 28, 28)), cache=False)(x.numpy())
    assert np.isnan(got[np.isnan(expected)]).all()
    # Winograd's tiles spread it over their 4 x 4 results at most.
    assert not np.isnan(got[:, :, :8]).any()
