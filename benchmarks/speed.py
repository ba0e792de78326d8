"""How long calls take beside other engines: whole networks, light networks, single operators, hypercolumns.

    network("resnet50", batch=1, threads=2, seconds=10)   ->  what `tilewright bench --json` says

Every function gives plain data for suite.py. Engines run in processes of their own, in turn; see tilewright.peers.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from models import WORK, input_of, light_file, made, network_file
from onnx import TensorProto, helper

import tilewright as tw
from tilewright.benching import OURS, difference, measure, race, takes
from tilewright.engines import PACKAGES
from tilewright.peers import Peer, open_peer, write_task

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""Keeps oneDNN, which both PyTorch and OpenVINO use, MKL and PyTorch's own kernels from AVX-512."""

Facts = dict[str, Any]
Shape = tuple[int, ...]


def network(
    name: str, batch: int, threads: int, seconds: float, least: int, target: str = "host",
    rivals: Sequence[str] = tuple(PACKAGES),
) -> Facts:  # fmt: skip
    """A network of tests/networks.py, or a light one of the onnx package, beside all engines or some."""
    path = light_file(name) if name.startswith("light_") else network_file(name)
    port, (_, *rest) = input_of(path)
    x = np.random.default_rng(1).random((batch, *rest), np.float32)
    began = time.perf_counter()
    model = tw.compile(path, shapes={port: x.shape}, threads=threads, target=target, cache=False)
    took = time.perf_counter() - began
    folder = WORK / "peers" / f"{name}-b{batch}"  # keeps what pnnx converted
    facts = measure(path, model, {port: x}, rivals, folder, seconds=seconds, least=least)
    return {**facts, "model": name, "batch": batch, "compile_ms": took * 1e3}


def narrow(name: str, seconds: float, least: int) -> Facts:
    """A network on one thread with AVX2, beside the engines that can be told not to use AVX-512."""
    os.environ.update(AVX2)  # engines inherit it
    facts = network(name, 1, 1, seconds, least, "x86-64-v3", ("torch", "openvino"))
    return {key: value for key, value in facts.items() if key != "layers"}  # their limits would be those of AVX-512


def dynamic(name: str, samples: int, seconds: float, least: int) -> Facts:
    """One compiled form for any number of samples, beside one for `samples` of them, on one thread."""
    from networks import build, export

    module, (_, *sample) = build(name)
    data = export(module, (2, *sample), batch="N")
    x = np.random.default_rng(1).random((samples, *sample), np.float32)
    any_number = tw.compile(data, shapes={"x": ("N", *sample)}, threads=1, cache=False)
    fixed = tw.compile(data, shapes={"x": x.shape}, threads=1, cache=False)
    apart = difference("the form for any number", [any_number(x)], [fixed(x)])
    contenders = {
        "any": takes(lambda: any_number(x)),
        "fixed": takes(lambda: fixed(x)),
        "singly": takes(lambda: [any_number(x[i : i + 1]) for i in range(samples)]),
    }
    times = race(contenders, seconds=seconds, least=least)
    found = {way: asdict(taken) for way, taken in times.items()}
    return {"model": name, "samples": samples, "difference": apart, **found}


