"""Reads ELF files, little-endian ones of 32 and 64 bits: headers, sections, symbols.

    file = read(data)                      data: bytes, or a mapped file
    file.machine, file.bits                62 (x86-64), 64
    file.sections[3].name                  ".text"
    symbols(file, DYNSYM)                  [Symbol("", ...), Symbol("net_call", ...), ...]

Layouts are those of the ELF specification. Whatever a damaged file says, what is raised is ElfError.
"""

import mmap
import struct
from dataclasses import dataclass

Data = bytes | bytearray | mmap.mmap | memoryview

RELOCATABLE, SHARED = 1, 3
SYMTAB, STRTAB, RELA, NOBITS, REL, DYNSYM = 2, 3, 4, 8, 9, 11
WRITE, ALLOC, EXECUTE = 1, 2, 4
LOCAL, GLOBAL, WEAK = 0, 1, 2
OBJECT = 1
HIDDEN = 2
UNDEFINED, ABSOLUTE = 0, 0xFFF1
LOAD = 1

MACHINES = {3: "x86", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
"""Processors by their numbers in the header."""


class ElfError(ValueError):
    """The data is no ELF file that can be read."""


@dataclass(frozen=True)
class Layout:
    """How the structures of a class of files are packed; the fields of sections and segments are in one order."""

    header: struct.Struct
    section: struct.Struct
    segment: struct.Struct
    symbol: struct.Struct
    rela: struct.Struct


LAYOUTS = {
    64: Layout(
        struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IIQQQQQQ"),
        struct.Struct("<IBBHQQ"), struct.Struct("<QQq"),
    ),
    32: Layout(
        struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<IIIIIIIIII"), struct.Struct("<IIIIIIII"),
        struct.Struct("<IIIBBH"), struct.Struct("<IIi"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A section header; `name` is looked up, `name_at` is where."""

    name: str
    name_at: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


@dataclass(frozen=True)
class Segment:
    """A program header."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    align: int


@dataclass(frozen=True)
class Symbol:
    """A symbol; `section` is its section's number, or UNDEFINED."""

    name: str
    bind: int
    type: int
    visibility: int
    section: int
    value: int
    size: int


@dataclass(frozen=True, eq=False)
class File:
    """A file's data and headers; `headers_end` is where the section headers end."""

    data: Data
    bits: int
    type: int
    machine: int
    flags: int
    sections: tuple[Section, ...]
    segments: tuple[Segment, ...]
    headers_end: int


def read(data: Data) -> File:
    """The headers of a file; raises ElfError."""
    if len(data) < 52 or bytes(data[:4]) != b"\x7fELF":
        raise ElfError("it is no ELF file")
    bits = {1: 32, 2: 64}.get(data[4], 0)
    if not bits or data[5] != 1:
        raise ElfError("it is an ELF file, but no little-endian one")
    layout = LAYOUTS[bits]
    _, type_, machine, _, _, ph_at, sh_at, flags, _, _, ph_count, _, sh_count, names = _fields(layout.header, data, 0)
    segments = []
    for i in range(ph_count):
        row = _fields(layout.segment, data, ph_at + i * layout.segment.size)
        if bits == 64:
            kind, access, offset, address, _, file_size, memory_size, align = row
        else:
            kind, offset, address, _, file_size, memory_size, access, align = row
        segments.append(Segment(kind, access, offset, address, file_size, memory_size, align))
    rows = [_fields(layout.section, data, sh_at + i * layout.section.size) for i in range(sh_count)]
    if rows and names >= len(rows):
        raise ElfError("its section names are missing")
    sections = tuple(Section(_text(data, rows[names][4] + row[0]), *row) for row in rows)
    headers_end = sh_at + sh_count * layout.section.size
    return File(data, bits, type_, machine, flags, sections, tuple(segments), headers_end)


def symbols(file: File, kind: int) -> list[Symbol]:
    """The symbols of the table of type SYMTAB or DYNSYM, the empty first one included; [] if there is none."""
    table = next((section for section in file.sections if section.type == kind), None)
    if table is None:
        return []
    layout = LAYOUTS[file.bits].symbol
    if table.link >= len(file.sections):
        raise ElfError("its symbols' names are missing")
    strings, found = file.sections[table.link].offset, []
    for at in range(table.offset, table.offset + table.size - layout.size + 1, layout.size):
        if file.bits == 64:
            name, info, other, section, value, size = _fields(layout, file.data, at)
        else:
            name, value, size, info, other, section = _fields(layout, file.data, at)
        found.append(Symbol(_text(file.data, strings + name), info >> 4, info & 15, other & 3, section, value, size))
    return found


def end(file: File) -> int:
    """How long the file must be for all that its headers speak of."""
    ends = [segment.offset + segment.file_size for segment in file.segments]
    ends += [section.offset + section.size for section in file.sections if section.type != NOBITS]
    return max(*ends, file.headers_end, 0)


def _fields(layout: struct.Struct, data: Data, at: int) -> tuple[int, ...]:
    if at < 0 or at + layout.size > len(data):
        raise ElfError("it is cut off")
    return layout.unpack_from(data, at)


def _text(data: Data, at: int) -> str:
    """The string that starts at `at`."""
    piece = bytes(data[at : at + 64])
    while b"\0" not in piece:
        more = bytes(data[at + len(piece) : at + 2 * len(piece)])
        if not more or len(piece) > 1 << 20:
            raise ElfError("it is cut off")
        piece += more
    return piece[: piece.index(b"\0")].decode("utf-8", "replace")
