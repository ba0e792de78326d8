"""Models compiled and run on the emulated processor, against PyTorch's results from the machine outside."""

import platform

import numpy as np
import pytest
from arm.emulated import REFERENCES

import tilewright as tw
from tilewright.compiler.targets import host

MODELS = {model[0]: model[1:] for model in REFERENCES["models"]}


def test_this_is_an_emulated_arm_processor() -> None:
    assert platform.machine() == "aarch64"
    target = host()
    assert (target.lanes(32), target.registers) == (4, 32)
    assert target.triple.startswith("aarch64")


@pytest.mark.parametrize("name", MODELS)
def test_as_pytorch(name: str) -> None:
    onnx, conv, templates, x, expected = MODELS[name]
    alone, shared = (tw.compile(onnx, conv=conv, threads=threads) for threads in (1, 2))  # one compiles, one is found
    assert templates <= {kernel.template for kernel in alone.executable((x.shape,)).manifest.kernels}
    result = alone(x)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    for _ in range(3):
        np.testing.assert_array_equal(shared(x), result)
