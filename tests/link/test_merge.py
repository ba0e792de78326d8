"""Objects of several modules as one: it runs, names meet, and constants of equal names stay apart."""

import ctypes

import pytest

from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.link.merge import merged
from tilewright.compiler.targets import by_name, runnable
from tilewright.errors import CompileError
from tilewright.runtime import elf
from tilewright.runtime.jit import Engine, undefined_symbols

# Both read constants, which LLVM calls .LCPI0_0 in each object.
FIRST = """
declare hidden float @inner(float)
define float @outer(float %x) {
  %y = call float @inner(float %x)
  %z = fmul float %y, 3.0
  ret float %z
}
"""
SECOND = """
declare float @outer(float)
define hidden float @inner(float %x) {
  %y = fadd float %x, 0.5
  ret float %y
}
define float @twice(float %x) {
  %y = call float @outer(float %x)
  %z = call float @outer(float %y)
  ret float %z
}
"""


def objects(*texts: str, target: str = "host") -> list[bytes]:
    row = runnable(target) if target == "host" else by_name(target)
    return [compile_module(text, row) for text in texts]


@pytest.mark.parametrize("texts", [(FIRST, SECOND), (SECOND, FIRST)], ids=("callers", "callees"))
def test_it_runs(texts: tuple[str, str]) -> None:
    code = merged(objects(*texts))
    assert undefined_symbols(code) == []
    engine = Engine(code)
    kind = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)
    assert kind(engine.address("outer"))(1.0) == 4.5
    assert kind(engine.address("twice"))(1.0) == 15.0


def test_one_object_stays_as_it_is() -> None:
    (code,) = objects(SECOND)
    assert merged([code]) is code


@pytest.mark.parametrize("target", ["x86-64-v3", "aarch64"])
def test_symbols(target: str) -> None:
    code = merged(objects(FIRST, SECOND, target=target))
    file = elf.read(code)
    found = elf.symbols(file, elf.SYMTAB)
    by = {symbol.name: symbol for symbol in found}
    assert {"outer", "inner", "twice"} <= by.keys()
    assert by["inner"].visibility == elf.HIDDEN
    first, second = (n for n, section in enumerate(file.sections) if section.name == ".text")
    assert (by["outer"].section, by["inner"].section, by["twice"].section) == (first, second, second)
    table = next(section for section in file.sections if section.type == elf.SYMTAB)
    assert [symbol.bind == elf.LOCAL for symbol in found] == [n < table.info for n in range(len(found))]
    names = [symbol.name for symbol in found if symbol.name]
    assert len(names) == len(set(names))
    assert elf.end(file) == len(code)


def test_what_nobody_defines_stays_undefined() -> None:
    assert undefined_symbols(merged(objects(FIRST, SECOND.replace("@inner", "@other")))) == ["inner"]


def test_two_definitions_are_refused() -> None:
    with pytest.raises(CompileError, match="two parts of the code define outer"):
        merged(objects(FIRST, FIRST))


def test_other_formats_are_refused() -> None:
    with pytest.raises(CompileError, match="cannot be joined"):
        merged(objects(FIRST, SECOND, target="armv7"))
