"""Shared objects: how long it takes to make one, to load one, to call one, beside the same code in this process.

    .venv/bin/python -m pytest benchmarks -k aot

    test_making        VGG-16 of 553 MB: seconds and peak memory, in a process of its own
    test_loading       the time to dlopen and the first result, beside a warm call and reading the weights once
    test_beside_jit    .so over JIT by interleaved calls: one thread each
    test_overhead      a C program that calls a model of one addition
    test_two_gigabytes weights beyond what 32-bit distances reach, by the built-in linker and ld
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import pytest
from networks import NETWORKS, build, export
from onnx import TensorProto, helper

import tilewright as tw
from tilewright.benching import one_core
from tilewright.runtime.native import NativeExecutable, load

MAKE = """
import json, re, sys, time
before = time.perf_counter()
from pathlib import Path
from tilewright.aot import Tools, save_model
from tilewright.compiler.targets import host
started = time.perf_counter()
save_model(sys.argv[1], Path(sys.argv[2]), target=host(), tools=Tools(linker=sys.argv[3] or None))
# Not getrusage: a child's figure begins with that of the process that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
print(json.dumps({"seconds": time.perf_counter() - started, "imports": started - before, "peak": peak,
                  "processor": time.process_time()}))
"""
OVERHEAD = """
#define _POSIX_C_SOURCE 199309L
#include "tiny.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(void) {
    static float x[4], y[4];
    int64_t dims[1] = {4};
    tiny_inputs inputs;
    tiny_outputs outputs;
    tw_tensor in = {x, dims, 0}, out = {y, NULL, sizeof y};
    tw_context context;
    double least[3] = {1e9, 1e9, 1e9};
    int round, i, way;
    inputs.x = x;
    outputs.y = y;
    memset(&context, 0, sizeof context);
    context.struct_size = sizeof context;
    for (round = 0; round < 50; round++)
        for (way = 0; way < 3; way++) {
            double start = now();
            for (i = 0; i < 10000; i++) {
                int code = way == 0 ? tiny_run(&inputs, &outputs, NULL)
                         : way == 1 ? tiny_call(&in, &out, &context) : tiny_run_alloc(&inputs, &outputs, 1);
                if (code) return 1;
            }
            start = (now() - start) / 10000;
            if (start < least[way]) least[way] = start;
        }
    printf("%.1f %.1f %.1f\\n", least[0], least[1], least[2]);
    return 0;
}
"""


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.onnx"
    path.write_bytes(export(*build("vgg16")))
    return path


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


@pytest.mark.parametrize("linker", ["", "builtin", "ld"])
def test_making(vgg: Path, linker: str, capsys: pytest.CaptureFixture[str]) -> None:
    if linker == "ld" and shutil.which("ld") is None:
        pytest.skip("there is no ld")
    found = []
    for _ in range(3):
        command = [sys.executable, "-c", MAKE, str(vgg), str(vgg.with_suffix(".so")), linker]
        # Installed packages have their bytecode.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        found.append(json.loads(done.stdout))
    size = vgg.stat().st_size
    best = min(found, key=lambda entry: entry["seconds"])
    say(
        capsys,
        f"VGG-16 of {size / 1e6:.0f} MB, linker {linker or 'by default'}: {best['seconds']:.2f} s (the best of "
        f"{[round(entry['seconds'], 2) for entry in found]}; processor time {best['processor']:.2f} s), peak memory "
        f"{best['peak'] / size:.2f} times the weights",
    )
    assert best["peak"] < 2 * size


def test_loading(vgg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pages are in the system's cache, not in the process: the first call maps them."""
    path = vgg.with_name("loading.so")
    tw.compile(vgg, threads=1, cache=False).save(path)
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    script = f"""
import json, mmap, sys, time
import numpy as np
from tilewright.runtime.native import load
x = np.load({str(vgg.with_name("x.npy"))!r})
with open({str(path)!r}, "rb") as file:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
start = time.perf_counter(); np.frombuffer(data, np.uint8)[::4096].max(); touch = time.perf_counter() - start
start = time.perf_counter(); model = load({str(path)!r}, threads=1); opened = time.perf_counter() - start
start = time.perf_counter(); model(x); first = time.perf_counter() - start
warm = []
for _ in range(7):
    start = time.perf_counter(); model(x); warm.append(time.perf_counter() - start)
print(json.dumps([opened, first, touch, sorted(warm)[3], min(warm)]))
"""
    np.save(vgg.with_name("x.npy"), x)
    ratios = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        opened, first, touch, warm, _ = json.loads(done.stdout)
        ratios.append((opened + first) / (warm + touch))
        shown = f"load {opened * 1e3:.1f} + first {first * 1e3:.0f}; warm {warm * 1e3:.0f}, paging {touch * 1e3:.0f} ms"
    say(capsys, f"VGG-16: load and first result over warm call and paging: {sorted(ratios)} ({shown})")


