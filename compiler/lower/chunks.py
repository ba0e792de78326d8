"""In how many chunks threads share out a kernel call.

    conv of 20 MFLOP, 64 items    200 us   ->   16 chunks of 4 items
    softmax of 10 numbers                  ->   1: computed where it stands

The number depends on the kernel alone, never on how many threads there will be.
"""

from collections.abc import Sequence

from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.loops import Buffer

# Rough speeds of one core in cache. They only decide how finely calls are cut.
FLOPS_PER_US = 120_000
BYTES_PER_US = 30_000
PLAIN_BYTES_PER_US = 4_000
PLAIN_ITEM_US = 1.5

LEAST_US = 4
"""A chunk computes at least this long, many times what it costs to hand out."""
MOST_US = 32
"""And at most this long if items allow, so that a thread that the system stops holds up little."""
ENOUGH = 16
"""Chunks enough to keep threads busy, where the work allows no more than LEAST_US each."""
MOST_CHUNKS = 0xFFFF
"""What the pool can count."""
LEAST_CALL_US = 16
"""A shorter call is not shared."""
LEAST_PROGRAM_US = 100
"""Nor is any call where those worth it take no longer in all: waking a sleeping thread takes 10 us or more."""


def chunks(kernels: Sequence[Kernel]) -> list[int]:
    """The number of chunks of each call of a program."""
    shared = sum(time for time in map(microseconds, kernels) if time >= LEAST_CALL_US)
    return [chunks_of(kernel) if shared >= LEAST_PROGRAM_US else 1 for kernel in kernels]


def chunks_of(kernel: Kernel) -> int:
    """The number of chunks, at least 1 and at most `items`."""
    time = microseconds(kernel)
    if time < LEAST_CALL_US:
        return 1
    wanted = int(min(max(time / MOST_US, min(time / LEAST_US, ENOUGH)), MOST_CHUNKS))
    return max(min(wanted, kernel.items), 1)


def microseconds(kernel: Kernel) -> float:
    """About how long all items take. Nests count no flops; the size of their items goes by their work."""
    buffers = [param for param in kernel.function.params if isinstance(param, Buffer)]
    moved = sum(buffer.size * buffer.type.bytes for buffer in buffers) - kernel.scratch
    if kernel.flops:
        return max(kernel.flops / FLOPS_PER_US, moved / BYTES_PER_US)
    return min(kernel.items * PLAIN_ITEM_US, moved / PLAIN_BYTES_PER_US)
