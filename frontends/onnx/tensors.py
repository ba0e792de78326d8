"""Turns ONNX tensors into NumPy arrays without copying what can be mapped.

    tensor = TensorReader(folder).read(proto, payload)   -> Tensor("conv1.weight", "float32", (64, 3, 3, 3),
    array)

The elements of a TensorProto lie in one of three places: in `raw_data` (a view of them is the array), in a
typed list such as `float_data` (small tensors), or in a file beside the model (mapped; it must lie in the
model's folder). An element type that Tilewright lacks gives a Tensor without an array: it matters only to
those who use it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from onnx import TensorProto

from tilewright.compiler.ir import DType, Shape
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ir.types import DTYPES
from tilewright.compiler.ops.registry import MAX_ELEMENTS
from tilewright.errors import ModelError, ResourceError
from tilewright.frontends.files import map_file
from tilewright.frontends.ports import MAX_RANK

ELEMENT_TYPES: dict[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
"""ONNX's number of an element type -> its name."""

_NAMES = {"float": "f32", "double": "f64", "float16": "f16", "bool": "bool"}
_NAMES |= {f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)}
_NAMES |= {f"uint{bits}": f"u{bits}" for bits in (8, 16, 32, 64)}
_BY_NAME = {dtype.name: dtype for dtype in DTYPES}

# Where elements lie when they are not raw; everything else shares int32_data.
_LISTS = {
    "float": "float_data",
    "double": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}


def dtype_of(element_type: int) -> DType | None:
    """Our type for ONNX's number; None for the ones Tilewright lacks (strings, complex, bfloat16, 4 and
    8-bit).
    """
    return _BY_NAME.get(_NAMES.get(type_name(element_type), ""))


def type_name(element_type: int) -> str:
    """What messages call an element type."""
    return ELEMENT_TYPES.get(element_type, f"type {element_type}")


def text(value: str) -> str:
    """A string of a message; protobuf gives the bytes of one that is not UTF-8, which is refused."""
    if not isinstance(value, str):
        raise ModelError(f"the name {value!r} in it is not UTF-8 text; the file is damaged, export it again")
    return value


@dataclass(frozen=True, eq=False)
class Tensor:
    """A constant of a model. `array` is None where Tilewright has no such element type (`type_name`)."""

    name: str
    type_name: str
    shape: Shape
    array: Array | None


class TensorReader:
    """Reads tensors whose external data, if any, lie below `folder`; each file is mapped once."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._maps: dict[Path, memoryview] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files with external data that were read."""
        return tuple(self._maps)

    def read(self, proto: TensorProto, payload: memoryview | None = None) -> Tensor:
        """The tensor of `proto`; `payload` is its raw data if they were split off."""
        name, kind, shape = text(proto.name), type_name(proto.data_type), tuple(proto.dims)
        dtype = dtype_of(proto.data_type)
        if proto.data_type == TensorProto.UNDEFINED or proto.data_type not in ELEMENT_TYPES:
            raise ModelError(f"tensor '{name}' has the unknown element type {proto.data_type}")
        if any(dim < 0 for dim in shape):
            raise ModelError(f"tensor '{name}' has a negative dimension: {shape}")
        if len(shape) > MAX_RANK or prod(max(dim, 1) for dim in shape) > MAX_ELEMENTS:
            raise ResourceError(
                f"tensor '{name}' is declared {kind} {_dims(shape)}, beyond 2**36 elements or 32 axes"
            )
        if dtype is None:
            return Tensor(name, kind, shape, None)
        little = dtype.numpy.newbyteorder("<")
        if proto.data_location == TensorProto.EXTERNAL:
            data = self._external(proto, prod(shape) * dtype.bytes)
        elif payload is not None or proto.HasField("raw_data"):
            data = payload if payload is not None else memoryview(proto.raw_data)
        else:
            return Tensor(name, kind, shape, _from_list(proto, kind, dtype, shape))
        if len(data) != prod(shape) * dtype.bytes:
            raise ModelError(
                f"tensor '{name}' is declared {kind} {_dims(shape)}, which takes {prod(shape) * dtype.bytes} "
                f"bytes, but holds {len(data)}; the file is damaged, export it again"
            )
        array = np.frombuffer(data, little).reshape(shape)
        if dtype.kind == "bool":
            array = array.view(np.uint8) != 0  # any other byte is not a bool to NumPy
        return Tensor(name, kind, shape, array)

    def _external(self, proto: TensorProto, size: int) -> memoryview:
        """The bytes of a tensor that lie in another file."""
        entries = {text(entry.key): text(entry.value) for entry in proto.external_data}
        location = entries.get("location", "")
        file = self._file(proto.name, location)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", size))
        except ValueError:
            raise ModelError(
                f"the external data of tensor '{proto.name}' have an offset or length that is no number"
            ) from None
        if offset < 0 or length < 0 or offset + length > len(file):
            raise ModelError(
                f"the external data of tensor '{proto.name}' should lie at bytes {offset} to "
                f"{offset + length} of "
                f"'{location}', which has {len(file)}; the file is incomplete, copy it again"
            )
        return file[offset : offset + length]

    def _file(self, tensor: str, location: str) -> memoryview:
        """The mapped external file, after checking that it lies in the model's folder."""
        if self.folder is None:
            raise ModelError(
                f"tensor '{tensor}' has external data in '{location}', but a model in memory has no folder; "
                "pass the path of the model instead"
            )
        if not location or os.path.isabs(location) or ".." in Path(location).parts or "\0" in location:
            raise ModelError(
                f"the external data of tensor '{tensor}' are in '{location}', which is not a path inside the "
                "model's folder; such a file is not read"
            )
        folder = self.folder.resolve()
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            raise ModelError(
                f"the external data of tensor '{tensor}' are in '{location}', a link that leads outside the "
                "model's folder; such a file is not read"
            )
        if path not in self._maps:
            if not path.is_file():
                raise ModelError(
                    f"the external data of tensor '{tensor}' are missing: there is no file '{location}' "
                    "beside the model; copy it there, too"
                )
            self._maps[path] = map_file(path)
        return self._maps[path]


def _from_list(proto: TensorProto, kind: str, dtype: DType, shape: Shape) -> Array:
    """The array of a tensor whose elements are in a typed list."""
    values = cast(Sequence[Any], getattr(proto, _LISTS.get(kind, "int32_data")))
    if len(values) != prod(shape):
        raise ModelError(
            f"tensor '{proto.name}' is declared {kind} {_dims(shape)}, which is {prod(shape)} elements, but "
            f"holds {len(values)}; the file is damaged, export it again"
        )
    if kind == "float16":  # its bits, as integers
        return np.array(values, dtype=np.int64).astype(np.uint16).view(np.float16).reshape(shape)
    if dtype.kind in ("int", "uint"):
        return (
            np.array(values, dtype=np.uint64 if kind == "uint64" else np.int64)
            .astype(dtype.numpy)
            .reshape(shape)
        )
    return np.array(values, dtype=dtype.numpy).reshape(shape)


def _dims(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
