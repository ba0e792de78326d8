"""Times the kernels of a compiled model one by one.

    profile(executable, [x], rounds=5)  ->  (KernelTime(KernelSpec("conv_direct_0", ..), least=.., median=..), ..)

Each round calls the kernels in the order of a normal run on one thread, each on the buffers and all the items that
it has there, so data and caches are as in a normal run. A time includes the call from Python, about a microsecond.
"""

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.runtime.artifact import KernelSpec, aligned_empty
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import Array, empty, sized


@dataclass(frozen=True)
class KernelTime:
    """How long one kernel call takes, in seconds."""

    kernel: KernelSpec
    least: float
    median: float


def profile(executable: Executable, inputs: Sequence[Array], rounds: int) -> tuple[KernelTime, ...]:
    """Time every kernel call `rounds` times, at least once, after a round that does not count.

    `inputs` are dense arrays of exactly the manifest's types. With a symbolic leading dimension, its kernels are those
    for one tile: samples are repeated to make one.
    """
    manifest = executable.manifest
    tile = 1 if manifest.batch is None else manifest.batch.tile
    if manifest.batch is not None:
        specs = [sized(spec, tile) for spec in manifest.inputs]
        inputs = [np.resize(a, empty(spec).shape) for a, spec in zip(inputs, specs, strict=True)]
    outputs = [empty(sized(spec, tile)) for spec in manifest.outputs]
    workspace = aligned_empty(manifest.workspace_bytes)
    starts: dict[str, list[int]] = {
        "inputs": [array.ctypes.data for array in inputs],
        "outputs": [array.ctypes.data for array in outputs],
        "constants": [executable.constants.ctypes.data],
        "workspace": [workspace.ctypes.data],
    }
    calls = [_call(executable, kernel, starts) for kernel in manifest.kernels]
    taken: list[list[int]] = [[] for _ in calls]
    for _ in range(max(rounds, 1) + 1):
        for times, call in zip(taken, calls, strict=True):
            begin = time.perf_counter_ns()
            call()
            times.append(time.perf_counter_ns() - begin)
    return tuple(
        KernelTime(kernel, min(times[1:]) / 1e9, statistics.median(times[1:]) / 1e9)
        for kernel, times in zip(manifest.kernels, taken, strict=True)
    )


def _call(executable: Executable, kernel: KernelSpec, starts: dict[str, list[int]]) -> Callable[[], None]:
    """One kernel call with all its arguments."""
    addresses = [starts[at.space][at.index] + at.offset for at in kernel.buffers]
    kinds = [ctypes.c_void_p] * len(addresses) + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(None, *kinds)(executable.address(kernel.symbol))
    arguments = [kind(value) for kind, value in zip(kinds, [*addresses, 0, kernel.items], strict=True)]

    def call() -> None:
        function(*arguments)

    return call
