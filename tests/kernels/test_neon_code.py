"""Code for ARM: the innermost loops of the main kernels keep everything in registers."""

import re
from collections.abc import Callable

import pytest
from networks import export
from torch import Tensor, nn

from tilewright.compiler.codegen.object import assembly
from tilewright.compiler.pipeline import plan_graph
from tilewright.compiler.targets import by_name
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate


class Product(nn.Module):
    """A matrix by its transpose."""

    def forward(self, x: Tensor) -> Tensor:
        """x x^T."""
        return x @ x.transpose(-1, -2)


def depthwise(channels: int, kernel: int, stride: int) -> nn.Module:
    """With the epilogue that MobileNet has."""
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6()).eval()


def between_rows(channels: int, kernel: int, stride: int) -> nn.Module:
    """Between 1x1 convolutions whose groups are not whole vectors, as ShuffleNet has it."""
    conv = nn.Conv2d(channels, channels, 1, groups=2)
    return nn.Sequential(conv, depthwise(channels, kernel, stride), conv).eval()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "direct 3x3": (lambda: nn.Conv2d(48, 64, 3, 2, 1), (1, 48, 28, 28), "conv_direct"),
    "direct 1x1": (lambda: nn.Conv2d(64, 128, 1), (1, 64, 14, 14), "conv_direct"),
    "first": (lambda: nn.Conv2d(3, 32, 7, 2, 3), (1, 3, 64, 64), "conv_direct"),
    "winograd": (lambda: nn.Conv2d(64, 64, 3, padding=1), (1, 64, 56, 56), "winograd_"),
    "winograd 7": (lambda: nn.Conv2d(128, 128, 3, padding=1), (1, 128, 7, 7), "winograd_"),
    "pointwise 28": (lambda: nn.Conv2d(136, 136, 1, groups=4), (1, 136, 28, 28), "conv_pointwise"),
    "pointwise 7": (lambda: nn.Conv2d(548, 548, 1, groups=4), (1, 548, 7, 7), "conv_pointwise"),
    "depthwise 112": (lambda: depthwise(32, 3, 1), (1, 32, 112, 112), "depthwise"),
    "depthwise 14": (lambda: depthwise(96, 3, 1), (1, 96, 14, 14), "depthwise"),
    "depthwise stride": (lambda: depthwise(96, 3, 2), (1, 96, 112, 112), "depthwise"),
    "depthwise 5x5": (lambda: depthwise(48, 5, 2), (1, 48, 28, 28), "depthwise"),
    "depthwise in rows": (lambda: between_rows(66, 3, 1), (1, 66, 14, 14), "depthwise_planar"),
    "depthwise in rows, stride": (lambda: between_rows(66, 3, 2), (1, 66, 28, 28), "depthwise_planar"),
    "gemm": (lambda: nn.Linear(256, 512), (64, 256), "gemm"),
    "gemm transposed": (Product, (80, 96), "gemm"),
    "gemv": (lambda: nn.Linear(512, 256), (1, 512), "gemv"),
}  # fmt: skip

STACK = re.compile(r"\t(?:ldr|ldur|ldp|str|stur|stp)\t[qdsx]\d+.*\[sp")


def innermost_loops(listing: str) -> dict[str, list[str]]:
    """By function, the blocks that end in a jump to their start and multiply and add vectors."""
    found: dict[str, list[str]] = {}
    parts = re.split(r"^(\w+):.*\n", listing, flags=re.MULTILINE)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        blocks = re.findall(r"^(\.L\w+):.*\n((?:\t.*\n)*?)\t(?:b\.\w+|cbn?z)\t(?:\w+, )?\1$", body, re.MULTILINE)
        loops = [block for _, block in blocks if len(re.findall(r"\tfmla\tv", block)) > 2]
        if loops:
            found[name] = loops
    return found


@pytest.mark.parametrize("cpu", ["", "neoverse-v1"])
@pytest.mark.parametrize("name", LAYERS)
def test_innermost_loops_do_not_spill(name: str, cpu: str) -> None:
    make, shape, function = LAYERS[name]
    target = by_name("aarch64", cpu)
    planned = plan_graph(translate(read_model(export(make(), shape))), target)
    loops = innermost_loops(assembly(planned.emitted.text, target))
    assert any(found.startswith(function) for found in loops), list(loops)
    spills = {
        found: [line for block in blocks for line in STACK.findall(block)] for found, blocks in loops.items()
    }
    assert not any(spills.values()), spills


def test_a_spill_is_found() -> None:
    listing = "conv:\n.LBB0_1:\n" + "\tfmla\tv0.4s, v1.4s, v2.s[0]\n" * 3 + "\tstr\tq1, [sp, #16]\n\tb.lt\t.LBB0_1\n"
    ((block,),) = innermost_loops(listing).values()
    assert STACK.search(block)
