"""Winograd convolution F(m x m, r x r), stride 1: transforms around n x n matrix products, n = m + r - 1.

    x       [N][C/W][H + pads][W + pads][W]       zeros wide enough that every tile's n x n window lies inside
    u       [O/(V*W)][n*n][C/W][W][V*W]           transformed filters, see ops.winograd
    or w    [O/(V*W)][C/W][r][r][W][V*W]          raw ones, which the kernel transforms itself
    result  in blocks of W channels, through the epilogue

    for block of up to T tiles (m x m outputs each, in raster order, all images), a row of strips of up to P tiles:
      for input block, tile:
        columns of B^T d -> stack; rows of (B^T d) B -> inputs[k][chain][strip][input block][tile][W]
      for chunk of groups of V output vectors:
        for k = 0 .. n * n, group, chain of input blocks, strip:
          micro-kernel V x P: products[k][group][strip][V][tile][W] (+)= inputs * u
        for output vector, tile:
          columns of A^T M -> stack; rows of (A^T M) A -> epilogue, outputs inside the result only; two rows at a time
          where the epilogue pools

An item is a block; `inputs` and `products` are the kernel's scratch. Where all tiles are in one block, its inputs are
transformed by a kernel of its own, and an item of the main kernel is a chunk. A chain of channels is short, which
keeps rounding errors small; what a micro-kernel reads and writes is contiguous. Every output is computed and stored
exactly once, so the epilogue may update it in place.

Transformed filters take n*n / (r*r) times the memory of raw ones, four times for F(4x4, 3x3), and where there are
few tiles to use them they come too slowly. Raw ones are transformed in single precision, a group and a chain at a
time, into scratch that stays in the second-level cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import ClassVar

from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.kernels.conv_tiles import check_pads, split
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import tile_rows, unflatten
from tilewright.compiler.kernels.winograd_blocking import FEW, blocking, tile_counts
from tilewright.compiler.kernels.winograd_product import LINE, micro_kernel
from tilewright.compiler.kernels.winograd_transforms import transform_filter, transform_input, transform_output
from tilewright.compiler.loops import Builder, Index, Operand
from tilewright.compiler.loops.nodes import Ref
from tilewright.compiler.targets import Target
from tilewright.compiler.winograd import Scheme

Pads = tuple[tuple[int, int], tuple[int, int]]

CHAIN = 32
"""Input channels added up in one register before the sum joins a product."""

@dataclass(frozen=True)
class Plan(KernelPlan):
    """The register tile and the loops around it; see the module's docstring.

    `tile` and `kernel` are m and r; `vectors` and `pixels` V and the most P; `tiles` is T; `groups` are those
    of a chunk; `chain` counts input blocks. `raw`: filters are transformed by the kernel. `shared`: inputs are
    transformed by another kernel, see `build_inputs`.
    """

    template: ClassVar[str] = "conv_winograd"
    lanes: int
    tile: int
    kernel: int
    pads: Pads
    vectors: int
    pixels: int
    tiles: int
    groups: int
    chain: int
    unroll: int
    prefetch: bool
    raw: bool
    shared: bool


def plan(x: TensorType, u: TensorType, *, tile: int, kernel: int, pads: Pads, target: Target) -> Plan | None:
    """How to convolve x (N, C, H, W) with filters u; pads are (before, after) by spatial axis.

    They are (n * n, O, C), transformed, or (O, C, r, r), which the kernel transforms.

    Applies to f32 with non-empty results and pads that are not negative. Else None.
    """
    if x.rank != 4 or u.rank not in (3, 4) or x.dtype.name != "f32" or u.dtype != x.dtype:
        return None
    if min(*x.shape, *u.shape) < 1 or min(*pads[0], *pads[1]) < 0:
        return None
    counts = tile_counts(x.shape[2:], tile, kernel, pads)
    if min(counts) < 1:
        return None
    lanes = target.lanes(x.dtype.bits)
    raw = u.rank == 4
    outputs, channels = u.shape[:2] if raw else u.shape[1:]
    products = (tile + kernel - 1) ** 2
    blocks_in, blocks_out = -(-channels // lanes), -(-outputs // lanes)
    vectors = min(2, blocks_out)
    pixels = tile_rows(target, vectors)
    all_tiles = x.shape[0] * prod(counts)
    if raw:
        tiles, groups = split(all_tiles, FEW * pixels)[0], 1
    else:
        tiles, groups = blocking(all_tiles, products, blocks_in, blocks_out, vectors, pixels, target)
    chain = max(CHAIN // lanes, 1)
    spatial = tuple(
        (before, max(count * tile + kernel - 1 - before - size, 0))
        for size, count, (before, _) in zip(x.shape[2:], counts, pads, strict=True)
    )
    return Plan(
        operand_layouts=(
            Layout(blocks=((1, lanes),), pads=((0, 0), (0, 0), *spatial)),
            Layout(blocks=((1, lanes), (0, vectors * lanes)))
            if raw
            else Layout(axes=(1, 0, 2), blocks=((2, lanes), (1, vectors * lanes))),
        ),
        result_layout=Layout(blocks=((1, lanes),)),
        lanes=lanes,
        tile=tile,
        kernel=kernel,
        pads=pads,
        vectors=vectors,
        pixels=pixels,
        tiles=tiles,
        groups=groups,
        chain=-(-blocks_in // -(-blocks_in // chain)),
        unroll=min(lanes, 4 if target.registers > 16 else 8),
        prefetch=u.elements * x.dtype.bytes > target.l2 // 2,
        raw=raw,
        shared=tiles == all_tiles,
    )


def build(name: str, plan: Plan, x: TensorType, u: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """The kernel of `plan`, with buffers x, u, the epilogue's and scratch; if the inputs are shared, v in place of x.

    x and u lie as the plan asks; x may have wider pads, else CompileError. The epilogue gets whole vectors along
    axis 1. FLOPs are those of the direct convolution.
    """
    check_pads(plan.operand_layouts[0], x)
    return _Builder(name, plan, x, result).kernel(u, epilogue)


def build_inputs(name: str, plan: Plan, x: TensorType, result: TensorType) -> Kernel:
    """Of a plan whose inputs are shared, the kernel that transforms them: buffers x and v; items are input blocks."""
    check_pads(plan.operand_layouts[0], x)
    return _Builder(name, plan, x, result).inputs_kernel()


def inputs_type(plan: Plan, x: TensorType, result: TensorType) -> TensorType:
    """What buffer v holds."""
    return TensorType(x.dtype, (_Builder("", plan, x, result).inputs_size,))


@dataclass(frozen=True)
class _Block:
    """Tiles from `first` on; `short` is 1 if they are one fewer than in a whole block.

    Its strips are `wide` wide ones and the rest, up to `strips`, one tile narrower.
    """

    first: Index
    short: Index
    wide: Index
    strips: int


@dataclass(frozen=True)
class _Strip:
    """A strip's first tile, counted in its block, and how many it has."""

    first: Index
    width: Index


