"""Graph primitives by family, and composites that both frontends build operators from.

PRIMITIVES["conv"]                       one definition each: attributes, infer, reference, formula
g = GraphBuilder("net"); g.op("relu", x)
composites.softmax(g, x, axes=(1,))      plain functions over a GraphBuilder
"""

# The families define their primitives as they are imported.
from tilewright.compiler.ops import (
    composites,
    contraction,
    elementwise,
    gather,
    layout,
    movement,
    ordering,
    reduction,
    window,
    winograd,
)
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.compiler.ops.registry import (
    PRIMITIVES,
    Primitive,
    compute,
    evaluate,
    infer,
    verify_types,
)

__all__ = [
    "PRIMITIVES",
    "GraphBuilder",
    "Primitive",
    "composites",
    "compute",
    "contraction",
    "elementwise",
    "evaluate",
    "gather",
    "infer",
    "layout",
    "movement",
    "ordering",
    "reduction",
    "verify_types",
    "window",
    "winograd",
]
