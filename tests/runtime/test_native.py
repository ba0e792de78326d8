"""Models from shared objects: the same results as compiled ones, without LLVM, and what is refused."""

import mmap
import os
import platform
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from libraries import SHAPE, small_library
from numpy.typing import NDArray
from small_models import reference, small_network

import tilewright as tw
from tilewright.compiler.codegen.cpu import checked_features
from tilewright.compiler.library import LibraryOptions, build_library
from tilewright.compiler.link import Tools, write_shared
from tilewright.compiler.pipeline import plan_graph
from tilewright.compiler.targets import host
from tilewright.errors import CallError, LoadError
from tilewright.frontends.formats import load as load_model
from tilewright.runtime import elf
from tilewright.runtime.seal import broken

BUILTIN = Tools(linker="builtin")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("native") / "net.so"
    write_shared(small_library(), made, BUILTIN)
    return made


@pytest.fixture(scope="module")
def image() -> NDArray[Any]:
    return np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)


# ---- the same interface


def test_save_and_load(tmp_path: Path, image: NDArray[Any]) -> None:
    compiled = tw.compile(small_network())
    compiled.save(tmp_path / "my-net.1.so")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-net.1.h", "my-net.1.so"]
    assert "int32_t my_net_1_run(" in (tmp_path / "my-net.1.h").read_text()
    model = tw.load(tmp_path / "my-net.1.so")
    assert isinstance(model, tw.Model)
    assert (model.inputs, model.outputs) == (compiled.inputs, compiled.outputs)
    np.testing.assert_array_equal(model(image), compiled(image))
    np.testing.assert_allclose(model(image), reference(image)["scores"], atol=1e-5)
    np.testing.assert_array_equal(model.run({"image": image})["scores"], compiled(image))
    out = np.empty((1, 5), np.float32)
    assert model(image, out=out) is out
    np.testing.assert_array_equal(out, compiled(image))
    np.testing.assert_array_equal(model(image[:, :, ::-1][:, :, ::-1].tolist()), compiled(image))
    out[...] = 0
    model.bind(image, out=out)()
    np.testing.assert_array_equal(out, compiled(image))
    with pytest.raises(CallError, match=r"net.1.so: input 'image' has shape 1x3x16x25"):
        model(np.zeros((1, 3, 16, 25), np.float32))
    with pytest.raises(CallError, match="a shared object already"):
        model.save(tmp_path / "again.so")
    with pytest.raises(CallError, match="threads=-1"):
        tw.load(tmp_path / "my-net.1.so", threads=-1)


def test_a_model_from_the_cache_can_be_saved(tmp_path: Path, image: NDArray[Any]) -> None:
    (tmp_path / "net.onnx").write_bytes(small_network())
    for _ in range(2):
        model = tw.compile(tmp_path / "net.onnx")
        model.save(tmp_path / "net.so", name="other", weights="external", linker="builtin")
        np.testing.assert_array_equal(tw.load(tmp_path / "net.so")(image), model(image))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.h", "net.onnx", "net.so", "other.weights"]


def test_any_number_of_samples(tmp_path: Path) -> None:
    write_shared(small_library(batched=True), tmp_path / "net.so")
    model = tw.load(tmp_path / "net.so")
    assert list(map(str, (*model.inputs, *model.outputs))) == ["image: float32 Nx3x16x24", "scores: float32 Nx5"]
    for n in (0, 1, 2, 7):
        x = np.random.default_rng(n).standard_normal((n, *SHAPE[1:])).astype(np.float32)
        np.testing.assert_allclose(model(x), reference(x)["scores"], atol=1e-5)
    model = tw.load(tmp_path / "net.so")
    for samples in (1, 3):
        x = np.random.default_rng(samples).standard_normal((samples, *SHAPE[1:])).astype(np.float32)
        out = np.empty_like(model(x))
        call = model.bind(x, out=out)
        x *= 2
        call()
        np.testing.assert_array_equal(out, model(x))


ALONE = """
import sys
import numpy as np
import tilewright as tw
model = tw.load(sys.argv[1], threads=2)
assert model(np.load(sys.argv[2])).shape == (1, 5)
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"llvmlite", "onnx", "google", "torch", "blake3"}, loaded
ours = {name for name in sys.modules if name.startswith("tilewright.")}
assert all(name.startswith("tilewright.runtime") or name == "tilewright.errors" for name in ours), ours
"""


def test_nothing_of_the_compiler_is_loaded(path: Path, image: NDArray[Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", image)
    subprocess.run([sys.executable, "-c", ALONE, str(path), str(tmp_path / "x.npy")], check=True)


def test_several_models_and_many_threads(tmp_path: Path) -> None:
    models = []
    for number in range(3):
        library = small_library(f"net{number}", large=number == 2)
        write_shared(library, tmp_path / f"{number}.so", BUILTIN)
        models.append(tw.load(tmp_path / f"{number}.so", threads=number + 1))
    inputs = [np.random.default_rng(n).standard_normal(m.inputs[0].shape).astype(np.float32)  # type: ignore[arg-type]
              for n, m in enumerate(models)]  # fmt: skip
    expected = [model(x) for model, x in zip(models, inputs, strict=True)]

    def call(number: int) -> bool:
        which = number % 3
        return np.array_equal(models[which](inputs[which]), expected[which])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(300)))


