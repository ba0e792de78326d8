"""The primitive that changes where a tensor's elements lie.

    relayout{layout, source, shape}     shape: the logical one; source, layout: the operand's and the result's

The tensor means the same before and after. The reference works on physical arrays: it fills block
remainders and physical pads with zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from tilewright.compiler.ir import Attrs, Layout, Shape, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import check_count
from tilewright.compiler.ops.registry import primitive
from tilewright.errors import GraphError


@dataclass(frozen=True)
class Relayout(Attrs):
    """From layout `source` to `layout`, of a tensor of logical `shape`."""

    layout: Layout
    source: Layout
    shape: Shape


def _check_layout(layout: Layout, rank: int) -> None:
    if layout.axes and sorted(layout.axes) != list(range(rank)):
        raise GraphError(f"layout axes {layout.axes} are not a permutation of operand 0's {rank} axes")
    if layout.pads and len(layout.pads) != rank:
        raise GraphError(
            f"layout pads {layout.pads} have {len(layout.pads)} entries; expected {rank}, one per axis"
        )
    blocked = [axis for axis, _ in layout.blocks]
    for axis, size in layout.blocks:
        if not 0 <= axis < rank or size < 1 or blocked.count(axis) > 1:
            raise GraphError(f"layout blocks {layout.blocks} do not fit operand 0's {rank} axes")
        if any(layout.pad(axis)):
            raise GraphError(f"axis {axis} is blocked and has pads {layout.pad(axis)}; it may not have both")


def _infer_relayout(attrs: Relayout, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (x,) = types
    if x.shape != attrs.shape:
        raise GraphError(f"operand 0 has shape {x.shape}; the attributes say {attrs.shape}")
    if x.layout != attrs.source:
        raise GraphError(f"operand 0 has layout {x.layout}; the attributes say {attrs.source}")
    _check_layout(attrs.source, x.rank)
    _check_layout(attrs.layout, x.rank)
    return (x.with_layout(attrs.layout),)


Part = tuple[slice, tuple[int, ...], tuple[slice, ...]]


def _pieces(layout: Layout, shape: Shape, row: Array, physical: Array) -> Iterator[tuple[Array, Array]]:
    """Views of the row-major and the physical array that hold the same elements, and together all of them.

    A blocked axis is split in (blocks, block); its whole blocks make one piece, a partial last block another.
    """
    rank = len(shape)
    position = {axis: dim for dim, axis in enumerate(layout.order(rank))}
    inner = {axis: rank + dim for dim, (axis, _) in enumerate(layout.blocks)}
    # Physical dimensions, put in logical order: each axis, then its block right after it.
    order = [dim for axis in range(rank) for dim in (position[axis], inner.get(axis)) if dim is not None]
    ordered = physical.transpose(order)

    def parts(axis: int) -> list[Part]:
        """(logical elements, their split dimensions, physical elements) of each part of an axis."""
        size, block, before = shape[axis], layout.block(axis), layout.pad(axis)[0]
        if axis not in inner:
            return [(slice(None), (size,), (slice(before, before + size),))]
        whole, rest = divmod(size, block)
        found: list[Part] = [(slice(0, whole * block), (whole, block), (slice(0, whole), slice(None)))]
        if rest:
            found.append((slice(whole * block, size), (1, rest), (slice(whole, whole + 1), slice(0, rest))))
        return found

    for combination in product(*map(parts, range(rank))):
        split = [dim for _, dims, _ in combination for dim in dims]
        logical: tuple[Any, ...] = (*(part for part, _, _ in combination), ...)
        packed: tuple[Any, ...] = (*(part for _, _, parts in combination for part in parts), ...)
        yield row[logical].reshape(split), ordered[packed]


def pack(layout: Layout, x: Array, into: Array | None = None) -> Array:
    """The physical array of row-major `x` in `layout`: one copy, none if the layout is row-major.

    `into` is an array of the physical shape to write to.
    """
    if into is None:
        if layout.is_row_major:
            return x
        into = np.empty(layout.physical_shape(x.shape), x.dtype)
    if into.size != x.size:
        into[...] = 0  # pads, and what is missing of a last block
    for row, packed in _pieces(layout, x.shape, x, into):
        packed[...] = row
    return into


def unpack(layout: Layout, shape: Shape, physical: Array) -> Array:
    """The row-major array of `shape` that `physical` holds in `layout`: one copy, none if it is row-major."""
    if layout.is_row_major:
        return physical
    x = np.empty(shape, physical.dtype)
    for row, packed in _pieces(layout, shape, x, physical):
        row[...] = packed
    return x


def _reference_relayout(attrs: Relayout, x: Array) -> tuple[Array]:
    return (pack(attrs.layout, unpack(attrs.source, attrs.shape, x)),)


primitive("relayout", family="layout", attrs=Relayout, infer=_infer_relayout, reference=_reference_relayout)
