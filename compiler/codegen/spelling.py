"""How LLVM IR text spells types, constants and parameters.

    f32x16          <16 x float>, in intrinsics' names v16f32
    bool in memory  i8
    f32 0.1         0x3FB99999A0000000: the bits of the double that equals it
    index           i64, or i32 where that is what addresses have
"""

import struct

import numpy as np

from tilewright.compiler.loops.nodes import Buffer, Const, Type, Var


class Spelling:
    """The names of types and constants; `index_bits` is the width of an index, and `index` its type."""

    def __init__(self, index_bits: int) -> None:
        self.index_bits = index_bits
        self.index = f"i{index_bits}"

    def bits(self, type: Type) -> int:
        """Bits of an element."""
        return self.index_bits if type.kind == "n" else type.bits

    def scalar_name(self, type: Type) -> str:
        """LLVM's name of a scalar type in registers."""
        if type.kind == "f":
            return {16: "half", 32: "float", 64: "double"}[type.bits]
        if type.kind == "bf":
            return "bfloat"
        return f"i{self.bits(type)}"

    def type_name(self, type: Type) -> str:
        """LLVM's name of a type in registers."""
        name = self.scalar_name(type)
        return name if type.lanes == 1 else f"<{type.lanes} x {name}>"

    def memory_name(self, type: Type) -> str:
        """LLVM's name of a type in memory, where a bool takes a byte."""
        return self.type_name(Type("u", 8, type.lanes) if type.kind == "b" else type)

    def mangled(self, type: Type) -> str:
        """The type as intrinsics' names spell it."""
        name = f"{type.kind if type.is_float else 'i'}{self.bits(type)}"
        return name if type.lanes == 1 else f"v{type.lanes}{name}"

    def literal(self, constant: Const) -> str:
        """A constant operand as LLVM spells it."""
        type, value = constant.type, constant.value
        scalar = type.scalar
        if type.lanes == 1:
            return scalar_literal(scalar, value[0] if isinstance(value, tuple) else value)
        if not isinstance(value, tuple) and value == 0 and str(value) != "-0.0":
            return "zeroinitializer"
        name = self.scalar_name(scalar)
        if isinstance(value, tuple):
            lanes = [f"{name} {scalar_literal(scalar, lane)}" for lane in value]
        else:
            lanes = [f"{name} {scalar_literal(scalar, value)}"] * type.lanes
        return f"<{', '.join(lanes)}>"

    def parameter(self, param: Buffer | Var) -> str:
        """A parameter as it stands in a definition."""
        if isinstance(param, Var):
            return f"{self.type_name(param.type)} %{param.name}.p"
        reads = " readonly" if param.access == "in" else ""
        return f"ptr noalias nocapture{reads} %{param.name}.p"


def scalar_literal(type: Type, value: float | int | bool) -> str:
    """A number as LLVM spells it in scalar type `type`."""
    if type.kind == "b":
        return "true" if value else "false"
    if type.kind in ("i", "u", "n"):
        return str(int(value))
    with np.errstate(over="ignore"):
        if type.kind == "bf":
            bits = int(np.float32(value).view(np.uint32))
            return f"0xR{(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16:04X}"
        if type.bits == 16:
            return f"0xH{int(np.float16(value).view(np.uint16)):04X}"
        rounded = float(np.float32(value)) if type.bits == 32 else float(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"
