"""From fused nodes to a loop nest: which groups one nest can compute, and the nest as data.

    group { m = reduce_max(x); e = exp(x - m); s = reduce_sum(e); y = e / s }
      ->  Region((100, 1000), reduced={1}, ..., Output(Map(div, Map(exp, ..), Reduce(add, ..))))

The iteration runs over the shape that the reductions reduce, or over the result's. Transposes, slices,
reshapes and broadcasts cost nothing: they change where the operands' elements are looked up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from tilewright.compiler.ir import Node, Shape, Value
from tilewright.compiler.ir.graph import Array as Numbers
from tilewright.compiler.kernels.kernel import loop_type
from tilewright.compiler.kernels.nest import (
    Access,
    Array,
    Constant,
    Expr,
    Input,
    Map,
    Nest,
    Output,
    Reduce,
    ReduceOp,
    Region,
)
from tilewright.compiler.lower.index_maps import (
    Along,
    Cut,
    IndexMap,
    Split,
    Unfit,
    access_of,
    broadcast_map,
    reshape_map,
)
from tilewright.compiler.ops import PRIMITIVES

REDUCTIONS: dict[str, ReduceOp] = {
    "reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "max", "reduce_min": "min",
}  # fmt: skip
VIEWS = ("reshape", "transpose", "broadcast", "slice")
COSTS = {
    "exp": 16, "log": 20, "sin": 24, "cos": 24, "tanh": 24, "sigmoid": 24, "erf": 24, "pow": 48,
    "mod": 24, "rem": 24, "div": 6, "sqrt": 6, "reciprocal": 6,
}  # fmt: skip
"""Instructions a vector, roughly, where it is not one."""
MAX_INPUTS = 12
"""Arrays that one nest may read."""
REPEATED_COST = 4
"""What a value may cost that is computed again for every row."""


@dataclass(frozen=True)
class Window:
    """A piece of one axis of the iterated shape: from `start`, as loops over `factors`, outermost first."""

    start: int
    factors: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements of the piece."""
        return prod(self.factors)


def nest_supports(nodes: Sequence[Node]) -> bool:
    """True where one loop nest can, and should, compute these nodes, of which the last gives the result."""
    if not all(node.plan is None or not node.plan.template for node in nodes):
        return False
    if not all(_is_member(node) for node in nodes):
        return False
    if any(0 in node.results[0].type.shape or any(0 in o.type.shape for o in node.operands) for node in nodes):
        return len(nodes) == 1
    try:
        nest = nest_of(nodes, {}).nest
    except Unfit:
        return False
    return len(nodes) == 1 or (len(nest.inputs) <= MAX_INPUTS and _worthwhile(nodes, nest))


def _is_member(node: Node) -> bool:
    if node.op in REDUCTIONS or node.op in VIEWS:
        return True
    return node.op in PRIMITIVES and PRIMITIVES[node.op].formula is not None


def _worthwhile(nodes: Sequence[Node], nest: Nest) -> bool:
    """False where fusing repeats costly values, or gathers what a kernel of its own would transpose."""
    if _repeats(nodes):
        return False
    for region in nest.regions:
        if not region.reduced:
            continue
        wide = [axis for axis, extent in enumerate(region.extents) if extent > 1]
        accesses = (*region.inputs, region.output.access)
        whole_accesses = [a.strides for a in accesses if all(a.strides[axis] for axis in wide)]
        if len({tuple(axis for axis in wide if abs(s[axis]) == 1) for s in whole_accesses}) > 1:
            return False
    return True


def _repeats(nodes: Sequence[Node]) -> bool:
    """True where a costly value is computed again for every row that a broadcast adds in front of it.

    A value with axes of 1 in their places looks like what a reduction leaves; it may join the group later.
    """
    reduces = [node for node in nodes if node.op in REDUCTIONS]
    shape = (reduces[0].operands[0] if reduces else nodes[-1].results[0]).type.shape
    small = reduces[0].results[0].type.elements if reduces else 1
    for node in nodes:
        type = node.results[0].type
        added = shape[: max(len(shape) - type.rank, 0)]
        if COSTS.get(node.op, 1) > REPEATED_COST and type.elements > small and prod(added) > 1:
            return True
    return False


@dataclass(frozen=True)
class Planned:
    """A nest and the values that its inputs are, in order."""

    nest: Nest
    operands: tuple[Value, ...]


