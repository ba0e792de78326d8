"""How kernel calls are cut into chunks: by their work, along groups, never more than items."""

import pytest

from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.loops import Builder
from tilewright.compiler.loops.nodes import F32
from tilewright.compiler.lower.chunks import FLOPS_PER_US, chunks, chunks_of


def kernel(us: float, items: int, group: int = 1) -> Kernel:
    """A kernel of about `us` microseconds."""
    b = Builder("kernel")
    b.output("y", F32, 1)
    b.scalar("begin")
    b.scalar("end")
    return Kernel(b.finish(), items, int(us * FLOPS_PER_US), group=group)


@pytest.mark.parametrize(
    ("us", "items", "group", "expected"),
    [
        (5, 100, 1, 1),
        (20, 100, 1, 5),
        (20, 3, 1, 3),
        (200, 100, 1, 16),
        (3200, 1000, 1, 100),
        (3200, 7, 1, 7),
        (1e8, 10**9, 1, 65535),
        (200, 64, 4, 16),
        (200, 40, 8, 15),
        (200, 40, 4, 10),
        (200, 12, 12, 12),
        (0, 100, 1, 1),
    ],
)
def test_chunks_of_a_call(us: float, items: int, group: int, expected: int) -> None:
    assert chunks_of(kernel(us, items, group)) == expected


def test_a_short_program_is_not_shared() -> None:
    small, tiny = kernel(30, 100), kernel(10, 100)
    assert chunks([small, tiny, small]) == [1, 1, 1]
    assert chunks([small, tiny, small, small, small]) == [7, 1, 7, 7, 7]
    assert chunks([]) == []
