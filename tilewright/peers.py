"""Other engines that run ONNX files, for `tilewright bench --against`; each is an optional package.

    task = prepare("vgg16.onnx", {"input": x}, threads=1, folder=temporary)
    with open_peer("onnxruntime", task) as peer:
        peer.outputs                  what it computes, in the model's order
        peer.take(1, 5)               [201.3, ..]: milliseconds of five calls after one that does not count

Each runs in a process of its own, which is stopped (SIGSTOP) except while it works: threads that spin for a while
after a call, as those of OpenMP do, are at their best in their own turn and take no core in that of another.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import onnx

from tilewright.engines import CONVERTED, PACKAGES, Array, Task
from tilewright.errors import CallError
from tilewright.frontends.formats import recognise

_KINDS = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "uint8": "u8", "bool": "bool"}
"""Element types as pnnx names them."""
_LONG = 800
"""Characters of an engine's own message that are shown."""


@dataclass(frozen=True)
class Peer:
    """A running engine that holds a model and its inputs.

    `load_ms` is the time from the file to an engine that is ready, without importing it, `first_ms` that of its first
    call after; `peak_bytes` the most memory its process took until then.
    """

    name: str
    version: str
    note: str
    outputs: Sequence[Array]
    load_ms: float
    first_ms: float
    peak_bytes: int
    process: "subprocess.Popen[str]"

    def take(self, untimed: int, calls: int) -> list[float]:
        """Milliseconds of each of `calls` calls, after the untimed ones. Raises CallError if the engine fails."""
        self.process.send_signal(signal.SIGCONT)
        answer = _ask(self.process, f"{untimed} {calls}")
        self.process.send_signal(signal.SIGSTOP)
        if isinstance(answer, dict):
            raise CallError(f"{self.name} failed: {answer['error'][:_LONG]}")
        return list(answer)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        _end(self.process)


def check_peer(name: str) -> None:
    """Raise CallError if there is no engine of this name, or it is not installed."""
    if name not in PACKAGES:
        raise CallError(f"there is no engine '{name}' to compare with; there are {', '.join(PACKAGES)}")
    missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
    if missing:
        raise CallError(
            f"{name} is not installed: run `pip install {' '.join(missing)}`, or leave it out of --against"
        )


def prepare(path: str | os.PathLike[str], inputs: Mapping[str, Array], threads: int, folder: Path) -> Task:
    """Put into `folder` what engines need to run an ONNX file on these arrays.

    The file is taken as it is if it declares the arrays' shapes, else a copy that does. A conversion that the
    folder holds is used again: it is for one model and one set of shapes. Raises CallError for a model of another
    format.
    """
    if recognise(path) != "ONNX":
        raise CallError(
            "other engines run ONNX files only; leave out --against, or pass the model as ONNX", model=str(path)
        )
    folder.mkdir(parents=True, exist_ok=True)
    model = os.path.abspath(path)
    proto = onnx.load(model, load_external_data=False)
    if not _declared(proto, inputs):
        proto = onnx.load(model)
        _declare(proto, inputs)
        model = str(folder.absolute() / "declared.onnx")
        onnx.save(proto, model)
    order = [port.name for port in proto.graph.input if port.name in inputs]
    return write_task(model, {name: inputs[name] for name in order}, threads, folder)


