"""Hypercolumns in PyTorch, as an engine for `tilewright.peers.open_peer`: features, interpolate and cat.

It runs in the faster of the two memory formats; that the channels-last result is not laid out as (C, H, W) counts in
its favour.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tilewright.engines import Engine, Task, torch_engine
from tilewright.frontends.onnx.model import read_model

PACKAGE = "torch"


def open_engine(task: Task) -> Engine:
    """From a preprocessed image (1, 3, H, W) to (1, 1472, H, W), with the weights of the model file."""
    model = read_model(task.model)
    steps: list[Any] = []
    for node in model.nodes:
        if node.op == "Conv":
            steps.append([torch.from_numpy(np.array(model.initializers[n].array)) for n in node.inputs[1:]])
        elif node.op == "MaxPool":
            steps.append(None)

    in_format = [
        [step and [step[0].contiguous(memory_format=format), step[1]] for step in steps]
        for format in (torch.contiguous_format, torch.channels_last)
    ]

    def run(image: torch.Tensor) -> torch.Tensor:
        last = image.is_contiguous(memory_format=torch.channels_last)
        maps, x = [], image
        for step in in_format[last]:
            if step is not None:
                x = F.relu_(F.conv2d(x, *step, padding=1))
                continue
            maps.append(x)
            if len(maps) < 5:
                x = F.max_pool2d(x, 2)
        size = (image.shape[2], image.shape[3])
        resized = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        return torch.cat(resized, dim=1)

    return torch_engine(run, [torch.from_numpy(array) for array in task.inputs.values()], task.threads)
