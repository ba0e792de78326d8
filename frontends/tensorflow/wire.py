"""Splits the weights off a serialised graph before protobuf sees it, and says what kind of message it is.

    split(file, "GraphDef") -> skeleton: bytes      the same message; large constants without their tensor_content
                               payloads: [view]     those contents, where they lie in the file; a constant's field
                                                    `payload` says which is its own, counted from 1
    recognise(file)         -> "GraphDef"           or "SavedModel", "MetaGraphDef", ONNX's "ModelProto", or None
    recognise_text(file)    -> "GraphDef"           the same for protobuf's text format

Messages are told apart by their fields: kinds of the outermost ones, and what the first node looks like.
"""

import re
from collections.abc import Mapping
from typing import Any

from tilewright.frontends.wire import BYTES, VARINT, Damaged, Field, fields, message, written

# The first field of a text file; comments may come before it.
_TEXT = re.compile(r"(?:\s|#[^\n]*\n)*([a-z_]+)\s*(?::|\{|<)")
_TEXT_KINDS = {
    "node": "GraphDef",
    "library": "GraphDef",
    "version": "GraphDef",
    "versions": "GraphDef",
    "meta_info_def": "MetaGraphDef",
    "graph_def": "MetaGraphDef",
    "saved_model_schema_version": "SavedModel",
    "meta_graphs": "SavedModel",
}


SMALL = 4096
"""Messages with fewer bytes are not looked into: what they hold is parsed with the rest."""

CONTENT = 4  # TensorProto.tensor_content
PAYLOAD = 20000  # TensorProto.payload, our own field

# Field number -> what the message in it is; _TENSOR is where contents are split off.
_TENSOR: dict[int, Any] = {}
_NODE = {5: {2: {8: _TENSOR}}}  # NodeDef.attr, its value, AttrValue.tensor
_GRAPH = {1: _NODE, 2: {1: {3: _NODE}}}  # GraphDef.node, library.function.node_def
_META = {2: _GRAPH}
_PATHS: Mapping[str, dict[int, Any]] = {"GraphDef": _GRAPH, "MetaGraphDef": _META, "SavedModel": {2: _META}}


def split(data: memoryview, kind: str) -> tuple[bytes, list[memoryview]]:
    """The message without the contents of its large constants, and these; raises Damaged."""
    payloads: list[memoryview] = []

    def walk(begin: int, end: int, path: dict[int, Any]) -> bytes:
        kept: list[bytes] = []
        for field in fields(data, begin, end):
            inner = path.get(field.number) if field.kind == BYTES and field.end - field.value > SMALL else None
            if path is _TENSOR and (field.number, field.kind) == (CONTENT, BYTES) and field.end - field.value > SMALL:
                payloads.append(data[field.value : field.end])
                kept += (written(PAYLOAD << 3 | VARINT), written(len(payloads)))
            elif inner is not None:
                kept.append(message(field.number, walk(field.value, field.end, inner)))
            else:
                kept.append(bytes(data[field.begin : field.end]))
        return b"".join(kept)

    return walk(0, len(data), _PATHS[kind]), payloads


def recognise(data: memoryview) -> str | None:
    """The kind of message that begins in `data`, which may be cut off or damaged further on; None if it is none."""
    found: dict[tuple[int, int], Field] = {}  # the first field of each number and kind
    try:
        for field in fields(data, 0, len(data)):
            found.setdefault((field.number, field.kind), field)
    except Damaged:
        pass
    keys = found.keys()
    if (1, VARINT) in keys:  # ir_version, or saved_model_schema_version, come first as they are written
        return "SavedModel" if keys == {(1, VARINT), (2, BYTES)} else "ModelProto"
    if (1, BYTES) in keys and _is_node(data, found[1, BYTES]):
        return "GraphDef"
    if (2, BYTES) in keys and keys <= {(number, BYTES) for number in range(1, 8)}:
        return "MetaGraphDef"
    return "ModelProto" if (7, BYTES) in keys else None


def _is_node(data: memoryview, field: Field) -> bool:
    """Whether a field holds a NodeDef: its operator is a word."""
    try:
        for inner in fields(data, field.value, field.end):
            if (inner.number, inner.kind) == (2, BYTES):
                word = bytes(data[inner.value : min(inner.end, inner.value + 256)])
                return word.isascii() and word.replace(b">", b"").replace(b".", b"").replace(b"_", b"").isalnum()
    except Damaged:
        pass
    return False


def recognise_text(data: memoryview) -> str | None:
    """The kind of message that a text file holds, None if it is none of TensorFlow's."""
    start = bytes(data[:4096])
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # not merely cut in the middle of a character
            return None
        text = start[: error.start].decode()
    found = _TEXT.match(text)
    return _TEXT_KINDS.get(found[1]) if found else None
