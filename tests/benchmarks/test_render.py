"""docs/benchmarks.md says what was measured: floors missed, engines that refuse, kernels below their roofline."""

from typing import Any

import models
import numpy as np
import onnx
import render
import suite
from onnx import TensorProto, helper, numpy_helper

ABOUT = {
    "date": "2026-01-02 03:04", "commit": "abc1234", "others": 0.0, "scale": 1.0, "machine": "an abacus", "took_s": 1.0,
}  # fmt: skip


def layer(**changed: Any) -> dict[str, Any]:
    """A kernel at half of its roofline."""
    usual = {
        "layer": "c1", "template": "conv_direct", "shape": [1, 8, 4, 4], "ms": 1.0, "share": 0.5, "gflops": 10.0,
        "peak": 20.0, "limit": 0.5, "bound": "compute",
    }  # fmt: skip
    return {**usual, **changed}


def timed(model: str, ratios: dict[str, float], **changed: Any) -> dict[str, Any]:
    """A result where engines take these many times as long."""
    peers = [
        {"name": name, "version": "1", "median": 10 * ratio, "ratio": ratio, "difference": 0.0}
        for name, ratio in ratios.items()
    ]
    usual = {
        "model": model, "threads": 1, "median": 10.0, "spread": 0.1, "min": 9.0, "peers": peers, "layers": [layer()],
        "peak": {"gflops": 100.0, "gbytes_per_second": 10.0},
    }  # fmt: skip
    return {**ABOUT, **usual, **changed}


def rows_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_floors() -> None:
    results = {
        "vgg16-b1-t1": timed("vgg16", {"torch": 3.0, "onnxruntime": 2.0, "ncnn": 1.7}),
        "resnet50-b1-t1": timed("resnet50", {"onnxruntime": 1.3, "openvino": 1.19}),
    }
    text = render.page(results, [])
    (vgg,) = rows_of(text, "VGG-16")
    assert "**1.70x** (ncnn)" in vgg and "≥ 1.65x, met" in vgg and "20 (2.00x)" in vgg
    (resnet,) = rows_of(text, "ResNet-50")
    assert "**1.19x** (OpenVINO)" in resnet and "≥ 1.2x, **missed**" in resnet
    assert "beside onnxruntime alone: 2.00x, ≥ 2.1x, **missed**" in text
    assert "an abacus" in text and "100 GFLOP/s" in text and "commit abc1234" in text


def test_avx2_has_a_table_of_its_own() -> None:
    text = render.page({"avx2-mnist": timed("mnist", {"torch": 1.5, "openvino": 0.9})}, [])
    (row,) = rows_of(text, "MNIST")
    assert "**0.90x** (OpenVINO)" in row and "≥ 1x, **missed**" in row and "## With AVX2" in text


def test_the_geometric_mean_counts_the_best_engine() -> None:
    results = {
        "light_a-b1-t1": timed("light_a", {"torch": 9.0, "ncnn": 2.0}),
        "light_b-b1-t1": timed("light_b", {"onnxruntime": 0.5}),
    }
    assert "**1.00x** over 2 networks, ≥ 1.3x, **missed**" in render.page(results, [])


def test_engines_that_refuse_and_cases_that_fail() -> None:
    refused = timed("mnist", {"torch": 2.0})
    refused["peers"].append({"name": "ncnn", "error": "ncnn does not run /somewhere/deep/mnist.onnx: it\nlacks"})
    text = render.page({"mnist-b1-t1": refused, "accuracy": {**ABOUT, "error": "no memory"}}, [])
    assert "| refused |" in text and "- MNIST ConvNet: ncnn does not run mnist.onnx: it lacks" in text
    assert "- `accuracy`: no memory" in text


def test_noise_is_told() -> None:
    results = {"mnist-b1-t1": timed("mnist", {"torch": 2.0}, others=0.5, scale=0.1)}
    text = render.page(results, [])
    assert "mnist-b1-t1 (50% of a core)" in text and "in a hurry**, with few rounds: mnist-b1-t1" in text


