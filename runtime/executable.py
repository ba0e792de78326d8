"""Artifacts loaded into this process: object code through the JIT engine, and the pool that its threads come from.

    executable = Executable(artifact, threads=2)
    executable.run([x], [y])
    pool_address(artifact.pool)          where the pool's table lies, which entry points take

There is one pool a process, made at first use and never freed: its workers sleep in its code when there is
nothing to do, also while the interpreter shuts down. It grows to what a call asks for. In a forked child it
begins afresh.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tilewright.errors import CallError
from tilewright.runtime.addresses import address, fill, table
from tilewright.runtime.artifact import Artifact, Manifest, aligned_empty
from tilewright.runtime.jit import Engine
from tilewright.runtime.model import Array

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32)
"""The entry point. Arguments that have their C types already are passed faster than those that are yet to get them."""

_Frame = tuple[tuple[Any, ...], Array]
"""What one call at a time needs: the entry point's arguments, and the workspace that one of them points to."""


class Executable:
    """An artifact loaded into this process: one combination of input shapes, computed by `threads` threads."""

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        self.manifest = artifact.manifest
        self.constants = artifact.constants
        self._engine = Engine(artifact.code)
        self._entry = _ENTRY(self._engine.address(self.manifest.entry))
        self._batched = None if self.manifest.batch is None else _batched(self.manifest)
        self._pool = pool_address(artifact.pool) if threads > 1 and artifact.pool else None
        self._threads = threads if self._pool else 1
        self._constants = address(artifact.constants)
        self._workspace_bytes = self.manifest.workspace_bytes + (self._threads - 1) * self.manifest.thread_bytes
        self._frames: list[_Frame] = []

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute `outputs` from `inputs`: dense arrays of exactly the manifest's types, of equally many samples."""
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._frame()
        arguments, _ = frame
        fill(arguments[0], inputs)
        fill(arguments[1], outputs)
        if self._batched is not None:
            arguments[-1].value = len(inputs[self._batched])
        code = self._entry(*arguments)
        self._frames.append(frame)
        if code:
            raise CallError(f"the compiled code returned error {code}", model=self.manifest.name)

    def bound(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """`run` with these arrays, again and again, one call at a time."""
        arguments, workspace = self._frame()
        fill(arguments[0], inputs)
        fill(arguments[1], outputs)
        if self._batched is not None:
            arguments[-1].value = len(inputs[self._batched])
        entry, name = self._entry, self.manifest.name
        idle = [(arguments, workspace, inputs, outputs, self)]  # what the arguments point to, and the code

        def call() -> None:
            try:
                frame = idle.pop()
            except IndexError:
                raise CallError("a bound call is still running; bind again for another thread", model=name) from None
            code = entry(*frame[0])
            idle.append(frame)
            if code:
                raise CallError(f"the compiled code returned error {code}", model=name)

        return call

    def _frame(self) -> _Frame:
        workspace, pointer = self._workspace(), ctypes.c_void_p
        arguments = (
            table(len(self.manifest.inputs)), table(len(self.manifest.outputs)), pointer(self._constants),
            pointer(address(workspace)), pointer(self._pool), ctypes.c_int32(self._threads),
        )  # fmt: skip
        return (arguments if self._batched is None else (*arguments, ctypes.c_int64())), workspace

    def _workspace(self) -> Array:
        return aligned_empty(self._workspace_bytes)

    def address(self, symbol: str) -> int:
        """Where a function of the code lies: the entry point, or a kernel of the manifest."""
        return self._engine.address(symbol)


def _batched(manifest: Manifest) -> int:
    """The first input that has samples."""
    return next(index for index, spec in enumerate(manifest.inputs) if any(isinstance(dim, str) for dim in spec.shape))


@cache
def pool_address(code: bytes) -> int:
    """The address of the table of the pool whose object code this is, loaded the first time."""
    libc = ctypes.CDLL(None)
    imports = {}
    for name in ("pthread_create", "syscall"):
        imports[name] = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0
    engine = Engine(code, imports)
    address = engine.address("tw_pool")
    engine.keep()
    return address
