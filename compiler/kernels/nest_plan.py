"""What is decided about one region of a loop nest before its code: see `kernels.nest`.

softmax over rows    passes [max], [sum; exp kept in the result], [store]; lanes along the reduced axis
row by row           4 vectors at once, 1 row an item
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tilewright.compiler.kernels.nest_data import Access, Constant, Expr, Input, Map, Reduce, Region
from tilewright.compiler.loops import Buffer, Builder, Operand, Type

ITEM_WORK = 1 << 14
"""Elements an item should compute at least: what makes a range worth a thread's while."""
KEEP_COST = 8
"""Values that cost more are kept for the next pass instead of computed again."""
SCRATCH_BYTES = 16 << 10
"""Stack that kept values of one row may take."""
LIGHT = 6
"""Bodies of at most this cost wait for memory, or for their accumulators."""
STREAM_BITS = 256
"""The longest vectors of light bodies without reductions: with 512 bits they took 3 to 20 % longer on AVX-512."""
VECTORS = 4
"""Vectors computed side by side."""
COLUMN_VECTORS = 8
"""Accumulators along a kept lane axis where the body is light."""


@dataclass(frozen=True)
class Place:
    """An access in a buffer: what each loop adds to its index, and the stride between lanes."""

    buffer: Buffer
    origin: int
    steps: tuple[int, ...]
    lane: int


