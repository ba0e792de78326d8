"""Arrays in layouts, for the tests of kernels: pack, unpack, and call a kernel in hostile memory.

y = compute(kernel, {"x": pack(x, x_type)}, result)      # the result in logical order
"""

import itertools
import random
from typing import Any

import numpy as np
import pytest
from support import Array, compiled, guarded

from tilewright.compiler import targets
from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.loops.nodes import Buffer


def physical(shape: tuple[int, ...], layout: Layout) -> Array:
    """For each element of the physical array, the flat logical index it holds, or -1 in pads and fill."""
    rank, order = len(shape), layout.order(len(shape))
    padded = np.pad(
        np.arange(np.prod(shape)).reshape(shape),
        [
            (layout.pad(axis)[0], layout.pad(axis)[1] + -shape[axis] % layout.block(axis))
            for axis in range(rank)
        ],
        constant_values=-1,
    )
    split: list[int] = []
    outer: dict[int, int] = {}
    inner: dict[int, int] = {}
    for axis, size in enumerate(padded.shape):
        outer[axis] = len(split)
        block = dict(layout.blocks).get(axis)
        split += [size] if block is None else [size // block, block]
        if block is not None:
            inner[axis] = outer[axis] + 1
    dims = [outer[axis] for axis in order] + [inner[axis] for axis, _ in layout.blocks]
    return padded.reshape(split).transpose(dims).reshape(-1)


def pack(array: Array, layout: Layout) -> Array:
    """The flat physical array, zeros around and between, ending at an inaccessible page."""
    indices = physical(array.shape, layout)
    return guarded(np.where(indices >= 0, array.reshape(-1)[indices], array.dtype.type(0)))


def unpack(flat: Array, tensor: TensorType) -> Array:
    """The logical array."""
    indices = physical(tensor.shape, tensor.layout)
    result = np.zeros(tensor.elements, flat.dtype)
    result[indices[indices >= 0]] = flat[indices >= 0]
    return result.reshape(tensor.shape)


def compute(
    kernel: Kernel, inputs: dict[str, Array], result: TensorType, keep: list[Array] | None = None
) -> Array:
    """The result in logical order, computed twice: in one range, and in random ranges in random order.

    Checks that both give the same bits, and that nothing is written outside the result's blocks. The physical
    array is appended to `keep`.
    """
    size = result.layout.size(result.shape)
    function = compiled(kernel.function)
    params = [param.name for param in kernel.function.params if isinstance(param, Buffer)]
    chance = random.Random(kernel.items)
    cuts = sorted({0, kernel.items, *(chance.randrange(kernel.items + 1) for _ in range(3))})
    ranges = list(itertools.pairwise(cuts))
    chance.shuffle(ranges)
    dtype = inputs["x"].dtype
    unwritten = np.nan if dtype.kind == "f" else 85
    outputs = []
    for parts in ([(0, kernel.items)], [(0, 0), *ranges]):
        y = guarded(np.full(size, unwritten, dtype))
        addresses = [(y if param == "y" else inputs[param]).ctypes.data for param in params]
        for begin, end in parts:
            function(*addresses, begin, end)
        outputs.append(y)
    np.testing.assert_array_equal(outputs[0].view(np.uint8), outputs[1].view(np.uint8))
    pads = Layout(result.layout.axes, result.layout.blocks)
    filled = TensorType(result.dtype, _rounded(result.shape, pads), result.layout)
    untouched = physical(filled.shape, filled.layout) < 0
    np.testing.assert_array_equal(outputs[0][untouched], dtype.type(unwritten), "wrote outside the result")
    if keep is not None:
        keep.append(outputs[0])
    return unpack(outputs[0], result)


def _rounded(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    return tuple(-(-size // layout.block(axis)) * layout.block(axis) for axis, size in enumerate(shape))


def widths() -> list[Any]:
    """This machine at vector widths of 32 (one lane of f32) to 512 bits; those it lacks are skipped."""
    host = targets.host()
    return [
        pytest.param(
            targets.narrowed(host, bits),
            marks=pytest.mark.skipif(bits > host.vector_bits, reason=f"no {bits}-bit vectors here"),
        )
        for bits in (32, 128, 256, 512)
    ]


def fill_lanes(flat: Array, tensor: TensorType) -> Array:
    """The lanes that fill up the last blocks of channels."""
    filled = TensorType(tensor.dtype, _rounded(tensor.shape, tensor.layout), tensor.layout)
    whole = physical(filled.shape, filled.layout)
    return flat[(whole >= 0) & (physical(tensor.shape, tensor.layout) < 0)]
