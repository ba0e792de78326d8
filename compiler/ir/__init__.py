"""The graph IR: element types, layouts, values, nodes, graphs, their verifier and printer."""

from tilewright.compiler.ir.graph import Attrs, Graph, NoAttrs, Node, Value
from tilewright.compiler.ir.types import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    ROW_MAJOR,
    U8,
    U16,
    U32,
    U64,
    DType,
    Layout,
    Shape,
    TensorType,
)

__all__ = [
    "BF16", "BOOL", "F16", "F32", "F64", "I8", "I16", "I32", "I64", "ROW_MAJOR", "U8", "U16", "U32", "U64",
    "Attrs", "DType", "Graph", "Layout", "NoAttrs", "Node", "Shape", "TensorType", "Value",
]
