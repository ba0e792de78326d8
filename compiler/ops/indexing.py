"""Composites that choose elements: gathers with batches, one-hot vectors, the largest elements."""

from math import prod

import numpy as np

from tilewright.compiler.ir import I64, Value
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.compiler.ops.normalisation import axis_of
from tilewright.errors import GraphError


def gather(g: GraphBuilder, x: Value, indices: Value, axis: int = 0, batch_dims: int = 0) -> Value:
    """Slices of x along `axis` by index, batch by batch: the first `batch_dims` axes of both are the same.

    The result has x's axes with `axis` replaced by those of the indices that are no batch.
    """
    axis = axis_of(axis, x.type.rank)
    batches = batch_dims + indices.type.rank if batch_dims < 0 else batch_dims
    if not batches:
        return g.op("gather", x, indices, axis=axis)
    lead = x.type.shape[:batches]
    if batches > axis or indices.type.shape[:batches] != lead:
        raise GraphError(
            f"operands of shapes {x.type.shape} and {indices.type.shape} do not share {batches} batch axes "
            f"before axis {axis}",
            node=g.source,
        )
    # The axis comes to stand behind the batches; then all of them are one axis.
    between = tuple(range(batches, axis))
    turned = g.op("transpose", x, perm=(*range(batches), axis, *between, *range(axis + 1, x.type.rank)))
    size, rest = turned.type.shape[batches], turned.type.shape[batches + 1 :]
    flat = g.op("reshape", turned, shape=(prod(lead) * size, *rest))
    wide = indices if indices.type.dtype == I64 else g.op("cast", indices, dtype=I64)
    wide = g.op("max", g.op("min", wide, g.scalar(size - 1, wide)), g.scalar(0, wide))
    first = np.arange(prod(lead), dtype=np.int64).reshape(*lead, *[1] * (indices.type.rank - batches)) * size
    found = g.op("gather", flat, g.op("add", wide, g.constant(first)), axis=0)
    chosen = indices.type.rank
    moved = range(chosen, chosen + len(between))
    perm = (*range(batches), *moved, *range(batches, chosen), *range(chosen + len(between), found.type.rank))
    return g.op("transpose", found, perm=perm)


def one_hot(g: GraphBuilder, indices: Value, depth: int, on: Value, off: Value, axis: int = -1) -> Value:
    """A new axis of `depth` elements: `on` at the index, `off` elsewhere, also where the index is outside."""
    rank = indices.type.rank + 1
    axis = axis_of(axis, rank)
    shape = (*indices.type.shape[:axis], 1, *indices.type.shape[axis:])
    chosen = g.op("reshape", indices, shape=shape)
    classes = np.arange(depth).reshape([-1 if position == axis else 1 for position in range(rank)])
    narrow = chosen.type.dtype.is_integer and chosen.type.dtype.bits < 64
    if narrow and depth > 1 << (chosen.type.dtype.bits - 1):  # classes that the indices' type cannot name
        chosen = g.op("cast", chosen, dtype=I64)
    hot = g.op("equal", chosen, g.constant(classes.astype(chosen.type.dtype.numpy)))
    return g.op("where", hot, on, off)


def top_k(g: GraphBuilder, x: Value, k: int, axis: int = -1, largest: bool = True) -> tuple[Value, Value]:
    """The k largest (or smallest) elements along `axis`, best first, and where they lie (i64)."""
    axis = axis_of(axis, x.type.rank)
    indices = g.op("top_k", x, axis=axis, k=k, largest=largest)
    return g.op("gather_elements", x, indices, axis=axis), indices
