"""Static archives: an object with its index of symbols, as `ar` and `ranlib` write it.

    !<arch>\\n | header "/" | symbol index | header "NAME.o/" | object

Dates, owners and modes are fixed, so that the same object makes the same archive.
"""

import struct
from collections.abc import Sequence

from tilewright.compiler.link.objects import Chunk, size_of
from tilewright.errors import UnsupportedError

_LIMIT = 10**10
"""Sizes are written with ten digits."""


def archive(member: str, symbols: Sequence[str], chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks of an archive that holds one object, which defines `symbols`."""
    size = size_of(chunks)
    if size >= _LIMIT:
        raise UnsupportedError("an archive cannot hold 10 GB; keep the weights in a file with weights='external'")
    short = f"{member}/" if len(member) < 16 else "model.o/"
    names = b"".join(symbol.encode() + b"\0" for symbol in symbols)
    length = 4 + 4 * len(symbols) + len(names)
    first = 8 + 60 + length + length % 2
    index = struct.pack(f">I{len(symbols)}I", len(symbols), *[first] * len(symbols)) + names
    head = b"!<arch>\n" + _header("/", length) + index + b"\n" * (length % 2) + _header(short, size)
    return [head, *chunks, b"\n" * (size % 2)]


def _header(name: str, size: int) -> bytes:
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{size:<10}`\n".encode()
