"""The linker we bring along: one object of LLVM's and the weights become a shared object, for x86-64 and AArch64.

    address  file
    1        1      headers                             r--
    2        3      symbols, read-only data             r--
    3        4      code, stubs for imported functions  r-x
    4        5      dynamic table, GOT, data            rw-
    5        2      weights                             r--

In the file the weights come right behind the headers, so that they can be there before there is code; in memory they
come behind all else, as nothing refers to them but one address in the data. Without weights the headers are one part
with the symbols. Each part begins on a page of its own, and many weights lie as far behind a multiple of 2 MB in memory
as in the file, so that the system can map them by pages of that size. Imported functions (malloc and the like) are
left for the loader to find among the libraries that the process has anyway, so no library is named. The layout is that
of the ELF specification.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from tilewright.compiler.link.files import write_all
from tilewright.compiler.link.objects import HUGE, Weights
from tilewright.compiler.link.relocations import AARCH64, MACHINES, X86_64, Machine, apply, stub
from tilewright.errors import LinkError
from tilewright.runtime import elf
from tilewright.runtime.elf import LAYOUTS, Symbol

_LAYOUT = LAYOUTS[64]
_DYNAMIC, _STACK = 2, 0x6474E551
_R, _RX, _RW = 4, 5, 6
# Tags of the dynamic table.
_HASH, _STRTAB, _SYMTAB, _RELA, _RELASZ, _RELAENT, _STRSZ, _SYMENT, _SONAME = 4, 5, 6, 7, 8, 9, 10, 11, 14
_FLAGS, _FLAGS_1, _NOW, _NODELETE = 30, 0x6FFFFFFB, 1, 8


@dataclass(frozen=True)
class _Relocation:
    """In section `section` at `offset`: symbol number `symbol` plus `addend`."""

    section: int
    offset: int
    type: int
    symbol: int
    addend: int


def can_link(code: bytes) -> bool:
    """Whether the built-in linker knows the object's processor."""
    try:
        file = elf.read(code)
    except elf.ElfError:
        return False
    return file.bits == 64 and file.machine in MACHINES


def weights_offset(architecture: str) -> int:
    """Where the weights begin in a shared object for LLVM's `architecture`, 0 if the linker does not know it."""
    machine = {"x86_64": X86_64, "aarch64": AARCH64}.get(architecture)
    return MACHINES[machine].page if machine else 0


def link(
    out: BinaryIO, code: bytes, soname: str, symbol: str, weights: Weights | None, nodelete: bool, placed: bool = False
) -> None:
    """Write the shared object of an object whose undefined `symbol` names the weights.

    `placed` says that they are at their place in the file already.
    """
    _Linker(code, soname, symbol, weights, nodelete).write(out, placed)


