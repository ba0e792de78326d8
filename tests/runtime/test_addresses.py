"""Addresses found fast are those that NumPy gives."""

import ctypes

import numpy as np
import pytest

from tilewright.runtime.addresses import Pointers, address

BASE = np.arange(24, dtype=np.float32)
ARRAYS = {
    "whole": BASE,
    "from an offset": BASE[5:],
    "reversed": BASE[::-2],
    "transposed": BASE.reshape(4, 6).T,
    "scalar": np.array(3.0),
    "empty": BASE[:0],
    "read-only": np.frombuffer(b"12345678", np.int32),
}


@pytest.mark.parametrize("name", list(ARRAYS))
def test_address(name: str) -> None:
    assert address(ARRAYS[name]) == ARRAYS[name].ctypes.data


def test_pointers() -> None:
    table = Pointers(2)
    for first, second in ((BASE, BASE[3:]), (BASE[1:], BASE)):
        table.fill([first, second])
        stored = (ctypes.c_void_p * 2).from_address(table.address)
        assert list(stored) == [first.ctypes.data, second.ctypes.data]
