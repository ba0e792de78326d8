"""The model files that benchmarks run, made once below build/benchmarks/models.

network_file("resnet50")            tests/networks.py's, exported
light_file("light_squeezenet")      the onnx package's, whose weights are constants, with random ones
LIGHT                               their names
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "benchmarks"
_LIGHT_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT = tuple(sorted(path.stem for path in _LIGHT_FOLDER.glob("light_*.onnx")))

sys.path.insert(0, str(ROOT / "tests"))


def made(name: str, make: Callable[[], bytes]) -> Path:
    """The file of a model; it is complete if it is there."""
    path = WORK / "models" / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(make())
        part.rename(path)
    return path


def network_file(name: str) -> Path:
    """A network of tests/networks.py; input "x", output "y", batch 1."""
    from networks import build, export

    return made(name, lambda: export(*build(name)))


def light_file(name: str) -> Path:
    """A network of the onnx package with random weights, which all engines read."""
    return made(name, lambda: with_weights(onnx.load(_LIGHT_FOLDER / f"{name}.onnx")))


def with_weights(proto: onnx.ModelProto) -> bytes:
    """The model with He-initialised weights and random statistics in place of its ConstantOfShape nodes."""
    graph, random = proto.graph, np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants = {node.output[0]: shapes[node.input[0]] for node in graph.node if node.op_type == "ConstantOfShape"}
    uses: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        for i, name in enumerate(node.input):
            uses.setdefault(name, (node.op_type, i))
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    after = {node.input[0]: node.output[0] for node in kept if node.op_type == "Unsqueeze"}
    weights = []
    for name, shape in constants.items():
        op, place = uses.get(name, ("", 0))
        if op == "Unsqueeze":
            op, place = uses.get(after[name], ("", 0))
        weights.append(numpy_helper.from_array(_weight(op, place, tuple(map(int, shape)), random), name))
    needed = {name for node in kept for name in node.input}
    replaced = {tensor.name for tensor in weights} | {t.name for t in graph.initializer if t.name not in needed}
    weights += [tensor for tensor in graph.initializer if tensor.name not in replaced]
    ports = [port for port in graph.input if port.name not in shapes]
    for field, values in ((graph.node, kept), (graph.initializer, weights), (graph.input, ports)):
        field: Any
        del field[:]
        field.extend(values)
    proto.ir_version = 8  # in which weights need not be inputs too
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _weight(op: str, place: int, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    if len(shape) > 1:
        values = random.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
    elif (op, place) == ("BatchNormalization", 4):  # a variance
        values = random.uniform(0.5, 1.5, shape)
    elif (op, place) == ("BatchNormalization", 1) or op == "Mul":  # a factor
        values = random.uniform(0.5, 1, shape)
    else:
        values = random.standard_normal(shape) * 0.05
    return values.astype(np.float32)


def input_of(path: Path) -> tuple[str, tuple[int, ...]]:
    """Name and shape of a model's one input."""
    proto = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    (port,) = [port for port in proto.graph.input if port.name not in weights]
    assert port.type.tensor_type.elem_type == TensorProto.FLOAT
    return port.name, tuple(dim.dim_value for dim in port.type.tensor_type.shape.dim)
