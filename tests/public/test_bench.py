"""`tilewright bench`: what it measures fits together, and other engines get the same inputs."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from small_models import small_network

from tilewright import peers
from tilewright.benching import Layer, difference, layers, race
from tilewright.cli import cli
from tilewright.errors import CallError
from tilewright.peak import Peak, machine_peak
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
    assert first["shape"] == [1, 4, 160, 240] and first["gflops"] == pytest.approx(first["flops"] / first["ms"] / 1e6)
    assert first["bound"] in ("compute", "memory") and first["limit"] > 0


def test_tables(model: Path) -> None:
    text = bench(model, "--rounds", 2, "--against", "onnxruntime").output
    assert "fastest of 2 calls" in text and "times ours" in text and "onnxruntime 1." in text
    assert "conv_direct" in text and "1x4x160x240" in text and "both measured" in text


def test_layers_sorted_by_time_on_stdout(model: Path) -> None:
    found = json.loads(bench(model, "--seconds", 0.01, "--sort", "time", "--json", "-").output)
    times = [row["ms"] for row in found["layers"]]
    assert times == sorted(times, reverse=True) and found["rounds"] >= 5 and found["peers"] == []


def test_report(model: Path, tmp_path: Path) -> None:
    written = tmp_path / "report.html"
    arguments = (model, "--rounds", 2, "--against", "onnxruntime", "--report", written, "--json", "-")
    result = bench(*arguments)
    facts = json.loads(result.stdout)
    text = written.read_text(encoding="utf-8")
    assert "://" not in text and "url(" not in text
    root = ElementTree.fromstring(text)
    bars, roofline, memory = root.iter("svg")
    assert len(list(bars.iter("rect"))) == len(list(memory.iter("rect"))) == facts["kernels"]
    assert len(list(roofline.iter("circle"))) == sum(row["flops"] > 0 for row in facts["layers"])
    assert any("onnxruntime" in (cell.text or "") for cell in root.iter("td"))


def test_odd_names_in_a_report() -> None:
    layer = Layer("<a & b>", "nest", (), 1.0, 1.0, 1.0, 0, 0, 0, None, None, None)
    facts = {
        "model": '<"m">', "inputs": {"<x>": []}, "threads": 1, "compile_ms": 1.0, "workspace_bytes": 0, "rounds": 1,
        "min": 1.0, "median": 1.0, "spread": 0.0, "gflops": 0.0, "peers": [],
    }  # fmt: skip
    root = ElementTree.fromstring(page(facts, [layer], Peak(1e9, 1e8)))
    assert root.findtext("body/h1") == '<"m">' and "<a & b>" in [text.text for text in root.iter("text")]
    assert list(ElementTree.fromstring(page(facts, [], Peak(1e9, 1e8))).iter("rect")) == []


def test_an_unknown_engine_is_refused(model: Path) -> None:
    result = bench(model, "--against", "onnxruntime,abacus", code=2)
    assert "there is no engine 'abacus' to compare with; there are onnxruntime, openvino" in result.output
    assert "torch runs modules" in bench(model, "--against", "torch", code=2).output


def test_other_outputs_cannot_be_compared(model: Path) -> None:
    result = bench(model, "--against", "onnxruntime", "--outputs", "conv1_1", code=2)
    assert "leave out --outputs" in result.output


def test_an_engine_that_is_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name == "openvino":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    output = bench(model, "--against", "openvino", code=2).output
    assert "openvino is not installed: run `pip install openvino`" in output


def test_an_engine_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nonsense")
    with pytest.raises(CallError, match=r"onnxruntime does not run .*broken\.onnx"):
        peers.open_peer("onnxruntime", tmp_path / "broken.onnx", {}, 1)


def test_an_engine_computes_the_shape_asked_for(tmp_path: Path) -> None:
    proto = onnx.load_from_string(small_network((1, 3, 16, 24)))
    proto.ir_version = 10
    onnx.save(proto, tmp_path / "fixed.onnx")
    arguments = (tmp_path / "fixed.onnx", "--shape", "image=2x3x8x12", "--rounds", 1, "--against", "onnxruntime")
    (peer,) = json.loads(bench(*arguments, "--json", "-").output)["peers"]
    assert peer["difference"] < 1e-5


def test_openvino(model: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    found = json.loads(bench(model, "--rounds", 2, "--against", "openvino", "--json", "-").output)
    assert found["peers"][0]["difference"] < 1e-5


def test_contenders_take_turns() -> None:
    order: list[str] = []
    times = race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=4)
    assert order == ["a", "b"] * 5
    assert times["a"].rounds == 4 and times["a"].min <= times["a"].median


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
    def timed(template: str, flops: int, size: int) -> KernelTime:
        buffers = (BufferSpec("workspace", 0, 0, size),)
        return KernelTime(KernelSpec("k_0", "k", template, flops, 1, (1,), size, buffers), 1e-3, 2e-3)

    peak = Peak(flops=1e9, bandwidth=1e8)
    found = layers([timed("gemm", 10**6, 10**4), timed("gemv", 10**4, 10**5), timed("borders", 0, 10**5)], peak)
    assert [layer.bound for layer in found] == ["compute", "memory", None]
    assert [layer.limit for layer in found] == [pytest.approx(0.5), pytest.approx(0.5), None]
    assert found[0].gflops == pytest.approx(0.5) and found[2].gflops is None


def test_the_peak_is_measured_once() -> None:
    peak = machine_peak()
    assert peak is machine_peak() and 1e9 < peak.flops < 1e12 and 1e8 < peak.bandwidth < 1e12
