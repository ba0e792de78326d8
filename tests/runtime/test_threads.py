"""Models computed by several threads: the same bits, many callers, forks, signals, idleness, how many by default."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import build, export
from torch import nn

import tilewright as tw
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.targets import host
from tilewright.errors import CallError
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate
from tilewright.runtime import threads
from tilewright.runtime.artifact import Artifact
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import empty

SHAPE = (1, 16, 40, 40)


def small_network() -> bytes:
    """Two convolutions and a matrix product, each worth several chunks; a call takes about half a millisecond."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 48, 3), nn.Flatten(),
        nn.Linear(48 * 18 * 18, 20),
    )  # fmt: skip
    return export(module.eval(), SHAPE)


def artifact_of(name: str) -> Artifact:
    return compile_graph(translate(read_model(export(*build(name)))), host())


def outputs_of(artifact: Artifact, count: int, x: np.ndarray) -> list[np.ndarray]:
    executable = Executable(artifact, count)
    outputs = [empty(spec) for spec in artifact.manifest.outputs]
    executable.run([x], outputs)
    return outputs


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> bytes:
    return small_network()


@pytest.mark.parametrize("name", ["mnist", "mobilenetv2"])
def test_same_bits_for_any_number_of_threads(name: str) -> None:
    artifact = artifact_of(name)
    assert bool(artifact.pool) == (name != "mnist")
    x = np.random.default_rng(2).standard_normal(artifact.manifest.inputs[0].shape).astype(np.float32)  # type: ignore[arg-type]
    (expected,) = outputs_of(artifact, 1, x)
    for count in (2, 3, 8):
        for _ in range(3):
            np.testing.assert_array_equal(outputs_of(artifact, count, x)[0], expected)


def test_small_models_carry_no_pool() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    artifact = compile_graph(translate(read_model(export(module, (1, 8)))), host())
    assert artifact.pool == b""
    x = np.ones((1, 8), np.float32)
    np.testing.assert_array_equal(*(outputs_of(artifact, count, x)[0] for count in (1, 8)))


def test_many_callers_share_a_model(network: bytes, x: np.ndarray) -> None:
    """One caller at a time has the pool, the others compute alone."""
    model = tw.compile(network, threads=3)
    inputs = [x * (1 + seed) for seed in range(16)]
    expected = [model(array) for array in inputs]

    def work(seed: int) -> bool:
        return all(np.array_equal(model(inputs[seed]), expected[seed]) for _ in range(200))

    with ThreadPoolExecutor(16) as executor:
        assert all(executor.map(work, range(16)))


def test_models_of_different_thread_counts_share_the_pool(network: bytes, x: np.ndarray) -> None:
    models = [tw.compile(network, threads=count) for count in (1, 2, 8, 3)]
    expected = models[0](x)
    for _ in range(100):
        for model in models:
            np.testing.assert_array_equal(model(x), expected)


def test_models_come_and_go(network: bytes, x: np.ndarray) -> None:
    before = len(os.listdir("/proc/self/task"))
    results = []
    for _ in range(8):
        results.append(tw.compile(network, threads=4)(x))
    assert all(np.array_equal(results[0], result) for result in results)
    assert len(os.listdir("/proc/self/task")) <= before + 3


def test_idle_workers_use_no_processor(network: bytes, x: np.ndarray) -> None:
    model = tw.compile(network, threads=8)
    expected = model(x)
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.05
    np.testing.assert_array_equal(model(x), expected)


def test_more_threads_than_cores_do_little_harm(network: bytes, x: np.ndarray) -> None:
    models = {count: tw.compile(network, threads=count) for count in (1, 8)}
    best = dict.fromkeys(models, 1.0)
    for _ in range(150):
        for count, model in models.items():
            began = time.perf_counter()
            model(x)
            best[count] = min(best[count], time.perf_counter() - began)
    assert best[8] < 3 * best[1]


# ---- other processes: each script runs in an interpreter of its own, so that no test's threads are around

