"""Every primitive and every mathematical function on the emulated processor."""

import numpy as np
import pytest
from arm.emulated import REFERENCES
from arm.primitive import run_primitive
from ulps import ulps

from tilewright.compiler.targets import host

ROWS = REFERENCES["rows"]
FUNCTIONS = {function[0]: function[1:] for function in REFERENCES["functions"]}


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row[0] for row in ROWS])
def test_as_the_reference(number: int) -> None:
    _, op, operands, attrs, expected = ROWS[number]
    result = run_primitive(op, operands, attrs, host())
    tolerance = {"float32": 2e-5, "float64": 1e-12}.get(result.dtype.name, 0)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_same_bits_as_on_x86(name: str) -> None:
    x, exact, ours, limit = FUNCTIONS[name]
    result = run_primitive(name, (x,), {}, host())
    assert (np.isnan(result) == np.isnan(ours)).all()
    number = ~np.isnan(result)
    np.testing.assert_array_equal(result.view(np.uint32)[number], ours.view(np.uint32)[number])
    np.testing.assert_array_less(ulps(result, exact), limit + 1e-9)