FORK = """
import os, sys
import numpy as np
import tilewright as tw
model = tw.load(sys.argv[1], threads=3)
x = np.ones((1, 3, 160, 240), np.float32)
expected = model(x)
for _ in range(5):
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(model(x), expected) and np.array_equal(model(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(model(x), expected)
del model
"""


def test_threads_survive_forks_and_the_model(tmp_path: Path) -> None:
    write_shared(small_library(large=True), tmp_path / "net.so", BUILTIN)
    subprocess.run([sys.executable, "-c", FORK, str(tmp_path / "net.so")], check=True, timeout=60)


def test_a_file_that_was_replaced_is_loaded_anew(tmp_path: Path, image: NDArray[Any]) -> None:
    library = small_library()
    write_shared(library, tmp_path / "net.so", BUILTIN)
    first = tw.load(tmp_path / "net.so")
    before = first(image)
    doubled = library.constants.view(np.float32) * np.float32(2)
    other = replace(library, constants=doubled.view(np.uint8))
    write_shared(other, tmp_path / "net.so", BUILTIN)
    second = tw.load(tmp_path / "net.so")
    assert not np.allclose(second(image), before)
    np.testing.assert_array_equal(first(image), before)


# ---- weights in a file of their own


def test_external_weights(tmp_path: Path, image: NDArray[Any]) -> None:
    write_shared(small_library(weights="external"), tmp_path / "net.so")
    expected = tw.compile(small_network())(image)
    np.testing.assert_array_equal(tw.load(tmp_path / "net.so")(image), expected)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "net.weights").rename(tmp_path / "elsewhere" / "w")
    np.testing.assert_array_equal(tw.load(tmp_path / "net.so", weights=moved)(image), expected)
    with pytest.raises(LoadError, match=r"net\.weights are missing; they belong into the same folder"):
        tw.load(tmp_path / "net.so")
    data = bytearray(moved.read_bytes())
    moved.write_bytes(data[:-1])
    with pytest.raises(LoadError, match=f"have {len(data) - 1} bytes instead of {len(data)}"):
        tw.load(tmp_path / "net.so", weights=moved)
    data[30] ^= 1
    moved.write_bytes(data)
    with pytest.raises(LoadError, match="the weights of another model"):
        tw.load(tmp_path / "net.so", weights=moved)
    with pytest.raises(LoadError, match="cannot be read: Is a directory"):
        tw.load(tmp_path / "net.so", weights=tmp_path)


def test_weights_for_a_model_that_holds_its_own(path: Path) -> None:
    with pytest.raises(LoadError, match="its weights are inside"):
        tw.load(path, weights=path)


# ---- what is refused


def damaged(path: Path, folder: Path, change: Any) -> Path:
    """A copy with other bytes."""
    data = bytearray(path.read_bytes())
    changed = change(data)
    copy = folder / "damaged.so"
    copy.write_bytes(data if changed is None else changed)
    return copy


def flip_code(data: bytearray) -> None:
    """Change a bit of the code."""
    text = next(section for section in elf.read(bytes(data)).sections if section.name == ".text")
    data[text.offset + 100] ^= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "it is empty"),
        (lambda data: b"MZ" + bytes(100), "it is no ELF file"),
        (lambda data: data[:40], "it is no ELF file"),
        (lambda data: data[:3000], "it is cut off"),
        (lambda data: data[: len(data) // 2], "it is cut off"),
        (lambda data: data[:-100], "it is cut off|damaged"),
        (lambda data: data[:-10], "cut off|damaged|size"),
        (lambda data: flip_code(data), "it is damaged: its checksum differs"),
        (lambda data: data.__setitem__(-1, data[-1] ^ 1), "it is damaged: its checksum differs"),
        (lambda data: data.__setitem__(slice(18, 20), b"\xf3\0"), "it is for Linux on riscv"),
        (lambda data: data.__setitem__(4, 1), "cut off|32 bits|for Linux on|not a shared object"),
        (lambda data: data.__setitem__(5, 2), "no little-endian one"),
        (lambda data: data.__setitem__(16, 1), "no shared object"),
        (lambda data: data.__setitem__(slice(40, 48), b"\xff" * 8), "it is cut off"),
    ],
    ids=["empty", "strange", "header", "head", "half", "tail", "seal", "code", "digest", "machine", "class", "order",
         "object", "sections"],
)  # fmt: skip
def test_damaged_files(path: Path, tmp_path: Path, change: Any, message: str) -> None:
    copy = damaged(path, tmp_path, change)
    with pytest.raises(LoadError, match=message) as caught:
        tw.load(copy)
    assert str(copy) in str(caught.value)


