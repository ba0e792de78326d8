"""Times the kernels of a compiled model one by one.

    profile(executable, [x], rounds=5, beside)  ->  (KernelTime(KernelSpec("conv_direct_0", ..), least=.., ..), ..)

Each round calls the kernels in the order of a normal run on one thread, each on the buffers and all the items that
it has there, so data and caches are as in a normal run. A time includes the call from Python, about a microsecond.
Between kernels a call that touches no memory can tell how fast the core is just then: others may share it.
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
    """How long one kernel call takes, in seconds.

    `beside` is the median time of the call that was timed right before and right after it, 0 where there was none.
    """

    kernel: KernelSpec
    least: float
    median: float
    beside: float = 0.0


def profile(
    executable: Executable, inputs: Sequence[Array], rounds: int, beside: Callable[[], object] | None = None
) -> tuple[KernelTime, ...]:
    """Time every kernel call `rounds` times, at least once, after a round that does not count; `beside` between them.

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
    around: list[list[float]] = [[] for _ in calls]
    for _ in range(max(rounds, 1) + 1):
        before = _nanoseconds(beside) if beside else 0
        for times, paces, call in zip(taken, around, calls, strict=True):
            times.append(_nanoseconds(call))
            after = _nanoseconds(beside) if beside else 0
            paces.append((before + after) / 2)
            before = after
    return tuple(
        KernelTime(kernel, min(times[1:]) / 1e9, *(statistics.median(of[1:]) / 1e9 for of in (times, paces)))
        for kernel, times, paces in zip(manifest.kernels, taken, around, strict=True)
    )


def _nanoseconds(call: Callable[[], object]) -> int:
    begin = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begin


def _call(executable: Executable, kernel: KernelSpec, starts: dict[str, list[int]]) -> Callable[[], None]:
    """One kernel call with all its arguments."""
    addresses = [starts[at.space][at.index] + at.offset for at in kernel.buffers]
    kinds = [ctypes.c_void_p] * len(addresses) + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(None, *kinds)(executable.address(kernel.symbol))
    arguments = [kind(value) for kind, value in zip(kinds, [*addresses, 0, kernel.items], strict=True)]

    def call() -> None:
        function(*arguments)

    return call
