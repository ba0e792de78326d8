"""Writes files so that they are there whole or not at all.

    with new_file(path) as file:
        file.write(...)            a file of another name beside `path`
                                   flushed to disk and renamed when the block ends well, removed otherwise
"""

import glob
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tilewright.errors import OutputError

CHUNK = 1 << 24
"""Bytes that are written at once: so often can an interrupt come through."""
ABANDONED = 3600.0
"""Seconds after which an unfinished file is taken for that of a killed process."""


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path`; raises OutputError if it cannot be written."""
    with new_name(path) as name, open(name, "r+b") as file:
        yield file


@contextmanager
def new_name(path: Path, partial: Path | None = None) -> Iterator[Path]:
    """The name of a file in the same folder, for a program to write; it becomes `path`. Empty unless it was begun."""
    try:
        partial = partial or new_partial(path)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~_umask())
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder")
        os.replace(partial, path)
        partial = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def new_partial(path: Path) -> Path:
    """An empty file in the same folder, of a name that no other has; raises OSError.

    What killed processes left of earlier ones is removed.
    """
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED and old.is_file():
                old.unlink()
    handle, name = tempfile.mkstemp(".partial", f".{path.name}.", path.parent)
    os.close(handle)
    return Path(name)


def write_all(file: BinaryIO, data: memoryview | bytes) -> None:
    """Write bytes, however many, a piece at a time."""
    view = memoryview(data).cast("B")
    for at in range(0, len(view), CHUNK):
        file.write(view[at : at + CHUNK])


def _umask() -> int:
    # Only setting it tells what it was. Python's own open() would have applied it.
    value = os.umask(0o022)
    os.umask(value)
    return value
