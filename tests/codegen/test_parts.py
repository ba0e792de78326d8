"""Modules in parts: each is complete, all together hold what the whole does, and compute the same."""

import re

import numpy as np
import pytest
from networks import build, export

import tilewright as tw
from tilewright.compiler import pipeline
from tilewright.compiler.codegen import parts
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.targets import runnable

TEXT = """declare void @llvm.trap()

define hidden void @a(ptr noalias nocapture readonly %x.p, i64 %n) #0 {
entry:
  call void @b(ptr %x.p, i64 %n)
  ret void
}

define hidden void @b(ptr %x.p, i64 %n) #0 {
entry:
  call void @llvm.trap()
  ret void
}

define internal void @a.chunk(ptr %frame) #0 {
entry:
  call void @a(ptr %frame, i64 1)
  ret void
}

define i32 @run(ptr %frame) {
entry:
  call void @a.chunk(ptr %frame)
  ret i32 0
}

attributes #0 = { nounwind }
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SIZE", 100)


def defined(text: str) -> list[str]:
    return re.findall(r"^define .*?@([\w.]+)", text, re.MULTILINE)


def test_short_texts_are_one_part() -> None:
    assert parts.split(TEXT) == [TEXT]


@pytest.mark.usefixtures("small")
def test_what_is_hidden_moves() -> None:
    found = parts.split(TEXT)
    assert len(found) == parts.MOST
    assert sorted(name for part in found for name in defined(part)) == sorted(defined(TEXT))
    assert {"a.chunk", "run"} <= set(defined(found[0]))
    (apart,) = (part for part in found if "a" in defined(part))
    assert "declare hidden void @b(ptr, i64)" in apart or "b" in defined(apart)
    assert "declare hidden void @a(ptr noalias nocapture readonly, i64)" in found[0] or apart is found[0]
    for part in found:
        assert part.count("attributes #0") == part.count("@llvm.trap()\n\n") == 1
        assert compile_module(part, runnable("host"))


@pytest.mark.usefixtures("small")
def test_variables_keep_a_text_whole() -> None:
    text = TEXT.replace("declare void @llvm.trap()", "declare void @llvm.trap()\n@count = internal global i64 0")
    assert parts.split(text) == [text]


def test_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    model = export(*build("mnist"))
    whole = tw.compile(model, cache=False)
    monkeypatch.setattr(parts, "SIZE", 20_000)
    found: list[list[str]] = []
    monkeypatch.setattr(pipeline, "split", lambda text: found.append(parts.split(text)) or found[-1])
    apart = tw.compile(model, cache=False)
    assert [len(texts) for texts in found] == [parts.MOST]
    x = np.random.default_rng(0).random(whole.inputs[0].shape, np.float32)
    np.testing.assert_array_equal(apart(x), whole(x))