def nest_of(nodes: Sequence[Node], scalars: Mapping[Value, Numbers]) -> Planned:
    """The nest that computes `nodes`; `scalars` become immediates. Raises Unfit."""
    inside = {result for node in nodes for result in node.results}
    outer = dict.fromkeys(o for node in nodes for o in node.operands if o not in inside and o not in scalars)
    operands = tuple(outer)
    result = nodes[-1].results[0]
    reduces = [node for node in nodes if node.op in REDUCTIONS]
    anchor = reduces[0].operands[0] if reduces else result
    regions = fitting_regions(
        anchor.type.shape, lambda windows: _Builder(nodes, operands, dict(scalars), anchor, windows).region()
    )
    arrays = tuple(array_of(value) for value in operands)
    return Planned(Nest(arrays, array_of(result), regions), operands)


def array_of(value: Value) -> Array:
    """A value's whole buffer as a parameter."""
    return Array(loop_type(value.type.dtype), value.type.layout.size(value.type.shape))


def fitting_regions(shape: Shape, build: Callable[[tuple[Window, ...]], Region]) -> tuple[Region, ...]:
    """The regions over the pieces of an iterated shape, and their loops, on which every index map is affine.

    `build` makes the region of one piece, or raises Split, Cut or Unfit.
    """
    return window_regions(tuple(Window(0, (dim,)) for dim in shape), build)


def window_regions(windows: tuple[Window, ...], build: Callable[[tuple[Window, ...]], Region]) -> tuple[Region, ...]:
    """The same for one piece of an iterated shape."""
    pending, found = [windows], []
    while pending:
        windows = pending.pop(0)
        try:
            found.append(build(windows))
        except (Split, Cut) as wanted:
            pending[:0] = refined(windows, wanted)
    return tuple(found)


def refined(windows: tuple[Window, ...], wanted: Split | Cut) -> list[tuple[Window, ...]]:
    """The windows with one loop split, or one axis cut in two."""
    loop = wanted.axis
    axis = 0
    while loop >= len(windows[axis].factors):
        loop -= len(windows[axis].factors)
        axis += 1
    window = windows[axis]

    def replaced(new: Window) -> tuple[Window, ...]:
        return (*windows[:axis], new, *windows[axis + 1 :])

    if isinstance(wanted, Split):
        factors = (*window.factors[:loop], *wanted.factors, *window.factors[loop + 1 :])
        return [replaced(Window(window.start, factors))]
    if len(window.factors) != 1:
        raise Unfit
    rest = window.size - wanted.at
    pieces = [Window(window.start, (wanted.at,)), Window(window.start + wanted.at, (rest,))]
    return [replaced(piece) for piece in pieces if piece.size]


def identity_map(windows: tuple[Window, ...]) -> tuple[IndexMap, Shape]:
    """The map of the iterated shape itself, and the extents of the loops."""
    extents: list[int] = []
    along = []
    for window in windows:
        terms, stride = [], window.size
        for factor in window.factors:
            stride //= max(factor, 1)
            terms.append((len(extents), stride))
            extents.append(factor)
        along.append(Along(window.start, tuple(terms)))
    return tuple(along), tuple(extents)


