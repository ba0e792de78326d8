"""What a loop nest is, as data; see `kernels.nest`.

Region((100, 1000), reduced={1}, inputs=(Access(0, 0, (1000, 1)),), output=Output(expr, Access(..)))
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from tilewright.compiler.loops import Operand, Type

ReduceOp = Literal["add", "mul", "max", "min"]


@dataclass(frozen=True, eq=False)
class Input:
    """An element of a region's access number `position`."""

    position: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A number."""

    type: Type
    value: float | int | bool


@dataclass(frozen=True, eq=False)
class Map:
    """`apply(builder, *operands)` of other values; `cost` is about its instructions a vector."""

    apply: Callable[..., Operand]
    args: tuple["Expr", ...]
    cost: int = 1


@dataclass(frozen=True, eq=False)
class Reduce:
    """`arg` of element type `type` reduced over all reduced axes."""

    op: ReduceOp
    type: Type
    arg: "Expr"


Expr = Input | Constant | Map | Reduce


@dataclass(frozen=True)
class Array:
    """A parameter: a flat buffer of `size` elements."""

    type: Type
    size: int


@dataclass(frozen=True)
class Access:
    """Where a region's element (i, j, ..) lies in array number `array`: origin + i * strides[0] + .."""

    array: int
    origin: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """What a region writes. `fill`: lanes of the innermost axis to write in all, zeros beyond its extent."""

    expr: Expr
    access: Access
    fill: int = 0


@dataclass(frozen=True)
class Region:
    """One rectangular iteration space."""

    extents: tuple[int, ...]
    reduced: frozenset[int]
    inputs: tuple[Access, ...]
    output: Output


@dataclass(frozen=True)
class Nest:
    """Regions over shared arrays; `result` is the array that all of them write."""

    inputs: tuple[Array, ...]
    result: Array
    regions: tuple[Region, ...]


def canonical(region: Region) -> Region:
    """The region with axes in memory order, contiguous ones merged, those of one element dropped."""
    accesses = (region.output.access, *region.inputs)
    fill = region.output.fill
    last = len(region.extents) - 1

    # A copy whose rows lie whole in the source reads it in order: reads wait, writes do not.
    main = region.output.access
    sizes = [axis for axis, extent in enumerate(region.extents) if extent > 1]
    if sizes and not region.reduced and not fill:
        inner = min(sizes, key=lambda axis: abs(main.strides[axis]) or 1 << 60)
        whole = [a for a in region.inputs if all(a.strides[axis] for axis in sizes)]
        if len(whole) == 1 and abs(whole[0].strides[inner]) == 1 == abs(main.strides[inner]):
            main = whole[0]

    def weight(axis: int) -> tuple[int, ...]:
        """What orders the axes: a filled one stays innermost."""
        if fill and axis == last:
            return (0,)
        return (1, abs(main.strides[axis]) or max(abs(access.strides[axis]) for access in accesses))

    kept = [axis for axis, extent in enumerate(region.extents) if extent != 1 or (fill and axis == last)]
    kept.sort(key=weight, reverse=True)
    if kept:
        # Reduced and kept axes are looped over apart; side by side they merge, in every region alike.
        innermost = kept[-1] in region.reduced
        kept.sort(key=lambda axis: (axis in region.reduced) == innermost)
    groups: list[list[int]] = []
    for axis in kept:
        inner, extent = axis, region.extents[axis]
        if groups and not (fill and axis == last):
            outer = groups[-1][-1]
            contiguous = all(a.strides[outer] == a.strides[inner] * extent for a in accesses)
            if contiguous and (outer in region.reduced) == (inner in region.reduced):
                groups[-1].append(axis)
                continue
        groups.append([axis])
    if not groups:
        groups = [[]]
    extents = tuple(prod(region.extents[axis] for axis in group) for group in groups)
    reduced = frozenset(i for i, group in enumerate(groups) if group and group[0] in region.reduced)

    def moved(access: Access) -> Access:
        return replace(access, strides=tuple(access.strides[g[-1]] if g else 0 for g in groups))

    output = replace(region.output, access=moved(region.output.access))
    return Region(extents, reduced, tuple(map(moved, region.inputs)), output)
