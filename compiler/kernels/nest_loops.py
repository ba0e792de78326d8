"""The code of one region of a loop nest: passes of vectors over strided arrays; see `kernels.nest`.

for kept axes: for groups of vectors:          lanes along an axis that is kept
  for each pass: for reduced axes: accumulate, store
for kept axes:                                 lanes along a reduced axis
  for each pass: for outer reduced axes: for groups of vectors: accumulate, store
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from typing import Any

from tilewright.compiler.kernels.nest_data import Constant, Expr, Input, Map, Reduce, Region
from tilewright.compiler.kernels.nest_plan import Place, RegionPlan
from tilewright.compiler.loops import BOOL, Buffer, Builder, Index, Operand

PREFETCH_BYTES = 32 << 10
"""Rows of at most so many bytes are fetched while the one before is computed."""
BLOCK = 64
"""Long chains of additions are cut in blocks of so many, which keeps their rounding error low."""


class RegionEmitter(RegionPlan):
    """Emits one canonical region; `item(i)` emits the code of its item i, 0 <= i < items."""

    def __init__(
        self, b: Builder, region: Region, inputs: Sequence[Buffer], result: Buffer, lanes: int
    ) -> None:
        super().__init__(b, region, inputs, result, lanes)
        self.memo: list[dict[tuple[object, int], Operand]] = [{}]
        self.bases: list[dict[object, Index]] = [{}]
        self.active = self.lanes
        self.done = 0

    # ---- loops over items and kept axes

    def item(self, item: Index) -> None:
        """Emit one item."""
        b, extents = self.b, self.region.extents
        self.memo, self.done = [{}], 0
        self.bases = [{key: 0 for key in self.places}]
        if not self.kept:
            self.point(self.lanes)
            return
        outer = self.kept[: self.split]
        chunk: Index = 0
        if self.chunks > 1:
            chunk, item = (b.rem(item, self.chunks), b.div(item, self.chunks)) if outer else (item, 0)
        coordinates: list[Index] = []
        for axis in reversed(outer):
            coordinates.append(item if axis == outer[0] else b.rem(item, extents[axis]))
            item = b.div(item, extents[axis])
        for axis, at in zip(outer, reversed(coordinates), strict=True):
            self.enter(axis, at)
        axis = self.kept[self.split]
        if axis == self.lane:
            self.lane_loop(chunk)
            return
        lo = b.mul(chunk, self.chunk)
        hi: Index = b.add(lo, self.chunk)
        if self.chunks * self.chunk > extents[axis]:
            hi = b.min(hi, extents[axis]) if self.chunks > 1 else extents[axis]
        self.kept_loop(self.split, lo, hi)

    def kept_loop(self, k: int, lo: Index, hi: Index) -> None:
        """Loop over the k-th kept axis from lo to hi, and inside over those after it."""
        if k == len(self.kept):
            self.point(self.lanes)
            return
        axis = self.kept[k]
        self.hoist([self.region.output.expr], {*self.kept[k:], *self.reduced})
        if axis == self.lane:
            self.lane_loop(None)
            return

        def body(i: Any, _: list[Operand]) -> None:
            self.enter(axis, i)
            following = self.region.extents[self.kept[k + 1]] if k + 1 < len(self.kept) else 0
            self.kept_loop(k + 1, 0, following)
            self.leave()

        self.b.for_(lo, hi, body)

    def lane_loop(self, chunk: Index | None) -> None:
        """Cover the lane axis, or a chunk of it, in groups of vectors; what is left is in the last chunk."""
        b = self.b
        self.hoist([self.region.output.expr], {self.lane, *self.reduced})
        n, step = self.region.extents[self.lane], self.lanes * self.unroll
        whole = n // step * step

        def group(i: Any, _: list[Operand]) -> None:
            self.enter(self.lane, i)
            self.point(self.lanes)
            self.leave()

        def rest() -> None:
            unroll, self.unroll = self.unroll, 1
            vectors = n // self.lanes * self.lanes
            b.for_(whole, vectors, group, step=self.lanes)
            end = max(n, self.region.output.fill)
            for start in range(vectors, end, self.lanes):
                self.enter(self.lane, start)
                self.point(max(min(n - start, self.lanes), 0), min(end - start, self.lanes))
                self.leave()
            self.unroll = unroll

        has_rest = whole < n or self.region.output.fill > n
        if chunk is None or self.chunks == 1:
            b.for_(0, whole, group, step=step)
            if has_rest:
                rest()
            return
        lo = b.mul(chunk, self.chunk)
        b.for_(lo, b.min(b.add(lo, self.chunk), whole), group, step=step)
        if has_rest:
            b.if_(b.compare("eq", chunk, self.chunks - 1), rest)

    # ---- loops over reduced axes

    def point(self, active: int, fill: int = 0) -> None:
        """All passes for one index of the kept axes (or a group of vectors along the last of them)."""
        self.active = active
        self.memo.append({})
        self.bases.append(dict(self.bases[-1]))
        for expr, (_, where) in self.kept_in.items():
            if where == "scratch":
                self.add_scratch(expr)
        for number, (reduces, stores) in enumerate(self.passes):
            self.done = number
            self.hoist(self.roots(number), set(self.reduced))
            count = self.unroll
            accumulators = [self.identity(r) for r in reduces for _ in range(count)]
            if reduces or self.reduced:
                totals = self.reduced_loop(0, number, accumulators, fill)
            else:
                totals = []
                self.step(number, [], 0, fill)
            for position, r in enumerate(reduces):
                mine = totals[position * count : (position + 1) * count]
                if self.rows:
                    self.memo[-1][r, 0] = self.across(r, mine)
                else:
                    self.memo[-1].update({((r, u)): value for u, value in enumerate(mine)})
            del stores
        self.done = len(self.passes)
        if not any(stores for _, stores in self.passes):
            for u in range(1 if self.rows else self.unroll):
                self.store(u, fill)
        self.bases.pop()
        self.memo.pop()

    def add_scratch(self, expr: Expr) -> None:
        """Room for a kept value over the reduced axes."""
        type = self.type_of(expr)
        assert type is not None
        width = 1 if self.rows else self.lanes * self.unroll
        steps, size = [0] * len(self.region.extents), width
        for axis in reversed(self.reduced):
            steps[axis] = size
            size *= self.region.extents[axis]
        self.places[expr] = Place(self.b.alloc("kept", type, size), 0, tuple(steps), 1)
        self.bases[-1][expr] = 0

    def identity(self, r: Reduce) -> Operand:
        type = r.type.vector(self.lanes)
        if r.op in ("add", "mul"):
            return self.b.const(r.op == "mul" if r.type.kind == "b" else int(r.op == "mul"), type)
        if r.type.is_float:
            return self.b.const(float("-inf" if r.op == "max" else "inf"), type)
        if r.type.kind == "b":
            return self.b.const(r.op == "min", type)
        low = 0 if r.type.kind == "u" else -(1 << (r.type.bits - 1))
        return self.b.const(low if r.op == "max" else low + (1 << r.type.bits) - 1, type)

    def combine(self, r: Reduce, a: Operand, x: Operand) -> Operand:
        if r.type.kind == "b":
            return self.b.or_(a, x) if r.op in ("add", "max") else self.b.and_(a, x)
        found: Operand = getattr(self.b, r.op)(a, x)
        return found

    def across(self, r: Reduce, accumulators: Sequence[Operand]) -> Operand:
        """The accumulators and their lanes combined, in every lane."""
        total = accumulators[0]
        for other in accumulators[1:]:
            total = self.combine(r, total, other)
        op: str = r.op
        if r.type.kind == "b":
            op = "or" if op in ("add", "max") else "and"
        return self.b.splat(self.b.reduce(op, total), self.lanes)

    def reduced_loop(self, depth: int, number: int, carried: list[Operand], fill: int) -> list[Operand]:
        """The loops of pass `number` over the reduced axes from the depth-th on."""
        axes = self.reduced[depth:]
        if not axes:
            return self.step(number, carried, self.active, fill)
        axis, extent = axes[0], self.region.extents[axes[0]]
        self.hoist(self.roots(number), set(axes))
        if axis == self.lane:
            return self.row_loop(number, carried)
        inner = prod(self.region.extents[other] for other in axes[1:])
        if axes[-1] == self.lane:
            inner //= self.lanes * self.unroll

        def body(i: Any, carried: list[Operand]) -> list[Operand]:
            self.enter(axis, i)
            if inner < 16:
                found = self.reduced_loop(depth + 1, number, carried, fill)
            else:
                found = self.afresh(number, carried, lambda c: self.reduced_loop(depth + 1, number, c, fill))
            self.leave()
            return found

        return self.blocked(number, 0, extent, extent, 1, body, carried)

    def afresh(
        self, number: int, carried: list[Operand], loop: Callable[[list[Operand]], list[Operand]]
    ) -> list[Operand]:
        """Run a loop with sums that start at zero, and add those to the carried ones."""
        reduces = [r for r in self.passes[number][0] for _ in range(self.unroll)]
        sums = [r.op == "add" and r.type.is_float for r in reduces]
        start = [self.identity(r) if s else c for r, s, c in zip(reduces, sums, carried, strict=True)]
        ended = loop(start)
        return [self.b.add(c, e) if s else e for s, c, e in zip(sums, carried, ended, strict=True)]

    def blocked(
        self,
        number: int,
        lo: Index,
        hi: Index,
        count: int,
        step: int,
        body: Callable[[Any, list[Operand]], list[Operand]],
        carried: list[Operand],
    ) -> list[Operand]:
        """A loop of at most `count` iterations over a reduced axis; a long one in blocks that sum afresh."""
        b = self.b
        adds = any(r.op == "add" and r.type.is_float for r in self.passes[number][0])
        if count <= 2 * BLOCK or not adds:
            return b.for_(lo, hi, body, step=step, carried=carried)
        block = BLOCK
        while block * BLOCK < count:
            block *= BLOCK

        def outer(i: Any, carried: list[Operand]) -> list[Operand]:
            end = b.min(b.add(i, block * step), hi)
            return self.afresh(number, carried, lambda c: self.blocked(number, i, end, block, step, body, c))

        return b.for_(lo, hi, outer, step=block * step, carried=carried)

    def row_loop(self, number: int, carried: list[Operand]) -> list[Operand]:
        """Vectors along a reduced lane axis: groups, single ones, then one with fewer lanes."""
        n, step = self.region.extents[self.lane], self.lanes * self.unroll
        whole, vectors = n // step * step, n // self.lanes * self.lanes

        def group(i: Any, carried: list[Operand]) -> list[Operand]:
            self.enter(self.lane, i)
            found = self.step(number, carried, self.lanes, 0)
            self.leave()
            return found

        self.active = self.lanes
        carried = self.blocked(number, 0, whole, whole // step, step, group, carried)
        unroll, self.unroll = self.unroll, 1
        firsts = carried[::unroll]

        def single(i: Any, carried: list[Operand]) -> list[Operand]:
            return group(i, carried)

        firsts = self.b.for_(whole, vectors, single, step=self.lanes, carried=firsts)
        if vectors < n:
            self.active = n - vectors
            self.enter(self.lane, vectors)
            firsts = self.step(number, firsts, self.active, 0)
            self.leave()
            self.active = self.lanes
        self.unroll = unroll
        carried[::unroll] = firsts
        return carried

    def step(self, number: int, carried: list[Operand], active: int, fill: int) -> list[Operand]:
        """One group of vectors of pass `number`: accumulate and store."""
        reduces, stores = self.passes[number]
        self.memo.append({})
        if number == self.prefetching:
            self.prefetch()
        carried = list(carried)
        self.hoist(self.roots(number), {self.lane})  # what the vectors share
        self.b.side_by_side([partial(self.values, number, u) for u in range(self.unroll)])
        for u in range(self.unroll):
            for position, r in enumerate(reduces):
                value = self.value(r.arg, u)
                if self.rows and active < self.lanes:
                    value = self.b.select(self.lane_mask(active), value, self.identity(r))
                at = position * self.unroll + u
                carried[at] = self.combine(r, carried[at], value)
            if stores:
                self.store(u, fill)
        self.memo.pop()
        return carried

    def values(self, number: int, u: int) -> None:
        """Compute what the u-th vector of pass `number` needs."""
        for root in self.roots(number):
            self.value(root, u)

    def prefetch(self) -> None:
        """Ask for the next row's elements of every input that moves on with the rows."""
        axis = self.kept[-1]
        for position in range(len(self.region.inputs)):
            place = self.places[position]
            step = place.steps[axis]
            if place.lane != 1 or not 0 < step * place.buffer.type.bytes <= PREFETCH_BYTES:
                continue
            for u in range(self.unroll):
                index, offset = self.address(position, u)
                self.b.prefetch(place.buffer, index, offset=offset + step)

    def lane_mask(self, active: int) -> Operand:
        """True in the first `active` lanes."""
        return self.b.vector_const([lane < active for lane in range(self.lanes)], BOOL)

    # ---- values

    def enter(self, axis: int, at: Index) -> None:
        """Go into a loop, or a coordinate, of an axis: advance every access that moves along it."""
        b = self.b
        bases = dict(self.bases[-1])
        for key, place in self.places.items():
            if place.steps[axis] and key in bases:
                bases[key] = b.add(bases[key], b.mul(at, place.steps[axis]))
        self.bases.append(bases)
        self.memo.append({})

    def leave(self) -> None:
        """Come out of a loop."""
        self.bases.pop()
        self.memo.pop()

    def known(self, key: tuple[object, int]) -> Operand | None:
        return next((scope[key] for scope in reversed(self.memo) if key in scope), None)

    def hoist(self, roots: Iterable[Expr], inner: set[int]) -> None:
        """Compute the values that do not vary along the axes `inner`, before their loops."""
        for expr in roots:
            if isinstance(expr, Constant) or self.known((expr, 0)) is not None:
                continue
            if self.levels[expr] > self.done or self.deps[expr] & inner:
                args = expr.args if isinstance(expr, Map) else (expr.arg,) if isinstance(expr, Reduce) else ()
                self.hoist(args, inner)
                continue
            for u in range(self.unroll if self.lane in self.deps[expr] else 1):
                self.value(expr, u)

    def value(self, expr: Expr, u: int) -> Operand:
        """The u-th vector of a value here."""
        if isinstance(expr, Constant):
            return self.b.const(expr.value, expr.type.vector(self.lanes))
        if self.lane not in self.deps[expr]:
            u = 0
        found = self.known((expr, u))
        if found is None:
            found = self.compute(expr, u)
            self.memo[-1][expr, u] = found
        return found

    def compute(self, expr: Expr, u: int) -> Operand:
        if isinstance(expr, Input):
            return self.load(expr.position, u)
        where: object = None
        if expr in self.kept_in:
            number, where = self.kept_in[expr]
            where = expr if where == "scratch" else where
            if number < self.done:
                return self.load(where, u)
        assert isinstance(expr, Map), "a reduction is used before its pass"
        value = self.b.splat(expr.apply(self.b, *[self.value(arg, u) for arg in expr.args]), self.lanes)
        if where is not None:
            index, offset = self.address(where, u)
            self.b.store(self.places[where].buffer, index, value, offset=offset, active=self.active)
        return value

    def address(self, key: object, u: int) -> tuple[Index, int]:
        place = self.places[key]
        return self.bases[-1][key], place.origin + u * self.lanes * place.lane

    def load(self, key: object, u: int) -> Operand:
        """The u-th vector of an access: contiguous, one element in every lane, or gathered."""
        b, place = self.b, self.places[key]
        index, offset = self.address(key, u)
        lanes, active = self.lanes, self.active
        if active == 0 and place.lane:
            return b.const(0, place.buffer.type.vector(lanes))
        if place.lane == 0 or lanes == 1:
            return b.load_splat(place.buffer, index, lanes, offset=offset)
        if place.lane == 1:
            return b.load(place.buffer, index, lanes, offset=offset, active=active)
        if place.lane == -1 and active == lanes:
            backwards = b.load(place.buffer, index, lanes, offset=offset - lanes + 1)
            return b.shuffle(backwards, backwards, range(lanes - 1, -1, -1))
        if place.lane == 2 and active == lanes:
            first = b.load(place.buffer, index, lanes, offset=offset)
            second = b.load(place.buffer, index, lanes, offset=offset + lanes - 1)
            chosen = [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)]
            return b.shuffle(first, second, chosen)
        steps = [lane * place.lane for lane in range(lanes)]
        return b.gather(place.buffer, index, steps, offset=offset, active=active)

    def store(self, u: int, fill: int) -> None:
        """Write the u-th vector of the result."""
        b, place = self.b, self.places["y"]
        value = self.b.splat(self.value(self.region.output.expr, u), self.lanes)
        index, offset = self.address("y", u)
        active = self.active
        if fill > active:
            value = b.select(self.lane_mask(active), value, 0) if active else b.const(0, value.type)
            active = fill
        if place.lane == 0 or self.lanes == 1:
            b.store(place.buffer, index, b.extract(value, 0), offset=offset)
            return
        if place.lane == 1:
            b.store(place.buffer, index, value, offset=offset, active=active)
            return
        for lane in range(active):
            b.store(place.buffer, index, b.extract(value, lane), offset=offset + lane * place.lane)
