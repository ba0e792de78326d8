"""Zeros in the physical pads of a buffer, which kernels that read beyond a tensor's edges rely on.

    [N][C/16][1 + H + 1][1 + W + 1][16]     writes rows 0 and H + 1, and the others' first and last pixels

The workspace is reused, so the pads are written in every run.
"""

from tilewright.compiler.ir.types import TensorType
from tilewright.compiler.kernels.kernel import Kernel, loop_type
from tilewright.compiler.kernels.nest import Access, Array, Constant, Nest, Output, Region, build_with_lanes

VECTOR_BYTES = 64
"""Vectors are as long as the widest registers; narrower machines split them."""


def build(name: str, type: TensorType) -> Kernel:
    """The kernel that writes the pads of a buffer `y` of this type and touches nothing else."""
    layout, shape = type.layout, type.shape
    dims, strides = layout.physical_shape(shape), layout.strides(shape)
    zero = Constant(loop_type(type.dtype), 0)
    extents, origin = list(dims), 0
    regions = []
    for dim, axis in enumerate(layout.order(len(shape))):
        before, after = layout.pad(axis)
        for start, size in ((0, before), (dims[dim] - after, after)):
            if size:
                slab = (*extents[:dim], size, *extents[dim + 1 :])
                access = Access(0, origin + start * strides[dim], strides)
                regions.append(Region(slab, frozenset(), (), Output(zero, access)))
        # The other dimensions' slabs leave out what this one's have written.
        extents[dim] -= before + after
        origin += before * strides[dim]
    nest = Nest((), Array(loop_type(type.dtype), layout.size(shape)), tuple(regions))
    return build_with_lanes(name, nest, VECTOR_BYTES // type.dtype.bytes)
