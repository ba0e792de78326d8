"""How many operations a loop nest says it performs. Its results are tested in tests/lower."""

from tilewright.compiler import targets
from tilewright.compiler.kernels.nest import Access, Array, Input, Map, Nest, Output, Reduce, Region, build
from tilewright.compiler.loops.nodes import F32

ROWS, COLUMNS = 6, 100


def test_operations_of_a_sum_scaled() -> None:
    """y[i] = sum over j of x[i, j] * w[j], times three: each value counts where it varies."""
    x, w = Input(0), Input(1)
    product = Map(lambda b, p, q: b.mul(p, q), (x, w))
    scaled = Map(lambda b, total: b.mul(total, 3.0), (Reduce("add", F32, product),), cost=5)
    region = Region(
        (ROWS, COLUMNS), frozenset({1}), (Access(0, 0, (COLUMNS, 1)), Access(1, 0, (0, 1))),
        Output(scaled, Access(2, 0, (1, 0))),
    )  # fmt: skip
    nest = Nest((Array(F32, ROWS * COLUMNS), Array(F32, COLUMNS)), Array(F32, ROWS), (region,))
    kernel = build("nest", nest, targets.host())
    assert kernel.performed == ROWS * COLUMNS * 2 + ROWS * 5
    assert kernel.flops == 0
