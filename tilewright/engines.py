"""The process in which another engine runs a model: `python -m tilewright.engines NAME FOLDER`.

Started by `tilewright.peers`, which puts into the folder what it needs:

    task.json        {"model": "/models/vgg16.onnx", "inputs": ["x"], "threads": 1}
    inputs.npz       an array for each input
    pnnx/            the model as converted by pnnx, for the engines in CONVERTED

It computes the outputs once and writes them to NAME.npz, says {"version": .., "note": .., "load_ms": ..,
"first_ms": .., "peak_bytes": ..} or {"error": ..} on stdout, and then answers each line "UNTIMED TIMED" on stdin by
that many calls, of which it times the latter: [12.3, 12.1] in milliseconds. What engines print goes to stderr.
"""

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PACKAGES = {
    "torch": ("torch", "pnnx"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ncnn": ("ncnn", "pnnx"),
}
"""What each engine needs installed; its own package comes first. `pnnx` converts ONNX for those that do not read it."""
CONVERTED = tuple(name for name, packages in PACKAGES.items() if "pnnx" in packages)
_TRIALS = 3


@dataclass(frozen=True)
class Task:
    """A model, its inputs in the model's order, and how many threads compute it."""

    model: str
    inputs: Mapping[str, Array]
    threads: int
    folder: Path


@dataclass(frozen=True)
class Engine:
    """A model that was loaded. `run` is one call, `results` gives the last call's outputs in the model's order.

    `note` says how the engine was set, where there was a choice.
    """

    run: Callable[[], object]
    results: Callable[[], Sequence[Array]]
    note: str = ""
    keep: object = None
    """What must live as long."""


def open_onnxruntime(task: Task) -> Engine:
    """All graph optimisations, arrays bound beforehand."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(task.model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in task.inputs.items():
        binding.bind_cpu_input(name, array)
    names = [output.name for output in session.get_outputs()]
    for name in names:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    outputs: list[Array] = binding.copy_outputs_to_cpu()
    # Memory of our own for outputs saves an allocation in each call.
    for name, array in zip(names, outputs, strict=True):
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return Engine(lambda: session.run_with_iobinding(binding), lambda: outputs)


def open_openvino(task: Task) -> Engine:
    """Float32 throughout, tuned for latency."""
    import openvino

    core = openvino.Core()
    model = core.read_model(task.model)
    model.reshape({name: list(array.shape) for name, array in task.inputs.items()})
    settings = {
        "INFERENCE_NUM_THREADS": task.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for name, array in task.inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    count = len(model.outputs)

    def run() -> None:
        request.start_async()  # infer() spends longer in Python
        request.wait()

    return Engine(run, lambda: [np.array(request.get_output_tensor(i).data) for i in range(count)])


def open_torch(task: Task) -> Engine:
    """The network as a module, run eagerly, in whichever of the two memory formats is faster here."""
    import torch

    path = task.folder / "pnnx" / "model_pnnx.py"
    os.chdir(path.parent)  # where it looks for its weights
    module: Any = load_file(path).Model().float().eval()
    inputs = [torch.from_numpy(array) for array in task.inputs.values()]
    return torch_engine(module, inputs, task.threads)


def torch_engine(module: Any, inputs: Sequence[Any], threads: int) -> Engine:
    """A module of torch, or a function with the memory format as its last argument, in the faster format."""
    import torch

    torch.set_num_threads(threads)
    last: list[Any] = []

    def in_format(memory_format: Any) -> Callable[[], None]:
        given = [x.to(memory_format=memory_format) if x.ndim == 4 else x for x in inputs]

        def run() -> None:
            with torch.inference_mode():
                last[:] = [module(*given)]

        return run

    def place(memory_format: Any) -> None:
        if isinstance(module, torch.nn.Module):
            move: Any = module.to  # its annotations lack memory_format
            move(memory_format=memory_format)

    def trial(memory_format: Any) -> float:
        place(memory_format)
        return least(in_format(memory_format))

    formats = {torch.contiguous_format: "planar", torch.channels_last: "channels last"}
    best = min(formats, key=trial)
    place(best)

    def results() -> list[Array]:
        found = last[0] if isinstance(last[0], tuple | list) else last
        return [value.contiguous().numpy() for value in found]

    return Engine(in_format(best), results, formats[best])


def open_ncnn(task: Task) -> Engine:
    """Float32 throughout, with Winograd and packed layouts as it is by itself."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = task.threads
    net.opt.lightmode = True
    for kind in ("fp16", "bf16", "int8"):
        for use in ("storage", "arithmetic", "packed"):
            if (kind, use) != ("bf16", "arithmetic"):
                setattr(net.opt, f"use_{kind}_{use}", False)
    # As ncnn's own benchmark does: memory is kept between calls.
    allocators = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
    net.opt.blob_allocator, net.opt.workspace_allocator = allocators
    folder = task.folder / "pnnx"
    if net.load_param(str(folder / "model.ncnn.param")) or net.load_model(str(folder / "model.ncnn.bin")):
        raise RuntimeError("it lacks an operator of this model")
    # pnnx says in its example which axis ncnn is to take for that of the images.
    example = (folder / "model_ncnn.py").read_text()
    axes = {name: int(axis) for name, axis in re.findall(r'"(in\d+)", ncnn\.Mat\(.*?batch_index=(\d+)\)', example)}
    last_axes = {name: int(axis) for name, axis in re.findall(r"(out\d+)\.numpy\(batch_index=(\d+)\)", example)}
    given = {}
    for i, array in enumerate(task.inputs.values()):
        if array.dtype != np.float32:
            raise RuntimeError("it takes float32 only")
        name = f"in{i}"
        given[name] = ncnn.Mat(array, batch_index=axes[name]) if name in axes else ncnn.Mat(array)
    outputs = sorted(set(re.findall(r'extract\("(out\d+)"\)', example)), key=lambda name: int(name[3:]))
    last: list[Any] = []

    def run() -> None:
        extractor = net.create_extractor()
        for name, mat in given.items():
            extractor.input(name, mat)
        found = [extractor.extract(name) for name in outputs]
        if any(code for code, _ in found):
            raise RuntimeError("it could not compute the model")
        last[:] = [mat for _, mat in found]

    def results() -> list[Array]:
        pairs = zip(outputs, last, strict=True)
        return [
            np.array(mat.numpy(batch_index=last_axes[name]) if name in last_axes else mat.numpy())
            for name, mat in pairs
        ]

    return Engine(run, results, keep=allocators)


OPEN: dict[str, Callable[[Task], Engine]] = {
    "torch": open_torch,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "ncnn": open_ncnn,
}


def least(run: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls, after one that does not count."""
    run()
    taken = []
    for _ in range(_TRIALS):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)


def load_file(path: Path) -> ModuleType:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peak_bytes() -> int:
    """The most memory this process had at once, files that it mapped included; 0 where /proc does not say.

    Not getrusage's: that of a new process begins at the size of the one that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def timed(run: Callable[[], object], untimed: int, calls: int) -> list[float]:
    """Milliseconds of each of `calls` calls, after the untimed ones."""
    for _ in range(untimed):
        run()
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def serve(name: str, folder: Path, say: Callable[[object], None]) -> None:
    """Load the engine `name`, or that of a Python file with `open_engine(task)`; answer until stdin ends."""
    described = json.loads((folder / "task.json").read_text())
    with np.load(folder / "inputs.npz") as file:
        inputs = {key: file[f"arr_{i}"] for i, key in enumerate(described["inputs"])}
    task = Task(described["model"], inputs, described["threads"], folder)
    opener: Callable[[Task], Engine]
    if name in OPEN:
        opener = OPEN[name]
        package = PACKAGES[name][0]
        importlib.import_module(package)  # not the engine's time
    else:
        own = load_file(Path(name))
        opener, package = own.open_engine, own.PACKAGE
    began = time.perf_counter()
    engine = opener(task)
    loaded = time.perf_counter()
    engine.run()
    done = time.perf_counter()
    np.savez(folder / f"{Path(name).stem}.npz", *engine.results())
    say(
        {
            "version": importlib.metadata.version(package),
            "note": engine.note,
            "load_ms": (loaded - began) * 1e3,
            "first_ms": (done - loaded) * 1e3,
            "peak_bytes": peak_bytes(),
        }
    )
    for line in sys.stdin:
        untimed, calls = map(int, line.split())
        say(timed(engine.run, untimed, calls))


def main() -> None:
    """Serve, and leave without the engines' destructors."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a stopped process would not see its parent end
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(value: object) -> None:
        answers.write(json.dumps(value) + "\n")

    try:
        serve(sys.argv[1], Path(sys.argv[2]), say)
    except Exception as error:  # engines raise classes of their own
        say({"error": f"{error}" or type(error).__name__})
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
