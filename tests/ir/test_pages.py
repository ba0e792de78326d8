"""Memory of mapped files is given back, and only that."""

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tilewright.compiler.ir.pages import SMALLEST, release

SIZE = 32 << 20


def resident() -> int:
    """This process's memory in bytes, from Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    np.arange(SIZE // 4, dtype=np.float32).tofile(path)
    return path


def mapped(path: Path, access: int) -> tuple[mmap.mmap, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    with open(path, "rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=access)
    return data, np.frombuffer(memoryview(data)[4:-4], np.float32)


def test_pages_that_were_read_go_and_come_back(file: Path) -> None:
    _, array = mapped(file, mmap.ACCESS_READ)
    before = resident()
    total = array.sum()
    assert resident() - before > SIZE // 2
    release(array[6:].reshape(2, -1)[:, 1:].T)
    assert resident() - before < SIZE // 4
    assert array.sum() == total and array[0] == 1


def test_changes_of_a_private_mapping_stay(file: Path) -> None:
    data, array = mapped(file, mmap.ACCESS_COPY)
    data[4 : SIZE - 4] = b"\1" * (SIZE - 8)
    release(array)
    assert (array.view(np.uint8) == 1).all()


def test_other_arrays_are_left_alone() -> None:
    array = np.ones(SIZE // 4, np.float32)
    anonymous = np.frombuffer(mmap.mmap(-1, SIZE), np.uint8)
    anonymous[:] = 7
    for given in (array, array[::2], anonymous, np.ones(3), np.float32(2) * np.ones(()), np.ones(0)):
        release(given)
    release(np.frombuffer(bytes(SMALLEST), np.uint8))
    assert (array == 1).all() and (anonymous == 7).all()


_COMPILE = """
import resource, sys
import tilewright as tw
sys.path.insert(0, sys.argv[2])
from layers import dense
small = tw.compile(dense([8, 8]), threads=1, cache=False)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = peak()
model = tw.compile(sys.argv[1], threads=1, cache=False)
print(peak() - before)
"""
_LAYERS = """
import numpy as np
from onnx import TensorProto, helper, numpy_helper

def dense(sizes):
    nodes, weights = [], []
    for i, (inner, outer) in enumerate(zip(sizes, sizes[1:])):
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]))
        weights.append(numpy_helper.from_array(np.full((inner, outer), 1 / inner, np.float32), f"w{i}"))
    ports = [[helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1, sizes[i]])] for i in (0, len(sizes) - 1)]
    graph = helper.make_graph(nodes, "dense", *ports, weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return model.SerializeToString()
"""


def test_compiling_takes_at_most_twice_the_weights(tmp_path: Path) -> None:
    (tmp_path / "layers.py").write_text(_LAYERS)
    make = "import sys; sys.path.insert(0, '.'); import layers; open('m.onnx', 'wb').write(layers.dense([2048] * 9))"
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True)
    weights = 8 * 2048 * 2048 * 4
    out = subprocess.run(
        [sys.executable, "-c", _COMPILE, "m.onnx", "."], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert int(out.stdout) < 2 * weights
