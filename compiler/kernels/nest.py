"""The generic loop nest: element-wise expressions around reductions, over strided arrays.

    softmax over the last axis of f32 100x1000
      region   extents (100, 1000), reduced {1}, access x: origin 0, strides (1000, 1)
      output   exp(x - max x) / sum exp(x - max x)      Map, Reduce and Input nodes, shared as objects

A nest is pure data. Its regions lie over the same arrays and are computed one after another as items of one
kernel: the pieces of a concatenation, or the whole blocks and the partial last block of a channel axis.

Each region becomes one vectorised pass for each level of reductions that depend on one another. Lanes run
along the axis on which the result is contiguous; where that axis is reduced, along it with several
accumulators. Sums accumulate in blocks, in an order that the shape alone decides.
"""

from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.kernels.nest_data import (
    Access,
    Array,
    Constant,
    Expr,
    Input,
    Map,
    Nest,
    Output,
    Reduce,
    ReduceOp,
    Region,
    canonical,
)
from tilewright.compiler.kernels.nest_loops import RegionEmitter
from tilewright.compiler.kernels.nest_tiles import TileEmitter, tile_axis
from tilewright.compiler.loops import Builder
from tilewright.compiler.targets import Target

__all__ = [
    "Access", "Array", "Constant", "Expr", "Input", "Map", "Nest", "Output", "Reduce", "ReduceOp", "Region",
    "build", "build_with_lanes",
]  # fmt: skip


def build(name: str, nest: Nest, target: Target) -> Kernel:
    """The kernel of a nest; its buffers are x0, x1, .., y."""
    bits = max(array.type.bytes * 8 for array in (*nest.inputs, nest.result))
    return build_with_lanes(name, nest, target.lanes(bits))


def build_with_lanes(name: str, nest: Nest, lanes: int) -> Kernel:
    """The same, with vectors of at most `lanes` lanes."""
    b = Builder(name)
    inputs = [b.input(f"x{i}", array.type, array.size) for i, array in enumerate(nest.inputs)]
    result = b.output("y", nest.result.type, nest.result.size)
    begin, end = b.scalar("begin"), b.scalar("end")
    regions = [canonical(region) for region in nest.regions if 0 not in region.extents or region.reduced]
    emitters: list[RegionEmitter] = []
    for region in regions:
        kind = RegionEmitter if tile_axis(region, lanes) is None else TileEmitter
        emitters.append(kind(b, region, inputs, result, lanes))
    first = 0
    for emitter in emitters:
        last = first + emitter.items
        lo, hi = (begin, end) if len(emitters) == 1 else (b.max(begin, first), b.min(end, last))
        b.for_(lo, hi, lambda item, _, e=emitter, o=first: e.item(b.sub(item, o)))  # type: ignore[misc]
        first = last
    return Kernel(b.finish(), first, performed=sum(emitter.operations() for emitter in emitters))
