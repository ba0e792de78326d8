"""Where the samples of a node's results lie, and which nodes mix them: a rule for each primitive.

    %y = transpose(%x) {perm=(1, 0)}      samples of x along axis 0, Along(0): those of y along axis 1, Along(1)
    %y = reduce_sum(%x) {axes=(0,)}       refused

A rule looks at a `Site`: the node in the graph for 2 samples, its twin in that for 3, and where the samples of its
operands lie. It shows that a sample of the results depends on the operands' same sample alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn, Protocol

from tilewright.compiler.ir import Node, Shape, Value
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops.gather import Gather
from tilewright.compiler.ops.movement import Concat, Pad, Reshape, Slice, Transpose
from tilewright.compiler.ops.reduction import ArgReduce, Reduce
from tilewright.errors import UnsupportedError

SIZES = (2, 3)
"""The numbers of samples of the two graphs that are compared."""


@dataclass(frozen=True)
class Along:
    """Where a value's samples lie: axis `axis` has `outer` x samples x `inner` elements."""

    axis: int
    outer: int = 1
    inner: int = 1

    def extent(self, samples: int) -> int:
        """Elements of the axis."""
        return self.outer * samples * self.inner

    def at(self, axis: int) -> "Along":
        """The same along another axis."""
        return replace(self, axis=axis)

    def shape(self, shape: Shape, samples: int) -> Shape:
        """`shape` with this many samples."""
        return (*shape[: self.axis], self.extent(samples), *shape[self.axis + 1 :])


ADVICE = (
    "; one compiled form for every number of samples needs each sample to be computed alone. Give a number for "
    "the leading dimension instead"
)


class Known(Protocol):
    """What is known of the values before a node."""

    places: dict[Value, Along]
    sized: set[Value]
    """Constants whose size follows the number of samples."""

    def place_constant(self, site: "Site", value: Value, place: Along) -> None:
        """Show that such a constant is the same for all samples, where they lie at `place`, or refuse."""


