"""Artifacts on disk, so that a model compiles once a machine and not once a process.

    cache = open_cache()                   the user's cache, or None where there is none
    key = cache.key("artifact", digest, options, ...)
    cache.put(key, artifact, "vgg16.onnx")
    cache.get(key)                         the artifact, its constants mapped; None if it is not there

An entry is one file, named after its key:

    magic, format, lengths, checksum, padding | constants, page-aligned | JSON | object code | pool code

The JSON is the manifest; nothing is unpickled. The checksum is over all but the constants, which may be gigabytes:
of them only the size is checked. Files with other contents, such as what a model's file hashed to, hold JSON
only. An entry that is damaged counts as missing and is removed.

A file is written under another name and then renamed, so that readers and concurrent writers meet whole entries
only; what a killed writer leaves is removed later. Constants need not be written apart: they can be computed right
into the file, see `Draft`. Entries hold code that will run: a folder that others may write
to is not used. Whatever goes wrong with the disk, the caller goes on without a cache and a warning is logged.

TILEWRIGHT_CACHE_DIR names another folder, or no cache if it is empty or 0; TILEWRIGHT_CACHE_BYTES bounds its size.
"""

import json
import logging
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import llvmlite
import numpy as np
import numpy.typing as npt
from blake3 import blake3
from platformdirs import user_cache_dir

from tilewright.errors import CallError
from tilewright.runtime.artifact import Artifact, Manifest, aligned_empty, prefer_huge_pages

log = logging.getLogger(__name__)

FOLDER, BYTES = "TILEWRIGHT_CACHE_DIR", "TILEWRIGHT_CACHE_BYTES"
DEFAULT_BYTES = 4 << 30
ABANDONED = 3600.0
"""Seconds after which an unfinished file is taken for that of a killed writer."""

_MAGIC, _FORMAT = b"TILEWRT\0", 2
# Magic, format, lengths of JSON, code, pool code and constants; a BLAKE3 checksum follows.
_HEADER = struct.Struct("<8s5Q")
_CHECKSUM = 32
_PAGE = 4096
_ENTRY, _PARTIAL = ".tw", ".partial"
_PACKAGES = ("tilewright", "tilewright.compiler", "tilewright.frontends", "tilewright.runtime")

Json = dict[str, Any]
Stamps = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Entry:
    """A file of the cache: its size in bytes, when it was made and last used (seconds since 1970).

    `about` says in words which artifact it is: model, inputs, target; it is empty for a file that holds none.
    """

    path: Path
    size: int
    made: float
    used: float
    about: Mapping[str, str] = field(default_factory=dict)


