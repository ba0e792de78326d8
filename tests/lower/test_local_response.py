"""Local response normalisation behind a convolution: one kernel in blocked channels, as exact as PyTorch's."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tilewright.compiler.ir import F32, Graph, TensorType
from tilewright.compiler.ops import GraphBuilder, composites
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.targets import host
from tilewright.runtime.artifact import Artifact
from tilewright.runtime.executable import Executable

Array = NDArray[Any]
CONV = {"strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1), "groups": 1}


def normalising(channels: int, size: int, alpha: float, beta: float, bias: float) -> Graph:
    """A network of a convolution that copies its input (1, channels, 9, 5), the normalisation and a pool."""
    g = GraphBuilder("network")
    x = g.input("x", TensorType(F32, (1, channels, 9, 5)))
    same = g.constant(np.eye(channels, dtype=np.float32)[:, :, None, None])
    y = composites.lrn(g, g.op("conv", x, same, **CONV), size, alpha, beta, bias)
    pooled = composites.max_pool(g, y, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return g.finish({"y": pooled})


def computed(artifact: Artifact, x: Array) -> Array:
    (spec,) = artifact.manifest.outputs
    y = np.full(spec.shape, np.nan, np.float32)
    Executable(artifact).run([x], [y])
    return y


@pytest.mark.parametrize("channels", [16, 33, 96])
@pytest.mark.parametrize(
    ("size", "alpha", "beta", "bias"),
    [(5, 1e-4, 0.75, 1.0), (3, 0.5, 0.5, 2.0), (7, 0.35, 1.0, 0.1), (1, 1.0, 0.6, 1.0)],
)
def test_as_exact_as_pytorch(channels: int, size: int, alpha: float, beta: float, bias: float) -> None:
    artifact = compile_graph(normalising(channels, size, alpha, beta, bias), host())
    templates = [kernel.template for kernel in artifact.manifest.kernels]
    assert templates.count("channel_squares") == 1 and "nest" not in templates
    x = np.random.default_rng(channels + size).standard_normal((1, channels, 9, 5)).astype(np.float32) * 3

    def exact(dtype: torch.dtype) -> Array:
        y = F.local_response_norm(torch.from_numpy(x).to(dtype), size, alpha, beta, bias)
        return np.asarray(F.max_pool2d(y, 3, 2, 1))

    expected = exact(torch.float64)
    theirs = np.sqrt(np.mean((exact(torch.float32) - expected) ** 2))
    ours = np.sqrt(np.mean((computed(artifact, x) - expected) ** 2))
    assert ours <= 1.1 * theirs, f"{ours / theirs:.2f}x PyTorch's"


def test_what_two_parameters_read_counts_once() -> None:
    artifact = compile_graph(normalising(48, 5, 1e-4, 0.75, 1.0), host())
    (kernel,) = [kernel for kernel in artifact.manifest.kernels if kernel.template == "channel_squares"]
    assert kernel.bytes == 2 * 48 * 9 * 5 * 4


def test_without_a_bias_zeros_give_nan() -> None:
    x = np.ones((1, 33, 9, 5), np.float32)
    x[:, :, :2] = 0
    y = computed(compile_graph(normalising(33, 5, 1.0, 0.75, 0.0), host()), x)
    assert np.isnan(y[:, :, :2]).all() and np.isfinite(y[:, :, 2:]).all()
