"""Hypercolumns beside PyTorch eager: the real VGG-16, five layers at 224 x 224, one thread each.

PyTorch runs features, interpolate and cat, in the faster of its two memory formats; that the channels-last result
is not laid out as (C, H, W) counts in its favour.
"""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from side_by_side import race

import tilewright as tw
from tilewright.cli.hypercolumns import sample_photograph
from tilewright.columns import default_model
from tilewright.frontends.onnx.model import read_model


def torch_hypercolumns(memory_format: torch.memory_format) -> Any:
    """The function from a preprocessed image (1, 3, H, W) to (1, 1472, H, W), with the model file's weights."""
    model = read_model(default_model())
    steps: list[Any] = []
    for node in model.nodes:
        if node.op == "Conv":
            weight, bias = (torch.from_numpy(np.array(model.initializers[n].array)) for n in node.inputs[1:])
            steps.append((weight.contiguous(memory_format=memory_format), bias))
        elif node.op == "MaxPool":
            steps.append(None)

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            maps, x = [], image.contiguous(memory_format=memory_format)
            for step in steps:
                if step is not None:
                    x = F.relu_(F.conv2d(x, *step, padding=1))
                    continue
                maps.append(x)
                if len(maps) < 5:
                    x = F.max_pool2d(x, 2)
            size = (image.shape[2], image.shape[3])
            resized = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
            return torch.cat(resized, dim=1)

    return run


def test_hypercolumns(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    extract = tw.Hypercolumns(threads=1, cache=False)
    image = extract.input_image(sample_photograph())
    scaled = image[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    x = torch.from_numpy(np.moveaxis(scaled, -1, 0)[None].copy())
    planar, last = (torch_hypercolumns(f) for f in (torch.contiguous_format, torch.channels_last))
    out = np.empty((1472, 224, 224), np.float32)
    extract(image, out=out)
    expected = planar(x)[0].numpy()
    for part in extract.channels.values():
        error = np.abs(out[part] - expected[part]).max() / np.ptp(expected[part])
        assert error <= 1e-5
    pixels = np.random.default_rng(0).integers(0, 224, (1000, 2))
    times = race(
        {
            "tilewright, into out=": lambda: extract(image, out=out),
            "tilewright, 1000 pixels": lambda: extract(image, pixels=pixels),
            "torch": lambda: planar(x),
            "torch, channels last": lambda: last(x),
        },
        seconds=20,
    )
    with capsys.disabled():
        print()
        for name, taken in times.items():
            print(f"{name:24} {taken}")
        best = min(times["torch"].median, times["torch, channels last"].median)
        print(f"torch takes {best / times['tilewright, into out='].median:.2f} times as long")
