"""How far are results from exact ones, beside PyTorch's? Errors against a run in double precision.

    python benchmarks/accuracy.py [vgg16 resnet50 mobilenetv2]

Each row gives root mean square errors as a share of the exact result's: of PyTorch, of Tilewright with convolutions
computed directly, and as it chooses by itself (Winograd for many 3x3 layers). First single layers like VGG-16's,
then whole networks with random weights. Tilewright aims at no more than 1.5 times PyTorch's error for direct
convolutions, and 5 times with Winograd.
"""

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from networks import build, export

import tilewright as tw

NETWORKS = ("vgg16", "resnet50", "mobilenetv2")
LAYERS = ((64, 64, 224), (128, 128, 112), (256, 256, 56), (512, 512, 28), (512, 512, 14), (512, 512, 7), (16, 16, 56))


def rms(values: NDArray[np.float64]) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))


def errors(name: str, module: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    """{"model": name, "torch": .., "direct": .., "auto": ..}"""
    with torch.inference_mode():
        exact = copy.deepcopy(module).double()(x.double()).numpy()
        results = {"torch": module(x).numpy()}
    data = export(module, tuple(x.shape))
    for conv in ("direct", "auto"):
        results[conv] = tw.compile(data, conv=conv, cache=False)(x.numpy())
    return {"model": name, **{way: rms(y - exact) / rms(exact) for way, y in results.items()}}


def rows(networks: Sequence[str] = NETWORKS) -> Iterator[dict[str, Any]]:
    """Single layers, then these networks."""
    torch.manual_seed(0)
    for inputs, outputs, size in LAYERS:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1)
        yield errors(f"3x3 {inputs}-{outputs}@{size}", layer, torch.relu(torch.randn(1, inputs, size, size)))
    for name in networks:
        module, shape = build(name)
        yield errors(name, module, torch.rand(shape, generator=torch.Generator().manual_seed(1)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure errors against double precision, beside PyTorch's.")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    print(f"{'':24} {'torch':>9}  {'direct':>9}  {'auto':>9}  direct    auto")
    for row in rows(parser.parse_args().networks):
        shown = "  ".join(f"{row[way]:9.2e}" for way in ("torch", "direct", "auto"))
        ratios = "  ".join(f"{row[way] / row['torch']:5.2f}x" for way in ("direct", "auto"))
        print(f"{row['model']:24} {shown}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
