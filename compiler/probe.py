"""What LLVM knows of a processor, asked in a process of its own.

    probe("x86_64-unknown-linux-gnu", "znver4", "")  ->  Facts(vector_bits=512, fma=True, ..., has={"avx2", ...})

LLVM answers a bad name with a warning, or with the end of the process, and has no function that lists what a
processor can do. So a child prints the names LLVM knows, then compiles the functions below, and what they become
tells: an `fma` that is a call means that there is no such instruction. The child runs `ask_llvm.py`.
"""

import json
import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from tilewright.errors import UnsupportedError

SECONDS = 60
"""How long the child may take; it takes a fifth of a second."""


@dataclass(frozen=True)
class Facts:
    """A processor: bits of its vectors (32: it has none), what its float instructions can do, and on x86 which of
    the extensions that make up the levels x86-64-v2 to v4 it has.

    `fma`: fused multiply-add. `rounding`: floor, ceil, rint, trunc. `halves`: conversion of 16-bit floats.
    """

    vector_bits: int
    fma: bool
    rounding: bool
    halves: bool
    has: frozenset[str]


# By architecture: what vectors of so many bits look like in assembly.
_X86_VECTORS = {512: r"zmm", 256: r"ymm", 128: r"xmm"}
_VECTORS = {
    "x86_64": _X86_VECTORS,
    "i686": _X86_VECTORS,
    "aarch64": {128: r"\.4s"},
    "arm": {128: r"\bq\d"},
    "riscv64": {128: r"vfadd\.vv"},
    "powerpc64le": {128: r"xvaddsp|vaddfp"},
    "wasm32": {128: r"f32x4\.add"},
}

# Functions, each as (type, number of operands, instruction), and the pattern that tells that x86 has an extension.
_X86 = {
    "ssse3": ("<4 x i32>", 1, "call <4 x i32> @llvm.abs.v4i32(<4 x i32> %a, i1 false)", r"pabsd"),
    "sse4.1": ("<4 x float>", 1, "call <4 x float> @llvm.floor.v4f32(<4 x float> %a)", r"roundps"),
    "sse4.2": ("<2 x i64>", 2, "call <2 x i64> @llvm.smax.v2i64(<2 x i64> %a, <2 x i64> %b)", r"pcmpgtq|vpmaxsq"),
    "popcnt": ("i64", 1, "call i64 @llvm.ctpop.i64(i64 %a)", r"\tpopcnt"),
    "avx": ("<8 x float>", 2, "fadd <8 x float> %a, %b", r"ymm"),
    "avx2": ("<8 x i32>", 2, "add <8 x i32> %a, %b", r"vpaddd.*ymm"),
    "bmi": ("i64", 2, "call i64 @llvm.cttz.i64(i64 %a, i1 false)", r"\ttzcnt"),
    "bmi2": ("i64", 2, "shl i64 %a, %b", r"shlx"),
    "lzcnt": ("i64", 1, "call i64 @llvm.ctlz.i64(i64 %a, i1 false)", r"\tlzcnt"),
    "avx512f": ("<16 x float>", 2, "fadd <16 x float> %a, %b", r"zmm"),
    "avx512bw": ("<64 x i8>", 2, "add <64 x i8> %a, %b", r"vpaddb.*zmm"),
    "avx512cd": ("<16 x i32>", 1, "call <16 x i32> @llvm.ctlz.v16i32(<16 x i32> %a, i1 false)", r"vplzcntd"),
    "avx512dq": ("<8 x i64>", 2, "mul <8 x i64> %a, %b", r"vpmullq"),
    "avx512vl": ("<4 x i32>", 1, "call <4 x i32> @llvm.fshl.v4i32(<4 x i32> %a, <4 x i32> %a, <4 x i32> splat (i32 3))",
                 r"vprold.*xmm"),
}  # fmt: skip
_ANY = {
    "wide": ("<16 x float>", 2, "fadd <16 x float> %a, %b"),
    "fma": ("<4 x float>", 2, "call <4 x float> @llvm.fma.v4f32(<4 x float> %a, <4 x float> %a, <4 x float> %b)"),
    "fma64": ("double", 2, "call double @llvm.fma.f64(double %a, double %b, double %b)"),
    "floor": ("<4 x float>", 1, "call <4 x float> @llvm.floor.v4f32(<4 x float> %a)"),
    "rint": ("double", 1, "call double @llvm.rint.f64(double %a)"),
    "half": ("<4 x half>", 2, "fadd <4 x half> %a, %b"),
}
_FUNCTIONS = "fmaf?|floorf?|rintf?|__extendhfsf2|__truncsfhf2|__gnu_h2f_ieee|__gnu_f2h_ieee|__aeabi_h2f|__aeabi_f2h"
_CALLED = re.compile(rf"^\t(?:call\w*|bl?|jmp|tail)\s+_?(?:{_FUNCTIONS})\b", re.MULTILINE)


