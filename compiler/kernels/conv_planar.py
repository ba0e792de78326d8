"""Convolution of row-major data: any rank, groups, dilations and element type; what blocked templates refuse.

    x (N, C, *spatial) row-major with physical zeros around;  w (O, C / groups, *kernel) row-major

    for item = (image, group, tile of output channels, outer positions, piece of the lane axis):
      for tile of VECTORS vectors along the lane axis:
        for input channel, kernel position (blocked: the block's acc joins sums in scratch):
          load VECTORS vectors of x; an output channel: broadcast its weight, VECTORS fmas
        epilogue(sums)

Lanes run along the last spatial axis of the result: plain loads at stride 1, two loads and a shuffle at
stride 2, gathers from stride 5 on. Where rows are so short that several fit a vector, one takes them all:

    result (5, 7), 16 lanes:   axis 0 is the lane axis, two rows of 7 a vector, 14 lanes used

Where the kernel covers the whole input, a filter is a row of a matrix: lanes run along it, as in gemv.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import ClassVar

from tilewright.compiler.ir.types import ROW_MAJOR, Layout, Shape, TensorType
from tilewright.compiler.kernels.gemv import dot_chunk, dot_tile, dots
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import (
    BLOCK,
    Pads,
    load_points,
    multiply_add,
    split,
    tile_rows,
    unflatten,
    window_counts,
    zeros,
)
from tilewright.compiler.loops import Buffer, Builder, Index, Operand
from tilewright.compiler.targets import Target

_TILES_AN_ITEM = 8
_TILES_AHEAD = 2


@dataclass(frozen=True)
class ConvPlanarPlan(KernelPlan):
    """The convolution's attributes and its tile: `channels` output channels by `vectors` vectors.

    A vector covers `span` positions along spatial axis `lane_axis` and everything inside them.
    `channels_outer`: items go through all positions before the next output channels. `whole`: the kernel
    covers the input, and the tile is filters by vectors along the kernel.
    """

    template: ClassVar[str] = "conv_planar"
    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int
    lanes: int
    channels: int
    vectors: int
    lane_axis: int
    span: int
    channels_outer: bool
    whole: bool


def plan(
    x: TensorType, w: TensorType, *, strides: Shape, pads: Pads, dilations: Shape, groups: int, target: Target
) -> ConvPlanarPlan | None:
    """How to convolve x (N, C, *spatial) with w (O, C / groups, *kernel), row-major.

    None for 16-bit floats, bool, and empty operands.
    """
    supported = x.dtype.is_integer or x.dtype.name in ("f32", "f64")
    if not supported or w.dtype != x.dtype or not all((*x.shape, *w.shape)):
        return None
    spatial, kernel, outputs = x.shape[2:], w.shape[2:], w.shape[0] // groups
    lanes = target.lanes(x.dtype.bits)
    result = window_counts(spatial, kernel, strides, dilations, pads)
    if not all(result):
        return None
    whole = kernel == spatial and prod(result) == 1 and not any(map(any, pads))
    lane_axis, span = lane_block(result, lanes)
    if whole:
        channels, vectors = dot_tile(target)
    else:
        # Shuffles of gathered lanes keep their indices in registers.
        spare = target if lane_axis == len(result) - 1 else replace(target, registers=target.registers - 4)
        channels, vectors = _tile(spare, outputs, -(-result[lane_axis] // span))
    rows = prod(result[:lane_axis]) * -(-result[lane_axis] // (span * vectors * _TILES_AN_ITEM))
    reach = tuple(
        (count - 1) * stride + (taps - 1) * dilation + 1
        for count, stride, taps, dilation in zip(result, strides, kernel, dilations, strict=True)
    )
    zeros_around = tuple(
        (before, max(end - before - size, 0))
        for (before, _), end, size in zip(pads, reach, spatial, strict=True)
    )
    return ConvPlanarPlan(
        operand_layouts=(Layout().with_pads(((0, 0), (0, 0), *zeros_around)), ROW_MAJOR),
        result_layout=ROW_MAJOR,
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
        lanes=lanes,
        channels=channels,
        vectors=vectors,
        lane_axis=lane_axis,
        span=span,
        channels_outer=_channels_outer(x, w, groups, -(-outputs // channels), rows, target),
        whole=whole,
    )


def lane_block(result: Shape, lanes: int) -> tuple[int, int]:
    """(axis, span): a vector takes `span` positions along `axis` and all along the axes inside it."""
    axis = len(result) - 1
    inner = 1
    while axis > 0 and 2 * inner * result[axis] <= lanes:
        inner *= result[axis]
        axis -= 1
    return axis, min(lanes // inner, result[axis])


def _tile(target: Target, outputs: int, needed: int) -> tuple[int, int]:
    """(channels, vectors) of a tile, for `outputs` channels and `needed` vectors along the lane axis.

    Wide tiles read longer pieces of more rows of x and fewer weights; a last tile is as narrow as what is
    left.
    """
    many = target.registers > 16
    most = (4 if many else 3) if outputs > 1 else (8 if many else 6)
    vectors = split(needed, most)[0]
    return split(outputs, tile_rows(target, vectors))[0], vectors


def _channels_outer(
    x: TensorType, w: TensorType, groups: int, parts: int, items: int, target: Target
) -> bool:
    """Whether going through all positions before the next channels reads less from beyond L2.

    `parts` tiles of channels then read a group's x each; else `items` positions read its weights each.
    """
    x_bytes, w_bytes = x.bytes // (x.shape[0] * groups), w.bytes // groups
    positions_again = x_bytes * (parts if x_bytes > target.l2 * 3 // 4 else 1)
    weights_again = w_bytes * (items if w_bytes > target.l2 // 2 else 1)
    return positions_again + w_bytes <= weights_again + x_bytes


def build(
    name: str, plan: ConvPlanarPlan, x: TensorType, w: TensorType, result: TensorType, epilogue: Epilogue
) -> Kernel:
    """fn(x, w, <epilogue>, begin, end): x padded as planned or more, w row-major, result (N, O, *spatial)."""
    flops = 2 * prod(result.shape) * prod(w.shape[1:])
    b = Builder(name)
    x_view, w_view = View.of(x), View.of(w)
    source, weights = b.input("x", x_view.type, x_view.size), b.input("w", w_view.type, w_view.size)
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")
    if plan.whole:
        items = _rows(b, plan, x, w, source, weights, epilogue, begin, end)
    else:
        conv = _Conv(b, plan, source, weights, x_view, w.shape, result.shape)
        items = _windows(conv, epilogue, begin, end)
    return Kernel(b.finish(), items, flops)


def _rows(
    b: Builder, plan: ConvPlanarPlan, x: TensorType, w: TensorType, source: Buffer, weights: Buffer,
    epilogue: Epilogue, begin: Operand, end: Operand,
) -> int:  # fmt: skip
    """The kernel covers the input: products of filters with images."""
    depth, outputs = prod(w.shape[1:]), w.shape[0] // plan.groups
    chunk = min(dot_chunk(depth, plan.channels), outputs)
    chunks = -(-outputs // chunk)

    def item(number: Index, _: list[Operand]) -> None:
        image, group, piece = unflatten(b, number, (x.shape[0], plan.groups, chunks))
        image_at = b.mul(b.add(b.mul(image, plan.groups), group), depth)
        first = b.mul(piece, chunk)
        stop = b.min(b.add(first, chunk), outputs) if chunks > 1 else outputs

        def some(filter: Index, count: int) -> None:
            channel = b.add(b.mul(group, outputs), filter)
            filters = [(weights, b.mul(channel, depth), r * depth) for r in range(count)]
            sums = dots(b, plan.lanes, plan.vectors, depth, filters, (source, image_at))
            for r, value in enumerate(sums):
                epilogue.store(b, [(image, 0), (channel, r), *[(0, 0)] * (x.rank - 2)], value, 1)

        whole = b.mul(b.div(stop, plan.channels), plan.channels)
        b.for_(first, whole, lambda filter, _: some(filter, plan.channels), step=plan.channels)
        b.for_(whole, stop, lambda filter, _: some(filter, 1))

    b.for_(begin, end, item)
    return x.shape[0] * plan.groups * chunks


@dataclass(frozen=True)
class _Conv:
    """A function under construction: buffers, x's view, and the logical shapes."""

    b: Builder
    plan: ConvPlanarPlan
    x: Buffer
    w: Buffer
    view: View
    filters: Shape
    result: Shape

    @property
    def steps(self) -> Shape:
        """Elements of x between neighbouring positions of the result, by spatial axis."""
        return tuple(
            stride * size for stride, size in zip(self.plan.strides, self.view.outer[2:], strict=True)
        )

    @property
    def inner(self) -> Shape:
        """The result's extents inside the lane axis."""
        return self.result[2 + self.plan.lane_axis + 1 :]

    def points(self, span: int) -> tuple[int, ...]:
        """By lane, how far its element of x lies from the first, for `span` positions of the lane axis."""
        steps = self.steps[self.plan.lane_axis :]
        return tuple(
            sum(at * step for at, step in zip(place, steps, strict=True))
            for place in product(range(span), *map(range, self.inner))
        )

    def spans(self, positions: int) -> list[int]:
        """Positions of the lane axis a vector takes, for a tile of `positions`."""
        return [min(self.plan.span, positions - at) for at in range(0, positions, self.plan.span)]


