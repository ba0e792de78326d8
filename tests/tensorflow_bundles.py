"""Writes TensorFlow's variable bundles and SavedModels for tests, without TensorFlow.

    write_bundle(folder / "variables" / "variables", {"w": w, "b": b}, shards=2)
    write_saved_model(folder, graph, inputs={"x": "x:0"}, outputs={"y": "y:0"}, variables={"w": w})

Checksums are computed bit by bit here, apart from the code under test.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_graphs import type_number

from tilewright.frontends.tensorflow.messages import BundleEntryProto, BundleHeaderProto, SavedModel

ENTRIES_A_BLOCK = 3
RESTART_EVERY = 2


def crc32c(data: bytes) -> int:
    """The definition: long division, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The checksum as files hold it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def table(entries: Mapping[bytes, bytes]) -> bytes:
    """A table of entries, in blocks."""
    out, index = bytearray(), {}
    keys = sorted(entries)
    for start in range(0, len(keys), ENTRIES_A_BLOCK):
        part = keys[start : start + ENTRIES_A_BLOCK]
        handle = _block(out, {key: entries[key] for key in part})
        index[part[-1]] = handle
    footer = _block(out, {}) + _block(out, index)
    return bytes(out + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little"))


def _block(out: bytearray, entries: Mapping[bytes, bytes]) -> bytes:
    """Append a block; returns its handle."""
    block, restarts, last = bytearray(), [0], b""
    for number, (key, value) in enumerate(entries.items()):
        shared = 0
        if number % RESTART_EVERY:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif number:
            restarts.append(len(block))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    for restart in (*restarts, len(restarts)):
        block += restart.to_bytes(4, "little")
    handle = varint(len(out)) + varint(len(block))
    block += b"\0"
    out += block + masked(bytes(block)).to_bytes(4, "little")
    return handle


def write_bundle(
    prefix: Path, arrays: Mapping[str, NDArray[Any]], *, shards: int = 1, big_endian: bool = False
) -> None:
    """Write the index and the shards, filled in turn."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data = [bytearray() for _ in range(shards)]
    header = BundleHeaderProto(num_shards=shards, endianness=int(big_endian))
    entries = {b"": header.SerializeToString()}
    for number, (name, array) in enumerate(sorted(arrays.items())):
        shard = number % shards
        content = array.astype(array.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
        entry = BundleEntryProto(
            dtype=type_number(array.dtype), shard_id=shard, offset=len(data[shard]), size=len(content),
            crc32c=masked(content),
        )  # fmt: skip
        entry.shape.SetInParent()
        for dim in array.shape:
            entry.shape.dim.add(size=dim)
        entries[name.encode()] = entry.SerializeToString()
        data[shard] += content
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}").write_bytes(content)


def saved_model(graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Any:
    """A SavedModel message with the default signature; types and shapes are those of the placeholders."""
    message = SavedModel(saved_model_schema_version=1)
    meta = message.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.CopyFrom(graph)
    signature = meta.signature_def["serving_default"]
    nodes = {node.name: node for node in graph.node}
    for key, tensor in inputs.items():
        node = nodes[tensor.partition(":")[0]]
        signature.inputs[key].name = tensor
        signature.inputs[key].dtype = node.attr["dtype"].type
        signature.inputs[key].tensor_shape.CopyFrom(node.attr["shape"].shape)
    for key, tensor in outputs.items():
        signature.outputs[key].name = tensor
    return message


def write_saved_model(
    folder: Path,
    graph: Any,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    variables: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Write a SavedModel's folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(saved_model(graph, inputs, outputs).SerializeToString())
    if variables is not None:
        write_bundle(folder / "variables" / "variables", {k: np.asarray(v) for k, v in variables.items()})
    return folder
