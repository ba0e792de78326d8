"""Walks protobuf's wire format without parsing it, so that large contents can stay where they are.

    for field in fields(data, 0, len(data)):    Field(number=7, kind=BYTES, begin=0, value=5, end=2000)
        field.value, field.end                   where the value's bytes are
    message(7, body)                             a field that holds `body`

See https://protobuf.dev/programming-guides/encoding/ for the format.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.errors import ModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Damaged(ModelError):
    """The bytes are not well-formed protobuf from `offset` on."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"{what} (at byte {offset})")
        self.offset = offset


@dataclass(frozen=True)
class Field:
    """One field of a message: its bytes are data[begin:end], its value's bytes are data[value:end]."""

    number: int
    kind: int
    begin: int
    value: int
    end: int


def fields(data: memoryview, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message in data[begin:end]; raises Damaged."""
    at = begin
    while at < end:
        start = at
        key, at = varint(data, at, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise Damaged(start, "a field has number 0")
        value = at
        if kind == VARINT:
            _, at = varint(data, at, end)
        elif kind == BYTES:
            size, at = varint(data, at, end)
            value = at
            at += size
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        else:
            raise Damaged(start, f"a field has the unknown wire type {kind}")
        if at > end:
            raise Damaged(start, f"a field ends at byte {at}, what holds it ends at byte {end}")
        yield Field(number, kind, start, value, at)


def varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and where it ends."""
    number = 0
    for position in range(at, min(at + 10, end)):
        byte = data[position]
        number |= (byte & 0x7F) << 7 * (position - at)
        if byte < 0x80:
            return number, position + 1
    raise Damaged(at, "a number does not end")


def message(number: int, body: bytes) -> bytes:
    """A field that holds a message, or other bytes."""
    return written(number << 3 | BYTES) + written(len(body)) + body


def written(number: int) -> bytes:
    """A number of 0 or more, encoded."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
