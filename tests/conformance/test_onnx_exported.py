"""Models that PyTorch exported years ago, from the onnx package: operator sets 6, 9 and 12.

Operator set 6 is older than what Tilewright takes; a model of it runs where its operators already had the
meaning that they have in set 7, and is refused with all the others named.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tilewright as tw
from tilewright.errors import UnsupportedError
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate, unsupported

Array = np.ndarray[Any, Any]

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
MODELS = {path.parent.name: path for path in sorted(DATA.glob("pytorch-*/*/model.onnx"))}


def execute(path: Path, inputs: Sequence[Array]) -> list[Array]:
    """The model's outputs for these inputs."""
    known = dict(zip([port.name for port in read_model(path).inputs], inputs, strict=True))
    compiled = tw.compile(path)
    return list(compiled.run({port.name: known[port.name] for port in compiled.inputs}).values())


@pytest.mark.parametrize("name", MODELS)
def test_stored_outputs(name: str) -> None:
    path = MODELS[name]
    model = read_model(path)
    if missing := unsupported(model):
        assert all(operator.endswith(" of opset 6") for operator in missing)
        with pytest.raises(UnsupportedError, match=r"not supported: .* of opset 6"):
            translate(model)
        return
    for folder in path.parent.glob("test_data_set_*"):
        inputs, outputs = (
            [
                numpy_helper.to_array(onnx.load_tensor(str(folder / f"{side}_{index}.pb")))
                for index in range(len(ports))
            ]
            for side, ports in (("input", model.inputs), ("output", model.outputs))
        )
        for result, expected in zip(execute(path, inputs), outputs, strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_most_run() -> None:
    assert sum(not unsupported(read_model(path)) for path in MODELS.values()) >= 80
