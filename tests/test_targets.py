"""Targets: the table against what LLVM says, processors by name, and names that mean nothing."""

import subprocess
import sys
from dataclasses import replace

import pytest

from tilewright.compiler.probe import Facts, probe, processors
from tilewright.compiler.targets import LEVELS, ROWS, Target, by_name, host, normalised
from tilewright.errors import UnsupportedError


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_rows_are_as_llvm_says(row: Target) -> None:
    facts = probe(row.triple, row.cpu, row.features, row.abi)
    assert (facts.vector_bits, facts.fma, facts.rounding, facts.halves) == (
        row.vector_bits, row.fma, row.rounding, row.halves,
    )  # fmt: skip
    if row.architecture == "x86_64":
        assert facts.has == set(row.requires)


@pytest.mark.parametrize(
    ("triple", "cpu", "level", "bits"),
    [
        ("x86_64-linux-gnu", "haswell", "x86-64-v3", 256),
        ("x86_64-linux-gnu", "znver3", "x86-64-v3", 256),
        ("x86_64-linux-gnu", "skylake-avx512", "x86-64-v4", 512),
        ("x86_64-linux-gnu", "sapphirerapids", "x86-64-v4", 512),
        ("x86_64-linux-gnu", "nehalem", "x86-64-v2", 128),
        ("x86_64-linux-gnu", "knl", "x86-64-v3", 256),  # has AVX-512, but not all of v4
        ("aarch64-linux-gnu", "cortex-a72", "generic", 128),
    ],
)
def test_a_processor_tunes_the_code_of_its_level(triple: str, cpu: str, level: str, bits: int) -> None:
    target = by_name(triple, cpu)
    assert (target.cpu, target.tune, target.vector_bits) == (level, cpu, bits)
    if level in LEVELS:
        assert set(target.requires) == set(LEVELS[level])


def test_arm_processors_differ() -> None:
    a7, a9 = (by_name("armv7-linux-gnueabihf", cpu) for cpu in ("cortex-a7", "cortex-a9"))
    assert a7.fma and not a9.fma
    assert (a7.vector_bits, a9.vector_bits) == (128, 128)
    assert a7.requires == ("neon", "vfp4")
    assert a9.requires == ("neon",)
    assert a7.pointer_bits == 32


def test_features_add_and_take_away() -> None:
    without = by_name("x86-64-v3", features="-fma")
    assert not without.fma and "fma" not in without.requires and without.vector_bits == 256
    more = by_name("x86-64-v3", features="+avx512vnni")
    assert "avx512vnni" in more.requires


@pytest.mark.parametrize(
    ("name", "cpu", "features", "message"),
    [
        ("z80", "", "", "no target is called 'z80'; there are host, x86-64-v2"),
        ("sparc-sun-solaris", "", "", "no code is made for the architecture 'sparc'; there are aarch64, arm"),
        ("aarch64_be-linux-gnu", "", "", "no code is made for the architecture 'aarch64_be'"),
        ("x86_64-linux-gnux32", "", "", "its addresses are narrower than its registers"),
        ("nvptx64-nvidia-cuda", "", "", "no code is made for the architecture 'nvptx64'"),
        ("x86-64-v3", "znver9", "", "LLVM knows no x86_64 processor called 'znver9'; there are znver5"),
        ("x86-64-v3", "help", "", "LLVM knows no x86_64 processor called 'help'"),
        ("x86-64-v3", "", "avx2", r"no feature of x86_64 called 'avx2'; features are written as \+name or -name"),
        ("x86-64-v3", "", "+avx2,+nope", r"no feature of x86_64 called '\+nope'"),
        ("x86-64-v3", "i486", "", "LLVM makes no code for x86_64-unknown-linux-gnu, i486; it says: .*64-bit"),
        ("x86-64-v3", "", "-64bit", "LLVM makes no code for .*64-bit code requested"),
        ("x86-64-v3", "", "-sse2", "LLVM makes no code for .*SSE2"),
        ("riscv64", "", "-d", "LLVM makes no code for .*Hard-float 'd' ABI can't be used"),
        ("riscv64", "generic-rv32", "", "LLVM makes no code for .*requires an RV64 CPU"),
    ],
)
def test_bad_names_are_refused_and_end_nothing(name: str, cpu: str, features: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        by_name(name, cpu, features)


def test_triples_get_their_vendor() -> None:
    assert normalised("x86_64-linux-gnu") == "x86_64-unknown-linux-gnu"
    assert normalised("aarch64-unknown-linux-gnu") == "aarch64-unknown-linux-gnu"
    assert normalised("x86_64-windows-msvc") == "x86_64-pc-windows-msvc"
    assert by_name("aarch64-linux-gnu") is by_name("aarch64")


def test_processors_of_an_architecture() -> None:
    assert {"znver4", "haswell"} <= set(processors("x86_64-unknown-linux-gnu"))
    assert "cortex-a72" in processors("aarch64-unknown-linux-gnu")


def test_a_python_that_cannot_start_another_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(UnsupportedError, match=r"sys\.executable does not say where Python is"):
        by_name("x86-64-v3", "bdver4")

    def nothing(*args: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("python", 60)

    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.setattr(subprocess, "run", nothing)
    with pytest.raises(UnsupportedError, match=r"cannot be looked up: .*timed out"):
        by_name("x86-64-v3", "bdver3")


def test_the_host_is_described_like_others() -> None:
    here = host()
    facts = probe(here.triple, here.cpu, here.features, here.abi)
    assert isinstance(facts, Facts)
    assert (facts.vector_bits, facts.fma) == (here.vector_bits, here.fma)
    assert facts.has <= set(here.requires)
    assert replace(here, name="x").pointer_bits == 64
