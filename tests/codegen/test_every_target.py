"""Every primitive and a network compile for every target, and need no function but those of a C library."""

from functools import cache
from typing import Any

import pytest
from networks import build, export
from object_symbols import undefined
from primitive_rows import ROWS as PRIMITIVES

from tilewright.compiler.codegen.pool import emit_pool, has_pool
from tilewright.compiler.ir import Graph, TensorType
from tilewright.compiler.ir.types import from_numpy
from tilewright.compiler.ops import GraphBuilder
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.targets import ROWS, by_name
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate

CPUS = (
    "haswell", "skylake-avx512", "icelake-server", "sapphirerapids", "znver3", "znver4", "znver5",
    "cortex-a72", "neoverse-n1", "apple-m1", "cortex-a7", "cortex-a9", "sifive-u74", "pwr10",
)  # fmt: skip
ARM64, ARM32 = ("cortex-a72", "neoverse-n1", "apple-m1"), ("cortex-a7", "cortex-a9")

ALWAYS = {"memcpy", "memset", "memmove"}
ALLOWED: dict[str, set[str]] = {
    # Division of 64-bit integers, and 64-bit integers as floats: no instructions, part of every compiler's run time.
    "armv7": {"__aeabi_ldivmod", "__aeabi_uldivmod", "__aeabi_l2f", "__aeabi_ul2f", "__aeabi_l2d", "__aeabi_ul2d"},
    # Where the linker puts the table of contents.
    "ppc64le": {".TOC."},
    # Windows: the mark of floats, and the touching of each new page of the stack in turn.
    "x86-64-windows-msvc": {"_fltused", "__chkstk"},
    "x86-64-windows-gnu": {"___chkstk_ms"},
    "x86-64-macos": {"__bzero", "bzero"},
    "arm64-macos": {"bzero"},
}


@cache
def everything() -> Graph:
    """One graph with a node for each row of the table of primitives that differs in operation or dtypes."""
    g = GraphBuilder("everything")
    outputs: dict[str, Any] = {}
    seen = set()
    for number, row in enumerate(PRIMITIVES):
        kind = (row.op, tuple(a.dtype for a in row.operands), tuple(a.ndim for a in row.operands))
        if row.op == "relayout" or kind in seen:
            continue
        seen.add(kind)
        operands: list[Any] = []
        for position, array in enumerate(row.operands):
            if row.op == "resample" and position:
                operands.append(g.constant(array))
            else:
                type = TensorType(from_numpy(array.dtype), array.shape)
                operands.append(g.input(f"x{number}.{position}", type))
        found = g.op(row.op, *operands, **row.attrs)
        several = found if isinstance(found, tuple | list) else (found,)
        outputs |= {f"y{number}.{k}": value for k, value in enumerate(several)}
    return g.finish(outputs)


@cache
def mnist() -> bytes:
    return export(*build("mnist"))


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_code_calls_nothing_else(name: str) -> None:
    target = by_name(name)
    allowed = ALWAYS | ALLOWED.get(name, set())
    for graph in (everything(), translate(read_model(mnist()))):
        assert set(undefined(compile_graph(graph, target).code)) <= allowed


@pytest.mark.parametrize("cpu", CPUS)
def test_processors_by_name(cpu: str) -> None:
    triple = (
        "aarch64-linux-gnu" if cpu in ARM64 else "armv7-linux-gnueabihf" if cpu in ARM32
        else "riscv64-linux-gnu" if cpu == "sifive-u74" else "powerpc64le-linux-gnu" if cpu == "pwr10"
        else "x86_64-linux-gnu"
    )  # fmt: skip
    target = by_name(triple, cpu)
    row = "armv7" if cpu in ARM32 else "ppc64le" if cpu == "pwr10" else ""
    allowed = ALWAYS | ALLOWED.get(row, set())
    assert set(undefined(compile_graph(translate(read_model(mnist())), target).code)) <= allowed


def test_pools_are_for_linux() -> None:
    for row in ROWS:
        assert has_pool(row) == (row.system == "linux")
        if has_pool(row):
            assert "@pthread_create" in emit_pool(row)