@dataclass
class _Builder:
    """Builds one region."""

    nodes: Sequence[Node]
    operands: tuple[Value, ...]
    scalars: dict[Value, Numbers]
    anchor: Value
    windows: tuple[Window, ...]
    inputs: list[Access] = field(default_factory=list)
    known: dict[tuple[Value, IndexMap], Expr] = field(default_factory=dict)

    def region(self) -> Region:
        """The region over the windows; raises Split, Cut or Unfit."""
        self.identity, self.extents = identity_map(self.windows)
        self.producers = {result: node for node in self.nodes for result in node.results}
        self.reduced: frozenset[int] = frozenset()
        self.axes: tuple[int, ...] = ()
        reduces = [node for node in self.nodes if node.op in REDUCTIONS]
        if reduces:
            attrs: Any = reduces[0].attrs
            self.axes = tuple(sorted(attrs.axes))
            if any(self.windows[axis].size != self.anchor.type.shape[axis] for axis in self.axes):
                raise Unfit  # each piece would be reduced by itself
            self.reduced = frozenset(loop for axis in self.axes for loop, _ in self.identity[axis].terms)
        result = self.nodes[-1].results[0]
        along = self.result_map()
        expr = self.expr(result, along)
        access = access_of(len(self.operands), result.type, along, self.extents)
        region = Region(self.extents, self.reduced, tuple(self.inputs), Output(expr, access))
        return filled(region, result, along)

    # ---- forwards: the map of the result, from that of the anchor

    def result_map(self) -> IndexMap:
        result = self.nodes[-1].results[0]
        maps = {self.anchor: self.identity}
        for node in self.nodes:
            if node.results[0] not in maps and any(operand in maps for operand in node.operands):
                maps[node.results[0]] = self.forward(node, maps)
        if result not in maps:
            raise Unfit
        return maps[result]

    def forward(self, node: Node, maps: dict[Value, IndexMap]) -> IndexMap:
        result, operand = node.results[0].type, node.operands[0]
        attrs: Any = node.attrs
        if node.op in REDUCTIONS:
            kept = [Along() if axis in attrs.axes else a for axis, a in enumerate(maps[operand])]
            return tuple(a for axis, a in enumerate(kept) if attrs.keepdims or axis not in attrs.axes)
        if node.op == "transpose":
            return tuple(maps[operand][axis] for axis in attrs.perm)
        if node.op == "reshape":
            return reshape_map(operand.type.shape, result.shape, maps[operand], self.extents)
        if node.op in VIEWS:
            raise Unfit
        found: list[Along] = []
        for axis, dim in enumerate(result.shape):
            along = [
                maps[o][axis - result.rank + o.type.rank]
                for o in node.operands
                if o in maps and axis - result.rank + o.type.rank >= 0
                and o.type.shape[axis - result.rank + o.type.rank] == dim
            ]  # fmt: skip
            if along:
                found.append(along[0])
            elif result.shape == self.anchor.type.shape:
                found.append(self.identity[axis])
            else:
                raise Unfit
        return tuple(found)

    # ---- backwards: expressions from the result

    def expr(self, value: Value, along: IndexMap) -> Expr:
        key = (value, along)
        if key not in self.known:
            self.known[key] = self.build(value, along)
        return self.known[key]

    def build(self, value: Value, along: IndexMap) -> Expr:
        type = value.type
        if value in self.scalars:
            return Constant(loop_type(type.dtype), self.scalars[value].reshape(()).item())
        node = self.producers.get(value)
        if node is None:
            self.inputs.append(access_of(self.operands.index(value), type, along, self.extents))
            return Input(len(self.inputs) - 1)
        attrs: Any = node.attrs
        operand = node.operands[0]
        if node.op == "transpose":
            source = tuple(along[attrs.perm.index(axis)] for axis in range(type.rank))
            return self.expr(operand, source)
        if node.op == "reshape":
            return self.expr(operand, reshape_map(type.shape, operand.type.shape, along, self.extents))
        if node.op == "broadcast":
            return self.expr(operand, broadcast_map(type.shape, operand.type.shape, along))
        if node.op == "slice":
            moved = zip(along, attrs.start, attrs.step, strict=True)
            return self.expr(operand, tuple(a.scaled(step).plus(Along(start)) for a, start, step in moved))
        if node.op in REDUCTIONS:
            return self.reduction(node, along)
        formula = PRIMITIVES[node.op].formula
        assert formula is not None
        args = tuple(self.expr(o, broadcast_map(type.shape, o.type.shape, along)) for o in node.operands)
        apply = formula
        return Map(lambda b, *values: apply(b, attrs, *values), args, COSTS.get(node.op, 1))

    def reduction(self, node: Node, along: IndexMap) -> Expr:
        attrs: Any = node.attrs
        operand = node.operands[0]
        if operand.type.shape != self.anchor.type.shape or tuple(sorted(attrs.axes)) != self.axes:
            raise Unfit
        if any(loop in self.reduced for a in along for loop, _ in a.terms):
            raise Unfit
        rest = list(along)
        source = []
        for axis in range(operand.type.rank):
            if axis not in self.axes:
                source.append(rest.pop(0))
                continue
            source.append(self.identity[axis])
            if attrs.keepdims:
                rest.pop(0)
        arg = self.expr(operand, tuple(source))
        return Reduce(REDUCTIONS[node.op], loop_type(operand.type.dtype), arg)


def filled(region: Region, result: Value, along: IndexMap) -> Region:
    """The region with its last block's missing lanes written as zeros, where it ends in a partial block."""
    layout = result.type.layout
    if not layout.blocks:
        return region
    axis, block = layout.blocks[-1]
    loops = [loop for loop, coefficient in along[axis].terms if coefficient % block]
    if len(loops) != 1 or region.extents[loops[0]] == block:
        return region
    last = loops[0]
    order = [*(loop for loop in range(len(region.extents)) if loop != last), last]

    def moved(access: Access) -> Access:
        return replace(access, strides=tuple(access.strides[loop] for loop in order))

    return Region(
        tuple(region.extents[loop] for loop in order),
        frozenset(order.index(loop) for loop in region.reduced),
        tuple(map(moved, region.inputs)),
        Output(region.output.expr, moved(region.output.access), block),
    )
