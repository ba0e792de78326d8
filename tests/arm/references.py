"""What the emulated tests compare with, made on this machine: models and rows of primitives, with PyTorch's results.

    python tests/arm/references.py FILE

FILE is a pickle, {"models": [Model], "rows": [Row], "functions": [Function]}, of plain tuples:

    Model      name, ONNX bytes, conv=, templates that it must use, input, output
    Row        name, primitive, operands, attributes, result
    Function   name, argument, PyTorch's result in float64, our result on this machine, most error in ulps
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arm.primitive import run_primitive
from loops.test_math import LIMITS, SPECIAL
from networks import Bottleneck, InvertedResidual, draw_weights, export, mnist_convnet
from primitive_rows import ROWS

from tilewright.compiler.ops import PRIMITIVES, compute
from tilewright.compiler.targets import host, narrowed

ARGUMENTS = 20_000
"""Arguments that each function is tried on."""


class Apply(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """function(x)."""
        return self.function(x)


def small_resnet() -> nn.Module:
    """The stem of a ResNet, three residual blocks with both kinds of skip, and the head."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Bottleneck(32, 16, 1), Bottleneck(64, 16, 1), Bottleneck(64, 32, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 50), nn.Softmax(-1),
    )  # fmt: skip


MODELS: dict[str, tuple[nn.Module, tuple[int, ...], str, set[str]]] = {
    "conv_direct": (nn.Conv2d(19, 37, 3, padding=1), (2, 19, 13, 17), "direct", {"conv_direct"}),
    "conv_strided": (nn.Conv2d(32, 24, 5, 2, 2, groups=2), (1, 32, 15, 14), "direct", set()),
    "conv_dilated": (nn.Conv2d(8, 12, 3, dilation=2), (1, 8, 14, 11), "auto", set()),
    "conv_1x1": (nn.Conv2d(300, 40, 1), (1, 300, 7, 7), "auto", {"conv_direct"}),
    "conv_winograd": (nn.Conv2d(64, 64, 3, padding=1), (1, 64, 30, 28), "auto", {"conv_winograd"}),
    "conv_1d": (nn.Conv1d(8, 16, 5), (1, 8, 40), "auto", set()),
    "conv_transposed": (nn.ConvTranspose2d(8, 6, 3, 2, 1), (1, 8, 7, 9), "auto", set()),
    "depthwise": (nn.Conv2d(36, 36, 3, 1, 1, groups=36), (1, 36, 15, 17), "auto", {"depthwise"}),
    "gemm": (nn.Linear(70, 45), (33, 70), "auto", {"gemm"}),
    "gemv": (nn.Linear(300, 129), (1, 300), "auto", {"gemv"}),
    "matmul": (Apply(lambda x: x @ x.transpose(1, 2)), (3, 17, 29), "auto", set()),
    "max_pool": (nn.MaxPool2d(3, 2, 1), (1, 20, 17, 15), "auto", set()),
    "average_pool": (nn.AvgPool2d(2, ceil_mode=True), (1, 5, 9, 9), "auto", set()),
    "softmax": (nn.Softmax(-1), (7, 103), "auto", set()),
    "softmax_columns": (nn.Softmax(1), (2, 11, 13), "auto", set()),
    "layer_norm": (nn.LayerNorm(77), (9, 77), "auto", set()),
    "gelu": (nn.GELU(), (5, 101), "auto", set()),
    "transpose": (Apply(lambda x: x.permute(0, 2, 3, 1) * 2), (2, 5, 7, 9), "auto", set()),
    "resize": (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 4, 7, 9), "auto", set()),
    "inverted_residual": (InvertedResidual(24, 24, 1, 6), (1, 24, 14, 14), "auto", {"depthwise"}),
    "mnist": (mnist_convnet(), (1, 1, 28, 28), "auto", {"gemv"}),
    "resnet": (small_resnet(), (1, 3, 64, 64), "auto", set()),
}


def models() -> list[tuple[Any, ...]]:
    """Every model of the table, on random input."""
    torch.manual_seed(0)
    found = []
    for name, (module, shape, conv, templates) in MODELS.items():
        draw_weights(module)
        x = torch.randn(shape)
        with torch.inference_mode():
            y = module.eval()(x).numpy()
        found.append((name, export(module, shape), conv, templates, x.numpy(), y))
    return found


def rows() -> list[tuple[Any, ...]]:
    """The rows that the test of every primitive compiles, with their references."""
    return [
        (str(row), row.op, row.operands, row.attrs,
         compute(row.op, PRIMITIVES[row.op].attrs(**row.attrs), row.operands)[0])
        for row in ROWS if row.op != "relayout"
    ]  # fmt: skip


def functions() -> list[tuple[Any, ...]]:
    """The mathematical functions over all of float32, thinned out."""
    x = np.linspace(0, 2**32 - 1, ARGUMENTS, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.linspace(-20, 20, ARGUMENTS, dtype=np.float32), np.float32(SPECIAL)])
    found = []
    for name, (limit, _) in LIMITS.items():
        argument = x[~(np.abs(x) > 2.0**40)] if name in ("sin", "cos") else x
        exact = getattr(torch, name)(torch.from_numpy(argument.astype(np.float64))).numpy()
        ours = run_primitive(name, (argument,), {}, narrowed(host(), 128))
        found.append((name, argument, exact, ours, limit))
    return found


if __name__ == "__main__":
    with np.errstate(invalid="ignore"):
        made = {"models": models(), "rows": rows(), "functions": functions()}
    Path(sys.argv[1]).write_bytes(pickle.dumps(made))
