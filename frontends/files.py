"""Opens model files, and recognises what people pass by mistake.

    data = open_file(Path("vgg16.onnx"))        a memoryview of the mapped file
    refuse_strangers(data, "an ONNX model")     ModelError: is not an ONNX model but a zip archive ...; export ...
"""

import mmap
import os
from pathlib import Path

from tilewright.errors import ModelError

_EXPORT = "export the model to ONNX or TensorFlow's SavedModel"

# (first bytes, what it is, what to do)
_STRANGERS = (
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` to fetch the model itself"),
    (b"PK\x03\x04", "a zip archive (PyTorch and Keras save those)", _EXPORT),
    (b"\x89HDF", "an HDF5 file (Keras saves those)", _EXPORT),
    (b"\x80\x02", "a Python pickle", _EXPORT),
    (b"\x80\x04", "a Python pickle", _EXPORT),
    (b"<!DOCTYPE", "a web page", "download the file again"),
    (b"<html", "a web page", "download the file again"),
    (b"\x1f\x8b", "gzip-compressed", "unpack it first"),
    (b"\x89PNG", "a picture", "pass a model"),
    (b"\xff\xd8\xff", "a picture", "pass a model"),
)


def open_file(path: Path) -> memoryview:
    """The bytes of a file, mapped; raises ModelError if it is no regular file."""
    if not path.exists():
        raise ModelError("there is no such file")
    if not path.is_file():
        raise ModelError("is not a regular file")
    return map_file(path)


def view(data: bytes | bytearray | memoryview) -> memoryview:
    """The bytes of a model in memory, one after the other."""
    found = memoryview(data)
    return found.cast("B") if found.c_contiguous else memoryview(found.tobytes())


def map_file(path: Path) -> memoryview:
    """The bytes of a file, mapped; raises ModelError if it cannot be opened."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")  # what is empty cannot be mapped
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ModelError(f"cannot be opened: {error.strerror}", model=str(path)) from None


def refuse_strangers(data: memoryview, expected: str) -> None:
    """Raise ModelError for an empty file, and for one that is no model at all."""
    if not data:
        raise ModelError("the file is empty; export or download it again")
    start = bytes(data[:64])
    for magic, what, remedy in _STRANGERS:
        if start.startswith(magic):
            raise ModelError(f"is not {expected} but {what}; {remedy}")
