"""Reads the variables of a SavedModel: a TensorBundle, without TensorFlow.

    variables.index                 a table of names -> BundleEntryProto: type, shape, where the elements lie, checksum
    variables.data-00000-of-00001   the elements, one variable after the other; mapped, never read as a whole

    bundle = open_bundle(Path("vgg/variables/variables"))
    bundle.tensor("dense/kernel/.ATTRIBUTES/VARIABLE_VALUE")        a Tensor; its checksum is tested when it is used

The index is a table as LevelDB writes them (https://github.com/google/leveldb, doc/table_format.md): blocks of
sorted entries whose names leave out what they share with the one before, each block followed by its compression and
a checksum; an index block with the place of each; a footer with the place of that one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal

from google.protobuf.message import DecodeError

from tilewright.compiler.ir.graph import Array
from tilewright.errors import ModelError, TilewrightError, UnknownNameError, UnsupportedError
from tilewright.frontends.files import map_file
from tilewright.frontends.tensorflow.crc32c import crc32c, masked
from tilewright.frontends.tensorflow.messages import BundleEntryProto, BundleHeaderProto, Message
from tilewright.frontends.tensorflow.tensors import Tensor, check_shape, element_type, from_bytes
from tilewright.frontends.wire import Damaged, varint

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two block handles, filled up to 40, and the magic number
TRAILER = 5  # bytes after a block: compression, masked checksum
MAX_NAME, MAX_NAMES = 4096, 1 << 26
"""Bytes of one name and of all together: entries may share all but a name's end, so a small file could ask for more."""

_AGAIN = "copy the model again, or export it again"


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle; `files` are the index and the shards."""

    prefix: Path
    order: Literal["<", ">"]
    entries: Mapping[str, bytes]
    files: tuple[Path, ...]
    _maps: dict[Path, memoryview] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def tensor(self, name: str) -> Tensor:
        """A variable by its name in the bundle; raises UnknownNameError."""
        if name not in self.entries:
            raise UnknownNameError(f"variable in {self.prefix.name}.index", name, self.entries)
        try:
            entry = BundleEntryProto.FromString(self.entries[name])
        except DecodeError:
            raise ModelError(
                f"the entry of variable '{name}' in {self.prefix.name}.index is damaged; {_AGAIN}"
            ) from None
        shape = tuple(dim.size for dim in entry.shape.dim)
        return Tensor(element_type(entry.dtype), shape, partial(self._load, name, entry))

    def _load(self, name: str, entry: Message) -> Array:
        try:
            return self._elements(entry)
        except TilewrightError as error:
            error.message = f"variable '{name}': {error.message}"
            raise

    def _elements(self, entry: Message) -> Array:
        type, shape = element_type(entry.dtype), tuple(dim.size for dim in entry.shape.dim)
        check_shape(type, shape)
        if entry.slices:
            raise UnsupportedError("it is stored in slices (a partitioned variable); export the model without")
        if not 0 <= entry.shard_id < len(self.files) - 1:
            raise ModelError(f"it lies in shard {entry.shard_id} of {len(self.files) - 1}; {_AGAIN}")
        path = self.files[1 + entry.shard_id]
        if path not in self._maps:
            if not path.is_file():
                raise ModelError(f"the file {path.name} is missing beside {self.prefix.name}.index; {_AGAIN}")
            self._maps[path] = map_file(path)
        data = self._maps[path]
        if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > len(data):
            raise ModelError(
                f"it should lie at bytes {entry.offset} to {entry.offset + entry.size} of {path.name}, which has "
                f"{len(data)}; {_AGAIN}"
            )
        assert type.dtype is not None
        if entry.size != prod(shape) * type.dtype.bytes:  # before the checksum, which would take its time
            return from_bytes(data[: entry.size], type, shape)
        content = data[entry.offset : entry.offset + entry.size]
        if masked(crc32c(content)) != entry.crc32c:
            raise ModelError(f"its checksum in {path.name} is wrong; the file is damaged, {_AGAIN}")
        return from_bytes(content, type, shape, self.order)


def open_bundle(prefix: Path) -> Bundle:
    """Open `prefix`.index; raises ModelError."""
    index = prefix.with_name(f"{prefix.name}.index")
    try:
        entries = dict(_table(map_file(index)))
        header = BundleHeaderProto.FromString(entries.pop("", b""))
    except (Damaged, DecodeError) as error:
        where = f" ({error.message})" if isinstance(error, Damaged) else ""
        raise ModelError(f"{index.name} is damaged{where}; {_AGAIN}") from None
    if not 0 < header.num_shards < 100_000:
        raise ModelError(f"{index.name} counts {header.num_shards} data files; {_AGAIN}")
    shards = [
        prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{header.num_shards:05}")
        for shard in range(header.num_shards)
    ]
    return Bundle(prefix, ">" if header.endianness else "<", entries, (index, *shards))


def _table(data: memoryview) -> Iterator[tuple[str, bytes]]:
    """The entries of a table; raises Damaged."""
    start = len(data) - FOOTER
    if start < 0 or int.from_bytes(data[-8:], "little") != MAGIC:
        raise Damaged(max(start, 0), "it does not end as an index does")
    _, at = varint(data, start, len(data))  # the block of meta data is not used
    _, at = varint(data, at, len(data))
    offset, at = varint(data, at, len(data))
    size, _ = varint(data, at, len(data))
    end = names = 0
    for _, handle in _entries(data, *_block(data, offset, size)):
        view = memoryview(handle)
        offset, at = varint(view, 0, len(view))
        size, _ = varint(view, at, len(view))
        if offset < end:  # or a small file could have its blocks read any number of times
            raise Damaged(offset, "its blocks are out of order")
        end = offset + size
        for name, value in _entries(data, *_block(data, offset, size)):
            names += len(name)
            if names > MAX_NAMES:
                raise Damaged(offset, f"its names take more than {MAX_NAMES >> 20} MiB")
            yield name, value


def _block(data: memoryview, offset: int, size: int) -> tuple[int, int]:
    """Where the entries of a block begin and end, after testing its checksum."""
    end = offset + size
    if end + TRAILER > len(data) - FOOTER or size < 4:
        raise Damaged(offset, "a block lies outside the file")
    if masked(crc32c(data[offset : end + 1])) != int.from_bytes(data[end + 1 : end + TRAILER], "little"):
        raise Damaged(offset, "the checksum of a block is wrong")
    if data[end] != 0:
        raise UnsupportedError("the index of its variables is compressed, as TensorFlow never does; export it again")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    if 4 * restarts + 4 > size:
        raise Damaged(offset, "a block has too many restart points")
    return offset, end - 4 - 4 * restarts


def _entries(data: memoryview, at: int, end: int) -> Iterator[tuple[str, bytes]]:
    """The entries of a block in data[at:end]."""
    name = b""
    while at < end:
        start = at
        shared, at = varint(data, at, end)
        own, at = varint(data, at, end)
        size, at = varint(data, at, end)
        if shared > len(name) or at + own + size > end or shared + own > MAX_NAME:
            raise Damaged(start, "an entry does not fit into its block")
        name = name[:shared] + bytes(data[at : at + own])
        at += own
        try:
            yield str(name, "utf-8"), bytes(data[at : at + size])
        except UnicodeDecodeError:
            yield repr(name), bytes(data[at : at + size])  # such as the index block's, which are only separators
        at += size
