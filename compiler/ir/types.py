"""Element types, layouts and tensor types.

    DType("f32", "float", 32)                     one row a type; NumPy's dtype is one attribute away
    Layout(axes=(0, 1, 2, 3), blocks=((1, 16),))  NCHW16c: channels split in sixteens, the sixteen innermost
    TensorType(F32, (1, 64, 224, 224), layout)    what a value is; the shape is logical, whatever the layout

A layout never changes what a tensor means, only where its elements lie, and knows nothing of machine lanes or
of element types. The compiler's weights use it too: a packed convolution filter is an (O, I, KH, KW) tensor
whose layout splits O and I.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["bool", "int", "uint", "float", "bfloat"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class DType:
    """An element type: `bits` is what one element takes in memory."""

    name: str
    kind: Kind
    bits: int

    @property
    def bytes(self) -> int:
        """Bytes one element takes in memory."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        """True for the IEEE formats and bfloat16."""
        return self.kind in ("float", "bfloat")

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, not for bool."""
        return self.kind in ("int", "uint")

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """NumPy's dtype of the same format; raises TypeError for bfloat16, which NumPy lacks."""
        if self.kind == "bfloat":
            raise TypeError(f"NumPy has no {self.name}")
        return np.dtype("bool" if self.kind == "bool" else f"{self.kind}{self.bits}")

    def __str__(self) -> str:
        return self.name


BOOL = DType("bool", "bool", 8)
I8, I16, I32, I64 = (DType(f"i{bits}", "int", bits) for bits in (8, 16, 32, 64))
U8, U16, U32, U64 = (DType(f"u{bits}", "uint", bits) for bits in (8, 16, 32, 64))
F16, F32, F64 = (DType(f"f{bits}", "float", bits) for bits in (16, 32, 64))
BF16 = DType("bf16", "bfloat", 16)
DTYPES = (BOOL, I8, I16, I32, I64, U8, U16, U32, U64, F16, F32, F64, BF16)
_BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES if dtype.kind != "bfloat"}


def from_numpy(dtype: npt.DTypeLike) -> DType:
    """Our type for NumPy's; raises KeyError for types without one (strings, objects, complex)."""
    return _BY_NUMPY[np.dtype(dtype).newbyteorder("=")]


@dataclass(frozen=True)
class Layout:
    """Where a tensor's elements lie.

    The physical array has the logical axes in the order of `axes` (empty: in order), each blocked axis counted
    in blocks there, then one dimension a block, in the order of `blocks`. `pads` gives, by logical axis, the
    (before, after) elements of physical zeros around the tensor; a blocked axis has none, its last block is
    filled up with zeros.
    """

    axes: tuple[int, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()
    pads: tuple[tuple[int, int], ...] = ()

    @property
    def is_row_major(self) -> bool:
        """True where the physical array is the logical one."""
        in_order = all(axis == position for position, axis in enumerate(self.axes))
        return in_order and not self.blocks and not any(before or after for before, after in self.pads)

    def block(self, axis: int) -> int:
        """The size of `axis`'s blocks; 1 if it is not blocked."""
        return dict(self.blocks).get(axis, 1)

    def pad(self, axis: int) -> tuple[int, int]:
        """Physical zeros before and after `axis`."""
        return self.pads[axis] if self.pads else (0, 0)

    def order(self, rank: int) -> tuple[int, ...]:
        """The logical axis of each outer physical dimension."""
        return self.axes or tuple(range(rank))

    def physical_shape(self, shape: Shape) -> Shape:
        """The dimensions of the physical array that holds a tensor of `shape`."""
        return _physical_shape(self, shape)

    def size(self, shape: Shape) -> int:
        """Elements of the physical array."""
        return prod(self.physical_shape(shape))

    def strides(self, shape: Shape) -> Shape:
        """Element strides of the physical array's dimensions."""
        return row_major_strides(self.physical_shape(shape))

    def origin(self, shape: Shape) -> int:
        """Element offset of logical element (0, ..., 0): what the pads before it take."""
        strides = self.strides(shape)
        return sum(self.pad(axis)[0] * strides[d] for d, axis in enumerate(self.order(len(shape))))

    def with_pads(self, pads: tuple[tuple[int, int], ...]) -> "Layout":
        """The same layout with other physical zeros around it."""
        return Layout(self.axes, self.blocks, pads if any(map(any, pads)) else ())

    def __str__(self) -> str:
        if self.is_row_major:
            return "row"
        parts = ["axes=" + "".join(map(str, self.axes))] if self.axes else []
        parts += [f"{axis}/{size}" for axis, size in self.blocks]
        parts += [f"pad{axis}={before},{after}" for axis, (before, after) in enumerate(self.pads) if before or after]
        return " ".join(parts)


@lru_cache(1 << 14)
def _physical_shape(layout: Layout, shape: Shape) -> Shape:
    order = layout.order(len(shape))
    outer = [-(-shape[axis] // layout.block(axis)) + sum(layout.pad(axis)) for axis in order]
    return (*outer, *(size for _, size in layout.blocks))


ROW_MAJOR = Layout()


def row_major_strides(shape: Shape) -> Shape:
    """Element strides of a dense array of `shape`."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


@dataclass(frozen=True)
class TensorType:
    """What a value is: element type, logical shape, and where the elements lie."""

    dtype: DType
    shape: Shape
    layout: Layout = ROW_MAJOR

    @property
    def rank(self) -> int:
        """Number of logical dimensions."""
        return len(self.shape)

    @cached_property
    def elements(self) -> int:
        """Number of logical elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the physical array, pads and fill included."""
        return self.layout.size(self.shape) * self.dtype.bytes

    def with_layout(self, layout: Layout) -> "TensorType":
        """The same tensor laid out otherwise."""
        return TensorType(self.dtype, self.shape, layout)

    def __str__(self) -> str:
        dims = "x".join(map(str, self.shape)) or "scalar"
        layout = "" if self.layout.is_row_major else f" [{self.layout}]"
        return f"{self.dtype} {dims}{layout}"
