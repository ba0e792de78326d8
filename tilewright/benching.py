"""What `tilewright bench` measures: calls beside those of other engines, and kernels beside the machine's peak.

    race({"tilewright": takes(ours), "onnxruntime": peer.take}, rounds=50)  ->  {"tilewright": Times(..), ..}
    beside = yardstick()
    layers(profile(executable, inputs, 5, beside.call), machine_peak(), beside.flops)  ->  [Layer("conv1_1", ..), ..]
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.engines import timed
from tilewright.errors import CallError
from tilewright.peak import Peak, machine_peak, yardstick
from tilewright.peers import Peer, open_peer, prepare
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import Array, Model, empty
from tilewright.runtime.profile import KernelTime, profile

OURS = "tilewright"
MOST_APART = 1e-2
"""The largest difference, as a share of the largest output, between engines that compute the same."""
LEAST_ROUNDS = 5
TURN_MS = 20.0
"""Calls that take less are made several times in a turn."""
LONG_MS = 100.0
"""Calls that take longer start each turn without one that does not count."""
PARTIAL = ("borders",)
"""Templates that touch only a part of their buffers, so that the buffers' sizes say little."""


@dataclass(frozen=True)
class Times:
    """Times of single calls, `calls` of them, in milliseconds; `spread` is half the distance between the quartiles."""

    rounds: int
    calls: int
    min: float
    median: float
    spread: float


@dataclass(frozen=True)
class Layer:
    """One kernel call: `ms` is its median time on one thread, `share` its part of all kernels' time.

    `gflops` is None where operations are not counted; those of a convolution count as for the direct method, so
    Winograd's can pass the peak. `peak` is how many GFLOP/s of multiply-adds the core reached right before and after
    the call: others may share it. `limit` is the fraction reached of what the machine allows (a roofline), which is
    set by `bound`: "compute", or "memory" where moving `bytes` takes longer than the operations `performed` at `peak`,
    which with Winograd are fewer than `flops`. Data that come from the caches can pass the memory's limit. None where
    bytes are not known. `live_bytes` of the workspace hold something during the call.
    """

    layer: str
    template: str
    shape: tuple[int, ...]
    ms: float
    min_ms: float
    share: float
    flops: int
    performed: int
    bytes: int
    live_bytes: int
    gflops: float | None
    peak: float
    bound: str | None
    limit: float | None


Take = Callable[[int, int], list[float]]
"""Makes some calls that do not count and some that do: milliseconds of each of these."""


def takes(call: Callable[[], object]) -> Take:
    """A function of this process as a contender."""
    return partial(timed, call)


def race(
    contenders: Mapping[str, Take], rounds: int = 0, seconds: float = 3.0, least: int = LEAST_ROUNDS
) -> dict[str, Times]:
    """Time the contenders in turn, once a round: `rounds` of them, or for 0 as many as fit into `seconds`.

    These are no fewer than `least`.

    A turn is a call, or TURN_MS of them. Each contender makes a call or two before all that.
    """
    turns = {name: _turn(take) for name, take in contenders.items()}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    began, done = time.perf_counter(), 0
    while done < rounds if rounds else done < least or time.perf_counter() - began < seconds:
        for name, take in contenders.items():
            taken[name] += take(*turns[name])
        done += 1
    return {name: _summary(done, times) for name, times in taken.items()}


@contextmanager
def one_core(threads: int) -> Iterator[None]:
    """With one thread, keep this thread and the processes that it starts on one and the same processor core.

    Cores differ in speed: by design, or because a virtual machine's neighbours use theirs.
    """
    if threads != 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _turn(take: Take) -> tuple[int, int]:
    """How many calls do not count and how many do."""
    (ms,) = take(0, 1)
    if ms > LONG_MS:
        return 0, 1
    (ms,) = take(1, 1)
    return 1, max(1, int(TURN_MS / max(ms, 1e-3)))


def _summary(rounds: int, times: list[float]) -> Times:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return Times(rounds, len(times), min(times), median, (high - low) / 2)


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


