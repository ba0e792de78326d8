"""`tilewright bench`: what it measures fits together, and other engines get the same inputs."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from small_models import small_network

import tilewright as tw
from tilewright.benching import Layer, difference, layers, measure, one_core, race, takes
from tilewright.cli import cli
from tilewright.engines import PACKAGES
from tilewright.errors import CallError
from tilewright.peak import STEPS, Peak, Yardstick, arithmetic, machine_peak, yardstick
from tilewright.peers import open_peer, prepare
from tilewright.report import page
from tilewright.runtime.artifact import BufferSpec, KernelSpec
from tilewright.runtime.profile import KernelTime


def bench(*arguments: object, code: int = 0) -> Result:
    """The outcome of `tilewright bench ARGUMENTS`."""
    result = CliRunner().invoke(cli, ["bench", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "small.onnx"
    proto = onnx.load_from_string(small_network(("N", 3, 160, 240)))
    proto.ir_version = 10  # what other engines read may be older than what the onnx package writes
    onnx.save(proto, path)
    return path


def test_json(model: Path, tmp_path: Path) -> None:
    written = tmp_path / "times.json"
    output = bench(model, "--rounds", 7, "--threads", 1, "--against", "onnxruntime", "--json", written).output
    assert output == f"wrote {written}\n"
    found: dict[str, Any] = json.loads(written.read_text())
    assert found["rounds"] == 7 and found["inputs"] == {"image": [1, 3, 160, 240]} and found["threads"] == 1
    assert 0 < found["min"] <= found["median"] and found["gflops"] > 0 and found["compile_ms"] > 0
    (peer,) = found["peers"]
    assert peer["name"] == "onnxruntime" and peer["rounds"] == 7 and 0 < peer["min"] <= peer["median"]
    assert peer["ratio"] == pytest.approx(peer["median"] / found["median"])
    assert 0 <= peer["difference"] < 1e-5
    assert found["peak"]["gflops"] > 1 and found["peak"]["gbytes_per_second"] > 0.1
    rows = found["layers"]
    assert len(rows) == found["kernels"] and sum(row["share"] for row in rows) == pytest.approx(1)
    assert found["min"] / 5 < sum(row["min_ms"] for row in rows) < 5 * found["min"]
    first = next(row for row in rows if row["layer"] == "first" and row["flops"])
    assert first["shape"][:2] == [1, 4] and first["gflops"] == pytest.approx(first["flops"] / first["ms"] / 1e6)
    assert first["bound"] in ("compute", "memory") and first["limit"] > 0
    assert all(1 < row["peak"] < 1.2 * found["peak"]["gflops"] for row in rows)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system lets no process choose its core")
def test_one_thread_stays_on_one_core() -> None:
    before = os.sched_getaffinity(0)
    with one_core(1):
        assert os.sched_getaffinity(0) == {max(before)}
    with one_core(2):
        assert os.sched_getaffinity(0) == before
    with pytest.raises(ZeroDivisionError), one_core(1):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


def test_tables(model: Path) -> None:
    text = bench(model, "--rounds", 2, "--against", "onnxruntime").output
    assert "fastest of" in text and "times ours" in text and "onnxruntime 1." in text
    assert "conv_direct" in text and re.search(r"1x4x(160x240|80x120)", text) and "the limits are" in text


def test_layers_sorted_by_time_on_stdout(model: Path) -> None:
    found = json.loads(bench(model, "--seconds", 0.01, "--sort", "time", "--json", "-").output)
    times = [row["ms"] for row in found["layers"]]
    assert times == sorted(times, reverse=True) and found["rounds"] >= 5 and found["peers"] == []


@pytest.fixture(scope="module")
def report(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    written = tmp_path_factory.mktemp("report") / "report.html"
    arguments = (model, "--rounds", 2, "--against", "onnxruntime", "--report", written, "--json", "-")
    return json.loads(bench(*arguments).stdout), written


def test_report(report: tuple[dict[str, Any], Path]) -> None:
    facts, written = report
    text = written.read_text(encoding="utf-8")
    assert "://" not in text and "url(" not in text and "<script" not in text and "<link" not in text
    root = ElementTree.fromstring(text)
    *engines, bars, roofline, memory = root.iter("svg")
    assert len(engines) == 2
    assert len(list(bars.iter("rect"))) == len(list(memory.iter("rect"))) == facts["kernels"]
    assert len(list(roofline.iter("circle"))) == sum(row["performed"] > 0 for row in facts["layers"])
    assert any("onnxruntime" in (cell.text or "") for cell in root.iter("td"))


def test_a_browser_shows_the_report(report: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    probe = tmp_path / "probe.html"
    # The page tells how far its parts reach; whatever the console hears goes to stderr.
    script = """<script>
    const marks = [...document.querySelectorAll("svg text, svg rect, svg circle, table")];
    const boxes = marks.map(mark => mark.getBoundingClientRect());
    const flat = marks.filter((mark, i) => mark.tagName == "text" && !(boxes[i].width && boxes[i].height));
    document.title = JSON.stringify({right: Math.max(...boxes.map(box => box.right)), wide: innerWidth,
        left: Math.min(...boxes.map(box => box.left)), flat: flat.length});
    </script>"""
    probe.write_text(report[1].read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", f"--user-data-dir={tmp_path}", "--window-size=1280,1800",
        "--enable-logging=stderr", "--v=0", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
    title = done.stdout.split("<title>", 1)[1].split("</title>", 1)[0]
    seen = json.loads(title)
    assert seen["wide"] >= 1200 and seen["flat"] == 0
    assert 0 <= seen["left"] and seen["right"] <= seen["wide"]


def test_odd_names_in_a_report() -> None:
    layer = Layer("<a & b>", "nest", (), 1.0, 1.0, 1.0, 0, 0, 0, 0, None, 1.0, None, None)
    facts = {
        "model": '<"m">', "inputs": {"<x>": []}, "threads": 1, "compile_ms": 1.0, "workspace_bytes": 0, "rounds": 1,
        "min": 1.0, "median": 1.0, "spread": 0.0, "gflops": 0.0, "peers": [{"name": "<abacus>", "error": "<slow>"}],
    }  # fmt: skip
    root = ElementTree.fromstring(page(facts, [layer], Peak(1e9, 1e8)))
    assert root.findtext("body/h1") == '<"m">' and "<a & b>" in [text.text for text in root.iter("text")]
    assert "<slow>" in [cell.text for cell in root.iter("td")]
    assert len(list(ElementTree.fromstring(page(facts, [], Peak(1e9, 1e8))).iter("rect"))) == 1


def test_an_unknown_engine_is_refused(model: Path) -> None:
    result = bench(model, "--against", "onnxruntime,abacus", code=2)
    assert "there is no engine 'abacus' to compare with; there are torch, onnxruntime, openvino, ncnn" in result.output


def test_other_outputs_cannot_be_compared(model: Path) -> None:
    result = bench(model, "--against", "onnxruntime", "--outputs", "conv1_1", code=2)
    assert "leave out --outputs" in result.output


@pytest.mark.parametrize("model", ["docs/examples/four_nodes.pbtxt", "tests/data/saved_model_v2"])
def test_a_tensorflow_graph(model: str) -> None:
    path = Path(__file__).parents[2] / model
    assert "ms" in bench(path, "--rounds", 1).stdout
    assert "other engines run ONNX files only; leave out --against" in bench(
        path, "--rounds", 1, "--against", "onnxruntime", code=2
    ).output


def test_an_engine_that_is_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("openvino", "pnnx", "ncnn") else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    output = bench(model, "--against", "openvino", code=2).output
    assert "openvino is not installed: run `pip install openvino`" in output
    output = bench(model, "--against", "ncnn", code=2).output
    assert "ncnn is not installed: run `pip install ncnn pnnx`" in output


def doubling(path: Path, ir_version: int = 10) -> Path:
    """A model that doubles what it gets; other engines refuse formats newer than themselves."""
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    ports = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (2, 3))] for name in "xy"]
    graph = onnx.helper.make_graph([node], "add", *ports)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    proto = onnx.load(path)
    proto.ir_version = ir_version
    path.write_bytes(proto.SerializeToString())
    return path


def test_an_engine_that_fails_is_named(tmp_path: Path) -> None:
    path = doubling(tmp_path / "add.onnx", ir_version=99)
    task = prepare(path, {"x": np.ones((2, 3), np.float32)}, 1, tmp_path / "task")
    with pytest.raises(CallError, match=r"onnxruntime does not run .*add\.onnx: .*Unsupported model IR version: 99"):
        open_peer("onnxruntime", task)


def test_engines_that_do_not_take_a_model(tmp_path: Path) -> None:
    path = doubling(tmp_path / "add.onnx", ir_version=99)
    assert "onnxruntime does not run" in bench(path, "--rounds", 1, "--against", "onnxruntime", code=2).output
    own = tmp_path / "abacus.py"
    own.write_text(
        "import numpy as np\nfrom tilewright.engines import Engine\nPACKAGE = 'numpy'\n"
        "def open_engine(task):\n    return Engine(lambda: None, lambda: [task.inputs['x'] * 2])\n"
    )
    refused, taken = (
        entry
        for entry in measured(path, np.ones((2, 3), np.float32), ["onnxruntime", str(own)], tmp_path / "task")["peers"]
    )
    assert "error" in refused and taken["name"] == "abacus" and taken["difference"] == 0


def measured(path: Path, x: np.ndarray[Any, Any], rivals: list[str], folder: Path) -> dict[str, Any]:
    return measure(path, tw.compile(path, cache=False), {"x": x}, rivals, folder, rounds=1)


def test_an_engine_that_computes_something_else(tmp_path: Path) -> None:
    path = doubling(tmp_path / "add.onnx")
    own = tmp_path / "abacus.py"
    own.write_text(
        "from tilewright.engines import Engine\nPACKAGE = 'numpy'\n"
        "def open_engine(task):\n    return Engine(lambda: None, lambda: [task.inputs['x'] * 3])\n"
    )
    with pytest.raises(CallError, match=r"abacus computes something else: a difference of 3\.3e-01"):
        measured(path, np.ones((2, 3), np.float32), [str(own)], tmp_path / "task")


def test_an_engine_that_crashes(tmp_path: Path) -> None:
    path = doubling(tmp_path / "add.onnx")
    task = prepare(path, {"x": np.ones((2, 3), np.float32)}, 1, tmp_path / "task")
    (tmp_path / "crash.py").write_text("import os\nPACKAGE = 'numpy'\ndef open_engine(task):\n    os.abort()\n")
    with pytest.raises(CallError, match="its process was ended by SIGABRT"):
        open_peer(str(tmp_path / "crash.py"), task)


@pytest.mark.skipif(sys.platform != "linux", reason="process states are read from /proc")
def test_an_engine_rests_between_its_turns(model: Path, tmp_path: Path) -> None:
    task = prepare(model, {"image": np.ones((1, 3, 160, 240), np.float32)}, 2, tmp_path)
    with open_peer("onnxruntime", task) as peer:
        state = Path(f"/proc/{peer.process.pid}/stat")
        for _ in range(2):
            while state.read_text().split()[2] != "T":
                os.sched_yield()
            assert len(peer.take(1, 3)) == 3
    assert peer.process.returncode is not None


def test_an_engine_computes_the_shape_asked_for(tmp_path: Path) -> None:
    proto = onnx.load_from_string(small_network((1, 3, 16, 24)))
    proto.ir_version = 10
    onnx.save(proto, tmp_path / "fixed.onnx")
    arguments = (tmp_path / "fixed.onnx", "--shape", "image=2x3x8x12", "--rounds", 1, "--against", "onnxruntime")
    (peer,) = json.loads(bench(*arguments, "--json", "-").output)["peers"]
    assert peer["difference"] < 1e-5


@pytest.mark.parametrize("name", PACKAGES)
def test_engines(name: str, model: Path) -> None:
    missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    arguments = ("--rounds", 1, "--shape", "image=2x3x16x24", "--against", name, "--threads", 2, "--json", "-")
    (found,) = json.loads(bench(model, *arguments).stdout)["peers"]
    assert found["name"] == name and found["difference"] < 1e-5 and found["version"]
    assert found["load_ms"] > 0 and found["peak_bytes"] > 1 << 20


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def slow(name: str) -> None:
        time.sleep(0.011)
        order.append(name)

    times = race({name: takes(partial(slow, name)) for name in "ab"}, rounds=4)
    # Before all rounds, calls that show how long they take; in each turn, one that does not count.
    assert order == ["a"] * 3 + ["b"] * 3 + ["a", "a", "b", "b"] * 4
    assert times["a"].rounds == times["a"].calls == 4 and 11 <= times["a"].min <= times["a"].median
    quick = race({"c": takes(lambda: time.sleep(0.001))}, rounds=3)["c"]
    assert quick.rounds == 3 and 3 * 5 < quick.calls <= 3 * 20


def test_difference() -> None:
    a = np.array([1.0, -4.0, 2.0], np.float32)
    assert difference("x", [a], [a]) == 0
    assert difference("x", [a], [a + np.float32([0, 0, 1])]) == 0.25
    odd = np.array([np.nan, np.inf, 1])
    assert difference("x", [odd], [odd]) == 0 and difference("x", [odd], [odd[::-1]]) == np.inf
    assert difference("x", [np.zeros(0)], [np.zeros(0)]) == 0
    with pytest.raises(CallError, match="x gives outputs of other shapes"):
        difference("x", [a], [a[:2]])


def test_the_lower_limit_counts() -> None:
    def timed(template: str, flops: int, size: int, performed: int = 0, beside: float = 1e-4) -> KernelTime:
        buffers = (BufferSpec("workspace", 0, 0, size),)
        spec = KernelSpec("k_0", "k", template, flops, 1, (1,), size, buffers, performed=performed)
        return KernelTime(spec, 1e-3, 2e-3, beside)

    peak = Peak(flops=1.2e9, bandwidth=1e8)  # alone; beside these kernels 1e9, 10^5 operations in 0.1 ms
    times = [timed("gemm", 10**6, 10**4), timed("gemv", 10**4, 10**5), timed("borders", 0, 10**5)]
    found = layers(times, peak, 10**5)
    assert [layer.bound for layer in found] == ["compute", "memory", None]
    assert [layer.limit for layer in found] == [pytest.approx(0.5), pytest.approx(0.5), None]
    assert found[0].gflops == pytest.approx(0.5) and found[2].gflops is None
    (saving,) = layers([timed("conv_winograd", 10**7, 10**4, performed=10**6)], peak, 10**5)
    assert saving.limit == pytest.approx(0.5) and saving.gflops == pytest.approx(5)
    (slow,) = layers([timed("gemm", 10**6, 10**4, beside=2e-4)], peak, 10**5)
    assert slow.peak == pytest.approx(0.5) and slow.limit == pytest.approx(1) and slow.bound == "compute"


def test_the_peak_is_measured_once() -> None:
    peak = machine_peak()
    assert peak is machine_peak() and 1e9 < peak.flops < 1e12 and 1e8 < peak.bandwidth < 1e12


def test_a_yardstick_does_what_the_peak_counts() -> None:
    """Beside the loop that the peak is measured with, call by call: the core's speed may change at any time."""
    beside, long = yardstick(), arithmetic(STEPS)

    def speed(work: Yardstick) -> float:
        began = time.perf_counter()
        work.call()
        return work.flops / (time.perf_counter() - began)

    ratios = [speed(beside) / speed(long) for _ in range(50)]
    assert beside is yardstick() and 0.7 < np.median(ratios) < 1.4
