"""Compiled code kept on disk: found again bit for bit, never for anything else, and no harm from damaged files."""

import logging
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx.external_data_helper import convert_model_to_external_data
from PIL import Image
from small_artifacts import artifact, equal
from small_models import WEIGHTS, small_network

import tilewright as tw
import tilewright.runtime.cache as module
from tilewright.cli import cli
from tilewright.compiler.pipeline import Planned, compile_planned
from tilewright.errors import CallError, UnknownNameError
from tilewright.reuse import SETTLED, Content, known_content, read_content, stamp, stamps
from tilewright.runtime.artifact import Artifact
from tilewright.runtime.cache import ABANDONED, Cache, folder_and_limit, open_cache

X = np.random.default_rng(5).standard_normal((1, 3, 16, 24)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, not yet made."""
    monkeypatch.setenv(module.FOLDER, str(tmp_path / "cache"))
    module._warn.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the models that are compiled during the test."""
    names: list[str] = []

    def counting(planned: Planned, *rest: Any) -> Artifact:
        names.append(planned.name)
        return compile_planned(planned, *rest)

    for user in ("jit", "columns"):
        monkeypatch.setattr(f"tilewright.{user}.compile_planned", counting)
    yield names


def artifacts(folder: Path) -> list[Path]:
    return [entry.path for entry in Cache(folder).entries() if entry.about]


# ---- entries


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_round_trip(size: int, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "made" / "here")
    assert cache.get("k") is None and cache.note("k") is None
    cache.put("k", artifact(size))
    found = cache.get("k")
    assert equal(found, artifact(size)) and found is not None
    assert not size or found.constants.ctypes.data % 64 == 0
    assert not size or not found.constants.flags.writeable
    cache.put_note("n", {"a": [1, "é"]})
    assert cache.note("n") == {"a": [1, "é"]} and cache.get("n") is None
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.folder.iterdir()} == {0o600}


