"""Winograd's transforms of vectors in registers: along one axis of a window, a filter or a tile of products.

    rows = transform_input(b, Scheme(4, 3), d)           B^T d, six vectors of six
    rows = transform_filter(b, Scheme(4, 3), taps)       G w, six of three
    rows = transform_output(b, Scheme(4, 3), products)   A^T M, four of six
"""

from fractions import Fraction

from tilewright.compiler.loops import Builder, Operand
from tilewright.compiler.winograd import Scheme


def transform_input(b: Builder, scheme: Scheme, d: list[Operand]) -> list[Operand]:
    """B^T d, the even and the odd part of a pair of rows computed once."""
    squares = [p * p for p in scheme.pairs]
    whole = _even_part(squares)
    rows = [_weighted(b, whole, d[0::2][: len(whole)])]
    for p in scheme.pairs:
        others = _even_part([square for square in squares if square != p * p])
        even = _weighted(b, others, d[2::2][: len(others)])
        odd = _weighted(b, others, d[1::2][: len(others)])
        if p == 1:
            rows += [b.add(even, odd), b.sub(even, odd)]
        else:
            rows += [b.fma(odd, float(p), even), b.fma(odd, -float(p), even)]
    if scheme.infinity:
        rows.append(_weighted(b, whole, d[1::2]))
    return rows


def _even_part(squares: list[Fraction]) -> list[float]:
    """The coefficients of the product of (y - square), lowest power first; the last is 1."""
    found = [Fraction(1)]
    for square in squares:
        found = [a - square * c for a, c in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return [float(c) for c in found]


def _weighted(b: Builder, weights: list[float], values: list[Operand]) -> Operand:
    """The sum of values by weights, of which the last is 1."""
    total = values[-1]
    for weight, value in zip(weights[:-1], values[:-1], strict=True):
        total = b.fma(value, weight, total)
    return total


def transform_filter(b: Builder, scheme: Scheme, taps: list[Operand]) -> list[Operand]:
    """G w, the even and the odd part of a pair of rows computed once."""

    def part(row: tuple[Fraction, ...], start: int) -> Operand:
        total: Operand = b.mul(taps[start], float(row[start]))
        for weight, tap in zip(row[start + 2 :: 2], taps[start + 2 :: 2], strict=True):
            total = b.fma(tap, float(weight), total)
        return total

    rows: list[Operand] = [b.mul(taps[0], float(scheme.filters[0][0]))]
    for pair in range(len(scheme.pairs)):
        row = scheme.filters[1 + 2 * pair]
        if scheme.kernel == 1:
            rows += [part(row, 0)] * 2
            continue
        even, odd = part(row, 0), part(row, 1)
        rows += [b.add(even, odd), b.sub(even, odd)]
    return [*rows, taps[-1]] if scheme.infinity else rows


def transform_output(b: Builder, scheme: Scheme, products: list[Operand]) -> list[Operand]:
    """A^T M, sums and differences of the pairs computed once."""
    pairs = range(len(scheme.pairs))
    sums = [b.add(products[1 + 2 * k], products[2 + 2 * k]) for k in pairs]
    differences = [b.sub(products[1 + 2 * k], products[2 + 2 * k]) for k in pairs]
    outputs: list[Operand] = []
    for i in range(scheme.tile):
        total: Operand | None = products[0] if i == 0 else None
        if scheme.infinity and i == scheme.tile - 1:
            total = products[-1] if total is None else b.add(total, products[-1])
        for p, value in zip(scheme.pairs, differences if i % 2 else sums, strict=True):
            weight = float(p**i)
            if total is None:
                total = value if weight == 1 else b.mul(value, weight)
            else:
                total = b.add(total, value) if weight == 1 else b.fma(value, weight, total)
        assert total is not None
        outputs.append(total)
    return outputs
