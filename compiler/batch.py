"""Shows that a model treats the samples of a batch one by one, and gives its graph for any number of them.

    graph of 2 samples          graph of 3 samples
    %x: f32 2x3x8x8             %x: f32 3x3x8x8            samples along axis 0
    %y: f32 2x64 = reshape      %y: f32 3x64 = reshape     along axis 0
    %t: f32 64x2 = transpose    %t: f32 64x3 = transpose   along axis 1
    %s: f32 64 = reduce_sum     ..                         refused: node and primitive are named

    two, three = batch_graphs(translate, {"x": ("N", 3, 8, 8)})
    samples = follow(two, three)      {%x: Along(axis=0), %y: Along(axis=0), ..}
    eight = resized(two, samples, 8)  the same graph for 8 samples

`follow` walks both graphs in step. Where they differ can only come from the number of samples, so extents tell along
which axis the samples lie, and a rule for each primitive shows that it does not mix them: then every result's sample
depends on the operands' same sample alone. A reshape may merge the samples into a longer axis, `outer` x samples x
`inner` elements, as attention does with its heads. What has no place for samples is the same for all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn

import numpy as np

from tilewright.compiler.ir import Attrs, Graph, Node, Shape, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops import PRIMITIVES, infer
from tilewright.compiler.ops.gather import Gather
from tilewright.compiler.ops.movement import Broadcast, Concat, Pad, Reshape, Slice, Transpose
from tilewright.compiler.ops.reduction import ArgReduce, Reduce
from tilewright.errors import CompileError, ShapeNeededError, TilewrightError, UnsupportedError

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


Places = Mapping[Value, Along]
NamedShape = tuple[int | str, ...]


def batch_graphs(make: Callable[[Mapping[str, Shape]], Graph], shapes: Mapping[str, NamedShape]) -> tuple[Graph, Graph]:
    """The graphs that `compile_batch` takes; `make` gives the graph for shapes without names.

    Raises UnsupportedError where the model fits only one sample at a time.
    """

    def numbered(samples: int) -> Graph:
        return make({name: tuple(samples if isinstance(dim, str) else dim for dim in s) for name, s in shapes.items()})

    try:
        two, three = (numbered(samples) for samples in SIZES)
    except ShapeNeededError:
        raise
    except TilewrightError as error:
        try:
            numbered(1)
        except TilewrightError:
            raise error from error.__cause__
        raise UnsupportedError(
            f"the model takes one sample, not several: {error.message}. Export it with a dynamic leading dimension, or "
            "give the number 1 for it",
            model=error.model, node=error.node, operator=error.operator,
        ) from error  # fmt: skip
    return two, three


def batch_shapes(two: Graph, three: Graph, symbol: str) -> dict[str, NamedShape]:
    """The shapes of all inputs, `symbol` in place of the number of samples."""
    return {
        value.name: value.type.shape if value.type == other.type else (symbol, *value.type.shape[1:])
        for value, other in zip(two.inputs, three.inputs, strict=True)
    }


def follow(two: Graph, three: Graph) -> dict[Value, Along]:
    """Where the samples of each value of `two` lie; values that are the same for all samples are not in it.

    The graphs are one model's for inputs with 2 and with 3 along the leading axis, the samples. Raises
    UnsupportedError, with the node at fault, if results mix samples or depend on how many there are.
    """
    return _Walk(two, three).run()


def resized(graph: Graph, places: Places, samples: int, times: int = 1) -> Graph:
    """A graph for another number of samples; `places` says where they lie in it. Shared constants stay the same.

    It is to compute as one for `times` as many samples does, to the last bit.
    """
    renamed: dict[Value, Value] = {}

    def changed(value: Value) -> Value:
        place = places.get(value)
        if place is None:
            return value
        if value not in renamed:
            shape = place.shape(value.type.shape, samples)
            renamed[value] = Value(value.name, TensorType(value.type.dtype, shape))
        return renamed[value]

    constants: dict[Value, Array] = {}
    for value, array in graph.constants.items():
        constants[changed(value)] = _repeated(array, places[value], samples) if value in places else array
    nodes = []
    for node in graph.nodes:
        operands, results = tuple(map(changed, node.operands)), tuple(map(changed, node.results))
        attrs = _resized_attrs(node.attrs, results[0].type.shape)
        inferred = infer(node.op, attrs, [operand.type for operand in operands], node.source)
        if [type.shape for type in inferred] != [result.type.shape for result in results]:
            raise CompileError(
                f"it gives {inferred[0]} for {samples} samples, not {results[0].type}; please report this",
                node=node.source, operator=node.op,
            )  # fmt: skip
        nodes.append(replace(node, operands=operands, results=results, attrs=attrs))
    inputs, outputs = tuple(map(changed, graph.inputs)), tuple(map(changed, graph.outputs))
    changed_graph = replace(graph, inputs=inputs, outputs=outputs, constants=constants, times=times)
    return changed_graph.with_nodes(nodes)


PIECES = (8, 2, 1)
"""Numbers of samples that small networks compute together: as many as still fit, the largest first."""

SMALL_US = 1000.0
"""Estimated microseconds a sample up to which a network is small: its kernels have too little to do for one."""

_FLOPS_PER_US, _BYTES_PER_US = 50_000, 4_000


def tile_sizes(one: Graph) -> tuple[int, ...]:
    """How many samples are computed together, the largest number first, given the graph for one."""
    time = 0.0
    for node in one.nodes:
        elements = sum(result.type.elements for result in node.results)
        if node.op in ("conv", "matmul"):
            weight = node.operands[1].type.shape
            time += 2 * elements * (prod(weight[1:]) if node.op == "conv" else weight[-2]) / _FLOPS_PER_US
        time += sum(result.type.bytes for result in node.results) / _BYTES_PER_US
    return PIECES if time <= SMALL_US else (1,)


def _resized_attrs(attrs: Attrs, shape: Shape) -> Attrs:
    """Attributes that name the result's shape, with another one. Slices take all of the samples' axis."""
    match attrs:
        case Reshape() | Broadcast():
            return replace(attrs, shape=shape)
        case Slice():
            return replace(attrs, size=shape)
        case _:
            return attrs


def _samples(array: Array, place: Along, samples: int) -> Array:
    """A view of a tensor with an axis for the samples: (.., outer, samples, inner, ..), at `place.axis` + 1."""
    shape = array.shape
    axes = (place.outer, samples, place.inner)
    return array.reshape(*shape[: place.axis], *axes, *shape[place.axis + 1 :])


def _repeated(array: Array, place: Along, samples: int) -> Array:
    """A constant for another number of samples, all the same."""
    first = np.take(_samples(array, place, SIZES[0]), [0], axis=place.axis + 1)
    whole = np.repeat(first, samples, axis=place.axis + 1)
    return whole.reshape(place.shape(array.shape, samples))


class _Walk:
    """The walk of `follow`: what is known of the values met."""

    def __init__(self, two: Graph, three: Graph) -> None:
        self.two, self.three = two, three
        self.places: dict[Value, Along] = {}
        self.twins: dict[Value, Value] = {}  # of values of `two`, those of `three`
        self.sized: set[Value] = set()  # constants whose shape depends on the number of samples

    def run(self) -> dict[Value, Along]:
        """All nodes, then the outputs."""
        for value, twin in zip(self.two.inputs, self.three.inputs, strict=True):
            self.twins[value] = twin
            if value.type != twin.type:
                self.places[value] = Along(0)
        for node, twin_node in zip(self.two.nodes, self.three.nodes, strict=False):
            self.node(node, twin_node)
        if len(self.two.nodes) != len(self.three.nodes):
            raise UnsupportedError("what the model computes depends on the number of samples" + _ADVICE)
        for value, name in zip(self.two.outputs, self.two.output_names, strict=True):
            self.output(value, name)
        return self.places

    def output(self, value: Value, name: str) -> None:
        place = self.places.get(value)
        if place is None:
            raise UnsupportedError(
                f"output '{name}' is the same for every sample: no input with a symbolic dimension leads to it. "
                "Leave it out, or give numbers for all dimensions"
            )
        if place != Along(0):
            raise UnsupportedError(
                f"output '{name}' does not have its samples along its leading axis; its shape for {SIZES[0]} of them "
                f"is {'x'.join(map(str, value.type.shape))}{_ADVICE}"
            )

    def node(self, node: Node, twin: Node) -> None:
        site = _Site(self, node, twin)
        if (node.op, len(node.operands)) != (twin.op, len(twin.operands)):
            site.refuse("what it computes depends on the number of samples")
        for operand, other in zip(node.operands, twin.operands, strict=True):
            if operand in self.two.constants:
                self.constant(site, operand, other)
            elif self.twins.get(operand) is not other:
                site.refuse("which values it takes depends on the number of samples")
        place = None
        if site.alike():
            site.same_attrs()
        else:
            place = _rule(node.op)(site)
        for result, other in zip(node.results, twin.results, strict=True):
            self.twins[result] = other
            self.check(site, result.type, other.type, place)
            if place is not None:
                self.places[result] = place

    def check(self, site: "_Site", type: TensorType, other: TensorType, place: Along | None) -> None:
        """Extents follow the number of samples where `place` says, and nowhere else."""
        for samples, shape in zip(SIZES, (type.shape, other.shape), strict=True):
            expected = type.shape if place is None else place.shape(type.shape, samples)
            if shape != expected:
                site.refuse(f"the size of its result, {type} for {SIZES[0]} samples, is {other} for {SIZES[1]}")

    def constant(self, site: "_Site", value: Value, other: Value) -> None:
        """Constants are equal, or their size follows the number of samples."""
        array, twin = self.two.constants[value], self.three.constants.get(other)
        if twin is None or array.dtype != twin.dtype:
            site.refuse("which values it takes depends on the number of samples")
        if value in self.twins and self.twins[value] is other:
            return
        self.twins[value] = other
        if array.shape != twin.shape:
            self.sized.add(value)
        elif not _same(array, twin):
            site.refuse("it takes numbers that are computed from the number of samples")

    def place_constant(self, site: "_Site", value: Value, place: Along) -> None:
        """Show that a constant is the same for all samples where they lie at `place`."""
        if self.places.setdefault(value, place) == place:
            arrays = (self.two.constants[value], self.three.constants[self.twins[value]])
            fits = all(
                array.shape == place.shape(arrays[0].shape, samples)
                for array, samples in zip(arrays, SIZES, strict=True)
            )
            if fits:
                views = [_samples(array, place, samples) for array, samples in zip(arrays, SIZES, strict=True)]
                first = np.take(views[0], [0], axis=place.axis + 1)
                if all(_same(np.broadcast_to(first, view.shape), view) for view in views):
                    return
        site.refuse("it takes numbers that differ from sample to sample")


def _same(array: Array, other: Array) -> bool:
    """Equal bit by bit; fast where both are views of the same memory."""
    if array.__array_interface__["data"] == other.__array_interface__["data"] and array.strides == other.strides:
        return True
    kind = f"u{array.dtype.itemsize}"
    return np.array_equal(np.ascontiguousarray(array).view(kind), np.ascontiguousarray(other).view(kind))


_ADVICE = (
    "; one compiled form for every number of samples needs each sample to be computed alone. Give a number for "
    "the leading dimension instead"
)


class _Site:
    """A node of both graphs, and where the samples of its operands lie."""

    def __init__(self, walk: _Walk, node: Node, twin: Node) -> None:
        self.walk, self.node, self.twin = walk, node, twin
        self.attrs: Any = node.attrs
        self.types = tuple(operand.type for operand in node.operands)

    def refuse(self, why: str) -> NoReturn:
        """Raise the error that says why the node's samples cannot be told apart."""
        raise UnsupportedError(why + _ADVICE, node=self.node.source, operator=self.node.op)

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