class RegionPlan:
    """What is decided about a canonical region before any code: passes, lanes, unrolling, items."""

    def __init__(
        self, b: Builder, region: Region, inputs: Sequence[Buffer], result: Buffer, lanes: int
    ) -> None:
        self.b, self.region = b, region
        rank = len(region.extents)
        self.lane = rank - 1
        self.rows = self.lane in region.reduced
        self.reduced = [axis for axis in range(rank) if axis in region.reduced]
        self.kept = [axis for axis in range(rank) if axis not in region.reduced]
        extent = max(region.extents[self.lane], region.output.fill)
        self.lanes = min(lanes, 1 << (extent - 1).bit_length())
        self.places: dict[object, Place] = {}
        for position, access in enumerate(region.inputs):
            self.places[position] = self.place(access, inputs[access.array])
        self.places["y"] = self.place(region.output.access, result)
        self.output_varies = any(region.output.access.strides[axis] for axis in self.reduced)
        self.deps: dict[Expr, frozenset[int]] = {}
        self.levels: dict[Expr, int] = {}
        self.costs: dict[Expr, int] = {}
        self.parts: dict[Expr, frozenset[Expr]] = {}
        self.analyse(region.output.expr)
        self.passes = self.plan_passes()
        self.lanes = self.plan_lanes()
        self.kept_in = self.plan_kept_values()
        self.unroll = self.plan_unroll()
        self.prefetching = self.plan_prefetch()
        self.split, self.chunk, self.chunks = self.plan_items()
        self.items = prod(region.extents[axis] for axis in self.kept[: self.split]) * self.chunks

    # ---- planning

    def place(self, access: Access, buffer: Buffer) -> Place:
        return Place(buffer, access.origin, access.strides, access.strides[self.lane])

    def analyse(self, expr: Expr) -> None:
        """For each value: the axes it varies along, the reductions it stands behind, its cost."""
        if expr in self.deps:
            return
        deps: frozenset[int] = frozenset()
        level, parts = 0, frozenset([expr])
        if isinstance(expr, Input):
            steps = self.places[expr.position].steps
            deps = frozenset(axis for axis, step in enumerate(steps) if step)
        elif isinstance(expr, Map):
            for arg in expr.args:
                self.analyse(arg)
                deps |= self.deps[arg]
            level = max((self.levels[arg] for arg in expr.args), default=0)
            parts = parts.union(*(self.parts[arg] for arg in expr.args))
        elif isinstance(expr, Reduce):
            self.analyse(expr.arg)
            deps = self.deps[expr.arg] - self.region.reduced
            level = self.levels[expr.arg] + 1
        self.deps[expr], self.levels[expr], self.parts[expr] = deps, level, parts
        self.costs[expr] = sum(part.cost if isinstance(part, Map) else 1 for part in parts)

    def operations(self) -> int:
        """About how many operations the region takes, each value computed once wherever it varies."""
        count = 0
        for expr in self.deps:
            if isinstance(expr, Map):
                count += expr.cost * prod(self.region.extents[axis] for axis in self.deps[expr])
            elif isinstance(expr, Reduce):
                count += prod(self.region.extents[axis] for axis in self.deps[expr.arg] | self.region.reduced)
        return count

    def plan_passes(self) -> list[tuple[list[Reduce], bool]]:
        """By pass: the reductions it does, and whether it stores the result."""
        found: dict[int, list[Reduce]] = {}
        for expr in self.deps:
            if isinstance(expr, Reduce):
                found.setdefault(self.levels[expr], []).append(expr)
        top = self.levels[self.region.output.expr]
        full = self.output_varies or not self.reduced
        passes = [(found.get(level, []), False) for level in range(1, max(found, default=0) + 1)]
        if full and top < len(passes):
            passes[top] = (passes[top][0], True)
        elif full:
            passes.append(([], True))
        return passes

    def roots(self, number: int) -> list[Expr]:
        """The values that pass `number` needs."""
        reduces, stores = self.passes[number]
        return [r.arg for r in reduces] + ([self.region.output.expr] if stores else [])

    def plan_kept_values(self) -> dict[Expr, tuple[int, object]]:
        """Costly values that several passes need: (the pass that computes it, where it is kept).

        One is kept in the result's own elements, which the last pass overwrites, if it is of their type.
        """
        if len(self.passes) < 2 or not self.reduced:
            return {}
        first: dict[Expr, int] = {}
        kept: dict[Expr, tuple[int, object]] = {}
        for number in range(len(self.passes)):
            again: dict[Expr, None] = {}

            def visit(expr: Expr, number: int = number, again: dict[Expr, None] = again) -> None:
                if isinstance(expr, (Constant, Reduce)) or not self.deps[expr] & self.region.reduced:
                    return
                if first.setdefault(expr, number) < number and self.costs[expr] >= KEEP_COST:
                    again[expr] = None
                    return
                if isinstance(expr, Map):
                    for arg in expr.args:
                        visit(arg)

            for root in self.roots(number):
                visit(root)
            for expr in again:
                if expr not in kept:
                    kept[expr] = (first[expr], None)
        row = prod(self.region.extents[axis] for axis in self.reduced)
        width = 1 if self.rows else self.lanes * 2
        stored = next((n for n, (_, stores) in enumerate(self.passes) if stores), -1)
        in_result = False
        for expr, (number, _) in list(kept.items()):
            type = self.type_of(expr)
            y = self.places["y"]
            if type is None:
                del kept[expr]
            elif (
                not in_result and stored > number and self.output_varies and type == y.buffer.type
                and y.lane == 1 and expr is not self.region.output.expr and not self.region.output.fill
                and all(y.steps[axis] for axis in self.reduced if self.region.extents[axis] > 1)
            ):  # fmt: skip
                in_result = True
                kept[expr] = (number, "y")
            elif row * width * type.bytes <= SCRATCH_BYTES:
                kept[expr] = (number, "scratch")
            else:
                del kept[expr]
        return kept

    def type_of(self, expr: Expr) -> Type | None:
        """The element type of a value, found by building it aside; None for a bool, which is cheap."""
        b = Builder("aside")

        def aside(expr: Expr) -> Operand:
            if isinstance(expr, Constant):
                return b.const(expr.value, expr.type)
            if isinstance(expr, Reduce):
                return b.scalar("r", expr.type)
            if isinstance(expr, Input):
                return b.scalar("x", self.places[expr.position].buffer.type)
            return expr.apply(b, *map(aside, expr.args))

        type = aside(expr).type.scalar
        return None if type.kind == "b" else type

    def is_light(self) -> bool:
        """Whether no pass computes much."""
        return all(self.costs[root] <= LIGHT for number in range(len(self.passes)) for root in self.roots(number))

    def plan_lanes(self) -> int:
        """Lanes of a vector; where data only stream through, shorter vectors than the longest are faster."""
        bits = max(place.buffer.type.bits for place in self.places.values())
        streams = not self.reduced and self.is_light()
        return max(min(self.lanes, STREAM_BITS // bits), 1) if streams else self.lanes

    def plan_unroll(self) -> int:
        """Vectors computed side by side, for the latency of accumulators and of long formulas."""
        most = max(self.region.extents[self.lane] // self.lanes, 1)
        wanted = VECTORS
        if self.reduced and not self.rows and self.is_light() and len(self.passes) == 1:
            # Many lanes side by side read long pieces of each row.
            wanted = COLUMN_VECTORS
        while wanted > most:
            wanted //= 2
        return wanted

    def plan_items(self) -> tuple[int, int, int]:
        """(k, c, n): an item is all kept axes before the k-th, and one of n chunks of c steps along that."""
        extents = self.region.extents
        work = prod(extents[axis] for axis in self.reduced)
        cost = max(self.costs.values(), default=1)
        wanted = max(ITEM_WORK // max(1, cost // 16), 1)
        if not self.kept:
            return 0, 1, 1
        inner = [work * prod(extents[axis] for axis in self.kept[k + 1 :]) for k in range(len(self.kept))]
        k = next((k for k, size in enumerate(inner) if size <= wanted), len(self.kept) - 1)
        axis = self.kept[k]
        grain = 1 if axis != self.lane else self.lanes * self.unroll
        steps = -(-extents[axis] // grain)
        chunk = min(max(wanted // max(inner[k] * grain, 1), 1), steps)
        chunks = -(-steps // chunk)
        chunk = -(-steps // chunks)
        return k, chunk * grain, -(-steps // chunk)

    def plan_prefetch(self) -> int:
        """The pass that fetches the next row's inputs, the one that computes most; -1 for none."""
        n = self.region.extents[self.lane]
        if not self.rows or not self.kept or len(self.reduced) > 1 or len(self.passes) < 2:
            return -1
        costs = [self.work(number) for number in range(len(self.passes))]
        return costs.index(max(costs)) if n >= 4 * self.lanes else -1

    def work(self, number: int) -> int:
        """The cost of what pass `number` computes for each element: not what is kept from an earlier pass."""
        seen: dict[Expr, None] = {}

        def visit(expr: Expr) -> None:
            if isinstance(expr, (Constant, Reduce)) or expr in seen or not self.deps[expr] & self.region.reduced:
                return
            if self.kept_in.get(expr, (number, None))[0] < number:
                return
            seen[expr] = None
            for arg in expr.args if isinstance(expr, Map) else ():
                visit(arg)

        for root in self.roots(number):
            visit(root)
        return sum(expr.cost if isinstance(expr, Map) else 1 for expr in seen)
