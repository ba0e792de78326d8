"""The machines code is made for, one row each.

    Target("x86-64-v4", triple, cpu, features, vector_bits=512, registers=32, l1=32 KiB, l2=1 MiB)

    by_name("x86-64-v3")                            a row of the table
    by_name("x86_64-pc-windows-gnu", "znver4")      any triple, processor and features: LLVM is asked what they can do

Kernels take vector width, register count and cache sizes from here and name none of them themselves. Code for a named
processor of x86 or AArch64 is tuned for it, and uses the instructions of its level only (x86-64-v4 for znver4), so
it runs on every other processor of that level.
"""

import os
from dataclasses import dataclass, replace
from functools import cache

import llvmlite.binding as llvm

from tilewright.compiler.probe import architecture, probe
from tilewright.errors import UnsupportedError


@dataclass(frozen=True)
class Target:
    """A machine: LLVM's names for it, and what tile shapes are derived from. Cache sizes in bytes, per core.

    `cpu` says which instructions may be used, `tune` which processor they are scheduled for if that is another one.
    `fma`, `rounding` and `halves` say which float instructions there are (see `probe.Facts`); where one is missing,
    code does it in several. `requires` are the features, by LLVM's names, that the code may use.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    l1: int = 32 << 10
    l2: int = 1 << 20
    tune: str = ""
    fma: bool = True
    rounding: bool = True
    halves: bool = True
    requires: tuple[str, ...] = ()

    def lanes(self, bits: int) -> int:
        """How many elements of `bits` bits one vector register holds; at least 1."""
        return max(self.vector_bits // bits, 1)

    @property
    def architecture(self) -> str:
        """The processor family, by LLVM's name: x86_64, aarch64, arm ..."""
        return architecture(self.triple)

    @property
    def system(self) -> str:
        """The operating system: linux, macos, windows, or none."""
        return next((name for name in ("linux", "macos", "darwin", "windows") if name in self.triple), "none").replace(
            "darwin", "macos"
        )

    @property
    def pointer_bits(self) -> int:
        """Bits of an address, and of an index."""
        return 64 if self.architecture.endswith(("64", "64le")) else 32

    @property
    def abi(self) -> str:
        """LLVM's name of the calling convention where the triple does not say it."""
        return "lp64d" if self.architecture == "riscv64" else ""

    def __str__(self) -> str:
        return self.name


_LINUX = "x86_64-unknown-linux-gnu"
_V2 = ("popcnt", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
LEVELS = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2, "x86-64": ()}
"""The levels of x86-64, from the highest, and the extensions that make them up as far as code can use them."""


def _x86(name: str, triple: str, level: str, bits: int) -> Target:
    modern = level != "x86-64-v2"
    return Target(
        name, triple, level, "", bits, 32 if bits == 512 else 16, fma=modern, halves=modern, requires=LEVELS[level]
    )


