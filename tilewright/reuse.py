"""Finds compiled code again: which content a model has, and what was compiled from it before.

    cache = open_cache()
    content = known_content(cache, source)                      Content(digest, files), without parsing the model
    content = content_of(cache, source, externals, read)        the same for a file that was not met before
    artifact = kept(cache, content, options, label, make)       from the cache, or made and put there

Hashing half a gigabyte takes longer than loading the code, so the cache also notes the digest of each file, found by
path, size, inode and times of change.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from tilewright.batches import Shape
from tilewright.compiler.targets import Target
from tilewright.runtime.artifact import Artifact, Room, aligned_empty
from tilewright.runtime.cache import Cache

SETTLED = 0.1
"""Seconds: a file that changed less long ago could change again within one tick of its file system's clock."""

_CHUNK = 1 << 26
"""Bytes hashed at once. Between pieces the interpreter lock is waited for, 5 ms while a model is planned beside."""

Source = str | os.PathLike[str] | bytes | Any

Stamp = tuple[str, int, int, int, int, int]


@dataclass(frozen=True)
class Content:
    """What a model holds, as a hash, and the state of the files it was read from, if any."""

    digest: str
    files: tuple[Stamp, ...] = ()

    def current(self) -> bool:
        """Whether the files still are as they were."""
        try:
            return all(stamp(file[0]) == file for file in self.files)
        except OSError:
            return False


@dataclass(frozen=True)
class Request:
    """What is asked of a model: the arguments of `tilewright.compile` that its code depends on."""

    source: Source
    outputs: Sequence[str | int] | None
    shapes: Mapping[str, Shape]
    conv: Literal["auto", "direct"]
    target: Target

    def options(self, shapes: Mapping[str, Shape]) -> tuple[object, ...]:
        """All that the code for these input shapes depends on besides the model's content."""
        dims = sorted((name, [str(dim) for dim in shape]) for name, shape in shapes.items())
        return self.outputs, dims, self.conv, repr(self.target)


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """A file's resolved path, size, times of change, inode and device: if they are the same, so is its content."""
    resolved = os.path.realpath(path)
    stat = os.stat(resolved)
    return resolved, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


def stamps(*paths: Any) -> tuple[Stamp, ...]:
    """The stamps of those of `paths` that are paths and can be looked at: taken before the files are read."""
    found = []
    for path in paths:
        try:
            found.append(stamp(path))
        except (TypeError, OSError, ValueError):
            pass
    return tuple(found)


def known_content(cache: Cache, source: Any) -> Content | None:
    """The content of a model in memory, or of a file that the cache knows; else None."""
    if isinstance(source, str | os.PathLike):
        found = stamps(source)
        noted = cache.note(cache.key("file", *found)) if found else None
        if noted is None:
            return None
        content = Content(noted["digest"], tuple((*file,) for file in noted["files"]))
        return content if content.current() else None
    digest = _memory_digest(source)
    return Content(digest) if digest else None


def content_of(cache: Cache, source: Any, externals: Sequence[Path], read: Sequence[Stamp]) -> Content | None:
    """The content of any model, hashed if need be; None if that fails. `externals` and `read` as for `read_content`."""
    known = known_content(cache, source)
    if known is None and isinstance(source, str | os.PathLike):
        return read_content(cache, source, externals, read)
    return known


def read_content(
    cache: Cache, path: str | os.PathLike[str], externals: Sequence[Path], read: Sequence[Stamp]
) -> Content | None:
    """Hash a model's file and those with its data, or the files of its folder.

    `read` are their stamps from before the model was read. None if the files cannot be read, or have changed since.
    """
    try:
        content = Content(_files_digest(path, externals), tuple(read))
    except OSError:
        return None
    if len(read) != 1 + len(externals) or not content.current():
        return None
    newest = max(max(file[2:4]) for file in read) / 1e9
    if time.time() - newest > SETTLED:
        cache.put_note(cache.key("file", read[0]), {"digest": content.digest, "files": tuple(read)})
    return content


def digest_of(source: Any, externals: Sequence[Path]) -> str:
    """The hash of any model's content, "" if it cannot be read; `externals` as for `read_content`."""
    if not isinstance(source, str | os.PathLike):
        return _memory_digest(source)
    try:
        return _files_digest(source, externals)
    except OSError:
        return ""


def kept(
    cache: Cache | None, content: Content | None, options: Sequence[object], label: str,
    make: Callable[[Room], Artifact],
) -> Artifact:  # fmt: skip
    """What was compiled from `content` with `options`, or else what `make` gives, which is then kept.

    `make` is told where to put the constants.
    """
    if cache is None or content is None:
        return make(aligned_empty)
    key = artifact_key(cache, content, options)
    found = cache.get(key)
    if found is None:
        with cache.draft(key) as draft:
            found = make(draft.room)
            if content.current():
                draft.keep(found, label)
    return found


def artifact_key(cache: Cache, content: Content, options: Sequence[object]) -> str:
    """Where the code lies that was compiled from `content` with `options`."""
    return cache.key("artifact", content.digest, *options)


def _memory_digest(source: Any) -> str:
    """The hash of a model's bytes, or of a message; "" for anything else, of which reading it will say more."""
    if isinstance(source, memoryview):
        source = source if source.contiguous else source.tobytes()
    elif not isinstance(source, bytes | bytearray):
        from google.protobuf.message import EncodeError, Message

        try:
            if not isinstance(source, Message):
                return ""
            source = source.SerializeToString(deterministic=True)
        except (EncodeError, ValueError):  # more than 2 GiB
            return ""
    return blake3(source).hexdigest()


def _files_digest(path: str | os.PathLike[str], externals: Sequence[Path]) -> str:
    """The hash of files and the names of all but the first; raises OSError."""
    digests = [_file_digest(file) for file in map(os.path.realpath, (path, *externals)) if not os.path.isdir(file)]
    folder = os.path.realpath(path if os.path.isdir(path) else Path(path).parent)
    names = [os.path.relpath(Path(os.path.realpath(file.parent), file.name), folder) for file in externals]
    return blake3(repr([digests, names]).encode()).hexdigest() if externals else digests[0]


def _file_digest(path: str) -> str:
    # Read, not mapped: mapped pages would count as this process's memory.
    hasher = blake3()
    with open(path, "rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(_CHUNK, max(os.fstat(file.fileno()).st_size, 1))))
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
    return hasher.hexdigest()
