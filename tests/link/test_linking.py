"""Shared objects, objects and archives: what they export, linkers, the same bytes each time, whole files or none."""

import mmap
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from libraries import SHAPE, needs_cc, needs_nm, run_c, small_library
from small_models import small_network

import tilewright as tw
from tilewright.compiler.link import Library, Tools, write_archive, write_header, write_object, write_shared
from tilewright.compiler.link.linkers import Wanted, candidates
from tilewright.compiler.link.objects import HUGE
from tilewright.errors import CallError, LinkError, OutputError, UnsupportedError
from tilewright.runtime import elf
from tilewright.runtime.abi import WEIGHTS_PAGE
from tilewright.runtime.seal import broken

FUNCTIONS = {
    "net_abi_version", "net_call", "net_error_text", "net_metadata_json", "net_missing_feature", "net_run",
    "net_run_alloc", "net_workspace_bytes",
}  # fmt: skip
IMPORTS = {"malloc", "free", "clock_gettime", "syscall", "pthread_create", "memcpy", "memset", "memmove"}
IMAGE = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)


def linkers() -> list[object]:
    """Every linker of this machine, and the one that is always there."""
    found: list[object] = ["builtin"]
    for name in ("ld", "ld.lld", "cc", "clang"):
        absent = shutil.which(name) is None
        found.append(pytest.param(name, marks=pytest.mark.skipif(absent, reason=f"there is no {name}")))
    return found


def tools(linker: str) -> Tools:
    return Tools(cc=linker) if linker in ("cc", "clang") else Tools(linker=linker)


@pytest.mark.parametrize("linker", linkers())
def test_only_the_interface_is_exported(linker: str, tmp_path: Path) -> None:
    write_shared(small_library(large=True), tmp_path / "net.so", tools(linker))
    file = elf.read((tmp_path / "net.so").read_bytes())
    entries = [entry for entry in elf.symbols(file, elf.DYNSYM) if entry.name]
    assert {entry.name for entry in entries if entry.section} == FUNCTIONS
    imports = {entry.name for entry in entries if not entry.section and entry.bind == elf.GLOBAL}
    assert imports <= IMPORTS
    assert "pthread_create" in imports


