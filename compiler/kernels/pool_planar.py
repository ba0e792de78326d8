"""Maximum or sum over windows of row-major data, of any rank.

    x (N, C, *spatial) row-major, padded physically or not;  result (N, C, *windows)

    for item = (image, channel, outer window positions):      # one row of the result
      for vector of interior columns:                         # whose windows lie inside the row
        for outer kernel positions inside x: for kernel column: acc = max(acc, load)
      each border column: the same over what of its window lies inside; lanes along the window if it is wide
      a row of no more windows than lanes: one vector, what lies outside x masked

Elements outside x take no part: a maximum of negative numbers is negative whatever the pads. NaN wins every
maximum. A window without any element gives the least number, or a sum of zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import numpy as np

from tilewright.compiler.ir.types import ROW_MAJOR, Shape, TensorType
from tilewright.compiler.kernels.kernel import Epilogue, Kernel, KernelPlan, View
from tilewright.compiler.kernels.tiles import Pads, load_points, unflatten
from tilewright.compiler.loops import BOOL, Buffer, Builder, Const, Index, Operand, Type
from tilewright.compiler.targets import Target

Mode = Literal["max", "sum"]

_MOST_UNROLLED = 8
_MOST_COLUMNS = 8


@dataclass(frozen=True)
class PoolPlanarPlan(KernelPlan):
    """What to compute, by vectors of `lanes` windows."""

    template: ClassVar[str] = "pool_planar"
    mode: Mode
    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Pads
    lanes: int


def plan(
    x: TensorType, result: TensorType, *, mode: Mode, kernel: Shape, strides: Shape, dilations: Shape,
    pads: Pads, target: Target,
) -> PoolPlanarPlan | None:  # fmt: skip
    """How to pool x (N, C, *spatial) to result (N, C, *windows).

    None for 16-bit floats, bool, and empty tensors.
    """
    supported = x.dtype.is_integer or x.dtype.name in ("f32", "f64")
    if not supported or result.dtype != x.dtype or not all((*x.shape, *result.shape)):
        return None
    lanes = target.lanes(x.dtype.bits)
    return PoolPlanarPlan((ROW_MAJOR,), ROW_MAJOR, mode, kernel, strides, dilations, pads, lanes)


@dataclass(frozen=True)
class _Pool:
    """A function under construction."""

    b: Builder
    plan: PoolPlanarPlan
    x: Buffer
    view: View
    shape: Shape
    windows: Shape

    def identity(self, lanes: int) -> Const:
        """What takes no part."""
        type: Type = self.x.type
        if self.plan.mode == "sum":
            return Const(type.vector(lanes), 0)
        least = float("-inf") if type.is_float else int(np.iinfo(f"{type.kind}{type.bytes}").min)
        return Const(type.vector(lanes), least)

    def join(self, a: Operand, b: Operand) -> Operand:
        """The maximum or the sum."""
        joined: Operand = self.b.max(a, b) if self.plan.mode == "max" else self.b.add(a, b)
        return joined

    def outer(self, at: list[Index], start: Index, lanes: int, row: Callable[[Index], Operand]) -> Operand:
        """`row(index)` joined over the outer kernel axes' positions inside x, for the window at `at`."""
        b, plan = self.b, self.plan

        def axis(number: int, index: Index) -> Operand:
            if number == len(at):
                return row(index)
            lo, hi = self.inside(number, at[number])
            step = plan.dilations[number] * self.view.outer[2 + number]

            def body(k: Index, acc: list[Operand]) -> list[Operand]:
                return [self.join(acc[0], axis(number + 1, b.add(index, b.mul(k, step))))]

            return b.for_(lo, hi, body, carried=[self.identity(lanes)])[0]

        return axis(0, start)

    def inside(self, axis: int, at: Index) -> tuple[Index, Index]:
        """The range of kernel positions along `axis` that lie inside x, for the window number `at`."""
        if isinstance(at, int):
            return self.inside_known(axis, at)
        b, plan, before = self.b, self.plan, self.plan.pads[axis][0]
        taps, stride, dilation = plan.kernel[axis], plan.strides[axis], plan.dilations[axis]
        start = b.mul(at, stride)
        lo, hi = 0, taps
        if before:
            lo = b.div(b.add(b.max(b.sub(before, start), 0), dilation - 1), dilation)
        if (self.windows[axis] - 1) * stride + (taps - 1) * dilation - before >= self.shape[2 + axis]:
            room = b.sub(self.shape[2 + axis] + before + dilation - 1, start)
            hi = b.min(b.div(b.max(room, 0), dilation), taps)
        return lo, hi

    def inside_known(self, axis: int, at: int) -> tuple[int, int]:
        """`inside` for a window known now."""
        first = at * self.plan.strides[axis] - self.plan.pads[axis][0]
        dilation = self.plan.dilations[axis]
        end = -((first - self.shape[2 + axis]) // dilation)
        return max(-(first // dilation), 0), max(min(end, self.plan.kernel[axis]), 0)


def build(name: str, plan: PoolPlanarPlan, x: TensorType, result: TensorType, epilogue: Epilogue) -> Kernel:
    """fn(x, <epilogue>, begin, end) for x (N, C, *spatial) row-major and result (N, C, *windows).

    The result may have more windows than the pads allow: what lies beyond takes no part either.
    """
    b = Builder(name)
    view = View.of(x)
    pool = _Pool(b, plan, b.input("x", view.type, view.size), view, x.shape, result.shape[2:])
    epilogue.declare(b)
    begin, end = b.scalar("begin"), b.scalar("end")
    first, stop = _interior(plan, x.shape[-1], result.shape[-1])
    steps = [stride * size for stride, size in zip(plan.strides, view.outer[2:], strict=True)]
    before = [pad * size for (pad, _), size in zip(plan.pads, view.outer[2:], strict=True)]
    origin = view.origin - sum(before)

    def item(number: Index, _: list[Operand]) -> None:
        image, channel, *at = unflatten(b, number, result.shape[:-1])
        start = b.add(b.mul(image, view.outer[0]), b.mul(channel, view.outer[1]))
        for position, step in zip(at, steps, strict=False):
            start = b.add(start, b.mul(position, step))
        start = b.add(start, origin)
        where = [(i, 0) for i in (image, channel, *at)]

        def column(position: int) -> None:
            value = pool.outer(at, start, _column_lanes(pool, position), lambda i: _column(pool, i, position))
            epilogue.store(b, [*where, (0, position)], _joined_lanes(pool, value), 1)

        def vector(offset: Index, active: int) -> None:
            position = b.add(offset, first)
            index = b.add(start, b.mul(position, steps[-1]))
            value = pool.outer(at, index, plan.lanes, lambda i: _columns(pool, i, active))
            epilogue.store(b, [*where, (position, 0)], value, active)

        def far(position: Index, _: list[Operand]) -> None:
            value = pool.outer(at, start, 1, lambda i: _far_column(pool, i, position))
            epilogue.store(b, [*where, (position, 0)], value, 1)

        if _is_narrow(plan, result.shape[-1]):
            value = pool.outer(at, start, plan.lanes, lambda i: _narrow_row(pool, i))
            epilogue.store(b, [*where, (0, 0)], value, result.shape[-1])
            return
        borders = (0, first), (stop, result.shape[-1])
        for lo, hi in borders:
            if hi - lo > _MOST_COLUMNS:
                b.for_(lo, hi, far)
                continue
            for position in range(lo, hi):
                column(position)
        b.lanes(stop - first, plan.lanes, vector)

    b.for_(begin, end, item)
    return Kernel(b.finish(), prod(result.shape[:-1]), prod(result.shape) * prod(plan.kernel))


def _interior(plan: PoolPlanarPlan, width: int, columns: int) -> tuple[int, int]:
    """The columns whose windows lie inside a row: first .. stop; none where there is only one."""
    before, stride = plan.pads[-1][0], plan.strides[-1]
    reach = (plan.kernel[-1] - 1) * plan.dilations[-1] + 1
    first = min(-(-before // stride), columns)
    stop = max(min((width - reach + before) // stride + 1, columns), first)
    return (columns, columns) if stop - first <= 1 else (first, stop)


def _is_narrow(plan: PoolPlanarPlan, columns: int) -> bool:
    """Whether a row of results is one vector, at least a third of it, and its windows are short."""
    return plan.lanes < 3 * columns <= 3 * plan.lanes and plan.kernel[-1] <= _MOST_UNROLLED


def _narrow_row(pool: _Pool, index: Index) -> Operand:
    """One kernel row joined, for all windows of a row; column 0's begins at x[index], maybe before the row does."""
    b, plan, columns = pool.b, pool.plan, pool.windows[-1]
    spans = [pool.inside_known(len(plan.kernel) - 1, column) for column in range(columns)]
    value: Operand = pool.identity(plan.lanes)
    for k in range(plan.kernel[-1]):
        inside = [lo <= k < hi for lo, hi in spans]
        if not any(inside):
            continue
        last = max(column for column in range(columns) if inside[column])
        points = tuple(
            max(column * plan.strides[-1] + k * plan.dilations[-1], plan.pads[-1][0]) for column in range(last + 1)
        )
        taken = load_points(b, pool.x, index, 0, points, plan.lanes)
        if not all(inside):
            padded = [*inside, *[False] * (plan.lanes - columns)]
            taken = b.select(b.vector_const(padded, BOOL), taken, pool.identity(plan.lanes))
        value = pool.join(value, taken)
    return value


def _columns(pool: _Pool, index: Index, active: int) -> Operand:
    """One kernel row joined, for `active` windows next to each other that begin at x[index]."""
    b, plan = pool.b, pool.plan
    stride, dilation, taps, lanes = plan.strides[-1], plan.dilations[-1], plan.kernel[-1], plan.lanes
    points = tuple(range(0, active * stride, stride))

    def tap(k: Index, acc: list[Operand]) -> list[Operand]:
        at, offset = (index, k * dilation) if isinstance(k, int) else (b.add(index, b.mul(k, dilation)), 0)
        return [pool.join(acc[0], load_points(b, pool.x, at, offset, points, lanes))]

    acc: list[Operand] = [pool.identity(lanes)]
    if taps > _MOST_UNROLLED:
        return b.for_(0, taps, tap, carried=acc)[0]
    if stride != 2 or dilation != 1 or lanes == 1:
        for k in range(taps):
            acc = tap(k, acc)
        return acc[0]
    # Two taps next to each other are the even and the odd lanes of the same two vectors.
    for k in range(0, taps - 1, 2):
        low = b.load(pool.x, index, lanes, offset=k, active=min(2 * active, lanes))
        high = low
        if 2 * active > lanes:
            high = b.load(pool.x, index, lanes, offset=k + lanes, active=2 * active - lanes)
        even = b.shuffle(low, high, range(0, 2 * lanes, 2))
        odd = b.shuffle(low, high, range(1, 2 * lanes, 2))
        acc = [pool.join(acc[0], pool.join(even, odd))]
    return (tap(taps - 1, acc) if taps % 2 else acc)[0]


def _column_lanes(pool: _Pool, position: int) -> int:
    """Lanes along a column's window: a vector where its rows are contiguous and fill half of one."""
    lo, hi = pool.inside_known(len(pool.plan.kernel) - 1, position)
    wide = pool.plan.dilations[-1] == 1 and 2 * (hi - lo) >= pool.plan.lanes
    return pool.plan.lanes if wide else 1


def _column(pool: _Pool, index: Index, position: int) -> Operand:
    """One kernel row of a column's window joined, where column 0's window begins at x[index]."""
    b, plan = pool.b, pool.plan
    lo, hi = pool.inside_known(len(plan.kernel) - 1, position)
    dilation, lanes = plan.dilations[-1], _column_lanes(pool, position)
    start = b.add(index, position * plan.strides[-1])
    whole = lo + (hi - lo) // lanes * lanes

    def tap(k: Index, acc: list[Operand]) -> list[Operand]:
        return [pool.join(acc[0], b.load(pool.x, b.add(start, b.mul(k, dilation)), lanes))]

    value = b.for_(lo, whole, tap, step=lanes, carried=[pool.identity(lanes)])[0]
    if whole < hi:
        rest = hi - whole
        loaded: Operand = b.load(pool.x, b.add(start, whole), lanes, active=rest)
        if plan.mode == "max":
            read = b.vector_const([lane < rest for lane in range(lanes)], BOOL)
            loaded = b.select(read, loaded, pool.identity(lanes))
        value = pool.join(value, loaded)
    return value


def _far_column(pool: _Pool, index: Index, position: Index) -> Operand:
    """`_column` for a column known at run time: where there are too many to write code for each."""
    b, plan = pool.b, pool.plan
    lo, hi = pool.inside(len(plan.kernel) - 1, position)
    dilation, lanes = plan.dilations[-1], plan.lanes if plan.dilations[-1] == 1 else 1
    start = b.add(index, b.mul(position, plan.strides[-1]))
    count = b.max(b.sub(hi, lo), 0)
    whole = b.add(lo, b.mul(b.div(count, lanes), lanes))

    def tap(k: Index, acc: list[Operand], width: int) -> list[Operand]:
        return [pool.join(acc[0], b.load(pool.x, b.add(start, b.mul(k, dilation)), width))]

    wide = b.for_(lo, whole, lambda k, acc: tap(k, acc, lanes), step=lanes, carried=[pool.identity(lanes)])
    return b.for_(whole, hi, lambda k, acc: tap(k, acc, 1), carried=[_joined_lanes(pool, wide[0])])[0]


def _joined_lanes(pool: _Pool, value: Operand) -> Operand:
    return pool.b.reduce("max" if pool.plan.mode == "max" else "add", value)
