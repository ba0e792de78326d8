"""Lower a graph node by node and run its kernels in hostile memory, for the tests of lowerings.

check(graph, [x])        # every output equals the references', in any split of the items
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from support import Array, compiled, guarded

from tilewright.compiler import targets
from tilewright.compiler.ir import Graph, Layout, TensorType, Value
from tilewright.compiler.lower import generic, movement  # noqa: F401  # they register the lowerings
from tilewright.compiler.lower.context import LOWERINGS, Lowering
from tilewright.compiler.ops import evaluate
from tilewright.compiler.ops.layout import pack, unpack
from tilewright.compiler.targets import Target

WIDTHS = (32, 128, 256, 512)
"""Vector sizes in bits: 1, 4, 8 and 16 lanes of f32."""


def narrow(bits: int) -> Target:
    """The host with vectors of this size."""
    return targets.narrowed(targets.host(), bits)


def poisoned(type: TensorType) -> Array:
    """A value's buffer full of what no result should keep, ending at an inaccessible page."""
    array = np.empty(type.layout.size(type.shape), type.dtype.numpy)
    array[...] = np.nan if type.dtype.is_float else array.dtype.type(77)
    return guarded(array)


def run_lowered(graph: Graph, inputs: Sequence[Array], target: Target, *, split: bool = False) -> list[Array]:
    """The outputs, row-major; with `split`, items run in random ranges in random order."""
    state = Lowering(graph, target, lambda node: frozenset())
    for node in graph.nodes:
        templated = node.plan is not None and node.plan.template
        LOWERINGS[f"template:{node.plan.template}" if templated else node.op](state, node)
    buffers: dict[Value, Array] = {}
    for value, array in [*zip(graph.inputs, inputs, strict=True), *graph.constants.items()]:
        array = np.asarray(array)
        physical = pack(value.type.layout, array) if value in graph.inputs else array
        buffers[value] = guarded(np.array(physical).reshape(-1))
    produced = [result for node in graph.nodes for result in node.results]
    for value in produced:
        buffers[value] = poisoned(value.type)
        if value.type.layout.pads or value.type.layout.blocks:
            clear_pads(value, buffers[value])
    generator = random.Random(0)
    for step in state.steps:
        for value in step.arguments:
            if value not in buffers:
                buffers[value] = poisoned(value.type)
        call = compiled(step.kernel.function)
        addresses = [buffers[value].ctypes.data for value in step.arguments]
        cuts = {0, step.kernel.items}
        if split:
            cuts |= {generator.randint(0, step.kernel.items) for _ in range(5)}
        ordered = sorted(cuts)
        ranges = list(pairwise(ordered))
        generator.shuffle(ranges)
        for begin, end in ranges:
            call(*addresses, begin, end)
    return [read(buffers[value], value.type) for value in graph.outputs]


def clear_pads(value: Value, buffer: Array) -> None:
    """Zero the physical pads, which other kernels write; elements and fill stay poisoned."""
    layout, shape = value.type.layout, value.type.shape
    bare = Layout(layout.axes, layout.blocks)
    physical = buffer.reshape(layout.physical_shape(shape))
    inside: list[Any] = []
    for axis in layout.order(len(shape)):
        before = layout.pad(axis)[0]
        inside.append(slice(before, before + -(-shape[axis] // bare.block(axis))))
    kept = physical[(*inside, ...)].copy()
    physical[...] = 0
    physical[(*inside, ...)] = kept


def read(buffer: Array, type: TensorType) -> Array:
    """A buffer as a row-major array; its pads and fill must be zeros."""
    physical = buffer.reshape(type.layout.physical_shape(type.shape))
    array = unpack(type.layout, type.shape, physical)
    np.testing.assert_array_equal(pack(type.layout, array), physical, "pads or fill")
    return array


def check(
    graph: Graph,
    inputs: Sequence[Array],
    *,
    wanted: Sequence[Array] = (),
    widths: Sequence[int] = WIDTHS,
    rtol: float = 2e-5,
    atol: float = 1e-6,
) -> None:
    """Compare the lowered graph with the references (or `wanted`) at several widths; arrays are row-major."""
    wanted = wanted or evaluate(graph, inputs)
    for width in widths:
        target = narrow(width)
        once = run_lowered(graph, inputs, target)
        parts = run_lowered(graph, inputs, target, split=True)
        for found, again, right in zip(once, parts, wanted, strict=True):
            assert found.dtype == right.dtype
            assert found.tobytes() == again.tobytes(), f"splits differ at {width}"
            if right.dtype.kind == "f":
                np.testing.assert_allclose(found, right, rtol=rtol, atol=atol, err_msg=f"{width} bits")
            else:
                np.testing.assert_array_equal(found, right, f"{width} bits")
