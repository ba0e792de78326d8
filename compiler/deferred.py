"""Large constants that are computed straight into their place among the packed constants, while code is generated.

    %w.p = relayout(%w)              recipes = {%w.p: Recipe("relayout", attrs, (<array of %w>,), type)}
    %y = conv(%x, %w.p)       ->     %y = conv(%x, %w.p)
    graph                            graph without the node: its result is a constant that nobody has seen yet
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.ir import Graph, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ir.pages import release
from tilewright.compiler.ops import compute
from tilewright.compiler.ops.layout import Relayout, pack
from tilewright.compiler.passes.cleanup import known_nodes


@dataclass(frozen=True, eq=False)
class Recipe:
    """A constant of this type that is yet to be computed: a primitive on constants, computed or not."""

    op: str
    attrs: Any
    operands: "tuple[Constant, ...]"
    type: TensorType


Constant = Array | Recipe


def defer(graph: Graph) -> tuple[Graph, Mapping[Value, Recipe]]:
    """The graph without its known nodes, and recipes for the results that its other nodes use."""
    known = [node for node in known_nodes(graph) if node.op != "group" and len(node.results) == 1]
    found: dict[Value, Recipe] = {}
    for node in known:
        operands = tuple(graph.constants[v] if v in graph.constants else found[v] for v in node.operands)
        found[node.result] = Recipe(node.op, node.attrs, operands, node.result.type)
    left = set(known)
    kept = [node for node in graph.nodes if node not in left]
    used = {operand for node in kept for operand in node.operands}
    return graph.with_nodes(kept), {value: recipe for value, recipe in found.items() if value in used}


def size_of(constant: Constant) -> int:
    """Its bytes."""
    return constant.type.bytes if isinstance(constant, Recipe) else constant.nbytes


def identity_of(constant: Constant) -> Hashable:
    """The same for constants that are computed alike from the same arrays."""
    if isinstance(constant, Recipe):
        return (constant.op, constant.attrs, *map(identity_of, constant.operands))
    return (constant.__array_interface__["data"][0], constant.dtype, constant.shape, constant.strides)


def write(constant: Constant, place: npt.NDArray[np.uint8]) -> None:
    """Put a constant, physical as the program reads it, into its bytes; mapped files that it lies in are let go."""
    if not isinstance(constant, Recipe):
        place.view(constant.dtype).reshape(constant.shape)[...] = constant
        release(constant)
        return
    into = place.view(constant.type.dtype.numpy).reshape(constant.type.layout.physical_shape(constant.type.shape))
    arrays = [_computed(operand) for operand in constant.operands]
    if isinstance(constant.attrs, Relayout) and constant.attrs.source.is_row_major:
        pack(constant.attrs.layout, arrays[0].reshape(constant.attrs.shape), into)
    else:
        (into[...],) = compute(constant.op, constant.attrs, arrays)
    for array in arrays:
        release(array)


def _computed(constant: Constant) -> Array:
    if not isinstance(constant, Recipe):
        return constant
    (array,) = compute(constant.op, constant.attrs, [_computed(operand) for operand in constant.operands])
    return array