@dataclass(frozen=True)
class Case:
    """One operator over inputs of the given shapes."""

    op: str
    shapes: tuple[Shape, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
        return " ".join([self.op, shapes, *(str(value) for value in self.attrs.values())])


OPERATORS = (
    Case("Softmax", ((4000, 1000),), {"axis": 1}),
    Case("Softmax", ((1000, 4096),), {"axis": 1}),
    Case("Softmax", ((12 * 197, 197),), {"axis": 1}),
    Case("Softmax", ((1, 21, 256, 256),), {"axis": 1}),
    Case("LayerNormalization", ((4000, 768), (768,), (768,)), {"axis": -1}),
    Case("LayerNormalization", ((1000, 4096), (4096,), (4096,)), {"axis": -1}),
    Case("Gelu", ((4000, 1024),)),
    Case("Sigmoid", ((4000, 1024),)),
    Case("Transpose", ((2048, 2048),), {"perm": (1, 0)}),
    Case("Transpose", ((1, 64, 224, 224),), {"perm": (0, 2, 3, 1)}),
    Case("Transpose", ((1, 224, 224, 64),), {"perm": (0, 3, 1, 2)}),
    Case("Transpose", ((8, 197, 12, 64),), {"perm": (0, 2, 1, 3)}),
    Case("Add", ((1, 64, 224, 224), (1, 64, 1, 1))),
    Case("Add", ((4000, 768), (768,))),
    Case("Add", ((1, 64, 224, 224), (1, 64, 224, 224))),
    Case("ReduceSum", ((1, 64, 224, 224),)),
    Case("ArgMax", ((4000, 1000),), {"axis": 1, "keepdims": 0}),
    Case("Concat", ((8, 256, 1024),) * 3, {"axis": 1}),
)


def operator_model(case: Case) -> bytes:
    """The case as an ONNX model with inputs x0, x1, .. and output y."""
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate(case.shapes)]
    kind = TensorProto.INT64 if case.op == "ArgMax" else TensorProto.FLOAT
    node = helper.make_node(case.op, [value.name for value in inputs], ["y"], **case.attrs)
    graph = helper.make_graph([node], "case", inputs, [helper.make_tensor_value_info("y", kind, None)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(proto.SerializeToString())


def operators(seconds: float, least: int) -> Facts:
    """Generated loop nests beside onnxruntime, one operator each, on one thread; `seconds` for all."""
    rows = []
    for case in OPERATORS:
        path = made("operators/" + str(case).replace(" ", "_").replace(",", ""), lambda case=case: operator_model(case))
        random = np.random.default_rng(0)
        arrays = {f"x{i}": random.standard_normal(s).astype(np.float32) for i, s in enumerate(case.shapes)}
        model = tw.compile(path, threads=1, cache=False)
        with tempfile.TemporaryDirectory() as folder:
            rivals = ["onnxruntime"]
            facts = measure(path, model, arrays, rivals, Path(folder), seconds=seconds / len(OPERATORS), least=least)
        rows.append({**facts, "model": str(case)})
    return {"operators": rows}


def hypercolumns(threads: int, seconds: float, least: int) -> Facts:
    """Five layers of the real VGG-16 at 224 x 224, resized and joined, beside PyTorch; and a thousand pixels."""
    from tilewright.cli.hypercolumns import sample_photograph
    from tilewright.columns import default_model

    extract = tw.Hypercolumns(threads=threads, cache=False)
    image = extract.input_image(sample_photograph())
    scaled = image[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    x = np.ascontiguousarray(np.moveaxis(scaled, -1, 0)[None])
    out = np.empty((extract.channel_count, 224, 224), np.float32)
    pixels = np.random.default_rng(0).integers(0, 224, (1000, 2))
    extract(image, out=out)
    task = write_task(default_model(), {"x": x}, threads, WORK / "peers" / "hypercolumns")
    with open_peer(str(Path(__file__).with_name("torch_hypercolumns.py")), task) as torch:
        apart = difference("torch", [torch.outputs[0][0]], [out])
        contenders = {
            OURS: takes(lambda: extract(image, out=out)),
            "pixels": takes(lambda: extract(image, pixels=pixels)),
            "torch": torch.take,
        }
        times = race(contenders, seconds=seconds, least=least)
        peer = described(torch) | asdict(times["torch"])
    ratio = times["torch"].median / times[OURS].median
    peers = [{**peer, "name": "torch", "ratio": ratio, "difference": apart}]
    return {**asdict(times[OURS]), "threads": threads, "peers": peers, "pixels": asdict(times["pixels"])}


def described(peer: Peer) -> Facts:
    """What is known of an engine besides its times."""
    return {key: getattr(peer, key) for key in ("name", "version", "note", "load_ms", "first_ms", "peak_bytes")}
