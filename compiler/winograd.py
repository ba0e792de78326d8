"""Winograd's minimal filtering F(m x m, r x r): its interpolation points and matrices, in exact fractions.

    scheme = Scheme(tile=4, kernel=3)        36 products for 16 outputs of a 3x3 convolution, which takes 144
    y = A^T ((G w G^T) * (B^T d B)) A        d: n x n inputs, w: r x r, y: m x m outputs, n = m + r - 1

The points are 0, pairs +-p and, where n is even, infinity. Points 0, +p, -p, .., infinity have the rows 0, 1, 2,
.., n - 1 of B^T and G and the columns of A^T. Because points come in pairs, rows of B^T do too: E + p O and
E - p O, where E takes every other input and O the rest; kernels compute E and O once. B^T has no denominators to
speak of and a leading 1 in every row: all scaling lies in G, which is applied to filters, in double precision.

The construction is Toom and Cook's, transposed (Lavin and Gray 2016, arXiv:1509.09308); pairs of points with small
growth, rather than whole numbers, keep the rounding error down (Barabasz et al. 2020, doi:10.1145/3412380).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod

Row = tuple[Fraction, ...]
Matrix = tuple[Row, ...]

PAIRS: dict[int, tuple[Fraction, ...]] = {
    1: (Fraction(1),),
    2: (Fraction(5, 8), Fraction(3, 2)),
    3: (Fraction(1, 2), Fraction(1), Fraction(2)),
    4: (Fraction(2, 5), Fraction(5, 6), Fraction(6, 5), Fraction(5, 2)),
}
"""By how many pairs there are: the points +-p with the least error of those tried."""


@dataclass(frozen=True)
class Scheme:
    """F(tile x tile, kernel x kernel); `tile` + `kernel` must be 4 to 11."""

    tile: int
    kernel: int

    def __post_init__(self) -> None:
        if self.tile < 1 or self.kernel < 1 or (self.window - 1) // 2 not in PAIRS:
            raise ValueError(f"no points for Winograd tiles of {self.tile} with filters of {self.kernel}")

    @property
    def window(self) -> int:
        """n: inputs that a tile reads along an axis."""
        return self.tile + self.kernel - 1

    @property
    def pairs(self) -> tuple[Fraction, ...]:
        """The points p of the pairs +-p."""
        return PAIRS[(self.window - 1) // 2]

    @property
    def infinity(self) -> bool:
        """True where the last point is infinity."""
        return self.window % 2 == 0

    @property
    def points(self) -> tuple[Fraction, ...]:
        """The finite points, in order."""
        return (Fraction(0), *(sign * p for p in self.pairs for sign in (1, -1)))

    @cached_property
    def filters(self) -> Matrix:
        """G, n x r."""
        rows = []
        for j, point in enumerate(self.points):
            scale = prod((point - other for k, other in enumerate(self.points) if k != j), start=Fraction(1))
            rows.append(tuple(point**i / scale for i in range(self.kernel)))
        if self.infinity:
            rows.append(tuple(Fraction(int(i == self.kernel - 1)) for i in range(self.kernel)))
        return tuple(rows)

    @cached_property
    def inputs(self) -> Matrix:
        """B^T, n x n."""
        points, n = self.points, self.window
        rows = [expanded([other for k, other in enumerate(points) if k != j]) for j in range(len(points))]
        if self.infinity:
            rows.append(expanded(points))
        return tuple(row + (Fraction(0),) * (n - len(row)) for row in rows)

    @cached_property
    def outputs(self) -> Matrix:
        """A^T, m x n."""
        last = (Fraction(0),) * (self.tile - 1) + (Fraction(1),)
        return tuple(
            (*(point**i for point in self.points), *((last[i],) if self.infinity else ())) for i in range(self.tile)
        )


def expanded(roots: Sequence[Fraction]) -> Row:
    """The coefficients of the product of (x - root), lowest power first."""
    found = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *found]
        found = [a - root * b for a, b in zip(shifted, [*found, Fraction(0)], strict=True)]
    return tuple(found)