def architecture(triple: str) -> str:
    """The first part of a triple, by one name for each architecture: "arm64" is "aarch64".

    Raises UnsupportedError for one that no code is made for.
    """
    first = triple.split("-")[0]
    name = {"arm64": "aarch64", "amd64": "x86_64", "ppc64le": "powerpc64le", "i386": "i686"}.get(first, first)
    if re.fullmatch(r"arm(v[678]\w*)?", name):
        name = "arm"
    if re.search(r"x32|ilp32|n32", triple.partition("-")[2]):
        raise UnsupportedError(f"no code is made for {triple}: its addresses are narrower than its registers")
    if name not in _VECTORS:
        raise UnsupportedError(
            f"no code is made for the architecture '{first}'; there are {', '.join(sorted(_VECTORS))}, little-endian"
        )
    return name


def relocation_model(triple: str) -> str:
    """How code reaches data: "pic", but wasm has no addresses."""
    return "static" if architecture(triple) == "wasm32" else "pic"


@cache
def probe(triple: str, cpu: str, features: str, abi: str = "") -> Facts:
    """What LLVM's code for a processor tells; `features` as LLVM wants them, such as "+fma,-avx512f".

    Raises UnsupportedError for a name that LLVM does not know, or with what it said before it gave up.
    """
    shapes = _VECTORS[architecture(triple)]
    bodies = _bodies(_ask(triple, cpu, features, abi)[1])
    bits = next((bits for bits, pattern in shapes.items() if re.search(pattern, bodies["wide"])), 32)
    has = {name for name, (*_, pattern) in _X86.items() if name in bodies and re.search(pattern, bodies[name])}
    calls = {name: bool(_CALLED.search(bodies[name])) for name in _ANY}
    fma, halves = not (calls["fma"] or calls["fma64"]), not calls["half"]
    if shapes is _X86_VECTORS:
        has |= {name for name, present in (("fma", fma), ("f16c", halves)) if present}
    return Facts(bits, fma, not (calls["floor"] or calls["rint"]), halves, frozenset(has))


def processors(triple: str) -> list[str]:
    """The processors of an architecture, by LLVM's names; raises UnsupportedError if LLVM does not know it."""
    architecture(triple)
    return sorted(_names(_ask(triple, "", "", "")[0], "CPUs"))


def _check(known: str, triple: str, cpu: str, features: str) -> None:
    """Raise UnsupportedError for names that are not among the `known` ones."""
    cpus = _names(known, "CPUs")
    if cpu and cpu not in cpus:
        raise UnsupportedError(f"LLVM knows no {architecture(triple)} processor called '{cpu}'{_nearest(cpu, cpus)}")
    names = _names(known, "features")
    for feature in filter(None, features.split(",")):
        if feature[0] not in "+-" or feature[1:] not in names:
            raise UnsupportedError(
                f"LLVM knows no feature of {architecture(triple)} called '{feature}'; features are written as "
                f"+name or -name, with commas between them{_nearest(feature.lstrip('+-'), names)}"
            )


