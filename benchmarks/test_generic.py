"""Generated loop nests beside onnxruntime: one ONNX node each, one thread, results into arrays that exist already.

    make bench ARGS="-k generic"

The ratio printed is onnxruntime's median over ours: above 1, Tilewright is faster. The goal is 0.83, within 1.2x.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from side_by_side import race

import tilewright as tw

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One operator over inputs of the given shapes."""

    op: str
    shapes: tuple[Shape, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
        return " ".join([self.op, shapes, *(str(value) for value in self.attrs.values())])


CASES = (
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


def model_of(case: Case) -> bytes:
    """The case as an ONNX model with inputs x0, x1, .. and output y."""
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate(case.shapes)]
    kind = TensorProto.INT64 if case.op == "ArgMax" else TensorProto.FLOAT
    node = helper.make_node(case.op, [value.name for value in inputs], ["y"], **case.attrs)
    graph = helper.make_graph([node], "case", inputs, [helper.make_tensor_value_info("y", kind, None)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_generic(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    data = model_of(case)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in case.shapes]
    model = tw.compile(data, threads=1, cache=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    named = {f"x{i}": array for i, array in enumerate(arrays)}
    (expected,) = session.run(None, named)
    out = np.empty_like(expected)
    binding = session.io_binding()
    for name, array in named.items():
        binding.bind_cpu_input(name, array)
    theirs = np.empty_like(out)
    binding.bind_output("y", "cpu", 0, out.dtype, out.shape, theirs.ctypes.data)
    np.testing.assert_allclose(model(*arrays, out=out), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    times = race(
        {"tilewright": lambda: model(*arrays, out=out), "onnxruntime": lambda: session.run_with_iobinding(binding)},
        seconds=1.5,
    )
    ratio = times["onnxruntime"].median / times["tilewright"].median
    with capsys.disabled():
        print(f"\n{case}: {times['tilewright']}; onnxruntime takes {ratio:.2f}x our time")
