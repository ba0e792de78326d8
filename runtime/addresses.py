"""Where NumPy arrays lie in memory, found fast: small models take microseconds, and so does `array.ctypes.data`.

    address(x)                    x.ctypes.data
    argument = table(2)           void *[2], as an argument for ctypes
    fill(argument, [x, y])
    function(argument)
    point(tensors, [x, y])        their members `data`, fields of structures of ctypes
"""

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_DATA = object.__basicsize__
"""Bytes from the start of an array object to its `data`, the first field behind CPython's object header: NumPy's C
interface (PyArrayObject_fields in ndarraytypes.h) has promised that to every extension module since version 1.0."""

_read = ctypes.c_void_p.from_address


def _slow(array: Array) -> int:
    at: int = array.__array_interface__["data"][0]
    return at


def _fast(array: Array) -> int:
    return _read(id(array) + _DATA).value or 0


def _is_known() -> bool:
    """Whether arrays really lie where CPython and NumPy say."""
    if sys.implementation.name != "cpython":
        return False
    whole = np.empty(24, np.uint8)
    return all(_fast(array) == _slow(array) for array in (whole, whole[3:], whole[::-2], np.empty((2, 3))))


_KNOWN = _is_known()

address = _fast if _KNOWN else _slow
"""The address of an array's first element."""


def table(count: int) -> Any:
    """A C array of pointers to `count` arrays, as an argument for ctypes; one call at a time may use it."""
    return ctypes.c_void_p() if count == 1 and _KNOWN else (ctypes.c_void_p * count)()


def fill(table: Any, arrays: Sequence[Array]) -> None:
    """Make a table point to these arrays, which must outlive its use.

    The pointer to a single array is the one in its own object.
    """
    if len(arrays) == 1 and _KNOWN:
        table.value = id(arrays[0]) + _DATA
        return
    for position, array in enumerate(arrays):
        table[position] = address(array)


def point(tensors: Sequence[Any], arrays: Sequence[Array]) -> None:
    """Make each structure's member `data`, a c_void_p, point to its array."""
    if len(arrays) == 1 and _KNOWN:
        tensors[0].data = _read(id(arrays[0]) + _DATA)
        return
    for tensor, array in zip(tensors, arrays, strict=True):
        tensor.data = address(array)