def _windows(conv: _Conv, epilogue: Epilogue, begin: Operand, end: Operand) -> int:
    """Tiles of output channels by vectors of positions."""
    b, plan, result, view = conv.b, conv.plan, conv.result, conv.view
    outputs, depth = result[1] // plan.groups, prod(conv.filters[1:])
    channel_tiles, odd_channels = divmod(outputs, plan.channels)
    outer = result[2 : 2 + plan.lane_axis]
    extent, tile = result[2 + plan.lane_axis], plan.span * plan.vectors
    tiles, odd_positions = divmod(extent, tile)
    pieces = max(-(-tiles // _TILES_AN_ITEM), 1)
    parts = -(-outputs // plan.channels)
    extents = (parts, *outer, pieces) if plan.channels_outer else (*outer, pieces, parts)
    origin = view.origin - sum(
        before * stride for (before, _), stride in zip(plan.pads, view.outer[2:], strict=True)
    )

    def item(number: Index, _: list[Operand]) -> None:
        image, group, *rest = unflatten(b, number, (result[0], plan.groups, *extents))
        part, place = (rest[0], rest[1:]) if plan.channels_outer else (rest[-1], rest[:-1])
        *at, piece = place
        x_at = b.add(b.mul(image, view.outer[0]), b.mul(group, view.outer[1] * conv.filters[1]))
        for position, step in zip(at, conv.steps, strict=False):
            x_at = b.add(x_at, b.mul(position, step))
        x_at = b.add(x_at, origin)
        channel = b.add(b.mul(group, outputs), b.mul(part, plan.channels))
        w_at = b.mul(channel, depth)

        def one(position: Index, channels: int, positions: int) -> None:
            """The tile at a position of the lane axis."""
            first = b.add(x_at, b.mul(position, conv.steps[plan.lane_axis]))
            sums = _sums(conv, first, w_at, channels, conv.spans(positions))

            def store(c: Index, _: list[Operand]) -> None:
                where = [(image, 0), (b.add(channel, c), 0), *((i, 0) for i in at)]
                _store(conv, sums, c, where, position, conv.spans(positions), epilogue)

            b.for_(0, channels, store)

        def along(channels: int) -> None:
            lo = b.mul(piece, _TILES_AN_ITEM * tile)
            hi = b.min(b.add(lo, _TILES_AN_ITEM * tile), tiles * tile) if pieces > 1 else tiles * tile
            b.for_(lo, hi, lambda position, _: one(position, channels, tile), step=tile)
            if odd_positions:
                is_last = pieces == 1 or b.compare("eq", piece, pieces - 1)
                b.if_(is_last, lambda: one(tiles * tile, channels, odd_positions))

        if channel_tiles and odd_channels:
            is_whole = b.compare("lt", part, channel_tiles)
            b.if_(is_whole, lambda: along(plan.channels), lambda: along(odd_channels))
        else:
            along(plan.channels if channel_tiles else odd_channels)

    b.for_(begin, end, item)
    return result[0] * plan.groups * prod(extents)


def _sums(conv: _Conv, x_at: Index, w_at: Index, channels: int, spans: Sequence[int]) -> Buffer:
    """Compute sums[channel][vector] of a tile, in scratch."""
    b, plan = conv.b, conv.plan
    lanes, vectors, depth = plan.lanes, len(spans), prod(conv.filters[1:])
    extents = conv.filters[1:]
    x_steps = (conv.view.outer[1], *(d * s for d, s in zip(plan.dilations, conv.view.outer[2:], strict=True)))
    sums = b.alloc("sums", conv.x.type, channels * vectors * lanes)
    lane_step = conv.steps[plan.lane_axis] * plan.span

    def terms(x_at: Index, w_at: Index, acc: list[Operand]) -> list[Operand]:
        """One channel of x at one kernel position."""
        acc = list(acc)
        loaded = [
            load_points(b, conv.x, x_at, v * lane_step, conv.points(span), lanes)
            for v, span in enumerate(spans)
        ]
        for c in range(channels):
            weight = b.load_splat(conv.w, w_at, lanes, offset=c * depth)
            for v in range(vectors):
                acc[c * vectors + v] = multiply_add(b, weight, loaded[v], acc[c * vectors + v])
        return acc

    def sweep(level: int, x_at: Index, w_at: Index, acc: list[Operand]) -> list[Operand]:
        """All terms of the loops from `level` inwards: input channel, then the kernel's axes."""
        if level == len(extents):
            return terms(x_at, w_at, acc)
        return run(level, 0, extents[level], x_at, w_at, acc)

    def run(level: int, lo: Index, hi: Index, x_at: Index, w_at: Index, acc: list[Operand]) -> list[Operand]:
        inner = prod(extents[level + 1 :])

        def step(i: Index, acc: list[Operand]) -> list[Operand]:
            at = b.add(x_at, b.mul(i, x_steps[level]))
            if level == 0:
                # Tiles go through as many rows of x as it has channels, too many streams for the hardware.
                for v in range(vectors):
                    b.prefetch(conv.x, at, offset=(_TILES_AHEAD * vectors + v) * lane_step)
            return sweep(level + 1, at, b.add(w_at, b.mul(i, inner)), acc)

        return b.for_(lo, hi, step, carried=acc)

    def keep(acc: list[Operand], add: bool) -> None:
        for i, value in enumerate(acc):
            b.store(sums, i * lanes, b.add(value, b.load(sums, i * lanes, lanes)) if add else value)

    none = zeros(conv.x.type, lanes, channels * vectors)
    # The outermost loop whose body is short enough for one chain of additions is the one that goes in blocks.
    level = next(i for i in range(len(extents)) if i == len(extents) - 1 or prod(extents[i + 1 :]) <= BLOCK)
    size = max(BLOCK // prod(extents[level + 1 :]), 1)
    if level == 0 and extents[0] <= size + size // 2:
        keep(sweep(0, x_at, w_at, none), False)
        return sums

    def blocks(outer: int, x_at: Index, w_at: Index) -> None:
        inner = prod(extents[outer + 1 :])
        if outer < level:
            b.for_(0, extents[outer], lambda i, _: blocks(
                outer + 1, b.add(x_at, b.mul(i, x_steps[outer])), b.add(w_at, b.mul(i, inner))))  # fmt: skip
            return
        end = extents[outer]
        b.for_(0, end, lambda lo, _: keep(
            run(outer, lo, b.min(b.add(lo, size), end), x_at, w_at, none), True), step=size)  # fmt: skip

    keep(none, False)
    blocks(0, x_at, w_at)
    return sums


def _store(
    conv: _Conv, sums: Buffer, channel: Index, where: list[tuple[Index, int]], position: Index,
    spans: Sequence[int], epilogue: Epilogue,
) -> None:  # fmt: skip
    """Hand one channel of a tile on: a vector where lanes run along a row, else a row of each of its rows."""
    b, plan, lanes = conv.b, conv.plan, conv.plan.lanes
    base = b.mul(channel, len(spans) * lanes)
    for v, span in enumerate(spans):
        if not conv.inner:
            value = b.load(sums, base, lanes, offset=v * lanes)
            epilogue.store(b, [*where, (position, v * plan.span)], value, span)
            continue
        width = conv.inner[-1]
        for row, (along, *inner) in enumerate(product(range(span), *map(range, conv.inner[:-1]))):
            at = [*where, (position, v * plan.span + along), *((0, i) for i in inner), (0, 0)]
            wide = lanes if width > 1 else 1
            value = b.load(sums, base, wide, offset=v * lanes + row * width, active=width)
            epilogue.store(b, at, value, width)
