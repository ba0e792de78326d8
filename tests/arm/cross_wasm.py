"""Models as WebAssembly modules, called in a WebAssembly machine: values against PyTorch's."""

import struct
from pathlib import Path

import numpy as np
import pytest
from arm.emulated import REFERENCES
from wasmtime import Engine, Instance, Module, Store

from tilewright.aot import save_model
from tilewright.compiler.targets import by_name

MODELS = {model[0]: model[1:] for model in REFERENCES["models"]}


class Machine:
    """A module with memory to put arrays into, from the end of its own on; addresses are multiples of 64."""

    def __init__(self, path: Path, room: int) -> None:
        engine = Engine()
        self.store = Store(engine)
        module = Module.from_file(engine, str(path))
        assert not module.imports, "a module needs nothing from outside"
        self.exports = Instance(self.store, module, []).exports(self.store)
        self.memory = self.exports["memory"]
        self.end = -(-self.memory.data_len(self.store) // 64) * 64
        self.memory.grow(self.store, (room >> 16) + 1)

    def put(self, data: bytes) -> int:
        """Copy bytes in; returns their address."""
        at = self.end
        self.memory.write(self.store, data, at)
        self.end += -(-len(data) // 64) * 64
        return at

    def call(self, name: str, *arguments: int) -> int:
        result: int = self.exports[name](self.store, *arguments)
        return result


@pytest.mark.parametrize("target", ["wasm32", "wasm32-simd"])
@pytest.mark.parametrize("model", ["mnist", "resnet", "conv_winograd", "softmax", "gemm"])
def test_as_pytorch(model: str, target: str, tmp_path: Path) -> None:
    onnx, conv, _, x, expected = MODELS[model]
    save_model(onnx, tmp_path / "net.wasm", target=by_name(target), conv=conv, name="net")
    file = tmp_path / "net.weights"
    weights = file.read_bytes() if file.exists() else b""
    machine = Machine(tmp_path / "net.wasm", len(weights) + x.nbytes + expected.nbytes + (64 << 20))
    space = bytes(machine.call("net_workspace_bytes", 0, 1))
    inputs = [machine.put(x.tobytes()), *([machine.put(weights)] if weights else [])]
    y = machine.put(bytes(expected.nbytes))
    structs = [machine.put(struct.pack(f"<{len(inputs)}I", *inputs)), machine.put(struct.pack("<I", y))]
    assert machine.call("net_run", *structs, machine.put(space)) == 0
    found = np.frombuffer(machine.memory.read(machine.store, y, y + expected.nbytes), np.float32)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    assert machine.call("net_run", 0, structs[1], 0) == -1, "a null pointer is refused"