_RV64GC = "+m,+a,+f,+d,+c"
ROWS = (
    _x86("x86-64-v2", _LINUX, "x86-64-v2", 128),
    _x86("x86-64-v3", _LINUX, "x86-64-v3", 256),
    _x86("x86-64-v4", _LINUX, "x86-64-v4", 512),
    Target("aarch64", "aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32, requires=("neon",)),
    Target(
        "armv7", "armv7-unknown-linux-gnueabihf", "generic", "+neon,+vfp4", 128, 16, 32 << 10, 128 << 10,
        rounding=False, requires=("neon", "vfp4"),
    ),
    Target(
        "riscv64", "riscv64-unknown-linux-gnu", "generic-rv64", _RV64GC, 32, 32, 32 << 10, 256 << 10, halves=False,
        requires=("a", "c", "d", "f", "m"),
    ),
    Target(
        "riscv64-v", "riscv64-unknown-linux-gnu", "generic-rv64", f"{_RV64GC},+v", 128, 32, 32 << 10, 256 << 10,
        halves=False, requires=("a", "c", "d", "f", "m", "v"),
    ),
    Target(
        "ppc64le", "powerpc64le-unknown-linux-gnu", "pwr8", "", 128, 64, 64 << 10, 512 << 10, halves=False,
        requires=("altivec", "vsx"),
    ),
    Target("wasm32", "wasm32-unknown-unknown", "generic", "", 32, 16, fma=False, halves=False),
    Target(
        "wasm32-simd", "wasm32-unknown-unknown", "generic", "+simd128", 128, 16, fma=False, halves=False,
        requires=("simd128",),
    ),
    _x86("x86-64-macos", "x86_64-apple-macosx", "x86-64-v3", 256),
    Target(
        "arm64-macos", "arm64-apple-macosx", "apple-m1", "", 128, 32, 128 << 10, 3 << 20, requires=("neon",)
    ),
    _x86("x86-64-windows-msvc", "x86_64-pc-windows-msvc", "x86-64-v3", 256),
    _x86("x86-64-windows-gnu", "x86_64-pc-windows-gnu", "x86-64-v3", 256),
)  # fmt: skip
"""The machines with names of their own. Of rows with one triple, `_DEFAULTS` says which one the bare triple means."""

_DEFAULTS = {
    "x86_64": ("x86-64-v3", ""),
    "i686": ("pentium4", ""),
    "aarch64": ("generic", "+neon"),
    "arm": ("generic", "+neon,+vfp4"),
    "riscv64": ("generic-rv64", _RV64GC),
    "powerpc64le": ("pwr8", ""),
    "wasm32": ("generic", ""),
}
"""By architecture: the processor and the features that a triple alone means."""

_REGISTERS = {"x86_64": 16, "i686": 8, "aarch64": 32, "arm": 16, "riscv64": 32, "powerpc64le": 64, "wasm32": 16}

_K, _M = 1 << 10, 1 << 20
_CACHES = {
    ("haswell", "broadwell", "skylake", "core-avx2"): (32 * _K, 256 * _K),
    ("skylake-avx512", "skx", "cascadelake", "cooperlake"): (32 * _K, 1 * _M),
    ("icelake-client", "tigerlake"): (48 * _K, 512 * _K),
    ("icelake-server",): (48 * _K, 1280 * _K),
    ("sapphirerapids", "emeraldrapids", "graniterapids", "alderlake", "raptorlake"): (48 * _K, 2 * _M),
    ("znver1", "znver2", "znver3"): (32 * _K, 512 * _K),
    ("znver4",): (32 * _K, 1 * _M),
    ("znver5",): (48 * _K, 1 * _M),
    ("cortex-a7", "cortex-a9", "cortex-a53", "cortex-a55"): (32 * _K, 128 * _K),
    ("cortex-a15", "cortex-a57", "cortex-a72", "cortex-a73"): (32 * _K, 256 * _K),
    ("cortex-a76", "cortex-a78"): (64 * _K, 512 * _K),
    ("neoverse-n1", "neoverse-n2", "neoverse-v1"): (64 * _K, 1 * _M),
    ("neoverse-v2",): (64 * _K, 2 * _M),
    ("apple-m1", "apple-m2", "apple-m3", "apple-m4"): (128 * _K, 3 * _M),
    ("sifive-u74",): (32 * _K, 512 * _K),
}
"""Data caches of a core, by processor; of a shared one, a core's part."""


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
    elif triple.startswith(("aarch64", "arm64")):
        bits, registers = 128, 32
        has.add("neon")
    else:
        raise UnsupportedError("this processor lacks AVX2 or FMA, which Tilewright's code needs on x86")
    l1, l2 = (_cache_bytes(level, default) for level, default in ((1, 32 << 10), (2, 1 << 20)))
    return Target(
        "host", triple, llvm.get_host_cpu_name(), features.flatten(), bits, registers, l1, l2,
        requires=tuple(sorted(has)),
    )  # fmt: skip


def by_name(name: str, cpu: str = "", features: str = "") -> Target:
    """The row called `name`, the machine of a triple, or the one this process runs on for "host".

    `cpu` is a processor of it by LLVM's name, `features` are LLVM's, such as "+avx512fp16,-fma". Raises
    UnsupportedError for names that mean nothing, and for what LLVM makes no code for.
    """
    initialise_llvm()
    row = host() if name == "host" else next((row for row in ROWS if row.name == name), None)
    if row is not None and not (cpu or features):
        return row
    if row is None and "-" not in name:
        raise UnsupportedError(
            f"no target is called '{name}'; there are host, {', '.join(row.name for row in ROWS)}, and triples "
            "such as aarch64-unknown-linux-gnu"
        )
    triple = normalised(name) if row is None else row.triple
    if not (cpu or features):
        default = (triple, *_DEFAULTS[architecture(triple)])
        row = next((row for row in ROWS if (row.triple, row.cpu, row.features) == default), None)
        if row is not None:
            return row
    return _described(triple, cpu, features, row)


def normalised(triple: str) -> str:
    """A triple with its vendor: x86_64-linux-gnu is x86_64-unknown-linux-gnu."""
    first, _, rest = triple.partition("-")
    for system, vendor in (("linux", "unknown"), ("windows", "pc"), ("macos", "apple"), ("wasi", "unknown")):
        if rest.startswith(system):
            return f"{first}-{vendor}-{rest}"
    return triple


def _described(triple: str, cpu: str, features: str, row: Target | None) -> Target:
    """The target of a triple, and a processor and features as they are given; a `row` says what is not given."""
    family = architecture(triple)
    default_cpu, default_features = _DEFAULTS[family] if row is None else (row.cpu, row.features)
    abi = "lp64d" if family == "riscv64" else ""
    basis, tune = cpu or default_cpu, "" if row is None else row.tune
    given = ",".join(filter(None, ("" if cpu else default_features, features)))
    if cpu and cpu not in LEVELS and family in ("x86_64", "aarch64"):
        has = probe(triple, cpu, "", abi).has
        tune = cpu
        basis = "generic" if family == "aarch64" else next(
            level for level, parts in LEVELS.items() if has.issuperset(parts)
        )  # fmt: skip
    facts = probe(triple, basis, given, abi)
    added = {feature[1:] for feature in given.split(",") if feature.startswith("+")}
    needs = {"neon"} if family == "arm" and facts.vector_bits > 32 else set()
    if family == "arm" and facts.fma:
        needs.add("vfp4")
    l1, l2 = next((sizes for names, sizes in _CACHES.items() if (tune or basis) in names), (32 * _K, 512 * _K))
    if row is not None and not cpu:
        l1, l2 = row.l1, row.l2
    return Target(
        " ".join(filter(None, (triple, cpu, features))), triple, basis, given, facts.vector_bits,
        32 if facts.vector_bits == 512 else _REGISTERS[family], l1, l2, tune, facts.fma, facts.rounding, facts.halves,
        tuple(sorted(facts.has | added | needs)),
    )  # fmt: skip


def runnable(name: str) -> Target:
    """The target called `name`; raises UnsupportedError if this process cannot run code for it."""
    target, here = by_name(name), host()
    same = (target.architecture, target.system) == (here.architecture, here.system)
    lacking = sorted(set(target.requires) - set(here.requires))
    if not same or lacking:
        raise UnsupportedError(
            f"this machine cannot run code for {target}, which is for {target.triple}: it is {here.triple}"
            + (f" without {', '.join(lacking)}" if same else "")
            + "; use target='host'"
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
