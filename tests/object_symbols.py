"""Which symbols an object file uses and does not define, for the object formats of all targets.

    undefined(code)     ["memcpy", "pthread_create"]

Formats as in the ELF specification, Microsoft's PE format, Apple's mach-o/loader.h, and WebAssembly's binary format
(whose objects import what they do not define).
"""

import struct


def undefined(code: bytes) -> list[str]:
    """Names in the order of the file, without the leading underscore of Mach-O."""
    if code[:4] == b"\x7fELF":
        return _elf(code)
    if code[:4] == b"\xcf\xfa\xed\xfe":
        return _mach(code)
    if code[:4] == b"\0asm":
        return _wasm(code)
    return _coff(code)


def _string(code: bytes, at: int) -> str:
    return code[at : code.index(b"\0", at)].decode()


def _elf(code: bytes) -> list[str]:
    wide = code[4] == 2
    assert code[5] == 1, "big-endian"
    (sections,) = struct.unpack_from("<Q" if wide else "<I", code, 0x28 if wide else 0x20)
    size, count = struct.unpack_from("<HH", code, 0x3A if wide else 0x2E)
    header, symbol = ("<IIQQQQIIQQ", "<IBBHQQ") if wide else ("<IIIIIIIIII", "<IIIBBH")
    headers = [struct.unpack_from(header, code, sections + size * i) for i in range(count)]
    found = []
    for _, kind, _, _, offset, length, link, *_ in headers:
        if kind != 2:
            continue
        step = struct.calcsize(symbol)
        for at in range(offset + step, offset + length, step):
            entry = struct.unpack_from(symbol, code, at)
            section = entry[3] if wide else entry[5]
            if section == 0 and entry[0]:
                found.append(_string(code, headers[link][4] + entry[0]))
    return found


def _coff(code: bytes) -> list[str]:
    _, _, _, table, count, *_ = struct.unpack_from("<HHIIIHH", code)
    found, at = [], 0
    while at < count:
        name, value, section, _, storage, extra = struct.unpack_from("<8sIhHBB", code, table + 18 * at)
        if section == 0 and value == 0 and storage == 2:
            long = struct.unpack("<II", name)
            found.append(_string(code, table + 18 * count + long[1]) if not long[0] else name.rstrip(b"\0").decode())
        at += 1 + extra
    return found


def _mach(code: bytes) -> list[str]:
    commands = struct.unpack_from("<I", code, 16)[0]
    at, found = 32, []
    for _ in range(commands):
        command, size = struct.unpack_from("<II", code, at)
        if command == 2:
            symbols, count, strings, _ = struct.unpack_from("<IIII", code, at + 8)
            for i in range(count):
                name, kind, *_ = struct.unpack_from("<IBBHQ", code, symbols + 16 * i)
                if kind & 0x0E == 0 and kind & 1:
                    found.append(_string(code, strings + name).removeprefix("_"))
        at += size
    return found


def _wasm(code: bytes) -> list[str]:
    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = code[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value, at

    def text(at: int) -> tuple[str, int]:
        length, at = number(at)
        return code[at : at + length].decode(), at + length

    at, found = 8, []
    while at < len(code):
        section, (length, start) = code[at], number(at + 1)
        at = start + length
        if section != 2:
            continue
        count, here = number(start)
        for _ in range(count):
            _, here = text(here)
            name, here = text(here)
            kind, here = code[here], here + 1
            if kind == 0:
                _, here = number(here)
                found.append(name)
            else:  # memories, tables and globals belong to every object
                flags, here = number(here + (1 if kind == 1 else 0))
                if kind == 3:
                    continue
                _, here = number(here)
                if flags & 1:
                    _, here = number(here)
    return found
