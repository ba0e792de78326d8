"""Lets go of memory that holds what was read of a mapped file.

    release(array)      weights[...] of a mapped model file, once they have been packed

What a program reads of a mapped file counts as its memory until the system wants it back. While a model is compiled,
each weight is read once and packed; without this the whole file would count beside its packed copy.
"""

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST = 1 << 20
"""Bytes from which an array is worth a system call."""


def release(array: npt.NDArray[Any]) -> None:
    """Give back the pages that lie inside a read-only mapped file's `array`; it stays valid, and is read anew if used.

    Any other array is left alone.
    """
    if array.nbytes < SMALLEST or not hasattr(mmap, "MADV_DONTNEED"):
        return
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    file = base.obj if isinstance(base, memoryview) else base
    # What is written to a private mapping lies only in its pages.
    if not isinstance(file, mmap.mmap) or not memoryview(file).readonly:
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    origin = np.frombuffer(file, np.uint8, 1).ctypes.data
    start = -(-(low - origin) // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (high - origin) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        file.madvise(mmap.MADV_DONTNEED, start, end - start)