class _Builder:
    """What the parts of one kernel share while it is built."""

    def __init__(self, name: str, plan: Plan, x: TensorType, result: TensorType) -> None:
        self.plan, self.shape = plan, result.shape
        self.scheme = Scheme(plan.tile, plan.kernel)
        self.x = View.of(x)
        lanes = plan.lanes
        self.blocks_in = -(-x.shape[1] // lanes)
        self.blocks_out = -(-result.shape[1] // lanes)
        self.all_groups = -(-self.blocks_out // plan.vectors)
        self.chunks = -(-self.all_groups // plan.groups)
        self.counts = tile_counts(x.shape[2:], plan.tile, plan.kernel, plan.pads)
        self.split = split(result.shape[0] * prod(self.counts), plan.tiles)
        self.tiles = self.split[0]
        # A line between matrices, so that the elements of one place do not all fall into one cache set.
        line = LINE // self.x.type.bytes
        self.strip_split = split(self.tiles, plan.pixels)
        self.row = self.tiles * lanes
        self.input_step = self.blocks_in * self.row + line
        self.product_step = plan.groups * plan.vectors * self.row + line
        self.inputs_size = self.scheme.window**2 * self.input_step
        self.products_at = 0 if plan.shared else self.inputs_size
        size = self.products_at + self.scheme.window**2 * self.product_step
        self.filters_at, self.filter_step = size, plan.chain * lanes * plan.vectors * lanes + line
        if plan.raw:
            size += self.scheme.window**2 * self.filter_step
        self.scratch_size = -(-size // line) * line

        self.b = Builder(name)
        self.flops = 2 * result.elements * x.shape[1] * plan.kernel**2
        every_tile = result.shape[0] * prod(self.counts)
        self.performed = 2 * every_tile * x.shape[1] * result.shape[1] * self.scheme.window**2

    def inputs_kernel(self) -> Kernel:
        """Input blocks begin..end of the one block."""
        b = self.b
        self.x_buffer = b.input("x", self.x.type, self.x.size)
        self.inputs = b.output("v", self.x.type, self.inputs_size)
        begin, end = b.scalar("begin"), b.scalar("end")
        self.stack = b.alloc("stack", self.x.type, self.scheme.window**2 * self.plan.lanes)
        self.transform_inputs(self.whole_block(), begin, end)
        return Kernel(b.finish(), self.blocks_in)

    def whole_block(self) -> _Block:
        """All tiles, where they are one block."""
        wide, narrow = self.strip_split[1:]
        return _Block(0, 0, wide, wide + narrow)

    def kernel(self, u: TensorType, epilogue: Epilogue) -> Kernel:
        """Blocks begin..end, or chunks of the one block."""
        b, plan, chunks = self.b, self.plan, self.chunks
        tiles, whole, shorter = self.split
        self.u, self.epilogue = View.of(u), epilogue
        if plan.shared:
            self.inputs = b.input("v", self.x.type, self.inputs_size)
        else:
            self.x_buffer = b.input("x", self.x.type, self.x.size)
        self.u_buffer = b.input("u", self.u.type, self.u.size)
        epilogue.declare(b)
        self.scratch = b.inout("scratch", self.x.type, self.scratch_size)
        begin, end = b.scalar("begin"), b.scalar("end")
        self.stack = b.alloc("stack", self.x.type, self.scheme.window**2 * plan.lanes)
        scratch = self.scratch_size * self.x.type.bytes
        if plan.shared:
            one = self.whole_block()
            b.for_(begin, end, lambda chunk, _: self.chunk(one, chunk))
            return Kernel(b.finish(), chunks, self.flops, scratch, self.performed)
        self.inputs = self.scratch

        def block(index: Index, _: list[Operand]) -> None:
            short = b.min(b.max(b.sub(index, whole - 1), 0), 1) if shorter else 0
            first = b.mul(index, tiles)
            if shorter:
                first = b.sub(first, b.max(b.sub(index, whole), 0))
            # A block that is one tile short has one narrow strip more in place of a wide one.
            wide, narrow = self.strip_split[1:]
            of = _Block(first, short, b.sub(wide, short), wide + narrow)
            self.transform_inputs(of, 0, self.blocks_in)
            b.for_(0, chunks, lambda chunk, _: self.chunk(of, chunk))

        b.for_(begin, end, block)
        return Kernel(b.finish(), whole + shorter, self.flops, scratch, self.performed)

    def place(self, block: _Block, tile: Index) -> list[Index]:
        """(image, tile row, tile column) of a block's tile."""
        return unflatten(self.b, self.b.add(block.first, tile), (self.shape[0], *self.counts))

    def tiles_of(self, block: _Block, visit: Callable[[_Strip, Index], None]) -> None:
        """Build loops over a block's strips and their tiles."""
        b, width = self.b, self.strip_split[0]

        def strip(number: Index, _: list[Operand]) -> None:
            if block.short == 0 and not self.strip_split[2]:
                one = _Strip(b.mul(number, width), width)
            else:
                one = _Strip(
                    b.sub(b.mul(number, width), b.max(b.sub(number, block.wide), 0)),
                    b.sub(width, b.min(b.max(b.sub(number, b.sub(block.wide, 1)), 0), 1)),
                )
            b.for_(0, one.width, lambda tile, _: visit(one, tile))

        b.for_(0, block.strips, strip)

    def chains(self, build: Callable[[Index, Index], None]) -> None:
        """Build a loop over chains of input blocks: `build` gets the first and how many."""
        b, length = self.b, self.plan.chain

        def chain(first: Index, _: list[Operand]) -> None:
            build(first, b.min(length, b.sub(self.blocks_in, first)) if self.blocks_in % length else length)

        b.for_(0, self.blocks_in, chain, step=length)

    def transform_inputs(self, block: _Block, low: Index, high: Index) -> None:
        """The block's tiles of input blocks low..high."""
        b, plan, x, n, lanes = self.b, self.plan, self.x, self.scheme.window, self.plan.lanes
        origin = x.origin - plan.pads[0][0] * x.outer[2] - plan.pads[1][0] * x.outer[3]

        def transform(input_block: Index, strip_at: Index, number: Index, tile: Index) -> None:
            image, down, across = self.place(block, number)
            at = b.add(b.mul(image, x.outer[0]), b.mul(input_block, x.outer[1]))
            at = b.add(at, b.add(b.mul(down, plan.tile * x.outer[2]), b.mul(across, plan.tile * x.outer[3])))

            def column(j: Index, _: list[Operand]) -> None:
                place = b.add(at, b.mul(j, x.outer[3]))
                d: list[Operand] = [
                    b.load(self.x_buffer, place, lanes, offset=origin + i * x.outer[2]) for i in range(n)
                ]
                for i, value in enumerate(transform_input(b, self.scheme, d)):
                    b.store(self.stack, b.mul(j, lanes), value, offset=i * n * lanes)

            def row(i: Index, _: list[Operand]) -> None:
                place = b.mul(i, n * lanes)
                d: list[Operand] = [b.load(self.stack, place, lanes, offset=j * lanes) for j in range(n)]
                to = b.add(b.add(strip_at, b.mul(tile, lanes)), b.mul(i, n * self.input_step))
                for j, value in enumerate(transform_input(b, self.scheme, d)):
                    b.store(self.inputs, to, value, offset=j * self.input_step)

            b.for_(0, n, column)
            b.for_(0, n, row)

        def transform_block(input_block: Index, _: list[Operand]) -> None:
            first = b.mul(b.div(input_block, plan.chain), plan.chain)
            blocks = b.min(plan.chain, b.sub(self.blocks_in, first))

            def visit(strip: _Strip, tile: Index) -> None:
                at = b.add(b.mul(strip.first, blocks), b.mul(b.sub(input_block, first), strip.width))
                at = b.add(b.mul(first, self.row), b.mul(at, lanes))
                transform(input_block, at, b.add(strip.first, tile), tile)

            # Tiles innermost: windows of neighbours overlap.
            self.tiles_of(block, visit)

        b.for_(low, high, transform_block)

    def chunk(self, block: _Block, chunk: Index) -> None:
        """One item, its inputs transformed."""
        b, plan, lanes = self.b, self.plan, self.plan.lanes
        first = b.mul(chunk, plan.groups)
        groups = b.min(plan.groups, b.sub(self.all_groups, first)) if self.all_groups % plan.groups else plan.groups
        vectors = b.min(b.mul(groups, plan.vectors), b.sub(self.blocks_out, b.mul(first, plan.vectors)))

        def group(k: Index, number: Index) -> None:
            u_at = b.add(b.mul(b.add(first, number), self.u.outer[1]), b.mul(k, self.u.outer[0]))
            at = b.add(b.mul(k, self.product_step), b.mul(number, plan.vectors * self.row))
            panel = lanes * plan.vectors * lanes

            def chain(input_block: Index, blocks: Index) -> None:
                u = b.ref(self.u_buffer, b.add(u_at, b.mul(input_block, panel)), self.u.origin)
                self.multiply(block, k, u, at, input_block, blocks)

            self.chains(chain)

        def product(k: Index, _: list[Operand]) -> None:
            b.for_(0, groups, lambda number, _: group(k, number))

        def raw_group(number: Index, _: list[Operand]) -> None:
            def chain(input_block: Index, blocks: Index) -> None:
                self.transform_filters(b.add(first, number), input_block, blocks)

                def product(k: Index, _: list[Operand]) -> None:
                    u = b.ref(self.scratch, b.mul(k, self.filter_step), self.filters_at)
                    at = b.add(b.mul(k, self.product_step), b.mul(number, plan.vectors * self.row))
                    self.multiply(block, k, u, at, input_block, blocks)

                b.for_(0, self.scheme.window**2, product)

            self.chains(chain)

        def vector(number: Index, _: list[Operand]) -> None:
            channel = b.mul(b.add(b.mul(first, plan.vectors), number), plan.lanes)
            at = b.mul(b.div(number, plan.vectors), plan.vectors * self.row)
            within = b.rem(number, plan.vectors)

            def visit(strip: _Strip, tile: Index) -> None:
                place = b.add(b.mul(strip.first, plan.vectors), b.add(b.mul(within, strip.width), tile))
                self.transform_outputs(block, channel, b.add(strip.first, tile), b.add(at, b.mul(place, plan.lanes)))

            self.tiles_of(block, visit)

        if plan.raw:
            b.for_(0, groups, raw_group)
        else:
            b.for_(0, self.scheme.window**2, product)
        b.for_(0, vectors, vector)

    def transform_filters(self, group: Index, input_block: Index, blocks: Index) -> None:
        """A chain of raw filters of a group, to scratch."""
        b, plan, w, lanes = self.b, self.plan, self.u, self.plan.lanes
        r, n, panel = plan.kernel, self.scheme.window, plan.vectors * lanes
        base = b.add(b.mul(group, w.outer[0]), b.mul(input_block, w.outer[1]))

        def vector(block: Index, channel: Index, number: Index) -> None:
            within = b.mul(number, lanes)
            at = b.add(b.add(base, b.mul(block, w.outer[1])), b.add(b.mul(channel, w.inner[1]), within))
            places = [w.origin + i * w.outer[2] + j * w.outer[3] for i in range(r) for j in range(r)]
            if plan.prefetch:
                for place in places:
                    b.prefetch(self.u_buffer, at, offset=place + plan.chain * w.outer[1], locality=2)
            taps: list[Operand] = [b.load(self.u_buffer, at, lanes, offset=place) for place in places]
            columns = [transform_filter(b, self.scheme, taps[j::r]) for j in range(r)]
            to = b.add(b.mul(b.add(b.mul(block, lanes), channel), panel), within)
            for i in range(n):
                for j, value in enumerate(transform_filter(b, self.scheme, [column[i] for column in columns])):
                    b.store(self.scratch, to, value, offset=self.filters_at + (i * n + j) * self.filter_step)

        def channel(block: Index, at: Index) -> None:
            b.for_(0, plan.vectors, lambda number, _: vector(block, at, number))

        b.for_(0, blocks, lambda block, _: b.for_(0, lanes, lambda at, _: channel(block, at)) and None)

    def multiply(self, block: _Block, k: Index, u: Ref, to: Index, first: Index, blocks: Index) -> None:
        """Product k of all the block's tiles with a group's filters `u`, for a chain of input blocks."""
        b, plan, lanes = self.b, self.plan, self.plan.lanes
        width, _, narrow = self.strip_split
        v_from = b.add(b.mul(k, self.input_step), b.mul(first, self.row))

        def strip(pixels: int, start: Index) -> Callable[[Index, list[Operand]], None]:
            lines = -(-plan.vectors * lanes * self.x.type.bytes // LINE)
            share = -(-lines // block.strips) if plan.prefetch and not plan.raw else 0
            function = micro_kernel(self.x.type, lanes, plan.vectors, pixels, plan.unroll, share)

            def body(number: Index, _: list[Operand]) -> None:
                at = b.mul(b.add(start, b.mul(number, pixels)), lanes)
                # Each strip fetches its share of the lines that the next chain reads.
                ahead = b.mul(number, share * LINE // self.x.type.bytes)
                ahead = b.add(b.mul(blocks, lanes * plan.vectors * lanes), ahead)
                b.call(
                    function,
                    u,
                    b.ref(self.inputs, b.add(v_from, b.mul(at, blocks))),
                    b.ref(self.scratch, b.add(to, b.mul(at, plan.vectors)), self.products_at),
                    blocks,
                    first,
                    ahead,
                )

            return body

        b.for_(0, block.wide, strip(width, 0))
        if (narrow or not isinstance(block.short, int)) and width > 1:
            b.for_(0, b.sub(block.strips, block.wide), strip(width - 1, b.mul(block.wide, width)))

    def transform_outputs(self, block: _Block, channel: Index, tile: Index, base: Index) -> None:
        """One tile of one output vector, whose first product lies at `base`, to the epilogue."""
        b, n, m, lanes = self.b, self.scheme.window, self.plan.tile, self.plan.lanes
        image, down, across = self.place(block, tile)
        height, width = self.shape[2:]

        def column(j: Index, _: list[Operand]) -> None:
            place = b.add(base, b.mul(j, self.product_step))
            products: list[Operand] = [
                b.load(self.scratch, place, lanes, offset=self.products_at + i * n * self.product_step)
                for i in range(n)
            ]
            for i, value in enumerate(transform_output(b, self.scheme, products)):
                b.store(self.stack, b.mul(j, lanes), value, offset=i * n * lanes)

        def outputs(i: Index) -> list[Operand]:
            place = b.mul(i, n * lanes)
            d: list[Operand] = [b.load(self.stack, place, lanes, offset=j * lanes) for j in range(n)]
            return transform_output(b, self.scheme, d)

        def inside(j: int, store: Callable[[], None]) -> None:
            """Store column j of the tile; columns that even the last tile has need no test."""
            left = b.mul(across, m)
            if j < (width - 1) % m + 1:
                store()
            elif not isinstance(left, int):
                b.if_(b.compare("lt", left, width - j), store)

        def row(i: Index, _: list[Operand]) -> None:
            y = b.add(b.mul(down, m), i)
            for j, value in enumerate(outputs(i)):
                at = ((image, 0), (channel, 0), (y, 0), (b.mul(across, m), j))
                inside(j, partial(self.epilogue.store, b, at, value, lanes))

        def two_rows(i: Index, _: list[Operand]) -> None:
            top, bottom = outputs(i), outputs(b.add(i, 1))
            y, pooled_y = b.add(b.mul(down, m), i), b.add(b.mul(down, m // 2), b.div(i, 2))
            for j in range(0, m, 2):
                at = ((image, 0), (channel, 0), (y, 0), (b.mul(across, m), j))
                pooled = ((image, 0), (channel, 0), (pooled_y, 0), (b.mul(across, m // 2), j // 2))
                window = (*top[j : j + 2], *bottom[j : j + 2])
                inside(j, partial(self.epilogue.store_window, b, at, window, pooled))

        b.for_(0, n, column)
        rows: Index = m if height % m == 0 else b.min(m, b.sub(height, b.mul(down, m)))
        if self.epilogue.pools:
            b.for_(0, rows, two_rows, step=2)
        else:
            b.for_(0, rows, row)
