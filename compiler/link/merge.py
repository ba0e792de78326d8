"""Several object files as one, for code that was generated in parts.

    merged([first, second])      first's sections, then second's; a name that one defines and another uses is one symbol

The objects are 64-bit little-endian ELF ones, as LLVM writes them: relocations with addends, no groups.
"""

from collections.abc import Sequence

from tilewright.errors import CompileError
from tilewright.runtime import elf

_LAYOUT = elf.LAYOUTS[64]
_GROUP = 17
_RESERVED = 0xFF00
"""Numbers of sections from here on mean something else."""
_TABLES = (elf.SYMTAB, elf.STRTAB)


def merged(objects: Sequence[bytes]) -> bytes:
    """One object with all that the objects hold; raises CompileError where two define one name."""
    if len(objects) == 1:
        return objects[0]
    files = [elf.read(code) for code in objects]
    if any(file.bits != 64 or any(s.type in (_GROUP, elf.REL) for s in file.sections) for file in files):
        raise CompileError("object code of this format cannot be joined; please report this")
    names = _Names()
    # Sections: all but the tables of names and symbols, then one of each.
    places: list[dict[int, int]] = []
    count = 1
    for file in files:
        kept = [number for number, section in enumerate(file.sections) if number and section.type not in _TABLES]
        places.append({0: 0} | {number: count + position for position, number in enumerate(kept)})
        count += len(kept)
    table, numbers = _symbols(files, places, names)
    body = bytearray(_LAYOUT.header.size)
    rows: list[tuple[int, ...]] = [(0,) * 10]

    def add(section: tuple[int, ...], data: bytes) -> None:
        """Append a section (name, type, flags, address, link, info, align, entry size) with its bytes."""
        name, type, flags, address, link, info, align, entry, size = section
        body.extend(bytes(-len(body) % max(align, 1)))
        rows.append((name, type, flags, address, len(body), size, link, info, align, entry))
        body.extend(data)

    for file, place, number in zip(files, places, numbers, strict=True):
        for old in list(place)[1:]:
            section = file.sections[old]
            stored = 0 if section.type == elf.NOBITS else section.size
            data = bytes(file.data[section.offset : section.offset + stored])
            link, info = place.get(section.link, 0), section.info
            if section.type == elf.RELA:
                data, link, info = _relocated(data, number), count, place[section.info]
            add(
                (names.at(section.name), section.type, section.flags, 0, link, info, section.align,
                 section.entry_size, section.size), data,
            )  # fmt: skip
    locals_ = 1 + sum(symbol[1] >> 4 == elf.LOCAL for symbol in table)
    packed = b"".join(_LAYOUT.symbol.pack(*symbol) for symbol in [(0,) * 6, *table])
    size = _LAYOUT.symbol.size
    add((names.at(".symtab"), elf.SYMTAB, 0, 0, count + 1, locals_, 8, size, len(packed)), packed)
    title = names.at(".strtab")
    add((title, elf.STRTAB, 0, 0, 0, 0, 1, 0, len(names.data)), bytes(names.data))
    body.extend(bytes(-len(body) % 8))
    header = list(_LAYOUT.header.unpack_from(objects[0], 0))
    header[6], header[12], header[13] = len(body), len(rows), len(rows) - 1
    _LAYOUT.header.pack_into(body, 0, *header)
    return bytes(body) + b"".join(_LAYOUT.section.pack(*row) for row in rows)


class _Names:
    """A table of strings, each there once."""

    def __init__(self) -> None:
        self.data = bytearray(1)
        self._places = {"": 0}

    def at(self, name: str) -> int:
        """Where a name stands."""
        if name not in self._places:
            self._places[name] = len(self.data)
            self.data.extend(name.encode() + b"\0")
        return self._places[name]


def _symbols(
    files: Sequence[elf.File], places: Sequence[dict[int, int]], names: _Names
) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """The packed fields of all symbols but the empty first one, local ones first; and by file, their new numbers."""
    local: list[tuple[int, ...]] = []
    shared: dict[str, tuple[int, ...]] = {}
    tables = [elf.symbols(file, elf.SYMTAB) for file in files]
    for number, (table, place) in enumerate(zip(tables, places, strict=True)):
        for symbol in table[1:]:
            section = symbol.section if symbol.section >= _RESERVED else place.get(symbol.section, 0)
            kind = symbol.bind << 4 | symbol.type
            # LLVM's run-time linker finds local symbols by name too, and constants are numbered anew in each object.
            name = f"{symbol.name}.{number}" if symbol.bind == elf.LOCAL and symbol.name else symbol.name
            fields = (names.at(name), kind, symbol.visibility, section, symbol.value, symbol.size)
            known = shared.get(symbol.name)
            if symbol.bind == elf.LOCAL:
                local.append(fields)
            elif known is None or known[3] == elf.UNDEFINED:
                shared[symbol.name] = fields
            elif section != elf.UNDEFINED:
                raise CompileError(f"two parts of the code define {symbol.name}; please report this")
    position = {name: 1 + len(local) + number for number, name in enumerate(shared)}
    numbers, next_local = [], 1
    for table in tables:
        row = [0]
        for symbol in table[1:]:
            row.append(next_local if symbol.bind == elf.LOCAL else position[symbol.name])
            next_local += symbol.bind == elf.LOCAL
        numbers.append(row)
    return [*local, *shared.values()], numbers


def _relocated(data: bytes, numbers: Sequence[int]) -> bytes:
    """Relocations that name symbols by their new numbers."""
    moved = [
        _LAYOUT.rela.pack(offset, numbers[info >> 32] << 32 | info & 0xFFFFFFFF, addend)
        for offset, info, addend in _LAYOUT.rela.iter_unpack(data)
    ]
    return b"".join(moved)
