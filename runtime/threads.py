"""How many threads a model uses, and the pool they come from.

    count(0)                     4: TILEWRIGHT_NUM_THREADS, or the cores that this process may use
    count(3)                     3
    pool_address(artifact.pool)  where the pool's table lies, which entry points take

There is one pool a process, made at first use and never freed: its workers sleep in its code when there is
nothing to do, also while the interpreter shuts down. It grows to what a call asks for. In a forked child it
begins afresh.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

from tilewright.errors import CallError
from tilewright.runtime.jit import Engine

VARIABLE = "TILEWRIGHT_NUM_THREADS"
MOST = 1024
"""Threads a model may ask for."""

_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")


def count(threads: int) -> int:
    """The number of threads that `threads=` means: itself, or for 0 what the environment or the machine says.

    Raises CallError if it, or TILEWRIGHT_NUM_THREADS, is no sensible number.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MOST:
        raise CallError(f"threads={threads!r} must be a whole number from 1 to {MOST}, or 0 for all cores")
    if threads:
        return threads
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return min(cores(), MOST)
    if not (text.isascii() and text.isdecimal() and int(text) <= MOST):
        raise CallError(f"{VARIABLE}={text} must be a whole number from 1 to {MOST}, or 0 for all cores")
    return int(text) or min(cores(), MOST)


def cores() -> int:
    """The processor cores that this process may use, as its affinity and its control group's quota allow.

    Two hardware threads of one core count once: they share its arithmetic units, which one thread keeps busy.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    physical = {_read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    quota = cpu_quota()
    return max(len(physical) if quota is None else min(len(physical), quota), 1)


def cpu_quota(proc: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> int | None:
    """How many processors' time the control group (version 2 or 1) grants, rounded up; None if unlimited."""
    quotas = []
    for line in _read(proc).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if controllers:
                limit = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
            else:
                limit = _read(folder / "cpu.max").split()
            if len(limit) == 2 and all(text.isdecimal() and int(text) for text in limit):
                quotas.append(-(-int(limit[0]) // int(limit[1])))
            if folder == base:
                break
    return min(quotas, default=None)


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


def _read(path: Path) -> str:
    """A file's text, or "" if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