def test_kernels_below_their_roofline_and_why() -> None:
    kernels = [
        layer(layer="a"), layer(layer="b", limit=0.6), layer(layer="near", limit=0.9, peak=18.2),
        layer(layer="c", template="gemv", shape=[1, 10]),
        layer(template="borders", limit=None, bound=None, gflops=None),
    ]  # fmt: skip
    notes = [
        {"template": "gemv", "network": "vgg*", "why": "another network"},
        {"template": "conv_*", "shape": "1x8x*", "why": "few channels"},
    ]
    text = render.page({"mnist-b1-t1": timed("mnist", {"torch": 2.0}, layers=kernels)}, notes)
    (pair,) = rows_of(text, "`a` and 1 more")
    assert "2.000" in pair and "50% to 60%" in pair and "few channels" in pair
    (alone,) = rows_of(text, "`c`")
    assert "not looked into" in alone
    assert "`near`" not in text and "`borders`" not in text
    assert "All kernels take 5 ms; the rooflines of all allow 2.5 ms (50%)" in text
    assert "Beside them the core reached 18 to 20 GFLOP/s." in text


def test_notes_of_the_repository_are_complete() -> None:
    for note in render.read_notes():
        assert set(note) <= {"network", "layer", "template", "shape", "why"} and note["why"].strip()


def test_every_floor_belongs_to_a_case() -> None:
    names = [case.name for case in suite.CASES]
    assert len(set(names)) == len(names) and set(render.FLOORS) <= set(names)


def test_weights_take_the_place_of_constants() -> None:
    shape = numpy_helper.from_array(np.array([6, 3, 3, 3]), "shape")
    ports = [
        helper.make_tensor_value_info(name, kind, dims)
        for name, kind, dims in (("x", TensorProto.FLOAT, (1, 3, 8, 8)), ("shape", TensorProto.INT64, (4,)))
    ]
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 6, 6, 6))]
    graph = helper.make_graph(nodes, "light", ports, out, [shape])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    made = onnx.load_from_string(models.with_weights(proto))
    (weight,) = made.graph.initializer
    values = numpy_helper.to_array(weight)
    assert [node.op_type for node in made.graph.node] == ["Conv"] and [port.name for port in made.graph.input] == ["x"]
    assert values.shape == (6, 3, 3, 3) and 0.5 < values.std() / np.sqrt(2 / 27) < 1.5


def test_compile_times_memory_and_stages() -> None:
    start = {"ms": 1500.0, "compile_ms": 1400.0, "import_ms": 80.0, "peak_bytes": 900_000_000}
    cold = {**start, "stages": {"LLVM": 800.0, "lower": 300.0, "pack constants": 700.0}, "staged_ms": 1600.0}
    facts = {
        **ABOUT, "model": "vgg16", "file_bytes": 500_000_000, "cold": cold, "warm": {**start, "compile_ms": 120.0},
        "onnxruntime": {**start, "ms": 1400.0},
    }  # fmt: skip
    text = render.page({"compile-vgg16": facts}, [])
    assert "cold no slower than onnxruntime, **missed**" in text and "below 100 ms **missed**" in text
    assert "1.80 times the file, at most 2 met" in text
    assert "LLVM 800, lower 300, all else 500; beside these pack constants 700" in text


def test_the_rest_of_the_page() -> None:
    times = {"median": 2.0, "spread": 0.1}
    results = {
        "accuracy": {**ABOUT, "rows": [{"model": "vgg16", "torch": 1e-7, "direct": 1e-7, "auto": 6e-7}]},
        "dynamic-mnist": {**ABOUT, "model": "mnist", "samples": 8, "any": times, "fixed": times, "singly": times},
        "hypercolumns-t1": {**timed("vgg16", {"torch": 4.0}), "pixels": times, "layers": []},
        "mnist-b8-t2": timed("mnist", {"ncnn": 0.9}, threads=2),
        "operators": {**ABOUT, "operators": [timed("Softmax 4x4 1", {"onnxruntime": 0.9})]},
    }
    text = render.page(results, [])
    assert "6.00e-07 (6.00x) | ≤ 5x, **missed**" in text
    assert "| MNIST ConvNet | 8 | 2 ± 0.1 | 2 (1.00x) | 2 (1.00x) |" in text
    assert "≥ 3.5x, met" in text and "≥ 1x, **missed**" in text and "`Softmax 4x4 1`" in text
