"""Whole networks in hostile memory: NaN everywhere before each call, and a fault one element past every buffer.

Each network runs twice in the same workspace at vector widths of 16, 8, 4 and 1 lanes; the second run must give the
same bits as the first, and both must agree with PyTorch.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import Bottleneck, InvertedResidual, export
from support import guarded
from torch import nn

from tilewright.compiler import emit
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.targets import host, narrowed
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate
from tilewright.runtime.artifact import Artifact
from tilewright.runtime.executable import Executable


class Branches(nn.Module):
    """Convolutions whose results are concatenated, pooled in several ways, resized, multiplied per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 19, 5, padding=2)
        self.join = nn.Conv2d(35, 20, 1)
        self.gate = nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([torch.relu(self.a(x)), torch.sigmoid(self.b(x))], 1)
        y = self.join(nn.functional.max_pool2d(joined, 3, 2, 1))
        gate = torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        y = nn.functional.avg_pool2d(y * gate, 3, 1, 1)
        return nn.functional.interpolate(y, scale_factor=2, mode="bilinear")


class Attention(nn.Module):
    """Self-attention with three heads, a residual, layer normalisation and a GELU layer."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(24, 72), nn.LayerNorm(24)
        self.wide = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(2, (3, 8)).transpose(1, 2) for part in self.project(x).chunk(3, 2))
        mixed = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, -1) @ v
        return x + self.wide(self.norm(x + mixed.transpose(1, 2).flatten(2)))


def small_convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 17, 3, 2, 1), nn.BatchNorm2d(17), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Conv2d(17, 33, 5),
        nn.Tanh(), nn.Flatten(), nn.Linear(33 * 9, 13), nn.Softmax(-1),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convnet": (small_convnet, (2, 3, 29, 29)),
    "bottleneck": (lambda: Bottleneck(24, 16, 2), (1, 24, 13, 11)),
    "inverted": (lambda: InvertedResidual(17, 17, 1, 6), (1, 17, 7, 9)),
    "branches": (Branches, (1, 16, 14, 17)),
    "attention": (Attention, (2, 11, 24)),
    "deconvolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(5, 18, 3, 2, 1, 1), nn.ELU(), nn.Conv2d(18, 18, 3, groups=3)),
        (1, 5, 6, 7),
    ),
    "sequence": (lambda: nn.Sequential(nn.Conv1d(7, 20, 5, 2, 2), nn.GELU(), nn.MaxPool1d(3)), (2, 7, 50)),
    "volume": (lambda: nn.Sequential(nn.Conv3d(2, 5, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2)), (1, 2, 6, 7, 9)),
}  # fmt: skip


class HostileExecutable(Executable):
    """Runs in memory that it fills with NaN first, in which every buffer ends at a page that faults."""

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        super().__init__(artifact, threads)
        self.constants = guarded(artifact.constants)
        self._constants = self.constants.ctypes.data

    def _workspace(self) -> np.ndarray:
        return guarded(np.full(self._workspace_bytes, 0xFF, np.uint8))

    def run_hostile(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        self._frames.clear()
        outputs = []
        for spec in self.manifest.outputs:
            size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
            outputs.append(guarded(np.full(size, 0xFF, np.uint8)).view(spec.dtype).reshape(spec.shape))
        self.run([guarded(array) for array in inputs], outputs)
        return outputs


@pytest.mark.parametrize("bits", [512, 256, 128, 32])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_network_in_hostile_memory(name: str, bits: int) -> None:
    if bits > host().vector_bits:
        pytest.skip(f"this machine has no {bits}-bit vectors")
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module = make().eval()
    x = torch.randn(shape)
    with torch.no_grad():
        expected = module(x).numpy()
    graph = translate(read_model(export(module, shape)))
    executable = HostileExecutable(compile_graph(graph, narrowed(host(), bits)))
    (first,) = executable.run_hostile([x.numpy()])
    (second,) = executable.run_hostile([x.numpy()])
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - expected).max() <= 1e-5 * (expected.max() - expected.min())


@pytest.mark.parametrize("name", list(NETWORKS))
def test_any_number_of_threads_gives_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item of every kernel is a chunk of its own, and the kernels' scratch is NaN before each call."""
    monkeypatch.setattr(emit, "chunks", lambda kernels: [kernel.items for kernel in kernels])
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    artifact = compile_graph(translate(read_model(export(make().eval(), shape))), host())
    x = torch.randn(shape).numpy()
    (expected,) = HostileExecutable(artifact).run_hostile([x])
    for threads in (2, 3, 8):
        executable = HostileExecutable(artifact, threads)
        for _ in range(5):
            (got,) = executable.run_hostile([x])
            np.testing.assert_array_equal(got, expected)
