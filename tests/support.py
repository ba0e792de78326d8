"""Helpers of the tests of loop functions: compile one and call it on NumPy arrays.

    run(function, {"x": x, "y": y}, {"begin": 0})     # runs machine code, writes into y
    x = guarded(x)                                    # one element beyond the end is a segmentation fault
"""

import ctypes
import functools
import mmap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.loops.nodes import Buffer, Function, Type, Var
from tilewright.compiler.targets import host
from tilewright.runtime.jit import Engine

Array = NDArray[Any]

def numpy_dtype(type: Type) -> np.dtype[Any]:
    """The dtype of a buffer's array; bfloat stands as its 16 bits."""
    names = {"f": f"f{type.bytes}", "bf": "u2", "i": f"i{type.bytes}", "n": "i8",
             "u": f"u{type.bytes}", "b": "?"}  # fmt: skip
    return np.dtype(names[type.kind])


@functools.lru_cache(maxsize=256)
def _engine(function: Function) -> Engine:
    return Engine(compile_module(emit_module([function], linkage=""), host()))


def compiled(function: Function) -> Callable[..., None]:
    """The function as machine code, called with an address or a scalar for each parameter, in order."""
    kinds: list[Any] = []
    for param in function.params:
        if isinstance(param, Var):
            kinds.append(np.ctypeslib.as_ctypes_type(numpy_dtype(param.type)))
        else:
            kinds.append(ctypes.c_void_p)
    engine = _engine(function)
    call = ctypes.CFUNCTYPE(None, *kinds)(engine.address(function.name))
    call.engine = engine  # type: ignore[attr-defined]  # the code lives as long as the callable
    return call


def run(function: Function, buffers: Mapping[str, Array], scalars: Mapping[str, float] | None = None) -> None:
    """Compile the function and call it; buffers and scalars by parameter name. Arrays are written in place.

    An array must be contiguous, of the parameter's dtype, and hold at least the parameter's size.
    """
    values: list[Any] = []
    for param in function.params:
        if isinstance(param, Buffer):
            array = buffers[param.name]
            assert array.flags.c_contiguous, f"{param.name} is not contiguous"
            assert array.dtype == numpy_dtype(param.type), f"{param.name} is {array.dtype}, not {param.type}"
            assert array.size >= param.size, f"{param.name} has {array.size} elements, not {param.size}"
            values.append(array.ctypes.data)
        else:
            values.append((scalars or {})[param.name])
    compiled(function)(*values)


class _Pages(mmap.mmap):
    """Memory whose last page allows no access."""


def guarded(array: Array) -> Array:
    """A writable copy that ends exactly at an inaccessible page: any access past its end is a fault.

    Its start is aligned only as far as its size happens to be.
    """
    page = mmap.PAGESIZE
    room = max(-(-array.nbytes // page), 1) * page
    pages = _Pages(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    copy = np.ndarray(array.shape, array.dtype, buffer=pages, offset=room - array.nbytes)
    copy[...] = array
    return copy
