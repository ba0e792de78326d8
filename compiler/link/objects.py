"""Object files with their weights, as chunks to write one after the other.

    chunks(library)   ->  [code, ndarray of weights, section headers]        an ELF object
                      ->  [code]                                             weights elsewhere, or none

LLVM cannot be given large constants: as IR text they take a hundred times their size. For ELF, a section with the
weights is added behind LLVM's object, and the symbol that was undefined comes to lie in it. For other formats LLVM
writes a section of zeros behind a mark, which are replaced.
"""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilewright.errors import CompileError, UnsupportedError
from tilewright.runtime import elf

Weights = npt.NDArray[np.uint8]
Chunk = bytes | Weights

_LARGE_X86 = 0x10000000
_X86_64 = 62
_PAGES = {183: 0x10000, 21: 0x10000}
"""Page sizes by machine, where they are larger than 4096."""


HUGE = 2 << 20
"""The larger pages that systems can map files by, in bytes: weights then take far fewer translations of addresses."""

_LARGE = 64 << 20  # bytes of weights beside which one huge page is little


def page_size(machine: int) -> int:
    """The largest page that systems use on an ELF machine, in bytes."""
    return _PAGES.get(machine, 4096)


def with_weights(code: bytes, symbol: str, weights: Weights) -> list[Chunk]:
    """An ELF object in which `symbol`, so far undefined, names `weights` in a read-only section of their own."""
    file = elf.read(code)
    layout = elf.LAYOUTS[file.bits]
    if file.bits == 32 and weights.nbytes >= 1 << 31:
        raise UnsupportedError("weights of 2 GiB do not fit a 32-bit object; leave them in a file (weights='external')")
    result = bytearray(code)
    table = next(section for section in file.sections if section.type == elf.SYMTAB)
    number = len(file.sections)
    index = next((i for i, entry in enumerate(elf.symbols(file, elf.SYMTAB)) if entry.name == symbol), None)
    if index is None:
        raise CompileError(f"the object code has no symbol {symbol}; please report this")
    at = table.offset + index * layout.symbol.size
    info, size = elf.GLOBAL << 4 | elf.OBJECT, weights.nbytes
    if file.bits == 64:
        (name,) = struct.unpack_from("<I", code, at)
        layout.symbol.pack_into(result, at, name, info, elf.HIDDEN, number, 0, size)
    else:
        (name,) = struct.unpack_from("<I", code, at)
        layout.symbol.pack_into(result, at, name, 0, size, info, elf.HIDDEN, number)

    # Behind LLVM's object: the weights, the section names with one more, the section headers with one more.
    page = page_size(file.machine)
    align = HUGE if size >= _LARGE else page
    start = -(-len(code) // page) * page
    large = file.machine == _X86_64
    fields = list(layout.header.unpack_from(code, 0))
    names = file.sections[fields[13]]
    strings = code[names.offset : names.offset + names.size]
    title = len(strings)
    strings += b".lrodata.weights\0" if large else b".rodata.weights\0"
    strings_at = start + size
    headers_at = -(-(strings_at + len(strings)) // 8) * 8
    rows = [list(layout.section.unpack_from(code, fields[6] + i * layout.section.size)) for i in range(number)]
    rows[fields[13]][4:6] = strings_at, len(strings)
    rows.append([title, 1, elf.ALLOC | (_LARGE_X86 if large else 0), 0, start, size, 0, 0, align, 0])
    fields[6], fields[12] = headers_at, number + 1
    layout.header.pack_into(result, 0, *fields)
    tail = strings + bytes(headers_at - strings_at - len(strings)) + b"".join(layout.section.pack(*row) for row in rows)
    return [bytes(result) + bytes(start - len(code)), weights, tail]


def size_of(chunks: Sequence[Chunk]) -> int:
    """Bytes of all chunks."""
    return sum(len(chunk) if isinstance(chunk, bytes) else chunk.nbytes for chunk in chunks)
