"""Finds compiled code again: which content a model has, and what was compiled from it before.

    cache = open_cache()
    content = known_content(cache, source)            Content(digest, files), without parsing the model
    content = read_content(cache, path, externals)    the same for a file that was not met before
    artifact = kept(cache, content, options, make)    from the cache, or made and put there

Hashing half a gigabyte takes longer than loading the code, so the cache also notes the digest of each file, found by
path, size, inode and times of change.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from tilewright.runtime.artifact import Artifact
from tilewright.runtime.cache import Cache

SETTLED = 0.1
"""Seconds: a file that changed less long ago could change again within one tick of its file system's clock."""

_CHUNK = 1 << 22

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


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """A file's resolved path, size, times of change, inode and device: if they are the same, so is its content."""
    resolved = os.path.realpath(path)
    stat = os.stat(resolved)
    return resolved, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


def known_content(cache: Cache, source: Any) -> Content | None:
    """The content of a model in memory, or of a file that the cache knows; else None."""
    if isinstance(source, str | os.PathLike):
        try:
            found = stamp(source)
        except (OSError, ValueError):
            return None
        noted = cache.note(cache.key("file", found))
        if noted is None:
            return None
        content = Content(noted["digest"], tuple((*file,) for file in noted["files"]))
        return content if content.current() else None
    if isinstance(source, bytes | bytearray | memoryview):
        return Content(blake3(source).hexdigest())
    try:
        return Content(blake3(source.SerializeToString(deterministic=True)).hexdigest())
    except Exception:  # no message, or one of more than 2 GiB; reading it will say so
        return None


def content_of(cache: Cache, source: Any, externals: Sequence[Path]) -> Content | None:
    """The content of any model, hashed if need be; None if that fails."""
    known = known_content(cache, source)
    if known is None and isinstance(source, str | os.PathLike):
        return read_content(cache, source, externals)
    return known


def read_content(cache: Cache, path: str | os.PathLike[str], externals: Sequence[Path]) -> Content | None:
    """Hash a model's file and those with its data, or the files of its folder; None if they cannot be read, or just
    change.
    """
    try:
        stamps = tuple(map(stamp, (path, *externals)))
        content = Content(_files_digest(path, externals), stamps)
    except OSError:
        return None
    if not content.current():
        return None
    newest = max(max(file[2:4]) for file in stamps) / 1e9
    if time.time() - newest > SETTLED:
        cache.put_note(cache.key("file", stamps[0]), {"digest": content.digest, "files": stamps})
    return content


def digest_of(source: Any, externals: Sequence[Path]) -> str:
    """The hash of any model's content, "" if it cannot be read; `externals` as for `read_content`."""
    try:
        if isinstance(source, str | os.PathLike):
            return _files_digest(source, externals)
        if isinstance(source, bytes | bytearray | memoryview):
            return blake3(source).hexdigest()
        return blake3(source.SerializeToString(deterministic=True)).hexdigest()
    except Exception:  # the disk's, or a message of more than 2 GiB
        return ""


def kept(
    cache: Cache | None, content: Content | None, options: Sequence[object], label: str, make: Callable[[], Artifact]
) -> Artifact:
    """What was compiled from `content` with `options`, or else what `make` gives, which is then kept."""
    if cache is None or content is None:
        return make()
    key = artifact_key(cache, content, options)
    found = cache.get(key)
    if found is None:
        found = make()
        if content.current():
            cache.put(key, found, label)
    return found


def artifact_key(cache: Cache, content: Content, options: Sequence[object]) -> str:
    """Where the code lies that was compiled from `content` with `options`."""
    return cache.key("artifact", content.digest, *options)


def _files_digest(path: str | os.PathLike[str], externals: Sequence[Path]) -> str:
    """The hash of files and the names of all but the first; raises OSError."""
    digests = [_file_digest(file) for file in map(os.path.realpath, (path, *externals)) if not os.path.isdir(file)]
    folder = os.path.realpath(path if os.path.isdir(path) else Path(path).parent)
    names = [os.path.relpath(Path(os.path.realpath(file.parent), file.name), folder) for file in externals]
    return blake3(repr([digests, names]).encode()).hexdigest() if externals else digests[0]


def _file_digest(path: str) -> str:
    # Read, not mapped: mapped pages would count as this process's memory.
    hasher, buffer = blake3(), memoryview(bytearray(_CHUNK))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
    return hasher.hexdigest()
