"""TensorFlow operators as compositions of primitives, by family; importing this package fills the table.

    arithmetic      Add, Maximum, FloorDiv, Select, Cast ...: one element at a time
    activations     Relu6, Softmax ...
    shapes          Reshape, Tile, Pad, Fill, Shape ...: moving elements, and constants
    indexing        StridedSlice, Gather, OneHot, TopK ...: choosing elements
    reductions      Mean, ArgMax ...
    linear          Conv2D, MatMul, pooling, and their fused forms
    normalisation   FusedBatchNorm, LRN
    sources         Const, PlaceholderWithDefault
    images          ResizeBilinear, DepthToSpace, SpaceToBatch ...
"""

from tilewright.frontends.tensorflow.operators import (
    activations,
    arithmetic,
    images,
    indexing,
    linear,
    normalisation,
    reductions,
    shapes,
    sources,
)

__all__ = [
    "activations",
    "arithmetic",
    "images",
    "indexing",
    "linear",
    "normalisation",
    "reductions",
    "shapes",
    "sources",
]
