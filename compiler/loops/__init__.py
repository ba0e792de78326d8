"""The loop IR: functions over flat buffers as data, with their builder, printer and checking interpreter."""

from tilewright.compiler.loops.builder import Builder, Index, Number
from tilewright.compiler.loops.nodes import (
    BOOL,
    F32,
    F64,
    I8,
    I32,
    I64,
    INDEX,
    U8,
    U32,
    U64,
    Buffer,
    Const,
    Function,
    Operand,
    Type,
    Var,
)

__all__ = [
    "BOOL", "F32", "F64", "I8", "I32", "I64", "INDEX", "U8", "U32", "U64",
    "Buffer", "Builder", "Const", "Function", "Index", "Number", "Operand", "Type", "Var",
]
