"""Register tiles of convolutions: how an image is cut into them, and which one is estimated fastest.

    output_size(224, 3, 2, (1, 1), 1)      112 outputs along an axis
    split(56, 15)                          (14, 4, 0): four parts of 14, none of 13
    choose_tile(target, 64, ...)           (2, 1, 14): two vectors by one row of 14 pixels
"""

from tilewright.compiler.ir.types import Layout, TensorType
from tilewright.compiler.targets import Target
from tilewright.errors import CompileError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

FLOATS = ("f32", "f64")
"""Element types that convolutions and pooling compute in vectors."""


def output_size(size: int, kernel: int, stride: int, pad: Pair, dilation: int) -> int:
    """Outputs of a convolution along one axis; none or fewer where the filter exceeds the padded input."""
    return (size + sum(pad) - (kernel - 1) * dilation - 1) // stride + 1


def needed_pad(size: int, kernel: int, stride: int, pad: Pair, dilation: int) -> Pair:
    """The zeros that a convolution really reads before and after an axis: strides may leave some out."""
    last = (output_size(size, kernel, stride, pad, dilation) - 1) * stride - pad[0] + (kernel - 1) * dilation
    return pad[0], max(last - (size - 1), 0)


def split(size: int, most: int) -> tuple[int, int, int]:
    """(width, count, narrower): `size` in the fewest parts of at most `most`, as even as can be.

    There are `count` parts of `width` and `narrower` parts of `width - 1`.
    """
    parts = -(-size // most)
    width = -(-size // parts)
    narrower = parts * width - size
    return width, parts - narrower, narrower


def tile_room(target: Target, vectors: int) -> int:
    """How many pixels of `vectors` vectors a tile can have."""
    # Elsewhere than on x86, multiply-adds broadcast a lane: registers hold channels of several pixels.
    registers = target.registers if target.triple.startswith("x86") else target.registers * 5 // 8
    return (registers - vectors - 1) // vectors


def unrolled(target: Target, vectors: int) -> int:
    """The most multiply-adds in the body of the innermost loop, so many that the loop takes no time.

    With 16 registers tiles are small, and AVX2 broadcasts pixels by instructions of their own, so that four
    instructions a cycle are hardly enough: from 24 to 96 makes a ResNet-50 1.3 times as fast. Where each broadcast is
    used but once, LLVM then spills.
    """
    if target.registers > 16:
        return 56
    return 96 if vectors > 1 else 24


def power_of_two(value: int) -> int:
    """The largest that is not larger, at least 1, as blocks of channels are."""
    return 1 << max(value, 1).bit_length() - 1


def choose_tile(
    target: Target, vector_bytes: int, blocks: int, groups: int, height: int, width: int, reduction: int, unit: int = 1
) -> tuple[int, int, int]:
    """(vectors, rows, pixels a row) of the tile that is estimated fastest; rows and pixels are multiples of `unit`.

    A step of the reduction takes the longest of: multiply-adds at two a cycle, loads at two a cycle, the
    latency of a multiply-add (four cycles), and filter vectors coming from the second-level cache at 32 bytes
    a cycle.
    """

    def cycles(vectors: int, pixels: int) -> float:
        step = max(vectors * pixels / 2, (vectors + pixels) / 2, 4.0, vectors * vector_bytes / 32)
        return (step + 0.5) * reduction + 2 * vectors * pixels + 20

    def along(vectors: int, rows: int, pixels: int) -> float:
        wide, count, narrower = split(width // unit, pixels // unit)
        row = count * cycles(vectors, rows * wide * unit) + (
            narrower * cycles(vectors, rows * (wide - 1) * unit) if narrower else 0
        )
        return row

    best: tuple[float, tuple[int, int, int]] | None = None
    for vectors in range(1, min(blocks, 8) + 1):
        if groups > 1 and blocks % vectors:
            continue
        room = tile_room(target, vectors)
        for rows in range(unit, min(height, max(room // width, unit)) + 1, unit):
            pixels = min(width, room // rows // unit * unit)
            if pixels < 1:
                continue
            cost = 0.0
            for count, taken in ((blocks // vectors, vectors), (1, blocks % vectors)):
                if taken:
                    bands = height // rows * along(taken, rows, pixels)
                    cost += count * (bands + (along(taken, height % rows, pixels) if height % rows else 0))
            if best is None or cost < best[0]:
                best = cost, (vectors, rows, pixels)
    if best is None:
        raise CompileError(f"target {target} has too few registers for a convolution")
    return best[1]


def check_pads(needed: Layout, x: TensorType) -> None:
    """Raise CompileError where x has fewer physical zeros around it than a kernel reads."""
    for axis, (before, after) in enumerate(needed.pads):
        has = x.layout.pad(axis)
        if has[0] < before or has[1] < after:
            raise CompileError(
                f"a convolution reads {before}, {after} zeros around axis {axis}, its operand has {has}"
            )