def layers(times: Sequence[KernelTime], best: Peak, flops_beside: int) -> list[Layer]:
    """The kernel calls in order; the call timed beside them did `flops_beside` operations. Bandwidth is `best`'s."""
    total = sum(entry.median for entry in times)
    found = []
    for entry in times:
        kernel = entry.kernel
        flops = kernel.flops
        performed = kernel.performed or flops
        known = kernel.template not in PARTIAL
        peak = Peak(flops_beside / entry.beside, best.bandwidth)
        bound = "memory" if peak.memory_bound(performed, kernel.bytes) else "compute"
        found.append(
            Layer(
                kernel.source, kernel.template, kernel.shape, entry.median * 1e3, entry.least * 1e3,
                entry.median / total, flops, performed, kernel.bytes, kernel.live,
                flops / entry.median / 1e9 if flops else None, peak.flops / 1e9,
                bound if known else None, peak.seconds(performed, kernel.bytes) / entry.median if known else None,
            )
        )  # fmt: skip
    return found


def measure(
    path: str | os.PathLike[str],
    compiled: Model,
    inputs: Mapping[str, Array],
    rivals: Sequence[str],
    folder: Path,
    rounds: int = 0,
    seconds: float = 3.0,
    least: int = LEAST_ROUNDS,
    tell: Callable[[str], object] = lambda what: None,
) -> dict[str, Any]:
    """What `--json` says of a compiled ONNX file on these arrays, beside rivals (see `tilewright.peers`).

    `folder` takes what the rivals need, and may serve another time for the same model and shapes. A rival that does not
    run the model, or computes something else, is listed with an "error". `tell` hears what is being done. Raises
    CallError if no rival runs it.
    """
    executable = compiled.executable(tuple(array.shape for array in inputs.values()))
    assert isinstance(executable, Executable)  # what compile() makes
    manifest = executable.manifest
    results = [empty(spec) for spec in manifest.outputs]
    ours = compiled.bind(*inputs.values(), out=results)
    ours()
    contenders: dict[str, Take] = {OURS: takes(ours)}
    peers: list[dict[str, Any]] = []
    with ExitStack() as running:
        running.enter_context(one_core(compiled.threads))
        task = prepare(path, inputs, compiled.threads, folder) if rivals else None
        for name in rivals:
            assert task is not None
            tell(f"loading {path} into {name}")
            try:
                peer = running.enter_context(open_peer(name, task))
                peers.append(_entry(peer, results))
                contenders[name] = peer.take
            except CallError as error:
                peers.append({"name": name, "error": error.message})
        if rivals and len(contenders) == 1:
            raise CallError("; ".join(peer["error"] for peer in peers))
        tell(f"running {path}")
        times = race(contenders, rounds, seconds, least)
    mine = times[OURS]
    few = max(3, min(50, int(1e3 / mine.median)))
    with one_core(1):
        peak, beside = machine_peak(), yardstick()
        found = layers(profile(executable, list(inputs.values()), few, beside.call), peak, beside.flops)
    for entry in peers:
        if entry["name"] in times:
            theirs = times[entry["name"]]
            entry |= {**asdict(theirs), "ratio": theirs.median / mine.median}
    return {
        "model": os.fspath(path),
        "inputs": {name: array.shape for name, array in inputs.items()},
        "threads": compiled.threads,
        "workspace_bytes": manifest.workspace_bytes,
        "workspace_bound": manifest.workspace_bound,
        "kernels": len(manifest.kernels),
        **asdict(mine),
        "gflops": sum(layer.flops for layer in found) / mine.median / 1e6,
        "peers": peers,
        "peak": {"gflops": peak.flops / 1e9, "gbytes_per_second": peak.bandwidth / 1e9},
        "layers": [asdict(layer) for layer in found],
    }


def _entry(peer: Peer, ours: Sequence[Array]) -> dict[str, Any]:
    """What is known of a peer before it is timed. Raises CallError if it computes something else."""
    apart = difference(peer.name, peer.outputs, ours)
    if not apart <= MOST_APART:
        raise CallError(f"{peer.name} computes something else: a difference of {apart:.1e} of its largest output")
    return {
        "name": peer.name, "version": peer.version, "note": peer.note, "difference": apart, "load_ms": peer.load_ms,
        "first_ms": peer.first_ms, "peak_bytes": peer.peak_bytes,
    }  # fmt: skip
