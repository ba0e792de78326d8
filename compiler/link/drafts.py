"""Shared objects whose weights are computed right into their place in the file, before there is any code.

    with drafted(path, triple, tools) as draft:
        library = build_library(..., room=draft.room)
        write_shared(library, path, tools, draft)

Otherwise they would be computed into memory and then copied, half a gigabyte of both for a VGG-16. Only the built-in
linker can do so, and it is the one for many weights; whatever else is to become of them finds them in the draft.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tilewright.compiler.link import builtin
from tilewright.compiler.link.files import new_partial
from tilewright.compiler.link.linkers import BUILTIN, Tools
from tilewright.compiler.link.objects import Weights
from tilewright.runtime.artifact import aligned_empty, prefer_huge_pages

LARGE = 64 << 20
"""Bytes of weights from which they are not sent through another linker unless it was asked for."""


class Draft:
    """A file in the making beside `path`, with `weights` from `offset` on; there is none before they need room."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path, self.offset = path, offset
        self.partial: Path | None = None
        self.weights: Weights | None = None

    def room(self, size: int) -> Weights:
        """Room for weights: `size` bytes of the file, or of memory if they are few or the file cannot be mapped."""
        if size >= LARGE and self.offset and self.weights is None:
            try:
                self.weights = self._mapped(size)
                return self.weights
            except (OSError, ValueError):  # what is wrong with the disk, writing the file will say
                self.close()
        return aligned_empty(size)

    def take(self, weights: Weights) -> Path | None:
        """The file if these weights lie in it; from now on it is the caller's to finish or remove."""
        if weights is not self.weights:
            return None
        partial, self.partial = self.partial, None
        return partial

    def close(self) -> None:
        """Remove the file if it was not finished; arrays from `room` stay valid."""
        if self.partial is not None:
            self.partial.unlink(missing_ok=True)
            self.partial = None

    def _mapped(self, size: int) -> Weights:
        self.partial = new_partial(self.path)
        with open(self.partial, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, self.offset + size)  # a full disk must not show when they are stored
            data = mmap.mmap(file.fileno(), self.offset + size)
            prefer_huge_pages(data)
        return np.frombuffer(data, np.uint8, size, self.offset)


@contextmanager
def drafted(path: Path, triple: str, tools: Tools, memory: bool = False) -> Iterator[Draft]:
    """A draft of the shared object `path`; with `memory`, or where another linker was asked for, without a file."""
    other = memory or tools.cc or tools.linker not in (None, BUILTIN) or "linux" not in triple
    draft = Draft(path, 0 if other else builtin.weights_offset(triple.partition("-")[0]))
    try:
        yield draft
    finally:
        draft.close()
