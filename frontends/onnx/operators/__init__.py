"""ONNX operators as compositions of primitives, by family; importing this package fills the table.

    arithmetic      Add, Clip, Equal, Where, Cast ...: one element at a time
    activations     Relu, Gelu, Softmax ...
    shapes          Reshape, Slice, Pad, Gather, Shape ...: moving elements, and constants
    reductions      ReduceMean, ArgMax ...
    linear          Conv, ConvTranspose, Gemm, MatMul, pooling
    normalisation   BatchNormalization, LRN ...
    resizing        Resize, Upsample
"""

from tilewright.frontends.onnx.operators import (
    activations,
    arithmetic,
    linear,
    normalisation,
    reductions,
    resizing,
    shapes,
)

__all__ = ["activations", "arithmetic", "linear", "normalisation", "reductions", "resizing", "shapes"]
