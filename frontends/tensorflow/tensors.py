"""Element types and constants of TensorFlow graphs.

    ElementType("float", F32)   ElementType("qint8", I8)   ElementType("string", None)
    Tensor(ElementType("half", F16), (3, 3, 8, 16), load).array  ->  a NumPy array, mapped where possible

Quantised types are their storage integers. Elements of bfloat16, which NumPy lacks, are given as the float32 numbers
that they are; `type.dtype` still says BF16.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tilewright.compiler.ir import DType, Shape
from tilewright.compiler.ir.graph import Array


@dataclass(frozen=True)
class ElementType:
    """An element type by TensorFlow's name for it; `dtype` is None where Tilewright lacks it."""

    name: str
    dtype: DType | None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Tensor:
    """A constant. Nothing about it is checked before `array` is asked for."""

    type: ElementType
    shape: Shape
    load: Callable[[], Array]

    @cached_property
    def array(self) -> Array | None:
        """Its elements, None where Tilewright lacks their type; raises ModelError or ResourceError."""
        return None if self.type.dtype is None else self.load()