@pytest.mark.parametrize("name", list(NETWORKS))
def test_beside_jit(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, shape = build(name)
    model = tw.compile(export(module, shape), threads=1, cache=False)
    model.save(tmp_path / "net.so")
    native = load(tmp_path / "net.so", threads=1)
    x = np.random.default_rng(0).random(shape, np.float32)
    jitted, linked = model.executable((shape,)), native.executable((shape,))
    assert isinstance(linked, NativeExecutable)
    result = model(x)
    runs = {"jit": lambda: jitted.run([x], [result]), "so": lambda: linked.run([x], [result])}
    taken: dict[str, list[float]] = {which: [] for which in runs}
    ratios = []
    started = time.perf_counter()
    with one_core(1):
        while time.perf_counter() - started < 20:
            for which in ("jit", "so", "so", "jit"):
                begin = time.perf_counter()
                runs[which]()
                taken[which].append(time.perf_counter() - begin)
            # A core that changes its speed for seconds changes both of a ratio's terms, and a steady drift is nothing.
            ratios.append(sum(taken["so"][-2:]) / sum(taken["jit"][-2:]))
    least = {which: min(times) for which, times in taken.items()}
    say(
        capsys,
        f"{name}: .so over JIT {median(ratios):.3f}, the median of {len(ratios)} times two calls of each in turn; "
        f"{least['so'] / least['jit']:.3f} by minima ({least['so'] * 1e3:.3f} and {least['jit'] * 1e3:.3f} ms)",
    )


def test_overhead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "tiny", [value("x", TensorProto.FLOAT, [4])],
        [value("y", TensorProto.FLOAT, [4])],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    tw.compile(proto, cache=False).save(tmp_path / "tiny.so")
    (tmp_path / "main.c").write_text(OVERHEAD)
    command = ["cc", "-O2", "main.c", "tiny.so", f"-Wl,-rpath,{tmp_path}", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    run, call, alloc = map(float, done.stdout.split())
    say(capsys, f"adding 4 numbers, from C: tiny_run {run} ns, tiny_call {call} ns, tiny_run_alloc {alloc} ns")
    assert max(run, call, alloc) < 1000


def test_two_gigabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, columns = 9_000_000, 64
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if shutil.disk_usage(tmp_path).free < 20 << 30 or memory < 8 << 30:
        pytest.skip("this takes 20 GB of disk and 8 GB of memory")
    last = np.arange(columns, dtype=np.float32)
    with open(tmp_path / "table.bin", "wb") as file:
        file.truncate(rows * columns * 4)
        file.seek((rows - 1) * columns * 4)
        file.write(last.tobytes())
    table = onnx.TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[rows, columns], data_location=1)
    for key, text in (("location", "table.bin"), ("offset", "0"), ("length", str(rows * columns * 4))):
        entry = table.external_data.add()
        entry.key, entry.value = key, text
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"])], "big", [value("i", TensorProto.INT64, [3])],
        [value("y", TensorProto.FLOAT, [3, columns])], [table],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "big.onnx")
    model = tw.compile(tmp_path / "big.onnx", cache=False)
    for linker in ("builtin", *(["ld"] if shutil.which("ld") else [])):
        started = time.perf_counter()
        model.save(tmp_path / "big.so", linker=linker)
        seconds = time.perf_counter() - started
        found = load(tmp_path / "big.so")(np.array([0, rows - 1, 1]))
        np.testing.assert_array_equal(found, np.stack([last * 0, last, last * 0]))
        size = (tmp_path / "big.so").stat().st_size / 2**30
        say(capsys, f"{size:.2f} GiB of weights by {linker}: {seconds:.1f} s")


