"""In how many chunks threads share out a kernel call.

    conv of 20 MFLOP, 64 items    200 us   ->   16 chunks of 4 items
    softmax of 10 numbers                  ->   1: computed where it stands

The number depends on the kernel alone, never on how many threads there will be.
"""

from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.loops import Buffer

# Rough speeds of one core in cache. They only decide how finely calls are cut.
FLOPS_PER_US = 100_000
BYTES_PER_US = 20_000
PLAIN_BYTES_PER_US = 4_000
PLAIN_ITEM_US = 4

LEAST_US = 4
"""A chunk computes at least this long: ten times what it costs to hand out."""
MOST_US = 32
"""And at most this long, so that a thread that the system stops holds up little."""
ENOUGH = 16
"""Chunks enough to keep threads busy, where the work allows no more than LEAST_US each."""
MOST_CHUNKS = 0xFFFF
"""What the pool can count."""


def chunks(kernel: Kernel) -> int:
    """The number of chunks, at least 1: at most `items`, and if above the number of groups, a multiple of it."""
    time = _microseconds(kernel)
    wanted = int(min(max(time / MOST_US, min(time / LEAST_US, ENOUGH)), MOST_CHUNKS))
    groups = -(-kernel.items // kernel.group)
    if wanted > groups:
        wanted = groups * min(wanted // groups, kernel.group)
    return max(min(wanted, kernel.items), 1)


def _microseconds(kernel: Kernel) -> float:
    """About how long all items take. Nests count no flops; the size of their items goes by their work."""
    buffers = [param for param in kernel.function.params if isinstance(param, Buffer)]
    moved = sum(buffer.size * buffer.type.bytes for buffer in buffers) - kernel.scratch
    if kernel.flops:
        return max(kernel.flops / FLOPS_PER_US, moved / BYTES_PER_US)
    return min(kernel.items * PLAIN_ITEM_US, moved / PLAIN_BYTES_PER_US)
