"""Addresses found fast are those that NumPy gives."""

import ctypes

import numpy as np
import pytest

from tilewright.runtime.addresses import address, fill, point, table

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


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_tables(count: int) -> None:
    arrays = [np.array(value) for value in ARRAYS.values()][:count]
    argument = table(count)
    for given in (arrays, arrays[::-1]):
        fill(argument, given)
        at = argument.value if isinstance(argument, ctypes.c_void_p) else ctypes.addressof(argument)
        assert list((ctypes.c_void_p * count).from_address(at)) == [array.ctypes.data for array in given]


class Tensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_int64))


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_structures(count: int) -> None:
    arrays = [np.array(value) for value in ARRAYS.values()][:count]
    tensors = (Tensor * count)(*[(None, 5)] * count)
    for given in (arrays, arrays[::-1]):
        point(tuple(tensors), given)
        assert [(tensor.data, tensor.bytes) for tensor in tensors] == [(array.ctypes.data, 5) for array in given]