def test_every_cut_is_noticed(path: Path, tmp_path: Path) -> None:
    size = path.stat().st_size
    for length in [*range(0, 600, 7), *range(600, size - 1, max(size // 60, 1)), size - 1]:
        with pytest.raises(LoadError):
            tw.load(damaged(path, tmp_path, lambda data, length=length: data[:length]))


def test_random_damage_never_crashes(path: Path, tmp_path: Path) -> None:
    """Headers and tables with random bytes: refused, whatever they say; damaged weights are not looked for."""
    random = np.random.default_rng(0)
    weights = next(section for section in elf.read(path.read_bytes()).sections if section.name == ".weights")
    for _ in range(100):
        data = bytearray(path.read_bytes())
        at = int(random.integers(0, weights.offset))
        data[at : at + 4] = random.bytes(4)
        if data == path.read_bytes():
            continue
        copy = tmp_path / "random.so"
        copy.write_bytes(data)
        with pytest.raises(LoadError):
            tw.load(copy)


def test_files_of_others(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read: No such file"):
        tw.load(tmp_path / "missing.so")
    with pytest.raises(LoadError, match="cannot be read: Is a directory"):
        tw.load(tmp_path)
    (tmp_path / "text.so").write_text("hello " * 100)
    with pytest.raises(LoadError, match="not a shared object of Tilewright: it is no ELF file"):
        tw.load(tmp_path / "text.so")
    import _ctypes

    with pytest.raises(LoadError, match="not one that Tilewright wrote"):
        tw.load(_ctypes.__file__)


def test_another_processor(tmp_path: Path) -> None:
    target = "aarch64" if platform.machine() == "x86_64" else "x86-64-v3"
    write_shared(small_library(target=target), tmp_path / "net.so", BUILTIN)
    with pytest.raises(LoadError, match=r"for Linux on .* this Python runs on .*; compile the model for this machine"):
        tw.load(tmp_path / "net.so")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names features of x86")
def test_a_missing_feature_is_named(tmp_path: Path, image: NDArray[Any]) -> None:
    """Refused by load, and by the code itself where a C program calls it all the same."""
    absent = next(
        (name for name in ("avx512fp16", "fma4", "xop", "avxifma") if name not in host().requires), None
    )
    if absent is None:
        pytest.skip("this machine has every feature")
    demanding = replace(host(), requires=(*host().requires, absent))
    graph = load_model(small_network()).translate()
    library = build_library(plan_graph(graph, demanding, library=True), demanding, LibraryOptions("net"))
    write_shared(library, tmp_path / "net.so", BUILTIN)
    with pytest.raises(LoadError, match=f"needs a processor with .*{absent}.*lacks {absent}. Compile"):
        tw.load(tmp_path / "net.so")
    import ctypes

    native = ctypes.CDLL(str(tmp_path / "net.so"))
    native.net_missing_feature.restype = ctypes.c_char_p
    assert native.net_missing_feature() == absent.encode()
    out = np.full((1, 5), 7, np.float32)
    pointers = [(ctypes.c_void_p * 1)(array.ctypes.data) for array in (image, out)]
    assert native.net_run_alloc(*pointers, 1) == -8
    assert (out == 7).all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with LLVM's view of x86")
def test_features_of_this_machine_are_all_there(path: Path) -> None:
    """What cpuid says here agrees with what LLVM found: a wrong bit in the table would be refused."""
    assert {"avx2", "fma", "popcnt"} <= set(checked_features(host()))
    tw.load(path)


def test_a_stripped_library_still_loads(path: Path, tmp_path: Path, image: NDArray[Any]) -> None:
    if shutil.which("strip") is None:
        pytest.skip("there is no strip")
    write_shared(small_library(), tmp_path / "net.so")
    expected = tw.load(tmp_path / "net.so")(image)
    subprocess.run(["strip", "-o", tmp_path / "stripped.so", tmp_path / "net.so"], check=True)
    np.testing.assert_array_equal(tw.load(tmp_path / "stripped.so")(image), expected)


def test_loading_from_many_threads(path: Path, image: NDArray[Any]) -> None:
    expected, found = tw.load(path)(image), []
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait()
        found.append(np.array_equal(tw.load(path, threads=2)(image), expected))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6


def test_the_seal_covers_all_but_the_weights(path: Path, tmp_path: Path) -> None:
    weights = next(section for section in elf.read(path.read_bytes()).sections if section.name == ".weights")

    def verdict(at: int) -> str:
        copy = damaged(path, tmp_path, lambda data: data.__setitem__(at, data[at] ^ 4))
        with open(copy, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return broken(data, elf.read(data))

    assert verdict(weights.offset) == verdict(weights.offset + weights.size - 1) == ""
    assert verdict(weights.offset - 1) == verdict(weights.offset + weights.size) == "its checksum differs"
    assert os.path.getsize(path) > weights.offset + weights.size