Rule = Callable[[_Site], Along]

RULES: dict[str, Rule] = {}


def _rules(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _rule(op: str) -> Rule:
    """The rule of a primitive; without one it is refused."""
    if op not in RULES and PRIMITIVES[op].family == "elementwise":
        return _elementwise
    return RULES.get(op, _unknown)


def _unknown(site: _Site) -> NoReturn:
    site.refuse("it may mix the samples of a batch")


def _elementwise(site: _Site) -> Along:
    site.same_attrs()
    return site.aligned()


@_rules("broadcast")
def _broadcast(site: _Site) -> Along:
    return site.aligned()


@_rules("reshape")
def _reshape(site: _Site) -> Along:
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
def _transpose(site: _Site) -> Along:
    place = site.only()
    assert isinstance(site.attrs, Transpose)
    return place.at(site.attrs.perm.index(place.axis))


@_rules("slice")
def _slice(site: _Site) -> Along:
    attrs, twin, place = site.attrs, site.twin.attrs, site.places[0]
    assert isinstance(attrs, Slice) and isinstance(twin, Slice)
    if place is None or (attrs.start, attrs.step) != (twin.start, twin.step):
        site.refuse("which elements it takes depends on the number of samples")
    axis = place.axis
    if (attrs.start[axis], attrs.step[axis], attrs.size[axis]) != (0, 1, site.types[0].shape[axis]):
        site.refuse("it picks some samples of the batch, or turns their order around")
    return place


@_rules("pad")
def _pad(site: _Site) -> Along:
    place = site.only()
    assert isinstance(site.attrs, Pad)
    if any(counts[place.axis] for counts in (site.attrs.low, site.attrs.high, site.attrs.interior)):
        site.refuse("it adds samples to the batch, or drops some")
    return place


def _side_by_side(site: _Site, axis: int) -> Along:
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
def _concat(site: _Site) -> Along:
    assert isinstance(site.attrs, Concat)
    return _side_by_side(site, site.attrs.axis)


@_rules("gather_elements")
def _gather_elements(site: _Site) -> Along:
    assert isinstance(site.attrs, Gather)
    return _side_by_side(site, site.attrs.axis)


@_rules("gather")
def _gather(site: _Site) -> Along:
    assert isinstance(site.attrs, Gather)
    axis = site.attrs.axis
    if site.places[0] is None:
        place = site.only(1)
        return place.at(axis + place.axis)
    place = site.only(0)
    if place.axis == axis:
        site.refuse("it picks samples of the batch by number")
    return place if place.axis < axis else place.at(place.axis + site.types[1].rank - 1)


def _not_along(site: _Site, *axes: int) -> Along:
    """The one operand with samples has none along these axes."""
    place = site.only()
    if place.axis in axes:
        site.refuse("it works along the axis of the samples")
    return place


@_rules("resample", "top_k")
def _one_axis(site: _Site) -> Along:
    return _not_along(site, site.attrs.axis)


@_rules("resample2d")
def _resample2d(site: _Site) -> Along:
    return _not_along(site, 2, 3)


@_rules("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin")
def _reduce(site: _Site) -> Along:
    attrs = site.attrs
    assert isinstance(attrs, Reduce | ArgReduce)
    axes = attrs.axes if isinstance(attrs, Reduce) else (attrs.axis,)
    place = site.only()
    if place.axis in axes:
        site.refuse("it reduces the axis of the samples to one number")
    gone = 0 if attrs.keepdims else sum(axis < place.axis for axis in axes)
    return place.at(place.axis - gone)


@_rules("conv")
def _conv(site: _Site) -> Along:
    place = site.only()
    if place.axis != 0:
        site.refuse("it sums over the axis of the samples")
    return place


@_rules("max_pool", "sum_pool")
def _pool(site: _Site) -> Along:
    return _not_along(site, *range(2, site.types[0].rank))


@_rules("matmul")
def _matmul(site: _Site) -> Along:
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