def _nearest(name: str, names: set[str]) -> str:
    close = get_close_matches(name, sorted(names), 3, 0.5)
    return f"; there are {', '.join(close)}" if close else ""


def _names(known: str, kind: str) -> set[str]:
    """The names that LLVM's help lists under "Available CPUs" or "Available features"."""
    section = known.partition(f"Available {kind} for this target:\n\n")[2].partition("\n\n")[0]
    return {line.split()[0] for line in section.splitlines() if " - " in line}


@cache
def _ask(triple: str, cpu: str, features: str, abi: str) -> tuple[str, str]:
    """The names that LLVM knows, as it lists them, and assembly; raises UnsupportedError with LLVM's words if none."""
    question = {
        "path": sys.path, "triple": triple, "cpu": cpu, "features": features, "abi": abi, "text": _text(triple),
        "reloc": relocation_model(triple),
    }  # fmt: skip
    import subprocess  # here: it is slow to load, and models from the cache need no answer

    what = ", ".join(filter(None, (triple, cpu, features)))
    if not sys.executable:
        raise UnsupportedError(f"target {what} cannot be looked up: sys.executable does not say where Python is")
    command = [sys.executable, "-I", str(Path(__file__).with_name("ask_llvm.py"))]
    try:
        child = subprocess.run(
            command, input=json.dumps(question), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnsupportedError(f"target {what} cannot be looked up: {error}") from error
    if "Available CPUs" in child.stderr:
        _check(child.stderr, triple, cpu, features)
    lines = [line for line in child.stderr.splitlines() if line.strip()]
    ignored = [line for line in lines if "(ignoring" in line]
    if child.returncode != 0 or ignored:
        said = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "nothing")
        said = ignored[0] if ignored else said
        raise UnsupportedError(f"LLVM makes no code for {what}; it says: {said.strip()}")
    return child.stderr, json.loads(child.stdout)["assembly"]


def _text(triple: str) -> str:
    """The functions for a triple."""
    chosen: dict[str, tuple[Any, ...]] = _ANY | (_X86 if architecture(triple) in ("x86_64", "i686") else {})
    declarations = {line for function in chosen.values() for line in _declaration(function[2])}
    functions = [_function(name, *function[:3]) for name, function in chosen.items()]
    return "\n".join([*sorted(declarations), *functions])


def _bodies(assembly: str) -> dict[str, str]:
    """The assembly of each function."""
    labels = list(re.finditer(r'^"?_?probe_([\w.]+)"?:', assembly, re.MULTILINE))
    ends = [label.start() for label in labels[1:]] + [len(assembly)]
    return {label[1]: assembly[label.end() : end] for label, end in zip(labels, ends, strict=True)}


def _function(name: str, type: str, operands: int, instruction: str) -> str:
    """A function of pointers, so that no calling convention shows."""
    loads = "\n".join(f"  %{operand} = load {type}, ptr %p{operand}" for operand in "ab"[:operands])
    params = ", ".join(f"ptr %p{operand}" for operand in "ab"[:operands])
    return (
        f'define void @"probe_{name}"({params}, ptr %result) nounwind "prefer-vector-width"="512" {{\n{loads}\n'
        f"  %r = {instruction}\n  store {type} %r, ptr %result\n  ret void\n}}\n"
    )


def _declaration(instruction: str) -> list[str]:
    found = re.match(r"call (.*) (@llvm\.\S+)\((.*)\)", instruction)
    if not found:
        return []
    result, name, arguments = found.groups()
    types = re.findall(r"(<\d+ x \w+>|\bi\d+|\bfloat|\bdouble)(?= [%tfs])", arguments)
    return [f"declare {result} {name}({', '.join(types)})"]

