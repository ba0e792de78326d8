"""From a model's file to its first result: cold, from the cache, and beside onnxruntime's session creation.

    compiling("vgg16", rounds=3)  ->  {"cold": {"ms": .., "peak_bytes": .., "stages": {"LLVM": 400.0, ..}}, "warm": ..}

Every start is a process of its own, one after the other in turn, with the file in the page cache. Importing the
engine does not count, neither for us nor for onnxruntime; peak memory is that of the whole process.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from models import input_of, light_file, network_file

STAGES = {
    "read the file": ("tilewright.jit", "load"),
    "hash it": ("tilewright.jit", "content_of"),
    "graph passes": ("tilewright.compiler.pipeline", "optimise"),
    "lower": ("tilewright.compiler.pipeline", "lower_graph"),
    "emit text": ("tilewright.compiler.pipeline", "emit"),
    "LLVM": ("tilewright.compiler.pipeline", "generate"),
    "pack constants": ("tilewright.compiler.pipeline", "pack_constants"),
    "load the code": ("tilewright.jit", "Executable"),
    "write the cache": ("tilewright.runtime.cache", "Draft.keep"),
}
"""What a cold start spends its time on: functions, none within another."""
BESIDE = ("hash it", "pack constants")
"""Those that have a thread of their own: a new file is hashed while it is planned, constants are packed beside LLVM."""

_START = r"""
import importlib, json, sys, time
import numpy as np
began = time.perf_counter()
import tilewright as tw
tw.compile  # loads it
if sys.argv[2] != "warm":  # loaded by the first call that compiles
    import tilewright.jit
imported = time.perf_counter() - began
from tilewright.engines import peak_bytes
stages = {}
def watch(stage, module, name):
    owner = importlib.import_module(module)
    *outer, name = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    function = getattr(owner, name)
    def timed(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            stages[stage] = stages.get(stage, 0) + (time.perf_counter() - began) * 1e3
    setattr(owner, name, timed)
for stage, (module, name) in json.loads(sys.argv[4]).items():
    watch(stage, module, name)
x = np.load(sys.argv[3])
began = time.perf_counter()
model = tw.compile(sys.argv[1])
compiled = time.perf_counter()
model(x)
done = time.perf_counter()
stages["first call"] = (done - compiled) * 1e3
print(json.dumps({"ms": (done - began) * 1e3, "compile_ms": (compiled - began) * 1e3, "stages": stages,
    "import_ms": imported * 1e3, "peak_bytes": peak_bytes()}))
"""
_ORT = r"""
import json, sys, time
import numpy as np
began = time.perf_counter()
import onnxruntime
imported = time.perf_counter() - began
from tilewright.engines import peak_bytes
x = np.load(sys.argv[3])
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
began = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
created = time.perf_counter()
session.run(None, {session.get_inputs()[0].name: x})
done = time.perf_counter()
print(json.dumps({"ms": (done - began) * 1e3, "create_ms": (created - began) * 1e3,
    "import_ms": imported * 1e3, "peak_bytes": peak_bytes()}))
"""


def compiling(name: str, rounds: int) -> dict[str, Any]:
    """Medians of `rounds` starts each way; "stages" are those of one more cold start, in milliseconds."""
    path = light_file(name) if name.startswith("light_") else network_file(name)
    path.read_bytes()  # into the page cache
    _, shape = input_of(path)
    found: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": [], "onnxruntime": []}
    with tempfile.TemporaryDirectory() as folder:
        x = str(Path(folder, "x.npy"))
        np.save(x, np.random.default_rng(1).random(shape, np.float32))
        for turn in range(rounds):
            cache = str(Path(folder, f"cache{turn}"))
            found["cold"].append(_run(_START, path, "cold", x, cache))
            found["warm"].append(_run(_START, path, "warm", x, cache))
            found["onnxruntime"].append(_run(_ORT, path, "", x, cache))
            subprocess.run(["rm", "-r", cache], check=True)
        staged = _run(_START, path, "cold", x, str(Path(folder, "staged")), STAGES)
    result: dict[str, Any] = {
        way: {key: median(run[key] for run in runs) for key in runs[0] if key != "stages"}
        for way, runs in found.items()
    }
    result["cold"]["stages"] = staged["stages"]
    result["cold"]["staged_ms"] = staged["ms"]
    return {**result, "model": name, "file_bytes": path.stat().st_size, "rounds": rounds}


def _run(
    script: str, path: Path, mode: str, x: str, cache: str, watched: Mapping[str, tuple[str, str]] | None = None
) -> dict[str, Any]:
    environment = {**os.environ, "TILEWRIGHT_CACHE_DIR": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their bytecode
    command = [sys.executable, "-c", script, str(path), mode, x, json.dumps(watched or {})]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))
