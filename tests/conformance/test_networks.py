"""Whole networks against PyTorch with the same weights: the largest error as a share of the output's range."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import build, export

import tilewright as tw

TOLERANCE = 1e-5


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference, over the range of the expected values."""
    return float(np.abs(got - expected).max() / (expected.max() - expected.min()))


@pytest.mark.parametrize("name", ["mnist", "mobilenetv2", "resnet50", "vgg16"])
def test_network_agrees_with_torch(name: str, record_property: Callable[[str, object], None]) -> None:
    module, shape = build(name)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(x).numpy()
    model = tw.compile(export(module, shape))
    got = model(x.numpy())
    assert got.shape == expected.shape and got.dtype == np.float32
    error = relative_error(got, expected)
    record_property("relative_error", error)
    assert error <= TOLERANCE
    np.testing.assert_array_equal(model(x.numpy()), got, err_msg="a second call differs")


def test_batch_of_three() -> None:
    module, shape = build("mobilenetv2")
    x = torch.rand((3, *shape[1:]), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(x).numpy()
    got = tw.compile(export(module, shape), shapes={"x": (3, *shape[1:])})(x.numpy())
    assert relative_error(got, expected) <= TOLERANCE