def test_damaged_entries_are_missing_and_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("k", artifact())
    path = tmp_path / "k.tw"
    whole = path.read_bytes()
    header, constants = 80, 4096 + 1000  # between them lie padding and the constants, which are not read
    damaged = [whole[:end] for end in {*range(0, len(whole), 37), constants - 1, constants, len(whole) - 1}]
    damaged += [whole + b"\0", b"", b"\0" * len(whole), whole[:8] + b"\xff" * 48 + whole[56:]]
    for at in (*range(header), *range(constants, len(whole))):
        damaged.append(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
    for data in damaged:
        path.write_bytes(data)
        assert cache.get("k") is None
        assert not path.exists()
    path.write_bytes(whole)
    assert equal(cache.get("k"), artifact())


def test_an_entry_under_another_name_is_not_taken(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("k", artifact())
    (tmp_path / "k.tw").rename(tmp_path / "other.tw")
    assert cache.get("other") is None


def test_constants_are_computed_in_place(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), artifact(100_000)
    with cache.draft("k") as draft:
        place = draft.room(100_000)
        assert place.ctypes.data % 64 == 0
        place[...] = made.constants
        (partial,) = tmp_path.iterdir()
        assert cache.get("k") is None and partial.read_bytes()[4096:] == made.constants.tobytes()
        draft.keep(replace(made, constants=place))
        assert not place.flags.writeable, "others may have mapped it"
    assert [path.name for path in tmp_path.iterdir()] == ["k.tw"]
    assert equal(cache.get("k"), made) and np.array_equal(place, made.constants)


def test_a_draft_that_is_not_kept_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(ZeroDivisionError), cache.draft("k") as draft:
        place = draft.room(100_000)
        place[...] = 7
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir()) and place.min() == 7


def test_without_room_in_the_file_constants_lie_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, made = Cache(tmp_path), artifact(100_000)

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with cache.draft("k") as draft:
        place = draft.room(100_000)
        assert not list(tmp_path.iterdir())
        place[...] = made.constants
        draft.keep(replace(made, constants=place))
    assert equal(cache.get("k"), made)
    with Cache(tmp_path / "small", 150_000).draft("k") as draft:
        assert draft.room(100_000).size == 100_000
        assert not (tmp_path / "small").exists(), "it would not be kept"


def test_constants_stay_when_the_entry_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("k", artifact(100_000))
    found = cache.get("k")
    assert cache.clear() > 100_000 and cache.get("k") is None
    assert equal(found, artifact(100_000))


def test_the_bound_holds_and_what_was_used_last_stays(tmp_path: Path) -> None:
    limit = 200_000
    cache = Cache(tmp_path, limit)
    for number in range(40):
        cache.put(str(number), artifact(20_000))
        assert cache.get("0") is not None
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
        time.sleep(0.002)
    kept = {path.stem for path in tmp_path.iterdir()}
    assert {"0", "39", "38"} <= kept and not {"1", "2", "3"} & kept and len(kept) > 4
    cache.put("large", artifact(limit // 2))
    assert cache.get("large") is None and cache.get("39") is not None


def test_what_a_killed_writer_leaves(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    old, new = tmp_path / "k.1.partial", tmp_path / "k.2.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * ABANDONED,) * 2)
    cache.put("k", artifact())
    assert equal(cache.get("k"), artifact()) and len(cache.entries()) == 1
    assert new.exists() and not old.exists()
    cache.clear()
    assert not list(tmp_path.iterdir())


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    cache = Cache(tmp_path, 10_000)
    for number in range(5):
        cache.put(str(number), artifact())
    cache.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


_WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from small_artifacts import artifact, equal
from tilewright.runtime.cache import Cache
cache, number = Cache(Path(sys.argv[1]), 1 << 20), int(sys.argv[2])
print("ready", flush=True)
rounds = 0
while number < 9 and rounds < 70 or number == 9:
    key = str(rounds % 7)
    cache.put(key, artifact(1000 + 50_000 * int(key), key))
    found = cache.get(key)
    assert found is None or equal(found, artifact(1000 + 50_000 * int(key), key))
    rounds += 1
"""


def test_processes_that_write_at_once_and_one_that_is_killed(tmp_path: Path) -> None:
    helpers = str(Path(__file__).parents[1])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(number), helpers], stdout=subprocess.PIPE, text=True
        )
        for number in (1, 2, 9)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    time.sleep(0.1)
    writers[2].kill()
    assert [writer.wait(60) for writer in writers] == [0, 0, -9]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    cache = Cache(tmp_path, 1 << 20)
    for key in map(str, range(7)):
        cache.put(key, artifact(1000 + 50_000 * int(key), key))
        assert equal(cache.get(key), artifact(1000 + 50_000 * int(key), key))


# ---- where it is


def test_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiled: list[str]) -> None:
    for name, value in ((module.FOLDER, ""), (module.FOLDER, "0"), (module.BYTES, "0")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert folder_and_limit() is None and open_cache() is None
    monkeypatch.setenv(module.FOLDER, str(tmp_path / "cache"))
    for _ in range(2):
        tw.compile(small_network(), cache=False)
    assert len(compiled) == 2 and not (tmp_path / "cache").exists()


def test_the_bound_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.BYTES, "4G")
    with pytest.raises(CallError, match="TILEWRIGHT_CACHE_BYTES=4G must be a whole number of bytes"):
        tw.compile(small_network())


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(module.FOLDER)
    monkeypatch.delenv(module.BYTES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder_and_limit() == (tmp_path / "tilewright", module.DEFAULT_BYTES)


def test_a_folder_that_others_may_write_to(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert tw.compile(small_network())(X).shape == (1, 5)
    assert not list(folder.iterdir()) and "can be written to by others and is not used" in caplog.text


def test_a_full_disk(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with caplog.at_level(logging.WARNING):
            y = tw.compile(small_network())(X)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert y.shape == (1, 5) and "cannot write to the cache" in caplog.text
    assert not artifacts(folder) and not list(folder.glob("*.partial"))


def test_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(module.FOLDER, str(tmp_path / "file" / "cache"))
    assert tw.compile(small_network())(X).shape == (1, 5)
    assert "cannot write to the cache" in caplog.text


def test_nothing_is_kept_once_the_sources_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_stamps", lambda: ())
    tw.compile(small_network())
    assert not folder.exists()


# ---- models


def test_warm_equals_cold(folder: Path, tmp_path: Path, compiled: list[str]) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network())
    expected = tw.compile(path, cache=False)
    compiled.clear()
    time.sleep(2 * SETTLED)
    results = [tw.compile(path) for _ in range(3)]
    assert len(compiled) == 1
    for model in results:
        assert model(X).tobytes() == expected(X).tobytes()
        assert (model.name, model.inputs, model.outputs) == (str(path), expected.inputs, expected.outputs)
        assert model.run({"image": X}).keys() == expected.run({"image": X}).keys()
        with pytest.raises(CallError, match=f"{path}.*has shape 16x24, the model takes 1x3x16x24"):
            model(X[0, 0])
    assert len(artifacts(folder)) == 1


def test_what_the_key_holds(folder: Path, compiled: list[str]) -> None:
    data = small_network()
    changed = bytearray(data)
    changed[data.index(WEIGHTS["w1"].tobytes())] ^= 1  # one bit, the size stays
    variants: list[tuple[bytes, dict[str, Any]]] = [
        (data, {}),
        (bytes(changed), {}),
        (data, {"outputs": ["conv1_1"]}),
        (data, {"outputs": ["conv1_1", "conv2_1"]}),
        (data, {"outputs": ["conv2_1", "conv1_1"]}),
        (data, {"shapes": {"image": (2, 3, 16, 24)}}),
        (data, {"conv": "direct"}),
        (data, {"target": "x86-64-v3"}),
    ]
    for number, (source, options) in enumerate(variants, 1):
        cold = tw.compile(source, **options)
        assert len(compiled) == len(artifacts(folder)) == number
        warm = tw.compile(source, **options)
        assert len(compiled) == number
        x = np.repeat(X, cold.inputs[0].shape[0], 0)
        for left, right in zip(cold.run({"image": x}).values(), warm.run({"image": x}).values(), strict=True):
            assert left.tobytes() == right.tobytes()
    tw.compile(data, shapes={"image": (1, 3, 16, 24)}, threads=1)  # says the same as the first
    tw.compile(onnx.load_model_from_string(data))
    assert len(compiled) <= len(variants) + 1


def test_other_code_or_libraries_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(Path("unused"))
    keys = {cache.key("a", "b"), cache.key("ab"), cache.key("a")}
    monkeypatch.setattr(module.llvmlite, "__version__", "99")
    keys.add(cache.key("a"))
    monkeypatch.setattr(module, "_IMPORTED", (("edited", 1, 2, 3),))
    assert len(keys | {cache.key("a")}) == 5


def test_errors_are_the_same_with_a_cache(folder: Path) -> None:
    tw.compile(small_network())
    with pytest.raises(UnknownNameError):
        tw.compile(small_network(), outputs=["none"])
    with pytest.raises(UnknownNameError):
        tw.compile(small_network(), shapes={"none": (1,)})


def test_shapes_that_calls_bring(folder: Path, compiled: list[str]) -> None:
    data = small_network((1, 3, "H", "W"))
    first = tw.compile(data)(X)
    again = tw.compile(data)
    assert again.inputs[0].shape == (1, 3, "H", "W")
    assert again(X).tobytes() == first.tobytes() and len(compiled) == 1
    assert again(np.concatenate([X, X], 3)).shape == (1, 5) and len(compiled) == 2
    tw.compile(data, shapes={"image": (1, 3, 16, 24)})
    assert len(compiled) == 2


def test_a_damaged_entry_is_compiled_again(folder: Path, compiled: list[str]) -> None:
    expected = tw.compile(small_network())(X)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert tw.compile(small_network())(X).tobytes() == expected.tobytes()
    assert len(compiled) == 2
    tw.compile(small_network())
    assert len(compiled) == 2


def test_hypercolumns(folder: Path, compiled: list[str]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (16, 24, 3), np.uint8))

    def extract(**options: Any) -> list[bytes]:
        columns = tw.Hypercolumns(small_network(), ["conv1_1", "conv2_1"], size=(16, 24), **options)
        return [columns(image).tobytes(), columns(image, pixels=[(1, 2), (15, 23)]).tobytes()]

    plain = extract(cache=False)
    assert not folder.exists()
    compiled.clear()
    assert extract() == plain and len(compiled) == 3
    assert extract() == plain and len(compiled) == 3
    extract(conv="direct")
    assert len(compiled) > 3


def test_threads_that_compile_at_once(folder: Path) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(tw.compile(small_network())(X).tobytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(set(results)) == 1 and len(artifacts(folder)) == 1


# ---- files


def changes(path: Path) -> list[Callable[[], object]]:
    data = path.read_bytes()
    other = path.with_name("other")

    def replaced() -> None:
        other.write_bytes(data[::-1])
        os.utime(other, ns=(0, path.stat().st_mtime_ns))
        other.replace(path)

    def same_size_and_time() -> None:
        time_ns = path.stat().st_mtime_ns
        path.write_bytes(data[::-1])
        os.utime(path, ns=(time_ns, time_ns))

    return [lambda: path.write_bytes(data + b"1"), same_size_and_time, replaced]


@pytest.mark.parametrize("way", [0, 1, 2])
@pytest.mark.parametrize("external", [False, True])
def test_files_that_change(way: int, external: bool, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    path, data = tmp_path / "model", tmp_path / "data"
    path.write_bytes(b"0123")
    data.write_bytes(b"4567")
    time.sleep(2 * SETTLED)
    content = read_content(cache, path, [data], stamps(path, data))
    assert content is not None and content == known_content(cache, path) and content.current()
    changes(data if external else path)[way]()
    assert not content.current() and known_content(cache, path) is None
    changed = read_content(cache, path, [data], stamps(path, data))
    assert changed is not None and changed.digest != content.digest


def test_a_file_that_has_just_changed_is_hashed_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    path = tmp_path / "model"
    path.write_bytes(b"0123")
    assert read_content(cache, path, [], stamps(path)) is not None
    assert known_content(cache, path) is None


def test_a_file_that_changed_since_it_was_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    path = tmp_path / "model"
    path.write_bytes(b"0123")
    read = stamps(path)
    path.write_bytes(b"4567!")
    assert read_content(cache, path, [], read) is None
    assert read_content(cache, path, [], ()) is None, "it was not there"


def test_models_in_memory(tmp_path: Path) -> None:
    cache, data = Cache(tmp_path), small_network()
    contents = {known_content(cache, kind(data)) for kind in (bytes, bytearray, memoryview)}
    every_other = memoryview(bytes(byte for byte in data for _ in range(2)))[::2]
    assert contents | {known_content(cache, every_other)} == {known_content(cache, data)}
    assert known_content(cache, onnx.load_model_from_string(data)) is not None
    assert tw.compile(every_other, cache=False)(X).tobytes() == tw.compile(data, cache=False)(X).tobytes()
    assert known_content(cache, 7) is None and known_content(cache, object) is None


def test_content_not_path_counts(folder: Path, tmp_path: Path, compiled: list[str]) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path in (first, second):
        path.write_bytes(small_network())
    tw.compile(first)
    assert tw.compile(second).name == str(second)
    tw.compile(small_network())
    assert len(compiled) == 1


def test_external_data(folder: Path, tmp_path: Path, compiled: list[str]) -> None:
    proto = onnx.load_model_from_string(small_network())
    convert_model_to_external_data(proto, location="weights", size_threshold=0)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    time.sleep(2 * SETTLED)
    results = [tw.compile(path)(X).tobytes() for _ in range(2)]
    assert len(compiled) == 1 and results[0] == results[1] == tw.compile(small_network(), cache=False)(X).tobytes()
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert tw.compile(path)(X).tobytes() != results[0]


def test_a_model_that_changes_while_it_is_compiled_is_not_kept(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(small_network((1, 3, "H", "W")))
    model = tw.compile(path)
    os.utime(path)
    model(X)
    assert not artifacts(folder)


def test_content_without_files_is_always_current(tmp_path: Path) -> None:
    assert Content("x").current()
    assert not Content("x", (("/nowhere", 1, 2, 3, 4, 5),)).current()
    assert stamp(tmp_path) == stamp(tmp_path / ".")


# ---- the command


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network())
    assert "0 compiled, 0 bytes of at most 1.00 GiB" in invoke("cache")
    invoke("run", str(path), "--random", "1", "--no-cache")
    assert not folder.exists()
    invoke("run", str(path), "--random", "1")
    shown = invoke("cache")
    row = next(line for line in shown.splitlines() if line.startswith("small.onnx"))
    assert "image: float32 1x3x16x24" in row and "host" in row and "KiB" in row and "s ago" in row
    assert "1 compiled, " in shown and str(folder) in shown.replace("\n", "")
    used = [(entry.used, entry.made) for entry in Cache(folder).entries()]
    invoke("cache")
    assert [(entry.used, entry.made) for entry in Cache(folder).entries()] == used
    assert invoke("cache", "--clear").startswith("removed ")
    assert not list(folder.iterdir())
    monkeypatch.setenv(module.FOLDER, "")
    assert "switched off" in invoke("cache")
