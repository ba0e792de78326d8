"""What a primitive is, and the one table of them.

    primitive("relu", family="elementwise", infer=..., reference=..., formula=...)

A primitive is one definition: its name, its attributes (a frozen dataclass), how result types follow from
operand types (`infer`), what it computes on NumPy arrays (`reference`: the oracle of the tests, and what
constant folding runs; it may return views) and, for elementwise primitives, the formula for one element that
kernels inline. Both frontends compose their operators from these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from tilewright.compiler.ir import Attrs, Graph, NoAttrs, TensorType
from tilewright.compiler.ir.graph import Array, walk
from tilewright.errors import GraphError, ResourceError, TilewrightError

Family = Literal["elementwise", "movement", "reduction", "window", "contraction", "gather", "layout"]
Infer = Callable[..., tuple[TensorType, ...]]
Reference = Callable[..., tuple[Array, ...]]
Formula = Callable[..., Any]

MAX_ELEMENTS = 2**36
"""No tensor may have more elements: what an absurd dimension in a file would ask for."""


@dataclass(frozen=True)
class Primitive:
    """One operation of the graph IR.

    infer(attrs, *operand types) gives the result types; raises GraphError naming the operand at fault.
    reference(attrs, *operand arrays) gives the result arrays, of exactly the inferred dtypes.
    formula(builder, attrs, *operands) gives one loop operand, scalar or vector, from loop operands of the
    operands' dtypes; elementwise primitives only.
    """

    name: str
    family: Family
    attrs: type[Attrs]
    infer: Infer
    reference: Reference
    formula: Formula | None = None


PRIMITIVES: dict[str, Primitive] = {}


def primitive(
    name: str,
    *,
    family: Family,
    infer: Infer,
    reference: Reference,
    attrs: type[Attrs] = NoAttrs,
    formula: Formula | None = None,
) -> Primitive:
    """Define a primitive; a second one of the same name is refused."""
    if name in PRIMITIVES:
        raise ValueError(f"primitive {name} is defined twice")
    PRIMITIVES[name] = Primitive(name, family, attrs, infer, reference, formula)
    return PRIMITIVES[name]


def infer(op: str, attrs: Attrs, types: Sequence[TensorType], node: str = "") -> tuple[TensorType, ...]:
    """Result types of primitive `op`; errors name the node and the primitive."""
    try:
        results = PRIMITIVES[op].infer(attrs, *types)
    except TilewrightError as error:
        raise error.located(node=node, operator=op) from None
    for result in results:
        if any(dim < 0 for dim in result.shape):
            raise GraphError(f"the result would have shape {result.shape}", node=node, operator=op)
        if prod(result.shape) > MAX_ELEMENTS:
            shown = "x".join(map(str, result.shape))
            raise ResourceError(
                f"the result would have {shown} elements, more than 2**36; check the model's shapes or pass "
                "smaller ones with shapes=",
                node=node, operator=op,
            )  # fmt: skip
    return results


def compute(op: str, attrs: Attrs, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Run primitive `op`'s reference on arrays."""
    with np.errstate(all="ignore"):
        return PRIMITIVES[op].reference(attrs, *arrays)


def evaluate(graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Run a whole graph through the references: the oracle of tests, and slow."""
    known = dict(zip(graph.inputs, inputs, strict=True)) | dict(graph.constants)
    for node in walk(graph.nodes):
        if node.op != "group":
            results = compute(node.op, node.attrs, [known[operand] for operand in node.operands])
            known.update(zip(node.results, results, strict=True))
    return tuple(known[value] for value in graph.outputs)


def verify_types(graph: Graph) -> None:
    """Raise GraphError where a node's results are not what its primitive infers (layouts apart)."""
    for node in walk(graph.nodes):
        if node.op == "group":
            continue
        inferred = infer(node.op, node.attrs, [operand.type for operand in node.operands], node.source)
        for result, type in zip(node.results, inferred, strict=True):
            if (result.type.dtype, result.type.shape) != (type.dtype, type.shape):
                raise GraphError(
                    f"{result} is declared {result.type} but is {type}", node=node.source, operator=node.op
                )
