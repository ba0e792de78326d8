"""How many threads a model uses.

    count(0)                     4: TILEWRIGHT_NUM_THREADS, or the cores that this process may use
    count(3)                     3
"""

import os
from pathlib import Path

from tilewright.errors import CallError

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
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= MOST):
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


def _read(path: Path) -> str:
    """A file's text, or "" if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