class Site:
    """A node of both graphs, and where the samples of its operands lie."""

    def __init__(self, walk: Known, node: Node, twin: Node) -> None:
        self.walk, self.node, self.twin = walk, node, twin
        self.attrs: Any = node.attrs
        self.types = tuple(operand.type for operand in node.operands)

    def refuse(self, why: str) -> NoReturn:
        """Raise the error that says why the node's samples cannot be told apart."""
        raise UnsupportedError(why + ADVICE, node=self.node.source, operator=self.node.op)

    @property
    def places(self) -> tuple[Along | None, ...]:
        """By operand; None for one that is the same for all samples."""
        return tuple(self.walk.places.get(operand) for operand in self.node.operands)

    def sized(self, position: int) -> bool:
        """Whether an operand is a constant whose size follows the number of samples."""
        return self.node.operands[position] in self.walk.sized

    def alike(self) -> bool:
        """Whether nothing here depends on the samples."""
        types = [result.type for result in self.node.results]
        return (
            not any(self.places)
            and not any(map(self.sized, range(len(self.types))))
            and types == [result.type for result in self.twin.results]
        )

    def same_attrs(self) -> None:
        """Refuse attributes that differ between the graphs."""
        if self.node.attrs != self.twin.attrs:
            self.refuse("its attributes depend on the number of samples")

    def only(self, position: int = 0) -> Along:
        """The place of the one operand that may have samples."""
        self.same_attrs()
        place = self.places[position]
        others = [at for at in range(len(self.types)) if at != position and (self.places[at] or self.sized(at))]
        if place is None or others:
            self.refuse("it combines the samples of several operands")
        return place

    def aligned(self) -> Along:
        """The place in a result that operands broadcast to; all that have samples must agree."""
        result, other = self.node.results[0].type, self.twin.results[0].type
        rank = result.rank
        found = {
            place.at(place.axis + rank - type.rank)
            for place, type in zip(self.places, self.types, strict=True)
            if place is not None
        }
        if len(found) > 1:
            self.refuse("its operands have their samples along different axes")
        if found:
            (place,) = found
        else:  # nothing but the size depends on the samples
            axis = _changed_axis(result.shape, other.shape)
            if axis is None or result.shape[axis] % SIZES[0]:
                self.refuse("the shape of its result does not follow the number of samples")
            place = Along(axis, 1, result.shape[axis] // SIZES[0])
        for position, operand in enumerate(self.node.operands):
            if self.sized(position):
                axis = place.axis - rank + operand.type.rank
                self.walk.place_constant(self, operand, place.at(axis))
        return place


def _changed_axis(shape: Shape, other: Shape) -> int | None:
    """The one axis along which shapes differ."""
    if len(shape) != len(other):
        return None
    axes = [axis for axis, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b]
    return axes[0] if len(axes) == 1 else None


# ---- rules: where the samples of a node's results lie

Rule = Callable[[Site], Along]

RULES: dict[str, Rule] = {}


def _rules(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def rule_of(op: str) -> Rule:
    """The rule of a primitive; without one it is refused."""
    if op not in RULES and PRIMITIVES[op].family == "elementwise":
        return _elementwise
    return RULES.get(op, _unknown)


def _unknown(site: Site) -> NoReturn:
    site.refuse("it may mix the samples of a batch")


def _elementwise(site: Site) -> Along:
    site.same_attrs()
    return site.aligned()


@_rules("broadcast")
def _broadcast(site: Site) -> Along:
    return site.aligned()


@_rules("reshape")
def _reshape(site: Site) -> Along:
    """Elements keep their order: so many of them stand before the samples, inside and outside of the new axis."""
    place, shape = site.places[0], site.attrs.shape
    assert isinstance(site.twin.attrs, Reshape)
    axis = _changed_axis(shape, site.twin.attrs.shape)
    if place is not None and axis is not None:
        before, outside = prod(site.types[0].shape[: place.axis]) * place.outer, prod(shape[:axis])
        if outside and before % outside == 0:
            outer = before // outside
            inner, rest = divmod(shape[axis], max(outer * SIZES[0], 1))
            if not rest:
                return Along(axis, outer, inner)
    site.refuse(f"its result of shape {'x'.join(map(str, shape))} has no axis along which the samples lie")


@_rules("transpose")
def _transpose(site: Site) -> Along:
    place = site.only()
    assert isinstance(site.attrs, Transpose)
    return place.at(site.attrs.perm.index(place.axis))


@_rules("slice")
def _slice(site: Site) -> Along:
    attrs, twin, place = site.attrs, site.twin.attrs, site.places[0]
    assert isinstance(attrs, Slice) and isinstance(twin, Slice)
    if place is None or (attrs.start, attrs.step) != (twin.start, twin.step):
        site.refuse("which elements it takes depends on the number of samples")
    axis = place.axis
    if (attrs.start[axis], attrs.step[axis], attrs.size[axis]) != (0, 1, site.types[0].shape[axis]):
        site.refuse("it picks some samples of the batch, or turns their order around")
    return place


@_rules("pad")
def _pad(site: Site) -> Along:
    place = site.only()
    assert isinstance(site.attrs, Pad)
    if any(counts[place.axis] for counts in (site.attrs.low, site.attrs.high, site.attrs.interior)):
        site.refuse("it adds samples to the batch, or drops some")
    return place


def _side_by_side(site: Site, axis: int) -> Along:
    """Operands of one rank with the samples along the same axis, which is not `axis`."""
    site.same_attrs()
    found = {place for place in site.places if place is not None}
    missing = [at for at, place in enumerate(site.places) if place is None and not site.sized(at)]
    if len(found) != 1 or missing:
        site.refuse("its operands do not all have their samples along the same axis")
    (place,) = found
    if place.axis == axis:
        site.refuse("it works along the axis of the samples")
    return site.aligned()


@_rules("concat")
def _concat(site: Site) -> Along:
    assert isinstance(site.attrs, Concat)
    return _side_by_side(site, site.attrs.axis)


@_rules("gather_elements")
def _gather_elements(site: Site) -> Along:
    assert isinstance(site.attrs, Gather)
    return _side_by_side(site, site.attrs.axis)


@_rules("gather")
def _gather(site: Site) -> Along:
    assert isinstance(site.attrs, Gather)
    axis = site.attrs.axis
    if site.places[0] is None:
        place = site.only(1)
        return place.at(axis + place.axis)
    place = site.only(0)
    if place.axis == axis:
        site.refuse("it picks samples of the batch by number")
    return place if place.axis < axis else place.at(place.axis + site.types[1].rank - 1)


def _not_along(site: Site, *axes: int) -> Along:
    """The one operand with samples has none along these axes."""
    place = site.only()
    if place.axis in axes:
        site.refuse("it works along the axis of the samples")
    return place


@_rules("resample", "top_k")
def _one_axis(site: Site) -> Along:
    return _not_along(site, site.attrs.axis)


@_rules("resample2d")
def _resample2d(site: Site) -> Along:
    return _not_along(site, 2, 3)


@_rules("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin")
def _reduce(site: Site) -> Along:
    attrs = site.attrs
    assert isinstance(attrs, Reduce | ArgReduce)
    axes = attrs.axes if isinstance(attrs, Reduce) else (attrs.axis,)
    place = site.only()
    if place.axis in axes:
        site.refuse("it reduces the axis of the samples to one number")
    gone = 0 if attrs.keepdims else sum(axis < place.axis for axis in axes)
    return place.at(place.axis - gone)


@_rules("conv")
def _conv(site: Site) -> Along:
    place = site.only()
    if place.axis != 0:
        site.refuse("it sums over the axis of the samples")
    return place


@_rules("max_pool", "sum_pool")
def _pool(site: Site) -> Along:
    return _not_along(site, *range(2, site.types[0].rank))


@_rules("channel_squares")
def _channel_squares(site: Site) -> Along:
    return _not_along(site, 1)


@_rules("matmul")
def _matmul(site: Site) -> Along:
    """(.., M, K) x (.., K, N): samples among the leading axes, along M of the first or along N of the second."""
    site.same_attrs()
    rank = site.node.result.type.rank
    found = set()
    for position, (place, type) in enumerate(zip(site.places, site.types, strict=True)):
        if site.sized(position):
            site.refuse("it takes numbers whose size follows the number of samples")
        if place is None:
            continue
        if place.axis == type.rank - (1 if position == 0 else 2):
            site.refuse("it sums over the axis of the samples")
        inside = place.axis >= type.rank - 2
        found.add((place.at(place.axis + rank - type.rank), position if inside else None))
    if len(found) > 1:
        site.refuse("it multiplies each sample with all others")
    ((place, _),) = found
    return place
