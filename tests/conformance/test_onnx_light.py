"""The nine networks that the onnx package ships without their weights (constants stand in), with their
outputs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tilewright as tw

Array = np.ndarray[Any, Any]

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NETWORKS = [
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet",
    "vgg19", "zfnet512",
]  # fmt: skip


def execute(path: Path, inputs: Sequence[Array]) -> list[Array]:
    """The network's outputs for these inputs."""
    compiled = tw.compile(path)
    names = [port.name for port in compiled.inputs]
    return list(compiled.run(dict(zip(names, inputs, strict=True))).values())


@pytest.mark.parametrize("network", NETWORKS)
def test_stored_output(network: str) -> None:
    shape = (1, 3, 224, 224)
    ramp = (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
    (result,) = execute(FOLDER / f"light_{network}.onnx", [ramp])
    expected = numpy_helper.to_array(onnx.load_tensor(str(FOLDER / f"light_{network}_output_0.pb")))
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()