class _Linker:
    """The layout of one shared object. Offsets in the file are addresses, plus `shift` behind the weights."""

    def __init__(self, code: bytes, soname: str, symbol: str, weights: Weights | None, nodelete: bool) -> None:
        self.file = elf.read(code)
        self.machine: Machine = MACHINES[self.file.machine]
        self.code, self.weights, self.nodelete = code, weights, nodelete
        self.symbols = elf.symbols(self.file, elf.SYMTAB)
        self.blob = next((i for i, s in enumerate(self.symbols) if s.name == symbol and s.section == 0), -1)
        if weights is not None and self.blob < 0:
            raise LinkError(f"the object code has no symbol {symbol}; please report this")
        kept = [
            (number, section) for number, section in enumerate(self.file.sections)
            if section.flags & elf.ALLOC and section.size and not section.name.startswith(".eh_frame")
        ]  # fmt: skip
        self.groups = {
            "r": [item for item in kept if not item[1].flags & (elf.WRITE | elf.EXECUTE)],
            "x": [item for item in kept if item[1].flags & elf.EXECUTE],
            "w": [item for item in kept if item[1].flags & elf.WRITE and item[1].type != elf.NOBITS],
            "z": [item for item in kept if item[1].flags & elf.WRITE and item[1].type == elf.NOBITS],
        }
        self.relocations = self._relocations({number for number, _ in kept})
        self.got, self.stubs = self._slots()
        self.dynamic = [i for i, s in enumerate(self.symbols) if s.name and s.section == 0 and i != self.blob]
        self.imports = len(self.dynamic)
        self.dynamic += [
            i for i, s in enumerate(self.symbols)
            if s.section and s.bind in (elf.GLOBAL, elf.WEAK) and s.visibility == 0
        ]  # fmt: skip
        self.numbers = {symbol: place + 1 for place, symbol in enumerate(self.dynamic)}
        self.strings = b"\0"
        self.names = [self._string(self.symbols[i].name) for i in self.dynamic]
        self.soname = self._string(soname)
        self._place()

    # ---- what there is

    def _relocations(self, kept: set[int]) -> list[_Relocation]:
        found = []
        for section in self.file.sections:
            if section.type == elf.REL and section.info in kept:
                raise LinkError("the object code has relocations without addends; please report this")
            if section.type != elf.RELA or section.info not in kept:
                continue
            data = self.code[section.offset : section.offset + section.size]
            for offset, info, addend in _LAYOUT.rela.iter_unpack(data):
                found.append(_Relocation(section.info, offset, info & 0xFFFFFFFF, info >> 32, addend))
        return found

    def _slots(self) -> tuple[dict[int, int], dict[int, int]]:
        """Symbols that need a slot in the GOT, and those that need a stub; their addresses come later."""
        got: dict[int, int] = {}
        stubs: dict[int, int] = {}
        for entry in self.relocations:
            if self._imported(entry.symbol) and entry.type in self.machine.calls:
                stubs[entry.symbol] = got[entry.symbol] = 0
            elif entry.type in self.machine.got:
                got[entry.symbol] = 0
        return got, stubs

    def _imported(self, symbol: int) -> bool:
        return self.symbols[symbol].section == 0 and symbol != self.blob

    def _string(self, text: str) -> int:
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    # ---- where it lies

    def _place(self) -> None:
        page = self.machine.page
        self.places: dict[int, int] = {}
        self.loaded = len(self.got) + sum(entry.type == self.machine.absolute for entry in self.relocations)
        segments = 5 + 2 * (self.weights is not None)
        self.header_end = _LAYOUT.header.size + segments * _LAYOUT.segment.size
        self.read_at = self.shift = 0
        if self.weights is not None:
            self.read_at, self.shift = page, _aligned(self.weights.nbytes, page)
        self.buckets = max(1, len(self.dynamic) // 2)
        self.hash_at = _aligned(max(self.header_end, self.read_at), 8)
        self.hash_size = 4 * (2 + self.buckets + len(self.dynamic) + 1)
        self.symbols_at = _aligned(self.hash_at + self.hash_size, 8)
        self.strings_at = self.symbols_at + (len(self.dynamic) + 1) * _LAYOUT.symbol.size
        self.relocations_at = _aligned(self.strings_at + len(self.strings), 8)
        at = self._sections("r", self.relocations_at + self.loaded * _LAYOUT.rela.size)
        self.read_end = at
        self.code_at = _aligned(at, page)
        at = self._sections("x", self.code_at)
        for symbol in self.stubs:
            self.stubs[symbol] = at = _aligned(at, 16)
            at += 16
        self.code_end = at
        self.data_at = _aligned(at, page)
        self.table = self._table()
        at = self.data_at + 16 * len(self.table)
        for symbol in self.got:
            self.got[symbol] = at
            at += 8
        self.data_end = self._sections("w", at)
        self.zero_end = self._sections("z", self.data_end)
        self.spread = HUGE if self.weights is not None and self.weights.nbytes >= 2 * HUGE else page
        self.weights_at = _aligned(self.zero_end - page, self.spread) + page

    def _sections(self, group: str, at: int) -> int:
        for number, section in self.groups[group]:
            at = _aligned(at, max(section.align, 1))
            self.places[number] = at
            at += section.size
        return at

    def _table(self) -> list[tuple[int, int]]:
        """The dynamic table; its addresses are known before its own place is."""
        table = [
            (_SONAME, self.soname), (_HASH, self.hash_at), (_STRTAB, self.strings_at), (_SYMTAB, self.symbols_at),
            (_STRSZ, len(self.strings)), (_SYMENT, _LAYOUT.symbol.size),
        ]  # fmt: skip
        if self.loaded:
            size = self.loaded * _LAYOUT.rela.size
            table += [(_RELA, self.relocations_at), (_RELASZ, size), (_RELAENT, _LAYOUT.rela.size)]
        return [*table, (_FLAGS, 8), (_FLAGS_1, _NOW | (_NODELETE if self.nodelete else 0)), (0, 0)]

    def _address(self, symbol: int) -> int:
        entry = self.symbols[symbol]
        if symbol == self.blob:
            return self.weights_at
        if entry.section == elf.ABSOLUTE:
            return entry.value
        return self.places[entry.section] + entry.value

    # ---- what is written

    def write(self, out: BinaryIO, placed: bool) -> None:
        image = bytearray(self.data_end)
        for group in ("r", "x", "w"):
            for number, section in self.groups[group]:
                at = self.places[number]
                image[at : at + section.size] = self.code[section.offset : section.offset + section.size]
        self._relocate(image)
        self._symbol_tables(image)
        for place, (tag, value) in enumerate(self.table):
            struct.pack_into("<QQ", image, self.data_at + 16 * place, tag, value)
        tail, headers, count = self._section_headers(self.data_end + self.shift)
        self._headers(image, headers, count)
        if self.weights is not None:
            out.write(image[: self.header_end])
            out.seek(self.machine.page)
            if not placed:
                write_all(out, self.weights.data)
        out.seek(self.read_at + self.shift)
        out.write(image[self.read_at :])
        out.write(tail)

    def _relocate(self, image: bytearray) -> None:
        loaded = []
        for symbol, slot in self.got.items():
            if self._imported(symbol):
                loaded.append((slot, self.numbers[symbol] << 32 | self.machine.glob_dat, 0))
            else:
                loaded.append((slot, self.machine.relative, self._address(symbol)))
        for symbol, place in self.stubs.items():
            stub(self.file.machine, image, place, self.got[symbol])
        for entry in self.relocations:
            place, imported = self.places[entry.section] + entry.offset, self._imported(entry.symbol)
            if entry.type == self.machine.absolute:
                if imported:
                    loaded.append((place, self.numbers[entry.symbol] << 32 | self.machine.symbolic, entry.addend))
                else:
                    loaded.append((place, self.machine.relative, self._address(entry.symbol) + entry.addend))
                continue
            if entry.type in self.machine.got:
                target = self.got[entry.symbol]
            elif imported and entry.symbol in self.stubs:
                target = self.stubs[entry.symbol]
            elif imported:
                name = self.symbols[entry.symbol].name
                raise LinkError(f"the object code takes the address of {name}; please report this")
            else:
                target = self._address(entry.symbol)
            apply(self.file.machine, image, place, entry.type, target + entry.addend)
        for number, row in enumerate(loaded):
            _LAYOUT.rela.pack_into(image, self.relocations_at + number * _LAYOUT.rela.size, *row)

    def _symbol_tables(self, image: bytearray) -> None:
        image[self.strings_at : self.strings_at + len(self.strings)] = self.strings
        buckets, chain = [0] * self.buckets, [0] * (len(self.dynamic) + 1)
        for place, (symbol, name) in enumerate(zip(self.dynamic, self.names, strict=True), 1):
            entry: Symbol = self.symbols[symbol]
            defined = place > self.imports
            # Any section number but 0 says that a symbol is defined; 5 is that of the code below.
            _LAYOUT.symbol.pack_into(
                image, self.symbols_at + place * _LAYOUT.symbol.size, name, entry.bind << 4 | entry.type, 0,
                5 if defined else 0, self._address(symbol) if defined else 0, entry.size,
            )  # fmt: skip
            bucket = _hash(entry.name) % self.buckets
            chain[place], buckets[bucket] = buckets[bucket], place
        words = (self.buckets, len(chain), *buckets, *chain)
        struct.pack_into(f"<{len(words)}I", image, self.hash_at, *words)

    def _section_headers(self, end: int) -> tuple[bytes, int, int]:
        """What comes behind everything: the section headers, which tools read; their offset and number."""
        titles = (".hash", ".dynsym", ".dynstr", ".rela.dyn", ".text", ".dynamic", ".weights", ".shstrtab")
        text, at = b"\0", {}
        for title in titles:
            at[title] = len(text)
            text += title.encode() + b"\0"

        def row(
            title: str, type_: int, flags: int, place: int, size: int, link: int, info: int, align: int, entry: int
        ) -> tuple[int, ...]:
            return (at[title], type_, flags, place, place + self.shift, size, link, info, align, entry)

        rows = [
            (0,) * 10,
            row(".hash", 5, elf.ALLOC, self.hash_at, self.hash_size, 2, 0, 8, 4),
            row(".dynsym", elf.DYNSYM, elf.ALLOC, self.symbols_at, self.strings_at - self.symbols_at, 3, 1, 8, 24),
            row(".dynstr", elf.STRTAB, elf.ALLOC, self.strings_at, len(self.strings), 0, 0, 1, 0),
            row(".rela.dyn", elf.RELA, elf.ALLOC, self.relocations_at, self.loaded * 24, 2, 0, 8, 24),
            row(".text", 1, elf.ALLOC | elf.EXECUTE, self.code_at, self.code_end - self.code_at, 0, 0, 16, 0),
            row(".dynamic", 6, elf.ALLOC | elf.WRITE, self.data_at, 16 * len(self.table), 3, 0, 8, 16),
        ]
        if self.weights is not None:
            page, size = self.machine.page, self.weights.nbytes
            rows.append((at[".weights"], 1, elf.ALLOC, self.weights_at, page, size, 0, 0, page, 0))
        rows.append((at[".shstrtab"], elf.STRTAB, 0, 0, end, len(text), 0, 0, 1, 0))
        padding = -(end + len(text)) % 8
        packed = b"".join(_LAYOUT.section.pack(*row) for row in rows)
        return text + bytes(padding) + packed, end + len(text) + padding, len(rows)

    def _headers(self, image: bytearray, section_headers: int, count: int) -> None:
        page = self.machine.page

        def segment(type_: int, flags: int, at: int, size: int, memory: int, align: int = page) -> tuple[int, ...]:
            return (type_, flags, at + self.shift, at, at, size, memory, align)

        data, table = self.data_end - self.data_at, 16 * len(self.table)
        rows = [
            segment(elf.LOAD, _R, self.read_at, self.read_end - self.read_at, self.read_end - self.read_at),
            segment(elf.LOAD, _RX, self.code_at, self.code_end - self.code_at, self.code_end - self.code_at),
            segment(elf.LOAD, _RW, self.data_at, data, self.zero_end - self.data_at),
        ]
        if self.weights is not None:
            size = self.weights.nbytes
            rows.insert(0, (elf.LOAD, _R, 0, 0, 0, self.header_end, self.header_end, page))
            rows.append((elf.LOAD, _R, page, self.weights_at, self.weights_at, size, size, self.spread))
        rows += [segment(_DYNAMIC, _RW, self.data_at, table, table, 8), (_STACK, _RW, 0, 0, 0, 0, 0, 16)]
        identity = b"\x7fELF\2\1\1".ljust(16, b"\0")
        _LAYOUT.header.pack_into(
            image, 0, identity, elf.SHARED, self.file.machine, 1, 0, _LAYOUT.header.size, section_headers,
            self.file.flags, _LAYOUT.header.size, _LAYOUT.segment.size, len(rows), _LAYOUT.section.size, count,
            count - 1,
        )  # fmt: skip
        for number, row in enumerate(rows):
            _LAYOUT.segment.pack_into(image, _LAYOUT.header.size + number * _LAYOUT.segment.size, *row)


def _aligned(at: int, align: int) -> int:
    return -(-at // align) * align


def _hash(name: str) -> int:
    """The hash function of DT_HASH (System V ABI)."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value