@needs_nm
@pytest.mark.parametrize("linker", linkers())
def test_nm_agrees(linker: str, tmp_path: Path) -> None:
    write_shared(small_library(), tmp_path / "net.so", tools(linker))
    command = ["nm", "-D", "--defined-only", str(tmp_path / "net.so")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {line.split()[-1] for line in shown.stdout.splitlines()} == FUNCTIONS


@pytest.mark.parametrize("linker", linkers())
@pytest.mark.parametrize("large", [False, True], ids=["small", "threads"])
def test_every_linker_makes_what_the_jit_computes(linker: str, large: bool, tmp_path: Path) -> None:
    shape = (1, 3, 160, 240) if large else SHAPE
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    write_shared(small_library(large=large), tmp_path / "net.so", tools(linker))
    native = tw.load(tmp_path / "net.so", threads=3)
    np.testing.assert_array_equal(native(x), tw.compile(small_network(shape), threads=1)(x))


@pytest.mark.parametrize("linker", linkers())
def test_many_weights_can_be_mapped_by_huge_pages(linker: str, tmp_path: Path) -> None:
    rows = (64 << 20) // 4096 + 1
    table = np.zeros((rows, 1024), np.float32)
    table[-1] = np.arange(1024)
    model = tw.compile(gather(table), cache=False)
    model.save(tmp_path / "net.so", **{"cc" if linker in ("cc", "clang") else "linker": linker})
    np.testing.assert_array_equal(tw.load(tmp_path / "net.so")(np.array([0, rows - 1])), table[[0, -1]])
    file = elf.read((tmp_path / "net.so").read_bytes())
    (weights,) = [s for s in file.segments if s.type == elf.LOAD and s.file_size > table.nbytes // 2]
    assert weights.align == HUGE
    assert (weights.address - weights.offset) % HUGE == 0


def gather(table: np.ndarray) -> onnx.ModelProto:
    """Two rows of a table."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["table", "i"], ["y"])], "table",
        [value("i", onnx.TensorProto.INT64, [2])], [value("y", onnx.TensorProto.FLOAT, [2, table.shape[1]])],
        [onnx.numpy_helper.from_array(table, "table")],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


@needs_cc
def test_archives_link(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_archive(small_library(name), tmp_path / f"lib{name}.a")
        write_header(small_library(name), tmp_path / f"{name}.h")
    source = '#include "one.h"\n#include "two.h"\nint main(void) { return one_run(0, 0, 0) - two_run(0, 0, 0); }\n'
    run_c(tmp_path, source, "-L.", "-lone", "-ltwo")
    if shutil.which("ar"):
        shown = subprocess.run(["ar", "t", tmp_path / "libone.a"], capture_output=True, text=True, check=True)
        assert shown.stdout == "one.o\n"


def test_an_object_holds_the_weights(tmp_path: Path) -> None:
    library = small_library()
    write_object(library, tmp_path / "net.o")
    file = elf.read((tmp_path / "net.o").read_bytes())
    (entry,) = [entry for entry in elf.symbols(file, elf.SYMTAB) if entry.name == "net_weights"]
    section = file.sections[entry.section]
    assert (entry.visibility, entry.size, section.align) == (elf.HIDDEN, library.constants.nbytes, 4096)
    assert section.offset % 4096 == 0
    assert (tmp_path / "net.o").read_bytes()[section.offset :][: section.size] == library.constants.tobytes()
    # Two models may stand in one program: nothing but their functions is visible beside it.
    visible = {e.name for e in elf.symbols(file, elf.SYMTAB) if e.section and e.bind == elf.GLOBAL}
    assert visible == {*FUNCTIONS, "net_weights"}


@pytest.mark.parametrize("target", ["armv7", "riscv64", "ppc64le", "aarch64"])
def test_objects_of_other_processors_hold_the_weights(target: str, tmp_path: Path) -> None:
    library = small_library(target=target)
    write_object(library, tmp_path / "net.o")
    file = elf.read((tmp_path / "net.o").read_bytes())
    (entry,) = [entry for entry in elf.symbols(file, elf.SYMTAB) if entry.name == "net_weights"]
    section = file.sections[entry.section]
    assert (tmp_path / "net.o").read_bytes()[section.offset :][: section.size] == library.constants.tobytes()


@pytest.mark.parametrize("large", [False, True], ids=["serial", "threads"])
def test_the_builtin_linker_links_aarch64(large: bool, tmp_path: Path) -> None:
    """Run by the tests of ARM code; here the file is looked at."""
    write_shared(small_library(target="aarch64", large=large), tmp_path / "net.so", Tools(linker="builtin"))
    data = (tmp_path / "net.so").read_bytes()
    file = elf.read(data)
    assert (file.machine, file.type, elf.end(file) <= len(data)) == (183, elf.SHARED, True)
    assert {e.name for e in elf.symbols(file, elf.DYNSYM) if e.section} == FUNCTIONS
    assert all(s.address % 65536 == s.offset % 65536 for s in file.segments if s.type == elf.LOAD)


@pytest.mark.parametrize("target", ["arm64-macos", "x86-64-windows-gnu", "wasm32"])
def test_other_formats_keep_weights_apart(target: str, tmp_path: Path) -> None:
    library = small_library(target=target, weights=None)  # type: ignore[arg-type]
    write_object(library, tmp_path / "net.o")
    assert library.weights == "external"
    assert (tmp_path / "net.weights").stat().st_size == WEIGHTS_PAGE + library.constants.nbytes
    with pytest.raises(UnsupportedError, match="weights='external'"):
        small_library(target=target, weights="embed")


# ---- the same bytes


DETERMINISM = """
import sys
from pathlib import Path
from tilewright.aot import LibraryOptions, Tools, library_of
from tilewright.compiler.link import write_archive, write_header, write_object, write_shared
from tilewright.compiler.targets import host
from tilewright.frontends.formats import load
folder = Path(sys.argv[1])
for weights in ("embed", "external"):
    library = library_of(load(sys.argv[2]), LibraryOptions("net", weights), target=host())
    write_shared(library, folder / f"{weights}.so")
    write_shared(library, folder / f"{weights}-builtin.so", Tools(linker="builtin"))
    write_object(library, folder / f"{weights}.o")
    write_archive(library, folder / f"{weights}.a")
    write_header(library, folder / f"{weights}.h")
"""


def test_the_same_model_makes_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(small_network((1, 3, 160, 240)))
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", DETERMINISM, str(tmp_path / seed), str(tmp_path / "net.onnx")]
        subprocess.run(command, env=environment, check=True)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert len(names) == 11
    assert names == sorted(path.name for path in (tmp_path / "2").iterdir())
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


# ---- linkers


def test_the_order_of_linkers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("tilewright.compiler.link.linkers.find_spec", lambda name: None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    here = Wanted("x86_64-unknown-linux-gnu", "net.so", True, ())
    names = [c.name for c in candidates(here, Tools(), True)]
    assert names[:3] == ["/bin/ld.lld", "/bin/ld", "/bin/x86_64-unknown-linux-gnu-ld"]
    assert names[-1] == "builtin"
    assert next(candidates(here, Tools(), True, large=True)).name == "builtin"
    # The machine's own ld and cc make nothing for other processors.
    other = replace(here, triple="aarch64-unknown-linux-gnu")
    names = [c.name for c in candidates(other, Tools(), True)]
    assert "/bin/ld" not in names and "/bin/cc" not in names
    assert "/bin/aarch64-linux-gnu-ld" in names and "/bin/aarch64-linux-gnu-gcc" in names
    (asked,) = candidates(here, Tools(linker="mold --threads=1", sysroot="/arm"), True)
    assert asked.command[:3] == ("mold", "--threads=1", "-shared")
    assert "--sysroot=/arm" in asked.command
    assert ("-z", "nodelete") in zip(asked.command, asked.command[1:], strict=False)
    (asked,) = candidates(here, Tools(cc="gcc-13 -m64"), True)
    assert asked.command[:3] == ("gcc-13", "-m64", "-shared")
    assert "-Wl,-z,nodelete" in asked.command


def test_without_any_linker_the_builtin_one_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("tilewright.compiler.link.linkers.find_spec", lambda name: None)
    said: list[str] = []
    write_shared(small_library(), tmp_path / "net.so", Tools(report=said.append))
    assert said == [f"built-in linker: {tmp_path / 'net.so'}"]
    assert tw.load(tmp_path / "net.so")(IMAGE).shape == (1, 5)
    with pytest.raises(LinkError, match=r"no linker for riscv64.*ziglang.*--linker"):
        write_shared(small_library(target="riscv64"), tmp_path / "other.so")
    assert [path.name for path in tmp_path.iterdir()] == ["net.so"]


def test_a_linker_that_fails_is_passed_over_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ld.lld"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no good >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CC", raising=False)
    said: list[str] = []
    write_shared(small_library(), tmp_path / "net.so", Tools(report=said.append))
    assert said[0].startswith(f"{program} -shared ") and len(said) > 1
    with pytest.raises(LinkError, match="no good"):
        write_shared(small_library(), tmp_path / "asked.so", Tools(linker=str(program)))
    with pytest.raises(LinkError, match="missing-linker failed: No such file"):
        write_shared(small_library(), tmp_path / "asked.so", Tools(linker="missing-linker"))
    with pytest.raises(LinkError, match="is empty"):
        write_shared(small_library(), tmp_path / "asked.so", Tools(cc=" "))
    with pytest.raises(LinkError, match="x86-64 and AArch64, not for riscv64"):
        write_shared(small_library(target="riscv64"), tmp_path / "asked.so", Tools(linker="builtin"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "net.so"]


@needs_cc
def test_cc_from_the_environment_must_be_for_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -O0")
    said: list[str] = []
    write_shared(small_library(), tmp_path / "net.so", Tools(report=said.append))
    assert said[0].startswith("cc -O0 -shared ")
    foreign = candidates(Wanted("riscv64-unknown-linux-gnu", "n.so", False, ()), Tools(), False)
    assert all(not candidate.name.startswith("cc") for candidate in foreign)


# ---- whole or not at all


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("linker", ["builtin", None])
def test_places_that_cannot_be_written(tmp_path: Path, linker: str | None) -> None:
    library = small_library(weights="external")
    (tmp_path / "folder.so").mkdir()
    for path, why in (
        (tmp_path / "missing" / "net.so", "No such file"), (tmp_path / "folder.so", "is a folder"),
        (Path("/proc/net.so"), "cannot write /proc/net.so"), (tmp_path / ("x" * 300), "name too long"),
    ):  # fmt: skip
        with pytest.raises(OutputError, match=why):
            write_shared(replace(library, weights="none"), path, Tools(linker=linker))
    assert names(tmp_path) == ["folder.so"]


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "net.so"
    path.write_text("old")
    with pytest.raises(LinkError):
        write_shared(small_library(), path, Tools(linker="false"))
    assert path.read_text() == "old"
    write_shared(small_library(), path)
    assert path.stat().st_size > 10_000
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def big_library(megabytes: int) -> Library:
    """A library with so many weights, nearly all of which no kernel reads."""
    library = small_library()
    more = np.zeros(megabytes << 20, np.uint8)
    more[: library.constants.nbytes] = library.constants
    return replace(library, constants=more)


FULL = """
import pickle, resource, signal, sys
from pathlib import Path
from tilewright.compiler.link import Tools, write_archive, write_object, write_shared
from tilewright.errors import LinkError, OutputError
library, folder = pickle.load(sys.stdin.buffer), Path(sys.argv[1])
if sys.argv[2]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]) << 20, resource.RLIM_INFINITY))
for write in (
    lambda: write_shared(library, folder / "net.so", Tools(linker="builtin")),
    lambda: write_shared(library, folder / "net.so", Tools(linker="ld")),
    lambda: write_object(library, folder / "net.o"),
    lambda: write_archive(library, folder / "net.a"),
):
    try:
        write()
        print("written")
    except OutputError as error:
        print(str(error).replace(str(folder), ""))
