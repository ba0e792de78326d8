"""The micro-kernel of `conv_winograd`: one element's products of a strip of tiles, for some channels.

    m[v][p] = (first ? m[v][p] : 0) + sum over c of u[c][v] * x[c][p]
"""

from functools import cache

from tilewright.compiler.loops import Builder, Function, Index, Operand, Type

LINE = 64
"""Bytes of a cache line."""


@cache
def micro_kernel(type: Type, lanes: int, vectors: int, pixels: int, unroll: int, fetched: int) -> Function:
    """The register tile, shared by all layers.

    u [channel][vectors * lanes], x [block][p][lanes], m [vectors][p][lanes], `blocks` of channels. For every
    channel, `fetched` lines of u are prefetched, `ahead` elements beyond it, and a line of x for the next strip, which
    lies behind this one: that takes a tenth off layers whose inputs do not fit the second-level cache.
    """
    # The buffers are pieces of the callers'; how much is used depends on the scalars.
    anything = 1 << 40
    b = Builder(f"winograd_{type}x{lanes}_{vectors}x{pixels}_{fetched}")
    u, x, m = b.input("u", type, anything), b.input("x", type, anything), b.inout("m", type, anything)
    blocks, first, ahead = b.scalar("blocks"), b.scalar("first"), b.scalar("ahead")
    panel = vectors * lanes

    def step(u_at: Index, x_at: Index, next_x: Index, sums: list[Operand]) -> list[Operand]:
        sums = list(sums)
        for c in range(unroll):
            if c * lanes * type.bytes % LINE == 0:
                b.prefetch(x, next_x, offset=c * lanes, locality=3)
            for line in range(fetched):
                b.prefetch(u, b.add(u_at, ahead), offset=c * panel + line * LINE // type.bytes, locality=3)
            taps = [b.load(u, u_at, lanes, offset=c * panel + k * lanes) for k in range(vectors)]
            for p in range(pixels):
                pixel = b.load_splat(x, x_at, lanes, offset=p * lanes + c)
                for k in range(vectors):
                    sums[k * pixels + p] = b.fma(pixel, taps[k], sums[k * pixels + p])
        return sums

    def block(index: Index, sums: list[Operand]) -> list[Operand]:
        u_at, x_at = b.mul(index, lanes * panel), b.mul(index, pixels * lanes)
        next_x = b.add(x_at, b.mul(blocks, pixels * lanes))

        def channel(c: Index, sums: list[Operand]) -> list[Operand]:
            return step(b.add(u_at, b.mul(c, panel)), b.add(x_at, c), b.add(next_x, b.mul(c, lanes)), sums)

        return b.for_(0, lanes, channel, step=unroll, carried=sums)

    zero: list[Operand] = [b.const(0.0, type.vector(lanes))] * (vectors * pixels)
    sums = b.for_(0, blocks, block, carried=zero)

    def put(added: bool) -> None:
        for at, value in enumerate(sums):
            total = b.add(b.load(m, 0, lanes, offset=at * lanes), value) if added else value
            b.store(m, 0, total, offset=at * lanes)

    b.if_(b.compare("eq", first, 0), lambda: put(False), lambda: put(True))
    return b.finish()