def write_task(model: str | os.PathLike[str], inputs: Mapping[str, Array], threads: int, folder: Path) -> Task:
    """Put a model that is ready and its inputs into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    task = Task(os.fspath(model), inputs, threads, folder.absolute())
    np.savez(folder / "inputs.npz", *inputs.values())
    described = {"model": task.model, "inputs": list(inputs), "threads": threads}
    (folder / "task.json").write_text(json.dumps(described))
    return task


def open_peer(name: str, task: Task) -> Peer:
    """Start an engine, let it load the model and compute it once, in float32.

    `name` is an engine's, or the path of a Python file with a function `open_engine(task)` that gives one and a
    PACKAGE whose version is told. Raises CallError if there is no such engine, it is not installed, or it refuses
    the model.
    """
    if not name.endswith(".py"):
        check_peer(name)
    if name in CONVERTED:
        _convert(name, task)
    log = task.folder / f"{Path(name).stem}.log"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tilewright.engines", name, str(task.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    try:
        answer = _ask(process)
        if "error" in answer:
            said = answer["error"] or log.read_text().strip()[-_LONG:]
            raise CallError(f"{name} does not run {task.model}: {said[:_LONG]}")
        process.send_signal(signal.SIGSTOP)
        with np.load(task.folder / f"{Path(name).stem}.npz") as file:
            outputs = [file[f"arr_{i}"] for i in range(len(file.files))]
    except BaseException:
        _end(process)
        raise
    return Peer(Path(name).stem, outputs=outputs, process=process, **answer)


def _ask(process: "subprocess.Popen[str]", request: str = "") -> Any:
    """Send a line, if any, and read the answer; an error where the process has ended."""
    stdin, stdout = _pipes(process)
    try:
        if request:
            stdin.write(request + "\n")
            stdin.flush()
        line = stdout.readline()
    except BrokenPipeError:
        line = ""
    if line:
        return json.loads(line)
    code = process.wait()
    return {"error": f"its process was ended by {signal.Signals(-code).name}" if code < 0 else ""}


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for pipe in _pipes(process):
        with suppress(BrokenPipeError):
            pipe.close()


def _convert(name: str, task: Task) -> None:
    """Let pnnx write the model for torch and ncnn, unless it did before."""
    folder = task.folder / "pnnx"
    if (folder / "model_ncnn.py").exists():
        return
    spec = importlib.util.find_spec("pnnx")
    assert spec is not None and spec.submodule_search_locations is not None
    folder.mkdir(exist_ok=True)
    plain = folder / "model.onnx"
    proto = onnx.load(task.model)
    _modernise(proto)
    onnx.save(proto, plain)
    del proto
    shapes = ",".join(
        f"[{','.join(map(str, array.shape))}]{_KINDS.get(array.dtype.name, 'f32')}" for array in task.inputs.values()
    )
    command = [str(Path(spec.submodule_search_locations[0], "pnnx")), plain.name, "fp16=0", f"inputshape={shapes}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    for leftover in folder.glob("*.onnx"):
        leftover.unlink()  # each as large as the model
    if done.returncode or not (folder / "model_ncnn.py").exists():
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"code {done.returncode}"]
        raise CallError(f"{name} does not run {task.model}: pnnx, which converts it, fails: {lines[-1][:_LONG]}")


def _declared(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> bool:
    """Whether the model gives its inputs these shapes."""
    shapes = {
        port.name: tuple(dim.dim_value for dim in port.type.tensor_type.shape.dim) for port in proto.graph.input
    }
    return all(shapes[name] == array.shape for name, array in inputs.items())


def _declare(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> None:
    """Give inputs the shapes of these arrays, and say nothing of other shapes."""
    for port in proto.graph.input:
        if port.name in inputs:
            port.type.tensor_type.ClearField("shape")
            for dim in inputs[port.name].shape:
                port.type.tensor_type.shape.dim.add().dim_value = dim
    for port in proto.graph.output:
        port.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]


def _modernise(proto: onnx.ModelProto) -> None:
    """Say what pnnx takes otherwise in old models: weights are listed as inputs, and Softmax is along axis 1."""
    if any(opset.domain in ("", "ai.onnx") and opset.version < 13 for opset in proto.opset_import):
        for node in proto.graph.node:
            if node.op_type in ("Softmax", "LogSoftmax") and not node.attribute:
                node.attribute.append(onnx.helper.make_attribute("axis", 1))
    weights = {tensor.name for tensor in proto.graph.initializer}
    ports = [port for port in proto.graph.input if port.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(ports)
