"""The seal of a shared object: what stands behind its last byte, by which `load` knows that it is undamaged.

    ... | magic "TWSEAL1\\0" | file bytes | offset and bytes of the weights | BLAKE2b digest of all but the weights

Loaders and linkers ignore what follows a file's headers. Weights may be gigabytes, so they are not hashed: that
would read what is otherwise read when it is needed. A file that was stripped afterwards has no seal any more.
"""

import hashlib
import mmap
import os
import struct
from pathlib import Path

from tilewright.runtime import elf

_SEAL = struct.Struct("<8sQQQ16s")
_MAGIC = b"TWSEAL1\0"
_CHUNK = 1 << 22


def seal(path: Path, symbol: str) -> None:
    """Append the seal to a shared object whose weights are called `symbol`, if it has any."""
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            start, length = _weights(elf.read(data), symbol)
            digest = _digest(data, size, start, length)
        file.seek(size)
        file.write(_SEAL.pack(_MAGIC, size, start, length, digest))


def broken(data: mmap.mmap, file: elf.File) -> str:
    """What is wrong with a sealed file, or "" if nothing is, or if it has no seal."""
    if len(data) < _SEAL.size:
        return ""
    magic, size, start, length, digest = _SEAL.unpack_from(data, len(data) - _SEAL.size)
    if magic != _MAGIC:
        end = elf.end(file)
        rest = data[end : end + len(_MAGIC)]
        return "it is cut off" if rest and _MAGIC.startswith(rest) else ""
    if size != len(data) - _SEAL.size or start + length > size:
        return "its size is not what it says"
    return "" if _digest(data, size, start, length) == digest else "its checksum differs"


def _weights(file: elf.File, symbol: str) -> tuple[int, int]:
    """Offset and bytes of the weights in the file; (0, 0) if they are not there, or not known."""
    for section in file.sections:
        if section.name == ".weights":
            return section.offset, section.size
    for entry in elf.symbols(file, elf.SYMTAB):
        if entry.name == symbol and entry.section != elf.UNDEFINED:
            for segment in file.segments:
                inside = entry.value - segment.address
                if segment.type == elf.LOAD and 0 <= inside <= segment.file_size - entry.size:
                    return segment.offset + inside, entry.size
    return 0, 0


def _digest(data: mmap.mmap, size: int, start: int, length: int) -> bytes:
    hasher = hashlib.blake2b(struct.pack("<QQQ", size, start, length), digest_size=16)
    for begin, end in ((0, start), (start + length, size)):
        for at in range(begin, end, _CHUNK):
            hasher.update(data[at : min(at + _CHUNK, end)])
    return hasher.digest()
