"""What `tilewright bench` measures: calls beside those of other engines, and kernels beside the machine's peak.

    race({"tilewright": ours, "onnxruntime": theirs}, rounds=50)  ->  {"tilewright": Times(..), ..}
    layers(profile(executable, inputs, 5), machine_peak())         ->  [Layer("conv1_1", "conv_planar", ..), ..]
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.errors import CallError
from tilewright.peak import Peak
from tilewright.runtime.model import Array
from tilewright.runtime.profile import KernelTime

LEAST_ROUNDS = 5
PARTIAL = ("borders",)
"""Templates that touch only a part of their buffers, so that the buffers' sizes say little."""


@dataclass(frozen=True)
class Times:
    """Times of single calls in milliseconds; `spread` is half the distance between the quartiles."""

    rounds: int
    min: float
    median: float
    spread: float


@dataclass(frozen=True)
class Layer:
    """One kernel call: `ms` is its median time on one thread, `share` its part of all kernels' time.

    `gflops` is None where operations are not counted; those of a convolution count as for the direct method, so
    Winograd's can pass the peak. `limit` is the fraction reached of what the machine allows (a roofline), which is
    set by `bound`: "compute", or "memory" where moving `bytes` takes longer than `flops` operations. Data that
    come from the caches can pass the memory's limit. None where bytes are not known. `live_bytes` of the workspace hold
    something during the call.
    """

    layer: str
    template: str
    shape: tuple[int, ...]
    ms: float
    min_ms: float
    share: float
    flops: int
    bytes: int
    live_bytes: int
    gflops: float | None
    bound: str | None
    limit: float | None


def race(contenders: Mapping[str, Callable[[], object]], rounds: int = 0, seconds: float = 3.0) -> dict[str, Times]:
    """Time the contenders in turn, once a round: `rounds` of them, or for 0 as many as fit into `seconds`.

    Each runs once before that.
    """
    for call in contenders.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    began, done = time.perf_counter(), 0
    while done < rounds if rounds else done < LEAST_ROUNDS or time.perf_counter() - began < seconds:
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            taken[name].append((time.perf_counter() - started) * 1e3)
        done += 1
    return {name: _summary(times) for name, times in taken.items()}


def _summary(times: list[float]) -> Times:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return Times(len(times), min(times), median, (high - low) / 2)


def difference(name: str, theirs: Sequence[Array], ours: Sequence[Array]) -> float:
    """The largest difference between outputs, each relative to the largest magnitude of theirs.

    NaN and infinities agree with themselves only; where they do not agree the difference is infinite. Raises
    CallError if shapes differ.
    """
    worst = 0.0
    if [a.shape for a in theirs] != [a.shape for a in ours]:
        raise CallError(f"{name} gives outputs of other shapes: {[a.shape for a in theirs]}")
    for their, our in zip(theirs, ours, strict=True):
        a, b = np.asarray(their, np.float64), np.asarray(our, np.float64)
        differs = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        if not differs.any():
            continue
        if not (np.isfinite(a[differs]).all() and np.isfinite(b[differs]).all()):
            return float("inf")
        finite = np.abs(a[np.isfinite(a)])
        worst = max(worst, float(np.abs(a[differs] - b[differs]).max() / max(finite.max(), 1e-30)))
    return worst


def layers(times: Sequence[KernelTime], peak: Peak) -> list[Layer]:
    """The kernel calls in order."""
    total = sum(entry.median for entry in times)
    found = []
    for entry in times:
        kernel = entry.kernel
        flops = kernel.flops
        known = kernel.template not in PARTIAL
        bound = "memory" if peak.memory_bound(flops, kernel.bytes) else "compute"
        found.append(
            Layer(
                kernel.source, kernel.template, kernel.shape, entry.median * 1e3, entry.least * 1e3,
                entry.median / total, flops, kernel.bytes, kernel.live, flops / entry.median / 1e9 if flops else None,
                bound if known else None, peak.seconds(flops, kernel.bytes) / entry.median if known else None,
            )
        )  # fmt: skip
    return found
