"""Libraries that were compiled on x86, loaded by Python on the emulated processor."""

from pathlib import Path

import numpy as np
import pytest
from arm.emulated import FOLDER, REFERENCES

import tilewright as tw

MODELS = {model[0]: model[1:] for model in REFERENCES["models"]}
LIBRARIES = sorted(FOLDER.glob("libraries/aarch64/*/net.so"))


def test_there_are_some() -> None:
    assert len(LIBRARIES) > 3


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.parent.name)
def test_as_pytorch(library: Path) -> None:
    *_, x, expected = MODELS[library.parent.name.split("-")[0]]
    alone, shared = (tw.load(library, threads=threads)(x) for threads in (1, 2))
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(shared, alone)


def test_of_another_processor_is_refused() -> None:
    (foreign,) = FOLDER.glob("libraries/riscv64/mnist-*/net.so")
    with pytest.raises(tw.TilewrightError, match="riscv"):
        tw.load(foreign)
