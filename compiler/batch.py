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
from dataclasses import replace
from math import prod

import numpy as np

from tilewright.compiler.ir import Attrs, Graph, Node, Shape, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops import infer
from tilewright.compiler.ops.movement import Broadcast, Reshape, Slice
from tilewright.compiler.samples import ADVICE, SIZES, Along, Site, rule_of
from tilewright.errors import CompileError, ShapeNeededError, TilewrightError, UnsupportedError

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
            raise UnsupportedError("what the model computes depends on the number of samples" + ADVICE)
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
                f"is {'x'.join(map(str, value.type.shape))}{ADVICE}"
            )

    def node(self, node: Node, twin: Node) -> None:
        site = Site(self, node, twin)
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
            place = rule_of(node.op)(site)
        for result, other in zip(node.results, twin.results, strict=True):
            self.twins[result] = other
            self.check(site, result.type, other.type, place)
            if place is not None:
                self.places[result] = place

    def check(self, site: Site, type: TensorType, other: TensorType, place: Along | None) -> None:
        """Extents follow the number of samples where `place` says, and nowhere else."""
        for samples, shape in zip(SIZES, (type.shape, other.shape), strict=True):
            expected = type.shape if place is None else place.shape(type.shape, samples)
            if shape != expected:
                site.refuse(f"the size of its result, {type} for {SIZES[0]} samples, is {other} for {SIZES[1]}")

    def constant(self, site: Site, value: Value, other: Value) -> None:
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

    def place_constant(self, site: Site, value: Value, place: Along) -> None:
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
