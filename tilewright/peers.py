"""Other engines that run ONNX files, for `tilewright bench --against`; each is an optional package.

    peer = open_peer("onnxruntime", "vgg16.onnx", {"input": x}, threads=1)
    y, = peer.call()                 always on the same inputs
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tilewright.errors import CallError
from tilewright.runtime.model import Array

Call = Callable[[], list[Array]]


@dataclass(frozen=True)
class Peer:
    """An engine that holds a model and its inputs; `call` computes the outputs in the model's order."""

    name: str
    version: str
    call: Call


def open_peer(name: str, path: str | os.PathLike[str], inputs: Mapping[str, Array], threads: int) -> Peer:
    """Load an ONNX file into an engine that computes it by `threads` threads in float32.

    Raises CallError if there is no such engine, it is not installed, or it refuses the model.
    """
    check_peer(name)
    try:
        module = importlib.import_module(name)
    except ImportError:
        raise CallError(f"{name} is not installed: run `pip install {name}`, or leave it out of --against") from None
    try:
        call = _OPEN[name](module, os.fspath(path), inputs, threads)
        call()
    except Exception as error:  # engines raise classes of their own
        raise CallError(f"{name} does not run {os.fspath(path)}: {error}") from error
    return Peer(name, importlib.metadata.version(name), call)


def check_peer(name: str) -> None:
    """Raise CallError if there is no engine of this name."""
    if name == "torch":
        raise CallError("torch runs modules, no ONNX files; `make bench` times modules of torch beside Tilewright")
    if name not in _OPEN:
        raise CallError(f"there is no engine '{name}' to compare with; there are {', '.join(_OPEN)}")


def _onnxruntime(module: Any, path: str, inputs: Mapping[str, Array], threads: int) -> Call:
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    session = module.InferenceSession(path, options, providers=providers)
    declared = {port.name: port.shape for port in session.get_inputs()}
    if any(not _fits(array.shape, declared[name]) for name, array in inputs.items()):
        session = module.InferenceSession(_with_shapes(path, inputs), options, providers=providers)
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def call() -> list[Array]:
        session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    return call


def _fits(shape: tuple[int, ...], declared: Sequence[int | str | None]) -> bool:
    return len(shape) == len(declared) and all(
        known == dim for dim, known in zip(shape, declared, strict=True) if isinstance(known, int)
    )


def _with_shapes(path: str, inputs: Mapping[str, Array]) -> bytes:
    """The model with its inputs declared in the shapes of these arrays, and nothing said of other shapes."""
    proto = onnx.load(path)
    for port in proto.graph.input:
        if port.name in inputs:
            port.type.tensor_type.ClearField("shape")
            for dim in inputs[port.name].shape:
                port.type.tensor_type.shape.dim.add().dim_value = dim
    for port in proto.graph.output:
        port.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    return bytes(proto.SerializeToString())


def _openvino(module: Any, path: str, inputs: Mapping[str, Array], threads: int) -> Call:
    core = module.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    count = len(model.outputs)

    def call() -> list[Array]:
        request.infer(dict(inputs), share_inputs=True)
        return [np.asarray(request.get_output_tensor(i).data) for i in range(count)]

    return call


_OPEN: dict[str, Callable[[Any, str, Mapping[str, Array], int], Call]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
