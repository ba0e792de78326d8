"""Compute convolutions by Winograd's minimal filtering where it is faster.

    %y = conv(%x, %w) {pads=...}      ->      %u = winograd_filter(%w) {tile=4}             folded later: %w is constant
                                              %y = winograd_conv(%x, %u) {tile=4, kernel=3, pads=...}
                                        or    %y = winograd_conv(%x, %w) {tile=4, kernel=3, pads=...}

Only f32 convolutions of images with stride 1, no dilation and one group qualify. Filters that arrive at run time are
left. Transformed filters take up to four times the memory; where there are many of them and few tiles to use them,
kernels transform them in passing, which takes as long as fetching them would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from tilewright.compiler.ir import Graph, Node, TensorType, Value
from tilewright.compiler.ir.graph import rewrite
from tilewright.compiler.kernels.tiles import tile_rows
from tilewright.compiler.kernels.winograd_blocking import FEW, tile_counts
from tilewright.compiler.ops.contraction import Conv
from tilewright.compiler.ops.window import Pads
from tilewright.compiler.ops.winograd import WinogradConv, WinogradFilter
from tilewright.compiler.passes.build import new_node
from tilewright.compiler.targets import Target

TILES: dict[int, tuple[int, ...]] = {3: (2, 4), 5: (2,)}
"""By filter size, the output tiles tried. Larger ones are hardly faster, and have eight times the error of direct
convolution and more."""

BYTES_A_CYCLE = 4.0
"""From beyond the second-level cache."""

CACHED_BYTES_A_CYCLE = 32.0
"""Of filters that take at most a quarter of that cache, where they may still lie from the last run."""

TRANSFORM = 10.0
"""Cycles for each vector of a tile's window, transformed."""

FILTER = 6.0
"""The same of a filter, transformed in passing."""

MANY = 4
"""Times the second-level cache that transformed filters may fill."""


def choose_winograd(graph: Graph, target: Target) -> Graph:
    """Apply the pass of the module's docstring."""

    def visit(node: Node) -> tuple[Sequence[Node], Mapping[Value, Value]] | None:
        if node.op != "conv" or node.operands[1] not in graph.constants:
            return None
        assert isinstance(node.attrs, Conv)
        x, w = node.operands
        images = TensorType(x.type.dtype, (x.type.shape[0] * graph.times, *x.type.shape[1:]))
        tile = best_tile(images, w.type, node.attrs, target)
        if tile is None:
            return None
        kernel, (top, left) = w.type.shape[2], node.attrs.pads
        attrs = WinogradConv(tile=tile, kernel=kernel, pads=(top, left))
        if transforms_in_passing(images, w.type, tile, node.attrs.pads, target):
            return [replace(node, op="winograd_conv", attrs=attrs)], {}
        filters = new_node("winograd_filter", [w], WinogradFilter(tile), source=node.source, name=f"{w.name}.winograd")
        conv = replace(node, op="winograd_conv", operands=(x, filters.result), attrs=attrs)
        return [filters, conv], {}

    return rewrite(graph, visit)


def best_tile(x: TensorType, w: TensorType, attrs: Conv, target: Target) -> int | None:
    """The output tile with which Winograd is estimated fastest; None where direct convolution is faster."""
    if x.rank != 4 or x.dtype.name != "f32" or w.shape[2] != w.shape[3] or w.shape[2] not in TILES:
        return None
    if attrs.strides != (1, 1) or attrs.dilations != (1, 1) or attrs.groups != 1:
        return None
    # Fewer channels than lanes are multiplied with zeros, which direct convolution of unblocked x avoids.
    if min(*x.shape, *w.shape) < 1 or min(*x.shape[1:2], w.shape[0]) < target.lanes(x.dtype.bits):
        return None
    costs = {tile: _winograd_cycles(x, w, tile, attrs.pads, target) for tile in TILES[w.shape[2]]}
    best = min(costs, key=costs.__getitem__)
    return best if costs[best] < _direct_cycles(x, w, attrs.pads, target) else None


def transforms_in_passing(x: TensorType, w: TensorType, tile: int, pads: Pads, target: Target) -> bool:
    """Whether filters stay as they are until the convolution runs."""
    tiles = x.shape[0] * prod(tile_counts(x.shape[2:], tile, w.shape[2], pads))
    window = tile + w.shape[2] - 1
    transformed = w.bytes * window * window // prod(w.shape[2:])
    return tiles <= FEW * tile_rows(target, 2) and transformed > MANY * target.l2


def _direct_cycles(x: TensorType, w: TensorType, pads: Pads, target: Target) -> float:
    """Two multiply-adds a cycle, nine tenths of the time; filters beyond the cache are fetched meanwhile."""
    blocks = -(-w.shape[0] // target.lanes(x.dtype.bits))
    pixels = x.shape[0] * prod(tile_counts(x.shape[2:], 1, w.shape[2], pads))
    return max(pixels * blocks * prod(w.shape[1:]) / 1.8, _fetch_cycles(w.bytes, target))


def _winograd_cycles(x: TensorType, w: TensorType, tile: int, pads: Pads, target: Target) -> float:
    """The products, or the time to fetch the transformed filters where that is longer, and the transforms."""
    lanes, window = target.lanes(x.dtype.bits), tile + w.shape[2] - 1
    blocks_in, blocks_out = -(-w.shape[1] // lanes), -(-w.shape[0] // lanes)
    tiles = x.shape[0] * prod(tile_counts(x.shape[2:], tile, w.shape[2], pads))
    products = window * window * blocks_in * lanes * blocks_out
    # A micro-kernel of few tiles waits for its multiply-adds.
    multiply = products * max(tiles, 4) / 1.7
    if transforms_in_passing(x, w, tile, pads, target):
        fetch = _fetch_cycles(w.bytes, target)
        multiply += FILTER * products
    else:
        fetch = _fetch_cycles(products * lanes * x.dtype.bytes, target)
    return max(multiply, fetch) + TRANSFORM * window * window * tiles * (blocks_in + blocks_out)


def _fetch_cycles(filters: int, target: Target) -> float:
    """How long it takes to read so many bytes of filters."""
    return filters / (CACHED_BYTES_A_CYCLE if 4 * filters <= target.l2 else BYTES_A_CYCLE)
