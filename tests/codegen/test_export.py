"""Exported text: typed pointers, accepted by every llc on this machine, whose code gives the same results."""

import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from libraries import SHAPE, small_library
from networks import build, export

import tilewright as tw
from tilewright.compiler.codegen.export import compile_with_llc, exported
from tilewright.compiler.codegen.object import bitcode, compile_module
from tilewright.compiler.codegen.pool import emit_pool
from tilewright.compiler.codegen.typed import typed
from tilewright.compiler.link import write_shared
from tilewright.compiler.pipeline import plan_graph
from tilewright.compiler.targets import by_name, host
from tilewright.errors import CompileError, UnsupportedError
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate

LLCS = [name for name in ("llc", *(f"llc-{version}" for version in range(14, 30))) if shutil.which(name)]
each_llc = pytest.mark.parametrize(
    "llc", LLCS or [pytest.param("llc", marks=pytest.mark.skip(reason="there is no llc (Debian's package llvm)"))]
)
NEWER = re.compile(
    r"\bptr\b|\bnusw\b|\bnuw\b|\bnneg\b|\bdisjoint\b|\bsamesign\b|\bsplat \(|\bcaptures\(|\bmemory\(|\brange\("
)


@cache
def text(target: str, network: str = "mnist") -> str:
    return plan_graph(translate(read_model(export(*build(network)))), by_name(target)).emitted.text


def without_strings(shown: str) -> str:
    return re.sub(r'"[^"]*"|^;.*$', "", shown, flags=re.MULTILINE)


TARGETS = ("host", "x86-64-v3", "x86-64-v2", "aarch64", "armv7", "riscv64", "ppc64le", "wasm32-simd")


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_newer_than_llvm_14_is_said(target: str) -> None:
    assert not NEWER.search(without_strings(exported(text(target), by_name(target))))
    library = small_library(target=target, weights="embed" if target != "wasm32-simd" else "external")
    assert not NEWER.search(without_strings(exported(library.plain_text, by_name(target))))


@pytest.mark.parametrize("target", TARGETS)
def test_this_llvm_reads_it_too(target: str) -> None:
    row = by_name(target)
    plain, other = (compile_module(form, row) for form in (text(target), typed(text(target))))
    assert abs(len(plain) - len(other)) < len(plain) / 5


@each_llc
@pytest.mark.parametrize("target", TARGETS)
def test_llc_compiles_it(llc: str, target: str) -> None:
    row = by_name(target)
    assert compile_with_llc(llc, text(target), row)
    if row.system == "linux":
        assert compile_with_llc(llc, emit_pool(row), row)


@each_llc
def test_results_are_the_same(llc: str, tmp_path: Path) -> None:
    library = small_library()
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    results = []
    for name, code in (("ours", library.code), ("theirs", compile_with_llc(llc, library.text, host()))):
        path = tmp_path / f"{name}.so"
        write_shared(replace(library, code=code), path)
        results.append(tw.load(path)(x))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-7)


def test_the_same_text_every_time() -> None:
    small_library.cache_clear()
    first = exported(small_library().plain_text, host())
    small_library.cache_clear()
    assert exported(small_library().plain_text, host()) == first


def test_bitcode() -> None:
    assert bitcode(text("aarch64"), by_name("aarch64"))[:4] == b"BC\xc0\xde"


def test_forms_of_pointers() -> None:
    """Casts stand once in a block; calls, constants and pointers to functions are as they are declared."""
    shown = typed(
        """
@table = constant { ptr, ptr } { ptr @f, ptr null }
@name = constant [4 x i8] c"ptr\\00"
declare void @g(ptr)

define void @f(ptr %x, i64 %n) {
entry:
  %a = getelementptr nusw float, ptr %x, i64 %n
  %v = load <4 x float>, ptr %a, align 4
  store <4 x float> %v, ptr %a, align 4
  call void @g(ptr %a)
  %h = load ptr, ptr @table
  call void %h(ptr %x, i64 1)
  %same = icmp eq ptr %h, null
  br label %loop
loop:
  %p = phi ptr [ %a, %entry ], [ %q, %loop ]
  %o = freeze ptr %p
  %q = getelementptr nusw float, ptr %o, i64 4
  br i1 %same, label %loop, label %done
done:
  ret void
}
"""
    )
    for line in (
        "@table = constant { i8*, i8* } { i8* bitcast (void (float*, i64)* @f to i8*), i8* null }",
        '@name = constant [4 x i8] c"ptr\\00"',
        "define void @f(float* %x, i64 %n) {",
        "  %a = getelementptr float, float* %x, i64 %n",
        "  %a.as1 = bitcast float* %a to <4 x float>*",
        "  %v = load <4 x float>, <4 x float>* %a.as1, align 4",
        "  store <4 x float> %v, <4 x float>* %a.as1, align 4",
        "  %same = icmp eq i8* %h, null",
        "  %p = phi float* [ %a, %entry ], [ %q, %loop ]",
        "  %o = freeze float* %p",
        "  %q = getelementptr float, float* %o, i64 4",
    ):
        assert line in shown.splitlines()
    assert shown.count("bitcast float* %a to <4 x float>*") == 1


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(CompileError, match=r"'%p = va_arg ptr .*' cannot be written for other LLVMs"):
        typed("define void @f(ptr %x) {\nentry:\n  %p = va_arg ptr %x, i32\n  ret void\n}\n")


def test_a_missing_or_failing_llc() -> None:
    with pytest.raises(UnsupportedError, match="llc cannot be run as /no/such/llc: No such file"):
        compile_with_llc("/no/such/llc", "", host())
    with pytest.raises(UnsupportedError, match="false failed: exit code 1"):
        compile_with_llc("false", "", host())
