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
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from networks import build, export

import tilewright as tw

LAYERS = ((64, 64, 224), (128, 128, 112), (256, 256, 56), (512, 512, 28), (512, 512, 14), (512, 512, 7), (16, 16, 56))


def rms(values: NDArray[np.float64]) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))


def row(name: str, module: nn.Module, x: torch.Tensor) -> None:
    """Print one line."""
    with torch.inference_mode():
        exact = copy.deepcopy(module).double()(x.double()).numpy()
        theirs = module(x).numpy()
    data = export(module, tuple(x.shape))
    direct, auto = (tw.compile(data, conv=conv, cache=False)(x.numpy()) for conv in ("direct", "auto"))
    errors = [rms(y - exact) / rms(exact) for y in (theirs, direct, auto)]
    ratios = "  ".join(f"{error / errors[0]:5.2f}x" for error in errors[1:])
    print(f"{name:24} {'  '.join(f'{error:9.2e}' for error in errors)}  {ratios}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure errors against double precision, beside PyTorch's.")
    parser.add_argument("networks", nargs="*", default=["vgg16", "resnet50", "mobilenetv2"])
    torch.manual_seed(0)
    print(f"{'':24} {'torch':>9}  {'direct':>9}  {'auto':>9}  direct    auto")
    for inputs, outputs, size in LAYERS:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1)
        row(f"3x3 {inputs}-{outputs}@{size}", layer, torch.relu(torch.randn(1, inputs, size, size)))
    for name in parser.parse_args().networks:
        module, shape = build(name)
        row(name, module, torch.rand(shape, generator=torch.Generator().manual_seed(1)))


if __name__ == "__main__":
    main()
