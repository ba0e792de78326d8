"""Splits the weights off a serialised ONNX model before protobuf sees it.

    split(file) -> skeleton: bytes        the same message without its initialisers' raw data
                   payloads: [view, None] for each initialiser in order, where its raw data lie in the file

Parsing a model with protobuf copies its weights, and reading them from the message copies them again. This
module walks the three levels of the wire format that matter (model, graph, initialiser) and leaves the
weights where they are: in the memory map of the file. It also lifts protobuf's limit of 2 GB, which then
counts only the rest. See https://protobuf.dev/programming-guides/encoding/ for the format.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.errors import ModelError

GRAPH = 7  # ModelProto.graph
INITIALIZER = 5  # GraphProto.initializer
RAW_DATA = 9  # TensorProto.raw_data
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


def split(data: memoryview) -> tuple[bytes, list[memoryview | None]]:
    """The model without its initialisers' raw data, and those data; raises Damaged."""
    payloads: list[memoryview | None] = []

    def initializer(begin: int, end: int) -> bytes:
        kept, payload = [], None
        for field in fields(data, begin, end):
            if (field.number, field.kind) == (RAW_DATA, BYTES):
                payload = data[field.value : field.end]
            else:
                kept.append(bytes(data[field.begin : field.end]))
        payloads.append(payload)
        return b"".join(kept)

    def graph(begin: int, end: int) -> bytes:
        kept = []
        for field in fields(data, begin, end):
            if (field.number, field.kind) == (INITIALIZER, BYTES):
                kept.append(_message(INITIALIZER, initializer(field.value, field.end)))
            else:
                kept.append(bytes(data[field.begin : field.end]))
        return b"".join(kept)

    kept = []
    for field in fields(data, 0, len(data)):
        if (field.number, field.kind) == (GRAPH, BYTES):
            kept.append(_message(GRAPH, graph(field.value, field.end)))
        else:
            kept.append(bytes(data[field.begin : field.end]))
    return b"".join(kept), payloads


def fields(data: memoryview, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message in data[begin:end]; raises Damaged."""
    at = begin
    while at < end:
        start = at
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise Damaged(start, "a field has number 0")
        value = at
        if kind == VARINT:
            _, at = _varint(data, at, end)
        elif kind == BYTES:
            size, at = _varint(data, at, end)
            value = at
            at += size
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        else:
            raise Damaged(start, f"a field has the unknown wire type {kind}")
        if at > end:
            raise Damaged(start, f"a field ends at byte {at}, what holds it ends at byte {end}")
        yield Field(number, kind, start, value, at)


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and where it ends."""
    number = 0
    for position in range(at, min(at + 10, end)):
        byte = data[position]
        number |= (byte & 0x7F) << 7 * (position - at)
        if byte < 0x80:
            return number, position + 1
    raise Damaged(at, "a number does not end")


def _message(number: int, body: bytes) -> bytes:
    """A field that holds a message."""
    out = bytearray()
    for value in (number << 3 | BYTES, len(body)):
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out) + body
