"""Weights that are computed right into the shared object's file: the same bytes, and no file left behind."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from libraries import SHAPE, small_library
from small_models import small_network

import tilewright as tw
import tilewright.compiler.link.drafts as drafts
from tilewright.aot import library_of, save_model
from tilewright.compiler.library import LibraryOptions
from tilewright.compiler.link import Tools, drafted, write_object, write_shared
from tilewright.compiler.link.files import ABANDONED
from tilewright.compiler.targets import by_name
from tilewright.errors import OutputError
from tilewright.frontends.formats import load

IMAGE = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few weights count as many."""
    monkeypatch.setattr(drafts, "LARGE", 1)


@pytest.mark.parametrize("target", ["host", "aarch64"])
@pytest.mark.usefixtures("small")
def test_the_same_bytes(target: str, tmp_path: Path) -> None:
    machine, path, options = by_name(target), tmp_path / "net.so", LibraryOptions("net", None, "0" * 64)
    with drafted(path, machine.triple, Tools()) as draft:
        library = library_of(load(small_network()), options, target=machine, shapes={"image": SHAPE}, room=draft.room)
        (partial,) = tmp_path.iterdir()
        assert library.constants.tobytes() in partial.read_bytes()
        write_shared(library, path, Tools(linker="builtin"), draft)
        assert [file.name for file in tmp_path.iterdir()] == ["net.so"]
        write_object(library, tmp_path / "net.o")
    plain = tmp_path / "plain" / "net.so"
    plain.parent.mkdir()
    write_shared(small_library(target=target), plain, Tools(linker="builtin"))
    assert path.read_bytes() == plain.read_bytes()


@pytest.mark.usefixtures("small")
def test_models_that_are_saved(tmp_path: Path) -> None:
    save_model(small_network(), tmp_path / "net.so", target=by_name("host"), tools=Tools(linker="builtin"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.h", "net.so"]
    np.testing.assert_array_equal(tw.load(tmp_path / "net.so")(IMAGE), tw.compile(small_network())(IMAGE))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("tools", [Tools(linker="ld"), Tools(cc="cc")])
def test_another_linker_needs_no_draft(tools: Tools, tmp_path: Path) -> None:
    with drafted(tmp_path / "net.so", by_name("host").triple, tools) as draft:
        assert draft.room(1000).size == 1000
        assert not list(tmp_path.iterdir())
    with drafted(tmp_path / "net.so", by_name("riscv64").triple, Tools()) as draft:
        assert draft.room(1000).size == 1000
        assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_a_draft_goes_when_compiling_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), drafted(tmp_path / "net.so", by_name("host").triple, Tools()) as draft:
        weights = draft.room(1 << 20)
        weights[...] = 3
        assert len(list(tmp_path.iterdir())) == 1
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir()) and weights.min() == 3


def test_what_killed_processes_left(tmp_path: Path) -> None:
    old, young, other = tmp_path / ".net.so.1.partial", tmp_path / ".net.so.2.partial", tmp_path / ".nets.so.1.partial"
    for file in (old, young, other):
        file.write_bytes(b"half")
    for file in (old, other):
        os.utime(file, (time.time() - 2 * ABANDONED,) * 2)
    write_shared(small_library(), tmp_path / "net.so")
    assert not old.exists() and young.exists() and other.exists()


@pytest.mark.usefixtures("small")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr("tilewright.compiler.link.builtin.write_all", full)
    with pytest.raises(OutputError, match=r"cannot write .*net\.so: No space left on device"):
        save_model(small_network(), tmp_path / "net.so", target=by_name("host"), tools=Tools(linker="builtin"))
    assert [file.name for file in tmp_path.iterdir()] == ["net.h"]
