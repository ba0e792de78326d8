"""Element types and constants of TensorFlow graphs.

    element_type(1)                         ElementType("float", F32)
    element_type(11)                        ElementType("qint8", I8)        quantised types are their storage integers
    element_type(7)                         ElementType("string", None)
    read_tensor(proto, payloads).array      a NumPy array, mapped where the elements lie in the file as they are

A TensorProto holds its elements as they lie in memory (`tensor_content`, little-endian on every machine that
TensorFlow runs on; nothing in the file says otherwise, and no other order is ever guessed), or in a typed list. A
list that is too short goes on with its last element; no element at all means zeros.

Elements of bfloat16, which NumPy lacks, are given as the float32 numbers that they are; `type.dtype` still says BF16.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np

from tilewright.compiler.ir import BF16, BOOL, I32, DType, Shape
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ir.types import DTYPES
from tilewright.compiler.ops.registry import MAX_ELEMENTS
from tilewright.errors import ModelError, ResourceError
from tilewright.frontends.ports import MAX_RANK
from tilewright.frontends.tensorflow.messages import TYPE_NAMES, Message

MAX_FILLED = 1 << 26
"""A constant may not have more elements than this that are only a repetition of the last one in the file."""

_NAMES = {"float": "f32", "double": "f64", "half": "f16", "bfloat16": "bf16", "bool": "bool"}
_NAMES |= {f"{q}int{bits}": f"i{bits}" for bits in (8, 16, 32, 64) for q in ("", "q")}
_NAMES |= {f"{q}uint{bits}": f"u{bits}" for bits in (8, 16, 32, 64) for q in ("", "q")}
_BY_NAME = {dtype.name: dtype for dtype in DTYPES}

# Where elements lie when they are not in tensor_content; every other integer shares int_val.
_LISTS = {
    "float": "float_val",
    "double": "double_val",
    "half": "half_val",
    "bfloat16": "half_val",
    "bool": "bool_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
}


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
    load: Callable[[], Any]

    @cached_property
    def array(self) -> Array | None:
        """Its elements, None where Tilewright lacks their type; raises ModelError or ResourceError."""
        return None if self.type.dtype is None else self.load()

    @property
    def strings(self) -> tuple[str, ...]:
        """The elements of a constant of strings, as the file lists them; () for any other."""
        if self.type.name != "string":
            return ()
        return tuple(text.decode(errors="replace") for text in self.load())


def element_type(number: int) -> ElementType:
    """The type of TensorFlow's number; a reference to a type counts as the type itself."""
    name = TYPE_NAMES.get(number, f"type {number}").removesuffix("_ref")
    return ElementType(name, _BY_NAME.get(_NAMES.get(name, "")))


def read_tensor(proto: Message, payloads: Sequence[memoryview]) -> Tensor:
    """The tensor of a TensorProto; `payloads` are the contents that were left in the file."""
    type, shape = element_type(proto.dtype), tuple(dim.size for dim in proto.tensor_shape.dim)

    def load() -> Any:
        if type.dtype is None:
            return proto.string_val
        if proto.tensor_shape.unknown_rank:
            raise ModelError("a constant in it has no shape; the file is damaged, export it again")
        check_shape(type, shape)
        if proto.payload:
            if not 0 < proto.payload <= len(payloads):
                raise ModelError("a constant in it lies nowhere in the file; the file is damaged, export it again")
            return from_bytes(payloads[proto.payload - 1], type, shape)
        if proto.tensor_content:
            return from_bytes(memoryview(proto.tensor_content), type, shape)
        return _from_list(getattr(proto, _LISTS.get(type.name, "int_val")), type, shape)

    return Tensor(type, shape, load)


def scalar(number: int) -> Tensor:
    """An int32 constant that no file holds."""
    return Tensor(ElementType("int32", I32), (), lambda: np.array(number, np.int32))


def check_shape(type: ElementType, shape: Shape) -> None:
    """Raise for a shape that no constant has."""
    if any(dim < 0 for dim in shape):
        raise ModelError(f"a constant in it has a negative dimension: {shape}; the file is damaged, export it again")
    if len(shape) > MAX_RANK or prod(max(dim, 1) for dim in shape) > MAX_ELEMENTS:
        raise ResourceError(f"a constant is declared {type} {dims(shape)}, beyond 2**36 elements or {MAX_RANK} axes")


def from_bytes(data: memoryview, type: ElementType, shape: Shape, order: Literal["<", ">"] = "<") -> Array:
    """The array whose elements lie in `data`; a view of them where NumPy has the type."""
    dtype = type.dtype
    assert dtype is not None
    if len(data) != prod(shape) * dtype.bytes:
        raise ModelError(
            f"a constant is declared {type} {dims(shape)}, which takes {prod(shape) * dtype.bytes} bytes, but holds "
            f"{len(data)}; the file is damaged, export it again"
        )
    if dtype == BF16:
        return _from_bfloat16(np.frombuffer(data, f"{order}u2")).reshape(shape)
    array = np.frombuffer(data, dtype.numpy.newbyteorder(order)).reshape(shape)
    return array.view(np.uint8) != 0 if dtype == BOOL else array  # any other byte is not a bool to NumPy


def dims(shape: Shape) -> str:
    """A shape as messages write it."""
    return "x".join(map(str, shape)) or "scalar"


def _from_list(values: Sequence[Any], type: ElementType, shape: Shape) -> Array:
    """The array of a typed list, which may be shorter than the array."""
    dtype, size = type.dtype, prod(shape)
    assert dtype is not None
    if len(values) > max(size, 1):
        raise ModelError(
            f"a constant is declared {type} {dims(shape)}, which is {size} elements, but holds {len(values)}; the "
            "file is damaged, export it again"
        )
    if size - len(values) > MAX_FILLED:
        raise ResourceError(
            f"a constant is declared {type} {dims(shape)}, but the file holds {len(values)} elements of it; more than "
            "2**26 equal ones are not filled in"
        )
    if type.name in ("half", "bfloat16"):  # their bits, as integers
        bits = np.array(values, np.int64).astype(np.uint16)
        given: Array = _from_bfloat16(bits) if dtype == BF16 else bits.view(np.float16)
    elif dtype.is_integer:
        given = np.array(values, np.uint64 if type.name == "uint64" else np.int64).astype(dtype.numpy)
    else:
        given = np.array(values, dtype.numpy)
    array = np.zeros(size, given.dtype)
    array[: len(given)] = given[:size]
    if len(given):
        array[len(given) :] = given[-1]
    return array.reshape(shape)


def _from_bfloat16(bits: Array) -> Array:
    """float32 numbers from the upper halves of their bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
