"""How kernel calls are cut into chunks: by their work, never more than items."""

import pytest

from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.loops import Builder
from tilewright.compiler.loops.nodes import F32
from tilewright.compiler.lower.chunks import FLOPS_PER_US, chunks, chunks_of


def kernel(us: float, items: int) -> Kernel:
    """A kernel of about `us` microseconds."""
    b = Builder("kernel")
    b.output("y", F32, 1)
    b.scalar("begin")
    b.scalar("end")
    return Kernel(b.finish(), items, int(us * FLOPS_PER_US))


@pytest.mark.parametrize(
    ("us", "items", "expected"),
    [
        (5, 100, 1),
        (20, 100, 5),
        (20, 3, 3),
        (200, 100, 16),
        (3200, 1000, 100),
        (3200, 7, 7),
        (1e8, 10**9, 65535),
        (0, 100, 1),
    ],
)
def test_chunks_of_a_call(us: float, items: int, expected: int) -> None:
    assert chunks_of(kernel(us, items)) == expected


def test_a_short_program_is_not_shared() -> None:
    small, tiny = kernel(30, 100), kernel(10, 100)
    assert chunks([small, tiny, small]) == [1, 1, 1]
    assert chunks([small, tiny, small, small, small]) == [7, 1, 7, 7, 7]
    assert chunks([]) == []