class Cache:
    """The entries of one folder, at most `limit` bytes of them; the least recently used ones go."""

    def __init__(self, folder: Path, limit: int = DEFAULT_BYTES) -> None:
        self.folder = folder
        self.limit = limit
        self._lock = threading.Lock()
        self._unscanned = 0  # bytes that may be written before the folder is looked through again

    def key(self, *parts: object) -> str:
        """The name of an entry: a hash of `parts`, of which Tilewright this is, and of the libraries that count."""
        everything = [_FORMAT, _IMPORTED, llvmlite.__version__, np.__version__, *map(str, parts)]
        return blake3(json.dumps(everything).encode()).hexdigest()

    def get(self, key: str) -> Artifact | None:
        """The artifact of a key, its constants mapped from the file; None if there is none."""
        found = self._read(key)
        if found is None:
            return None
        data, parts = found
        if "manifest" not in parts.json:
            return None
        if parts.constants:
            constants = np.frombuffer(data, np.uint8, parts.constants, parts.start)
            prefer_huge_pages(data)
            data.madvise(mmap.MADV_WILLNEED)
        else:
            constants = aligned_empty(0)
        return Artifact(parts.code, constants, _decoded(Manifest, parts.json["manifest"]), parts.pool)

    def put(self, key: str, artifact: Artifact, label: str = "") -> None:
        """Keep an artifact, unless it takes more than half of the cache."""
        with self.draft(key) as draft:
            draft.keep(artifact, label)

    @contextmanager
    def draft(self, key: str) -> "Iterator[Draft]":
        """An entry in the making; what is not kept is removed when the block ends."""
        draft = Draft(self, key)
        try:
            yield draft
        finally:
            draft.close()

    def note(self, key: str) -> Json | None:
        """What `put_note` kept; None if there is nothing."""
        found = self._read(key)
        return None if found is None else found[1].json

    def put_note(self, key: str, content: Json) -> None:
        """Keep a little JSON."""
        with self.draft(key) as draft:
            draft.write(content)

    def entries(self) -> list[Entry]:
        """Everything in the cache, the most recently used first; damaged files are left out."""
        found = []
        for entry in self._files():
            data = self._read(entry.path.stem, touch=False)
            if entry.path.suffix != _ENTRY or data is None:
                continue
            found.append(replace(entry, about=data[1].json.get("about", {})))
            os.utime(entry.path, (entry.used, entry.made))  # looking is no use
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Remove everything; returns the bytes that this frees."""
        return sum(entry.size for entry in self._files() if _remove(entry.path))

    def _files(self) -> Iterator[Entry]:
        """The cache's own files, finished or not."""
        try:
            listed = list(os.scandir(self.folder))
        except OSError:
            return
        for item in listed:
            if not item.name.endswith((_ENTRY, _PARTIAL)):
                continue
            try:
                stat = item.stat(follow_symlinks=False)
            except OSError:
                continue  # removed meanwhile
            yield Entry(Path(item.path), stat.st_size, stat.st_mtime, stat.st_atime)

    def path(self, key: str) -> Path:
        """Where an entry lies."""
        return self.folder / f"{key}{_ENTRY}"

    def _read(self, key: str, touch: bool = True) -> "tuple[mmap.mmap, _Parts] | None":
        """An entry's mapped file and what it says; a damaged one is removed."""
        path = self.path(key)
        try:
            with open(path, "rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            parts = _parse(key, data)
        except OSError:
            return None
        except ValueError as error:  # so is what mmap raises for an empty file
            log.info("%s is damaged and is removed: %s", path, error)
            _remove(path)
            return None
        if touch:
            try:
                os.utime(path, (time.time(), path.stat().st_mtime))
            except OSError:
                pass  # a cache that is only read
        return data, parts

    def new_partial(self, key: str, size: int) -> tuple[int, Path]:
        """A new file to become an entry of `size` bytes, open for writing, and its name; raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(size)
        handle, partial = tempfile.mkstemp(_PARTIAL, f"{key[:16]}.", self.folder)  # only its owner may read it
        return handle, Path(partial)

    def _make_room(self, size: int) -> None:
        """Before `size` bytes are written: remove what a killed writer left, and what was not used for longest."""
        with self._lock:
            if size > self._unscanned:
                now, kept = time.time(), []
                for entry in self._files():
                    abandoned = entry.path.suffix == _PARTIAL and now - entry.made > ABANDONED
                    if not (abandoned and _remove(entry.path)):
                        kept.append(entry)
                total = sum(entry.size for entry in kept)
                # Room for more than is needed, so that not every write looks through the folder.
                slack = self.limit // 16
                for entry in sorted(kept, key=lambda entry: entry.used):
                    if total + size + slack <= self.limit:
                        break
                    if entry.path.suffix == _ENTRY and _remove(entry.path):
                        total -= entry.size
                self._unscanned = size + slack
            self._unscanned -= size


class Draft:
    """An entry in the making, under another name.

        with cache.draft(key) as draft:
            artifact = compile(..., draft.room)       its constants may come to lie in the file
            draft.keep(artifact, "vgg16.onnx")
    """

    def __init__(self, cache: Cache, key: str) -> None:
        self._cache, self._key = cache, key
        self._partial: Path | None = None
        self._constants: npt.NDArray[np.uint8] | None = None

    def room(self, size: int) -> npt.NDArray[np.uint8]:
        """Room for an artifact's constants: `size` bytes of the entry's file, or of memory where that fails."""
        if size and self._constants is None and self._wanted(size):
            try:
                self._constants = self._mapped(size)
                return self._constants
            except (OSError, ValueError) as error:  # ValueError: what cannot be mapped
                log.info("constants are kept in memory first: %s", error)
                self.close()
        return aligned_empty(size)

    def keep(self, artifact: Artifact, label: str = "") -> None:
        """Make an artifact the entry, unless it takes more than half of the cache. Its constants change no more."""
        manifest = artifact.manifest
        inputs = ", ".join(map(str, manifest.inputs))
        about = {"model": label or manifest.name, "inputs": inputs, "target": manifest.target}
        self.write({"about": about, "manifest": asdict(manifest)}, artifact.code, artifact.pool, artifact.constants)

    def write(
        self, content: Json, code: bytes = b"", pool: bytes = b"", constants: npt.NDArray[np.uint8] | None = None
    ) -> None:
        """Write what the entry says and make it visible."""
        text = json.dumps(content).encode()
        count = 0 if constants is None else constants.nbytes
        tail = text + code + pool
        header = _HEADER.pack(_MAGIC, _FORMAT, len(text), len(code), len(pool), count)
        start = _start(count)
        size = start + count + len(tail)
        if not self._wanted(size):
            return
        try:
            if self._partial is None or constants is not self._constants:
                self.close()
                handle, self._partial = self._cache.new_partial(self._key, size)
                os.close(handle)
            with open(self._partial, "r+b") as file:
                file.write(header + _checksum(self._key, header + tail))
                file.seek(start)
                if constants is not None:
                    if constants is self._constants:
                        constants.flags.writeable = False
                        file.seek(start + count)
                    else:
                        file.write(constants.data)
                file.write(tail)
            os.replace(self._partial, self._cache.path(self._key))
            self._partial = None
        except OSError as error:
            _warn(f"cannot write to the cache {self._cache.folder}: {error.strerror}; going on without it")

    def close(self) -> None:
        """Remove what was not kept; arrays from `room` stay valid."""
        if self._partial is not None:
            _remove(self._partial)
        self._partial = self._constants = None

    def _wanted(self, size: int) -> bool:
        if size > self._cache.limit // 2:
            log.info("%d bytes are more than half of the cache's bound, not kept", size)
            return False
        if not _unchanged():
            log.info("Tilewright's sources have changed since they were imported; nothing is kept")
            return False
        return True

    def _mapped(self, size: int) -> npt.NDArray[np.uint8]:
        start = _start(size)
        handle, self._partial = self._cache.new_partial(self._key, start + size)
        with open(handle, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, start + size)  # a full disk must not show in the middle of writing
            data = mmap.mmap(file.fileno(), start + size)
            prefer_huge_pages(data)
        return np.frombuffer(data, np.uint8, size, start)


@dataclass(frozen=True)
class _Parts:
    """An entry's parts; its constants are `constants` bytes from `start` on."""

    json: Json
    code: bytes
    pool: bytes
    start: int
    constants: int


def _parse(key: str, data: mmap.mmap) -> _Parts:
    """The parts of an entry; raises ValueError if it is damaged."""
    if len(data) < _start(0):
        raise ValueError("it is cut off")
    header = data[: _HEADER.size]
    magic, format, text, code, pool, constants = _HEADER.unpack(header)
    if (magic, format) != (_MAGIC, _FORMAT):
        raise ValueError("it is of another format")
    start = _start(constants)
    at = start + constants
    if at + text + code + pool != len(data):
        raise ValueError("its size is not what it says")
    tail = data[at:]
    if _checksum(key, header + tail) != data[_HEADER.size : _start(0)]:
        raise ValueError("its checksum differs")
    content, rest = tail[:text], tail[text:]
    return _Parts(json.loads(content), rest[:code], rest[code:], start, constants)


def _start(constants: int) -> int:
    """Where an entry's constants begin, or what follows if there are none."""
    return _PAGE if constants else _HEADER.size + _CHECKSUM


def _checksum(key: str, data: bytes) -> bytes:
    """Over the key too: an entry that was renamed is not taken for another."""
    return blake3(key.encode() + data).digest()


def _decoded(kind: Any, value: Any) -> Any:
    """What `dataclasses.asdict` and JSON made of a value of this type, as it was."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _decoded(hints[name], item) for name, item in value.items()})
    if get_origin(kind) is tuple:
        return tuple(_decoded(get_args(kind)[0], item) for item in value)
    if isinstance(value, dict):  # of a kind | None
        return _decoded(next(choice for choice in get_args(kind) if is_dataclass(choice)), value)
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


@cache
def _warn(message: str) -> None:
    """Log a warning, the same only once."""
    log.warning("%s", message)


# ---- where the cache is


def folder_and_limit() -> tuple[Path, int] | None:
    """Where the user's cache lies and its bound in bytes; None if it is switched off.

    Raises CallError for a bound that is no number.
    """
    named = os.environ.get(FOLDER)
    if named in ("", "0"):
        return None
    text = os.environ.get(BYTES, "").strip() or str(DEFAULT_BYTES)
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise CallError(f"{BYTES}={text} must be a whole number of bytes, below 10^19")
    path = Path(named or user_cache_dir("tilewright")).expanduser()
    if named is None and not path.is_absolute():
        return None  # nobody's home
    return (path.absolute(), int(text)) if int(text) else None


def open_cache() -> Cache | None:
    """The user's cache; None if it is switched off, or unsafe because others may write to its folder."""
    place = folder_and_limit()
    if place is None:
        return None
    folder, limit = place
    try:
        stat = folder.stat()
    except OSError:
        stat = None
    if stat is not None and (stat.st_mode & 0o022 or stat.st_uid not in (0, os.getuid())):
        _warn(f"the cache {folder} can be written to by others and is not used; chmod go-w it, or set {FOLDER}")
        return None
    return _opened(folder, limit)


_opened = cache(Cache)


# ---- this Tilewright


def _stamps() -> Stamps:
    """Name, size and times of change of each of our sources; none if they cannot be looked at."""
    found: list[tuple[str, int, int, int]] = []

    def look(folder: str) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    stat = entry.stat()
                    found.append((entry.path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
                elif entry.name != "__pycache__" and entry.is_dir():
                    look(entry.path)

    try:
        for package in _PACKAGES:
            spec = find_spec(package)
            for folder in (spec.submodule_search_locations or ()) if spec else ():
                look(folder)
    except OSError:
        return ()
    return tuple(sorted(found))


# At import, not at first use: what is edited afterwards is not what this process runs.
_IMPORTED = _stamps()


def _unchanged() -> bool:
    """Whether the sources are still what was imported."""
    return bool(_IMPORTED) and _stamps() == _IMPORTED
