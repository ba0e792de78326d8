"""How the built-in linker fills in addresses: the relocations that LLVM's code has, for x86-64 and AArch64.

    apply(machine, image, place, type, target)      `target` is symbol + addend, or the address of its GOT slot

Numbers and formulas are those of the processors' ELF supplements (x86-64 psABI; AAELF64).
"""

import struct
from dataclasses import dataclass

from tilewright.errors import LinkError

X86_64, AARCH64 = 62, 183


@dataclass(frozen=True)
class Machine:
    """Numbers of relocations by what they do; `relative` .. `glob_dat` are those a loader applies."""

    absolute: int
    got: frozenset[int]
    calls: frozenset[int]
    relative: int
    symbolic: int
    glob_dat: int
    page: int


MACHINES = {
    X86_64: Machine(1, frozenset({9, 41, 42}), frozenset({4}), 8, 1, 6, 0x1000),
    AARCH64: Machine(257, frozenset({311, 312}), frozenset({282, 283}), 1027, 257, 1025, 0x10000),
}

_X86_RELATIVE_32 = {2, 4, 9, 41, 42}  # PC32, PLT32, GOTPCREL and its two relaxable forms
_X86_RELATIVE_64 = 24
_ARM_PAGES = {275, 276, 311}  # ADR_PREL_PG_HI21, the same unchecked, ADR_GOT_PAGE
# Low twelve bits of an address in an instruction, shifted by the size of what is loaded.
_ARM_LOW = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4, 312: 3}
_ARM_BRANCHES = {279: (14, 5), 280: (19, 5), 282: (26, 0), 283: (26, 0)}  # bits of the distance in words, and where


def apply(machine: int, image: bytearray, place: int, type_: int, target: int) -> None:
    """Fill in one relocation that is known now, at the address `place`, which is also its offset in the image."""
    distance = target - place
    if machine == X86_64:
        if type_ in _X86_RELATIVE_32:
            struct.pack_into("<i", image, place, _signed(distance, 32, type_))
        elif type_ == _X86_RELATIVE_64:
            struct.pack_into("<q", image, place, distance)
        else:
            raise _unknown(type_)
        return
    if type_ == 260:
        struct.pack_into("<q", image, place, distance)
    elif type_ == 261:
        struct.pack_into("<i", image, place, _signed(distance, 32, type_))
    elif type_ in _ARM_PAGES:
        pages = _signed((target >> 12) - (place >> 12), 21, type_)
        _patch(image, place, 0x60FFFFE0, (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)
    elif type_ in _ARM_LOW:
        _patch(image, place, 0xFFF << 10, ((target & 0xFFF) >> _ARM_LOW[type_]) << 10)
    elif type_ in _ARM_BRANCHES:
        bits, at = _ARM_BRANCHES[type_]
        mask = (1 << bits) - 1
        _patch(image, place, mask << at, (_signed(distance >> 2, bits, type_) & mask) << at)
    else:
        raise _unknown(type_)


def stub(machine: int, image: bytearray, place: int, slot: int) -> None:
    """The 16 bytes at `place` that jump to the address in a GOT slot."""
    if machine == X86_64:
        image[place : place + 6] = b"\xff\x25" + struct.pack("<i", slot - place - 6)
        return
    struct.pack_into("<III", image, place, 0x90000010, 0xF9400211, 0xD61F0220)  # adrp x16; ldr x17, [x16]; br x17
    apply(machine, image, place, 311, slot)
    apply(machine, image, place + 4, 312, slot)


def _patch(image: bytearray, place: int, mask: int, bits: int) -> None:
    (word,) = struct.unpack_from("<I", image, place)
    struct.pack_into("<I", image, place, word & ~mask & 0xFFFFFFFF | bits)


def _signed(value: int, bits: int, type_: int) -> int:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise LinkError(f"the code is too large: relocation {type_} cannot reach its target")
    return value


def _unknown(type_: int) -> LinkError:
    return LinkError(f"the built-in linker does not know relocation {type_}; use another, and please report this")
