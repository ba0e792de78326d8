"""The machines code is made for, one row each.

    Target("x86-64-v4", triple, cpu, features, vector_bits=512, registers=32, l1=32 KiB, l2=1 MiB)

Kernels take vector width, register count and cache sizes from here and name none of them themselves.
"""

import os
from dataclasses import dataclass, replace
from functools import cache

import llvmlite.binding as llvm

from tilewright.errors import UnsupportedError


@dataclass(frozen=True)
class Target:
    """A machine: LLVM's names for it, and what tile shapes are derived from. Cache sizes in bytes, per core."""

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    l1: int = 32 << 10
    l2: int = 1 << 20

    def lanes(self, bits: int) -> int:
        """How many elements of `bits` bits one vector register holds; at least 1."""
        return max(self.vector_bits // bits, 1)

    def __str__(self) -> str:
        return self.name


_LINUX = "x86_64-unknown-linux-gnu"
_ROWS = (
    Target("x86-64-v3", _LINUX, "x86-64-v3", "", 256, 16),
    Target("x86-64-v4", _LINUX, "x86-64-v4", "", 512, 32),
    Target("aarch64", "aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32),
)


@cache
def initialise_llvm() -> None:
    """Make every code generator of this LLVM available; once a process."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def host() -> Target:
    """The machine this process runs on."""
    initialise_llvm()
    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features()
    has = {name for name, present in features.items() if present}
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= has:
        bits, registers = 512, 32
    elif {"avx2", "fma"} <= has:
        bits, registers = 256, 16
    elif triple.startswith("aarch64"):
        bits, registers = 128, 32
    else:
        raise UnsupportedError("this processor lacks AVX2 or FMA, which Tilewright's code needs on x86")
    l1, l2 = (_cache_bytes(level, default) for level, default in ((1, 32 << 10), (2, 1 << 20)))
    return Target("host", triple, llvm.get_host_cpu_name(), features.flatten(), bits, registers, l1, l2)


def by_name(name: str) -> Target:
    """The row called `name`, or the machine this process runs on for "host"."""
    if name == "host":
        return host()
    rows = {row.name: row for row in _ROWS}
    if name not in rows:
        raise UnsupportedError(f"no target is called '{name}'; there are host, {', '.join(rows)}")
    initialise_llvm()
    return rows[name]


def runnable(name: str) -> Target:
    """The target called `name`; raises UnsupportedError if this process cannot run code for it."""
    target, here = by_name(name), host()
    if target.triple.split("-")[0] != here.triple.split("-")[0] or target.vector_bits > here.vector_bits:
        raise UnsupportedError(
            f"this machine cannot run code for {target}: it is {here.triple} with vectors of {here.vector_bits} bits, "
            f"and {target} is {target.triple} with vectors of {target.vector_bits}; use target='host'"
        )
    return target


def narrowed(target: Target, vector_bits: int) -> Target:
    """The same machine with narrower vectors, which tests compare kernels at."""
    return replace(target, name=f"{target.name}/{vector_bits}", vector_bits=vector_bits)


def _cache_bytes(level: int, default: int) -> int:
    """The size of the data cache of `level`, from Linux's sysfs; `default` elsewhere."""
    root = "/sys/devices/system/cpu/cpu0/cache"
    try:
        for entry in sorted(os.listdir(root)):
            if not entry.startswith("index"):
                continue
            read = {name: _read(f"{root}/{entry}/{name}") for name in ("level", "type", "size")}
            if read["level"] == str(level) and read["type"] in ("Data", "Unified"):
                scale = {"K": 1 << 10, "M": 1 << 20}.get(read["size"][-1:], 1)
                return int(read["size"].rstrip("KM")) * scale
    except (OSError, ValueError):
        pass
    return default


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