"""


def _full(folder: Path, limit: str) -> list[str]:
    command = [sys.executable, "-c", FULL, str(folder), limit]
    done = subprocess.run(command, input=pickle.dumps(big_library(32)), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def test_a_file_that_may_not_grow_leaves_nothing(tmp_path: Path) -> None:
    lines = _full(tmp_path, "16")
    assert len(lines) == 4
    assert all("File too large" in line for line in lines)
    assert names(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        lines = _full(tmp_path, "")
        assert len(lines) == 4
        assert all("No space left" in line for line in lines)
        assert names(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


INTERRUPTED = """
import pickle, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background of a shell ignore it
from pathlib import Path
import tilewright.compiler.link.files as files
from tilewright.compiler.link import Tools, write_shared
library = pickle.loads(Path(sys.argv[2]).read_bytes())
write = files.write_all
def slow(file, data):
    view = memoryview(data).cast("B")
    for at in range(0, len(view), 1 << 20):
        write(file, view[at : at + (1 << 20)])
        file.flush()
        print(at, flush=True)
        time.sleep(0.05)
for module in sys.modules.values():
    if getattr(module, "write_all", None) is write:
        module.write_all = slow
write_shared(library, Path(sys.argv[1]) / "net.so", Tools(linker=sys.argv[3]))
"""


@pytest.mark.parametrize("linker", ["builtin", "ld"])
def test_ctrl_c_half_way_leaves_nothing(tmp_path: Path, linker: str) -> None:
    pickled, folder = tmp_path / "library", tmp_path / "out"
    pickled.write_bytes(pickle.dumps(big_library(64)))
    folder.mkdir()
    command = [sys.executable, "-c", INTERRUPTED, str(folder), str(pickled), linker]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
        assert names(folder)  # it is being written, under another name
        assert "net.so" not in names(folder)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert process.returncode != 0
    deadline = time.monotonic() + 5
    while names(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert names(folder) == []


def test_the_seal(tmp_path: Path) -> None:
    write_shared(small_library(), tmp_path / "net.so", Tools(linker="builtin"))
    with open(tmp_path / "net.so", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert broken(data, elf.read(data)) == ""


# ---- names and models


def test_names_and_shapes_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"'a-b' is no name.*a_b"):
        small_library("a-b")
    model = tw.compile(small_network(("N", 3, 16, 24)))
    with pytest.raises(CallError, match="unknown dimensions; give shapes="):
        model.save(tmp_path / "net.so")
    assert names(tmp_path) == []
