"""What the compiler hands to the runtime: object code, constants, and a manifest that says how to call it.

    Artifact(code=<ELF bytes>, constants=<uint8 array>, manifest=Manifest(entry="tw_run", inputs=..., ...))

The entry point is

    int32 tw_run(void **inputs, void **outputs, void *constants, void *workspace, void *pool, int32 threads)

Inputs and outputs are dense row-major arrays in the order of the manifest, the constants and the workspace
64-byte aligned. `pool` is the address of the pool's `tw_pool`, or null: then, or with `threads` below 2, all work
is done in the caller. It keeps no state: calls with different workspaces may run at the same time.

With a symbolic leading dimension (`Manifest.batch`) there is one parameter more, the number of samples, from 0:

    int32 tw_run(void **inputs, void **outputs, void *constants, void *workspace, void *pool, int32 threads, int64 n)
"""

import mmap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64
"""Bytes that the constants and the workspace are aligned to."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: `dtype` is NumPy's name for it, `shape` its dimensions, by name where unknown."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True)
class BufferSpec:
    """An argument of a kernel: `offset` bytes into input or output `index`, the constants or the workspace."""

    space: Literal["inputs", "outputs", "constants", "workspace"]
    offset: int
    index: int
    bytes: int


@dataclass(frozen=True)
class KernelSpec:
    """One kernel call of the program: for the node `source`, by `template`; its result has this `shape`.

    The code has a function void symbol(void *buffers.., int64 begin, int64 end), to be called for the items from 0 to
    `items`. `flops` counts a multiply-add as two, and is 0 where nobody counted; `performed` is how many of them the
    method carries out, where it saves some, else 0; of a loop nest, whose `flops` are 0, it is about the operations on
    its elements. `bytes` is the size of the tensors
    read and written, each once; a buffer of scratch, which is the last, does not count. `live` is how many
    bytes of the workspace hold something during the call.
    """

    symbol: str
    source: str
    template: str
    flops: int
    items: int
    shape: tuple[int, ...]
    bytes: int
    buffers: tuple[BufferSpec, ...]
    live: int = 0
    performed: int = 0


@dataclass(frozen=True)
class Batch:
    """A leading dimension that is given at a call, `symbol` in the shapes of the manifest.

    The entry point takes its value as a further argument. Inputs without it are the same for all samples; all outputs
    have it. `tile` samples are computed together, and the workspace does not depend on how many there are.
    """

    symbol: str
    tile: int


@dataclass(frozen=True)
class Manifest:
    """How to call an artifact and what is in it.

    Sizes in bytes: the workspace for one thread; `workspace_bound` the most of it alive at once; `thread_bytes`
    what the workspace needs more for each further thread. With a `batch`, `kernels` are those for one tile.
    """

    name: str
    entry: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    workspace_bytes: int
    workspace_bound: int
    thread_bytes: int
    kernels: tuple[KernelSpec, ...]
    target: str
    version: str
    batch: Batch | None = None


@dataclass(frozen=True, eq=False)
class Artifact:
    """Everything needed to run a compiled model; it pickles.

    `pool` is the object code of the thread pool, the same in all artifacts for an architecture; empty where
    no kernel call is worth sharing.
    """

    code: bytes
    constants: npt.NDArray[Any]
    manifest: Manifest
    pool: bytes = b""


Room = Callable[[int], npt.NDArray[np.uint8]]
"""Makes room for so many bytes of constants, which starts at a multiple of 64; `aligned_empty` is one."""


def aligned_empty(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes that start at a multiple of 64."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def prefer_huge_pages(data: mmap.mmap) -> None:
    """Ask the system to keep a mapped file in pages of megabytes: addresses of many weights are then found sooner."""
    with suppress(OSError):  # a system that has none
        data.madvise(mmap.MADV_HUGEPAGE)