# A script that hangs says where, and then ends; on a busy machine the one that forks while busy takes half a minute.
PRELUDE = """
import faulthandler, multiprocessing, os, signal, sys, threading, time
faulthandler.dump_traceback_later(200, exit=True)
import numpy as np
import tilewright as tw

def check(model, x, expected):
    for _ in range(20):
        assert np.array_equal(model(x), expected)

def threads_of():
    return len(os.listdir("/proc/self/task"))

path, folder = sys.argv[1:]
x = np.load(folder + "/x.npy")
"""
FORK = """
model = tw.compile(path, threads=4)
expected = model(x)
before = threads_of()
for _ in range(10):
    child = os.fork()
    if not child:
        assert threads_of() == 1
        check(model, x, expected)
        assert threads_of() == 4
        if not os.fork():
            check(model, x, expected)
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
    check(model, x, expected)
    assert os.waitpid(child, 0)[1] == 0
assert threads_of() <= before
"""
FORK_WHILE_BUSY = """
model = tw.compile(path, threads=3)
expected = model(x)
stop = False
def busy():
    while not stop:
        model(x)
others = [threading.Thread(target=busy) for _ in range(3)]
for other in others:
    other.start()
for _ in range(15):
    child = os.fork()
    if not child:
        check(model, x, expected)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0, status
stop = True
for other in others:
    other.join()
"""
MULTIPROCESSING = """
def work(seed):
    global model
    if "model" not in globals():
        model = tw.compile(path, threads=2)
    return model(x * seed)

if __name__ == "__main__":
    model = tw.compile(path, threads=4)
    expected = [model(x * seed) for seed in range(8)]
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            for got, wanted in zip(pool.map(work, range(8)), expected, strict=True):
                assert np.array_equal(got, wanted)
"""
INTERRUPT = """
model = tw.compile(path, threads=4)
expected = model(x)
interrupted = 0
def ring(*_):
    global interrupted
    interrupted += 1
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, ring)
for _ in range(20):
    sender = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    try:
        while True:
            model(x)
    except KeyboardInterrupt:
        pass
    sender.join()
    check(model, x, expected)
assert interrupted == 20
"""
EXIT_AT_ONCE = """
model = tw.compile(path, threads=8)
keep = [model, model(x)]
"""
EXIT_WHILE_CALLED = """
model = tw.compile(path, threads=4)
def busy():
    while True:
        model(x)
for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
time.sleep(0.05)
"""
SCRIPTS = {
    "fork": FORK, "fork-while-busy": FORK_WHILE_BUSY, "multiprocessing": MULTIPROCESSING, "interrupt": INTERRUPT,
    "exit-at-once": EXIT_AT_ONCE, "exit-while-called": EXIT_WHILE_CALLED,
}  # fmt: skip


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_process(name: str, network: bytes, x: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(network)
    np.save(tmp_path / "x.npy", x)
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + SCRIPTS[name])
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "network.onnx"), str(tmp_path)]
    for _ in range(3 if name.startswith("exit") else 1):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


# ---- how many


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (3, "7", 3),
        (0, "7", 7),
        (0, " 2 ", 2),
        (0, "0", None),
        (0, "", None),
        (1024, None, 1024),
    ],
)
def test_count(
    given: int, environment: str | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TILEWRIGHT_NUM_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("TILEWRIGHT_NUM_THREADS", environment)
    assert threads.count(given) == (threads.cores() if expected is None else expected)


@pytest.mark.parametrize("given", [-1, 1025, 2.0, True, "2", None])
def test_count_refuses(given: object) -> None:
    with pytest.raises(CallError, match="must be a whole number from 1 to 1024, or 0 for all cores"):
        threads.count(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["two", "-1", "1.5", "99999", "9" * 5000, "²"])
def test_environment_refused(text: str, network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_NUM_THREADS", text)
    with pytest.raises(CallError, match=f"TILEWRIGHT_NUM_THREADS={text} must be a whole number"):
        tw.compile(network)
    assert tw.compile(network, threads=2).threads == 2


def test_cores_follow_the_affinity() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= threads.cores() <= len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert threads.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def groups(folder: Path, files: dict[str, str]) -> Callable[[str], int | None]:
    """What `cpu_quota` says for a process in the given control group, of a tree with these files."""
    for name, text in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(text)

    def quota(line: str) -> int | None:
        (folder / "self").write_text(line + "\n")
        return threads.cpu_quota(folder / "self", folder / "cgroup")

    return quota


def test_quota_of_control_groups(tmp_path: Path) -> None:
    v2 = groups(tmp_path / "v2", {
        "cpu.max": "max 100000", "job/cpu.max": "250000 100000\n", "job/step/cpu.max": "max 100000",
        "small/cpu.max": "10000 100000",
    })  # fmt: skip
    assert v2("0::/") is None
    assert v2("0::/job") == 3
    assert v2("0::/job/step") == 3
    assert v2("0::/small") == 1
    assert v2("0::/nowhere") is None
    v1 = groups(tmp_path / "v1", {
        "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
        "cpu/job/cpu.cfs_quota_us": "400000", "cpu/job/cpu.cfs_period_us": "100000",
    })  # fmt: skip
    assert v1("3:cpu,cpuacct:/job") == 4
    assert v1("3:cpu,cpuacct:/\n2:memory:/job") is None
    assert threads.cpu_quota(tmp_path / "missing", tmp_path) is None
