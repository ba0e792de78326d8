"""Finds a linker that can make a shared object for a target, and runs it.

The order: the one asked for; $CC; ld.lld; the one in the `ziglang` package; ld; cc; the built-in writer, which comes
after $CC where there are many weights. lld makes ELF files for all processors; `ld` and `cc` only for the machine's
own, or with the target's triple in their name. One that was asked for must do; of the others, the next is tried when
one fails.

    candidates(Wanted("aarch64-unknown-linux-gnu", ...))  ->  (Candidate("ld.lld", ("ld.lld", "-shared", ...)), ..)
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tilewright.errors import LinkError

BUILTIN = "builtin"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Tools:
    """What the user says of linking: a linker with ld's arguments (or "builtin"), a compiler with cc's, a folder that
    holds the target's libraries, and who hears of commands before they run."""

    linker: str | None = None
    cc: str | None = None
    sysroot: str | None = None
    report: Report | None = None


@dataclass(frozen=True)
class Wanted:
    """A shared object to make: for a system of LLVM's triple, with this soname; `nodelete`: never unloaded."""

    triple: str
    soname: str
    nodelete: bool
    exports: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """A linker: its name, and its command but for the object and the result; no command is the built-in one."""

    name: str
    command: tuple[str, ...]
    asked: bool = False


def candidates(wanted: Wanted, tools: Tools, builtin: bool, large: bool = False) -> Iterator[Candidate]:
    """The linkers to try; `builtin` says whether the built-in one knows the target, `large` that there are many
    weights: others copy them from an object file, so then the built-in one comes first among those not asked for.
    """
    if tools.linker == BUILTIN:
        if not builtin:
            raise LinkError(
                f"the built-in linker makes shared objects for Linux on x86-64 and AArch64, not for {wanted.triple}"
            )
        yield Candidate(BUILTIN, (), asked=True)
        return
    if tools.linker:
        yield Candidate(tools.linker, (*_split(tools.linker, "linker"), *_ld_arguments(wanted, tools)), asked=True)
        return
    if tools.cc:
        yield Candidate(tools.cc, (*_split(tools.cc, "cc"), *_cc_arguments(wanted, tools)), asked=True)
        return
    variable = os.environ.get("CC", "").strip()
    if variable and _makes_code_for(variable, wanted.triple):
        yield Candidate(variable, (*_split(variable, "$CC"), *_cc_arguments(wanted, tools)))
    if builtin and large:
        yield Candidate(BUILTIN, ())
    zig = (sys.executable, "-m", "ziglang") if find_spec("ziglang") else ()
    system = _system(wanted.triple)
    if system == "wasm":
        if found := shutil.which("wasm-ld"):
            yield Candidate(found, (found, *_ld_arguments(wanted, tools)))
        if zig:
            yield Candidate("zig wasm-ld", (*zig, "wasm-ld", *_ld_arguments(wanted, tools)))
        return
    if system != "linux":
        if zig:
            target = ("-target", _zig_triple(wanted.triple))
            yield Candidate("zig cc", (*zig, "cc", *target, *_cc_arguments(wanted, tools)))
        return
    if found := shutil.which("ld.lld"):
        yield Candidate(found, (found, *_ld_arguments(wanted, tools)))
    if zig:
        yield Candidate("zig ld.lld", (*zig, "ld.lld", *_ld_arguments(wanted, tools)))
    for tool, arguments in (("ld", _ld_arguments), ("gcc", _cc_arguments)):
        for prefix in _prefixes(wanted.triple):
            if found := shutil.which(f"{prefix}{tool}" if prefix or tool == "ld" else "cc"):
                yield Candidate(found, (found, *arguments(wanted, tools)))
    if builtin:
        yield Candidate(BUILTIN, ())


def run(candidate: Candidate, inputs: Sequence[Path], out: Path, report: Report | None) -> None:
    """Link; raises LinkError with what the linker said if it failed."""
    command = [*candidate.command, "-o", str(out), *map(str, inputs)]
    if report is not None:
        report(shlex.join(command))
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    except OSError as error:
        raise LinkError(f"{candidate.name} failed: {error.strerror or error}") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"it ended with code {done.returncode}"
        raise LinkError(f"{candidate.name} failed: {said}")


def _split(command: str, option: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise LinkError(f"{option} {command!r} is no command: {error}") from None
    if not words:
        raise LinkError(f"{option} is empty; name a program, such as ld.lld")
    return words


def _ld_arguments(wanted: Wanted, tools: Tools) -> list[str]:
    if _system(wanted.triple) == "wasm":
        return ["--no-entry", "--allow-undefined", *(f"--export={name}" for name in wanted.exports)]
    arguments = ["-shared", "-soname", wanted.soname, "-z", "noexecstack", "-z", "now", "--hash-style=both"]
    arguments += ["--build-id=none"]
    if wanted.nodelete:
        arguments += ["-z", "nodelete"]
    if tools.sysroot:
        arguments.append(f"--sysroot={tools.sysroot}")
    return arguments


def _cc_arguments(wanted: Wanted, tools: Tools) -> list[str]:
    arguments = ["-shared"]
    if tools.sysroot:
        arguments.append(f"--sysroot={tools.sysroot}")
    if _system(wanted.triple) != "linux":
        return arguments
    linker = [f"-soname={wanted.soname}", "-z,noexecstack", "-z,now", "--hash-style=both", "--build-id=none"]
    linker += ["-z,nodelete"] if wanted.nodelete else []
    return [*arguments, *(f"-Wl,{argument}" for argument in linker)]


def _system(triple: str) -> str:
    if triple.startswith("wasm"):
        return "wasm"
    return next((name for name in ("linux", "windows") if name in triple), "macos")


def _family(triple: str) -> str:
    first = triple.split("-")[0].lower()
    return {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "powerpc64le"}.get(first, first)


def _prefixes(triple: str) -> list[str]:
    """What the names of a target's tools begin with: nothing on the machine itself."""
    family, _, rest = triple.partition("-")
    short = f"{_family(family)}-{rest.partition('-')[2]}-"
    short = f"arm-{short.partition('-')[2]}" if family.startswith("armv") else short
    own = sys.platform == "linux" and _family(platform.machine()) == _family(triple)
    return [*([""] if own else []), f"{triple}-", short]


def _makes_code_for(cc: str, triple: str) -> bool:
    """Whether a compiler says that it makes code for the triple's processor and system."""
    try:
        done = subprocess.run(
            [*shlex.split(cc), "-dumpmachine"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    said = done.stdout.strip()
    return done.returncode == 0 and _family(said) == _family(triple) and _system(said) == _system(triple)


def _zig_triple(triple: str) -> str:
    family = _family(triple)
    if "windows" in triple:
        return f"{family}-windows-{'msvc' if triple.endswith('msvc') else 'gnu'}"
    return f"{family}-macos"
