"""Splits the weights off a serialised ONNX model before protobuf sees it.

    split(file) -> skeleton: bytes        the same message without its initialisers' raw data
                   payloads: [view, None] for each initialiser in order, where its raw data lie in the file

Parsing a model with protobuf copies its weights, and reading them from the message copies them again. This
module walks the three levels of the wire format that matter (model, graph, initialiser) and leaves the
weights where they are: in the memory map of the file. It also lifts protobuf's limit of 2 GB, which then
counts only the rest. See https://protobuf.dev/programming-guides/encoding/ for the format.
"""

from tilewright.frontends.wire import BYTES, fields, message

GRAPH = 7  # ModelProto.graph
INITIALIZER = 5  # GraphProto.initializer
RAW_DATA = 9  # TensorProto.raw_data


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
                kept.append(message(INITIALIZER, initializer(field.value, field.end)))
            else:
                kept.append(bytes(data[field.begin : field.end]))
        return b"".join(kept)

    kept = []
    for field in fields(data, 0, len(data)):
        if (field.number, field.kind) == (GRAPH, BYTES):
            kept.append(message(GRAPH, graph(field.value, field.end)))
        else:
            kept.append(bytes(data[field.begin : field.end]))
    return b"".join(kept), payloads
