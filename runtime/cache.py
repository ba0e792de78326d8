"""Artifacts on disk, so that a model compiles once a machine and not once a process.

    cache = open_cache()                   the user's cache, or None where there is none
    key = cache.key("artifact", digest, options, ...)
    cache.put(key, artifact, "vgg16.onnx")
    cache.get(key)                         the artifact, its constants mapped; None if it is not there

An entry is one file, named after its key:

    magic, format, lengths, checksum | JSON | object code | pool code | padding | constants, page-aligned

The JSON is the manifest; nothing is unpickled. The checksum is over all but the constants, which may be gigabytes:
of them only the size is checked. Files with other contents, such as what a model's file hashed to, hold JSON
only. An entry that is damaged counts as missing and is removed.

A file is written under another name and then renamed, so that readers and concurrent writers meet whole entries
only; what a killed writer leaves is removed later. Entries hold code that will run: a folder that others may write
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
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import llvmlite
import numpy as np
from blake3 import blake3
from platformdirs import user_cache_dir

from tilewright.errors import CallError
from tilewright.runtime.artifact import Artifact, Manifest, aligned_empty

log = logging.getLogger(__name__)

FOLDER, BYTES = "TILEWRIGHT_CACHE_DIR", "TILEWRIGHT_CACHE_BYTES"
DEFAULT_BYTES = 4 << 30
ABANDONED = 3600.0
"""Seconds after which an unfinished file is taken for that of a killed writer."""

_MAGIC, _FORMAT = b"TILEWRT\0", 1
# Magic, format, lengths of JSON, code, pool code and constants; a BLAKE3 checksum follows.
_HEADER = struct.Struct("<8s5Q")
_CHECKSUM = 32
_PAGE = 4096
_ENTRY, _PARTIAL = ".tw", ".partial"
_PACKAGES = ("tilewright", "tilewright.compiler", "tilewright.frontends", "tilewright.runtime")

Json = dict[str, Any]
Stamps = tuple[tuple[str, int, int], ...]


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
        """The name of an entry: a hash of `parts`, this Tilewright's sources, and the libraries that count."""
        everything = [_FORMAT, _sources()[1], llvmlite.__version__, np.__version__, *map(str, parts)]
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
            data.madvise(mmap.MADV_WILLNEED)
        else:
            constants = aligned_empty(0)
        return Artifact(parts.code, constants, _decoded(Manifest, parts.json["manifest"]), parts.pool)

    def put(self, key: str, artifact: Artifact, label: str = "") -> None:
        """Keep an artifact, unless it takes more than half of the cache."""
        manifest = artifact.manifest
        inputs = ", ".join(map(str, manifest.inputs))
        about = {"model": label or manifest.name, "inputs": inputs, "target": manifest.target}
        content = {"about": about, "manifest": asdict(manifest)}
        self._write(key, content, artifact.code, artifact.pool, artifact.constants.data)

    def note(self, key: str) -> Json | None:
        """What `put_note` kept; None if there is nothing."""
        found = self._read(key)
        return None if found is None else found[1].json

    def put_note(self, key: str, content: Json) -> None:
        """Keep a little JSON."""
        self._write(key, content)

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

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_ENTRY}"

    def _read(self, key: str, touch: bool = True) -> "tuple[mmap.mmap, _Parts] | None":
        """An entry's mapped file and what it says; a damaged one is removed."""
        path = self._path(key)
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

    def _write(
        self, key: str, content: Json, code: bytes = b"", pool: bytes = b"", constants: memoryview | None = None
    ) -> None:
        text = json.dumps(content).encode()
        count = 0 if constants is None else constants.nbytes
        header = _HEADER.pack(_MAGIC, _FORMAT, len(text), len(code), len(pool), count)
        small = [header, _checksum(key, header + text + code + pool), text, code, pool]
        start = sum(map(len, small))
        padding = -start % _PAGE if count else 0
        size = start + padding + count
        if size > self.limit // 2:
            log.info("%d bytes are more than half of the cache's bound, not kept", size)
            return
        if not _unchanged():
            log.info("Tilewright's sources have changed since they were imported; nothing is kept")
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(size)
            handle, partial = tempfile.mkstemp(_PARTIAL, f"{key[:16]}.", self.folder)  # only its owner may read it
            try:
                with open(handle, "wb") as file:
                    file.writelines([*small, bytes(padding)])
                    if constants is not None:
                        file.write(constants)
                os.replace(partial, self._path(key))
            except BaseException:
                _remove(Path(partial))
                raise
        except OSError as error:
            _warn(f"cannot write to the cache {self.folder}: {error.strerror}; going on without it")

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
    start = _HEADER.size + _CHECKSUM
    if len(data) < start:
        raise ValueError("it is cut off")
    header = data[: _HEADER.size]
    magic, format, *lengths, constants = _HEADER.unpack(header)
    if (magic, format) != (_MAGIC, _FORMAT):
        raise ValueError("it is of another format")
    end = start + sum(lengths)
    padding = -end % _PAGE if constants else 0
    if end + padding + constants != len(data):
        raise ValueError("its size is not what it says")
    if _checksum(key, header + data[start:end]) != data[_HEADER.size : start]:
        raise ValueError("its checksum differs")
    text, code, _ = lengths
    split = start + text, start + text + code
    return _Parts(
        json.loads(data[start : split[0]]), data[split[0] : split[1]], data[split[1] : end], end + padding, constants
    )


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
    if not (text.isascii() and text.isdecimal()):
        raise CallError(f"{BYTES}={text} must be a whole number of bytes")
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
    """Name, size and time of change of each of our sources."""
    found = []
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                stat = path.stat()
                found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _hashed() -> tuple[Stamps, str]:
    try:
        stamps = _stamps()
        hasher = blake3()
        for path, size, _ in stamps:
            hasher.update(f"{Path(path).name} {size}\n".encode())
            hasher.update(Path(path).read_bytes())
        return stamps, hasher.hexdigest()
    except OSError:
        return (), ""


# At import, not at first use: what is edited afterwards is not what this process runs.
_IMPORTED = _hashed()


def _sources() -> tuple[Stamps, str]:
    return _IMPORTED


def _unchanged() -> bool:
    """Whether the sources are still what was imported."""
    try:
        return bool(_IMPORTED[0]) and _stamps() == _IMPORTED[0]
    except OSError:
        return False
