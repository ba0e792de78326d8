"""Index maps: how the logical index of a value follows from the index of a loop nest's iteration.

    iteration (i0, i1) over 8x6      transpose:  axis 0 = i1, axis 1 = i0
                                     slice:      axis 0 = 3 + 2 * i0
                                     reshape to 48:  axis 0 = 6 * i0 + i1

A map has one `Along` an axis, affine in the iteration's indices. A reshape that splits an axis, or a layout
that blocks one, may need an iteration axis split in two, or cut in whole blocks and the rest; `Split` and
`Cut` ask for it, `Unfit` says that no affine map exists.
"""

from dataclasses import dataclass
from math import prod

from tilewright.compiler.ir import Shape, TensorType
from tilewright.compiler.ir.types import row_major_strides
from tilewright.compiler.kernels.nest import Access


class Unfit(Exception):
    """One loop nest cannot compute this."""


class Split(Exception):
    """Iteration axis `axis` must be split in `factors`, outermost first."""

    def __init__(self, axis: int, factors: tuple[int, int]) -> None:
        self.axis, self.factors = axis, factors


class Cut(Exception):
    """Iteration axis `axis` must be cut in two pieces, the first with `at` elements."""

    def __init__(self, axis: int, at: int) -> None:
        self.axis, self.at = axis, at


@dataclass(frozen=True)
class Along:
    """An index: `origin` and, for (axis, coefficient) in terms, coefficient * the iteration's index there."""

    origin: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    def scaled(self, factor: int) -> "Along":
        """Every index times `factor`."""
        return Along(self.origin * factor, tuple((axis, c * factor) for axis, c in self.terms))

    def plus(self, other: "Along") -> "Along":
        """The sum of two indices."""
        return Along(self.origin + other.origin, self.terms + other.terms)


IndexMap = tuple[Along, ...]


def broadcast_map(result: Shape, operand: Shape, along: IndexMap) -> IndexMap:
    """The map of an operand that broadcasts to `result`."""
    missing = len(result) - len(operand)
    return tuple(Along() if dim == 1 else found for dim, found in zip(operand, along[missing:], strict=True))


def reshape_map(source: Shape, target: Shape, along: IndexMap, extents: Shape) -> IndexMap:
    """The map of a tensor of shape `target` with the elements of one of shape `source`, in order."""
    found = [Along()] * len(target)
    sources = [axis for axis, dim in enumerate(source) if dim != 1]
    targets = [axis for axis, dim in enumerate(target) if dim != 1]
    i = j = 0
    while i < len(sources):
        first, start = i, j
        taken, made = source[sources[i]], target[targets[j]]
        while taken != made:
            if taken < made:
                i += 1
                taken *= source[sources[i]]
            else:
                j += 1
                made *= target[targets[j]]
        i, j = i + 1, j + 1
        whole = Along()
        for axis in sources[first:i]:
            whole = whole.scaled(source[axis]).plus(along[axis])
        pieces = _digits(whole, tuple(target[axis] for axis in targets[start:j]), extents)
        for axis, piece in zip(targets[start:j], pieces, strict=True):
            found[axis] = piece
    return tuple(found)


def _digits(whole: Along, dims: Shape, extents: Shape) -> list[Along]:
    """A flat index as an index along each of `dims`."""
    if len(dims) == 1:
        return [whole]
    strides = row_major_strides(dims)
    origins = [whole.origin // stride % dim for stride, dim in zip(strides, dims, strict=True)]
    terms: list[list[tuple[int, int]]] = [[] for _ in dims]
    reach = list(origins)
    for axis, coefficient in whole.terms:
        if extents[axis] == 1:
            continue
        # The outermost dimension whose stride divides the coefficient.
        at = next(
            (d for d, stride in enumerate(strides) if coefficient % stride == 0 and coefficient >= stride),
            None,
        )
        if coefficient <= 0 or at is None:
            raise Unfit
        step = coefficient // strides[at]
        if step * (extents[axis] - 1) >= dims[at]:
            if dims[at] % step or extents[axis] % (dims[at] // step):
                raise Unfit
            raise Split(axis, (extents[axis] // (dims[at] // step), dims[at] // step))
        terms[at].append((axis, step))
        reach[at] += step * (extents[axis] - 1)
    if any(last >= dim for last, dim in zip(reach, dims, strict=True)):
        raise Unfit
    return [Along(origin, tuple(found)) for origin, found in zip(origins, terms, strict=True)]


def access_of(array: int, type: TensorType, along: IndexMap, extents: Shape) -> Access:
    """Where the elements that a map names lie in the tensor's buffer."""
    layout, shape = type.layout, type.shape
    physical = layout.strides(shape)
    order = layout.order(len(shape))
    outer = {axis: physical[dim] for dim, axis in enumerate(order)}
    inner = {axis: physical[len(shape) + dim] for dim, (axis, _) in enumerate(layout.blocks)}
    origin = layout.origin(shape)
    strides = [0] * len(extents)
    for axis, index in enumerate(along):
        block = layout.block(axis)
        if block == 1:
            origin += index.origin * outer[axis]
            for loop, coefficient in index.terms:
                strides[loop] += coefficient * outer[axis]
            continue
        origin += index.origin // block * outer[axis] + index.origin % block * inner[axis]
        reach = index.origin % block
        for loop, coefficient in index.terms:
            if coefficient % block == 0:
                strides[loop] += coefficient // block * outer[axis]
                continue
            reach += abs(coefficient) * (extents[loop] - 1)
            strides[loop] += coefficient * inner[axis]
            if coefficient != 1 and extents[loop] > 1:
                raise Unfit
        if reach >= block:
            _block(index, block, extents)
    return Access(array, origin, tuple(strides))


def _block(index: Along, block: int, extents: Shape) -> None:
    """Ask for the split or cut that lets `index` run in whole blocks; raises always."""
    inner = [(loop, c) for loop, c in index.terms if c % block and extents[loop] > 1]
    if len(inner) != 1 or index.origin % block or inner[0][1] != 1:
        raise Unfit
    loop = inner[0][0]
    whole, rest = divmod(extents[loop], block)
    if rest:
        raise Cut(loop, whole * block)
    raise Split(loop, (whole, block))


def elements(extents: Shape) -> int:
    """Points of an iteration."""
    return prod(extents)
