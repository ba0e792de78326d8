"""How fast are the generated loop nests beside onnxruntime on one thread?

    python benchmarks/generic.py [--filter softmax] [--seconds 1]

Each case is one fused group of ours and one small ONNX model of theirs, over the same arrays, taking turns.
Results go into arrays that exist already, on both sides (onnxruntime's through I/O binding). The ratio is
onnxruntime's least processor time by ours: above 1, ours is faster. "build" is the time
to make the machine code.
"""

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from tilewright.compiler import targets
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.ir import F32, Graph, Node, TensorType, Value
from tilewright.compiler.lower import generic, movement  # noqa: F401  (they register the lowerings)
from tilewright.compiler.lower.context import LOWERINGS, Lowering
from tilewright.compiler.lower.nests import nest_supports
from tilewright.compiler.ops import GraphBuilder, composites
from tilewright.runtime.jit import Engine

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One comparison: our graph's builder, and the ONNX nodes over inputs x0, x1, .. and result y."""

    name: str
    shapes: tuple[Shape, ...]
    ours: Callable[..., Value]
    theirs: tuple[tuple[str, tuple[str, ...], tuple[str, ...], dict[str, Any]], ...]


def one(name: str, shapes: Sequence[Shape], ours: Callable[..., Value], op: str, **attrs: Any) -> Case:
    """A case that is one ONNX node."""
    inputs = tuple(f"x{i}" for i in range(len(shapes)))
    return Case(name, tuple(shapes), ours, ((op, inputs, ("y",), attrs),))


def _transpose(shape: Shape, perm: Shape) -> Case:
    shown = "x".join(map(str, shape))
    return one(
        f"transpose {shown} {''.join(map(str, perm))}", [shape], lambda g, x: g.op("transpose", x, perm=perm),
        "Transpose", perm=perm,
    )  # fmt: skip


def _softmax(shape: Shape, axis: int) -> Case:
    shown = "x".join(map(str, shape))
    return one(
        f"softmax {shown} axis {axis}",
        [shape],
        lambda g, x: composites.softmax(g, x, (axis,)),
        "Softmax",
        axis=axis,
    )


def _layer_norm(rows: int, width: int) -> Case:
    return one(
        f"layer norm {rows}x{width}", [(rows, width), (width,), (width,)],
        lambda g, x, s, c: composites.layer_norm(g, x, s, c), "LayerNormalization", axis=-1,
    )  # fmt: skip


def _binary(op: str, onnx_op: str, a: Shape, b: Shape) -> Case:
    shown = " ".join("x".join(map(str, shape)) for shape in (a, b))
    return one(f"{op} {shown}", [a, b], lambda g, x, y: g.op(op, x, y), onnx_op)


CASES = (
    _softmax((4000, 1000), 1), _softmax((1000, 4096), 1), _softmax((12 * 197, 197), 1),
    _softmax((1, 21, 256, 256), 1),
    _layer_norm(4000, 768), _layer_norm(1000, 4096),
    one("gelu 4M", [(4000, 1024)], lambda g, x: composites.gelu(g, x), "Gelu"),
    one("sigmoid 4M", [(4000, 1024)], lambda g, x: g.op("sigmoid", x), "Sigmoid"),
    one("tanh 64k", [(64, 1024)], lambda g, x: g.op("tanh", x), "Tanh"),
    _transpose((2048, 2048), (1, 0)), _transpose((1000, 1500), (1, 0)),
    _transpose((1, 64, 224, 224), (0, 2, 3, 1)),
    _transpose((1, 224, 224, 64), (0, 3, 1, 2)), _transpose((8, 3, 224, 224), (0, 2, 3, 1)),
    _transpose((8, 197, 12, 64), (0, 2, 1, 3)), _transpose((8, 12, 197, 64), (0, 1, 3, 2)),
    _transpose((197, 768), (1, 0)),
    _binary("add", "Add", (1, 64, 224, 224), (1, 64, 1, 1)), _binary("add", "Add", (4000, 768), (768,)),
    _binary("add", "Add", (1, 64, 224, 224), (1, 64, 224, 224)),
    _binary("mul", "Mul", (512, 7, 7), (512, 1, 1)),
    one("mean 64x112x112 hw", [(1, 64, 112, 112)], lambda g, x: composites.mean(g, x, (2, 3), True),
        "ReduceMean", axes=(2, 3), keepdims=1),
    one("mean 112x112x64 hw", [(1, 112, 112, 64)], lambda g, x: composites.mean(g, x, (1, 2), True),
        "ReduceMean", axes=(1, 2), keepdims=1),
    one("sum over axis 0 4096x1000", [(4096, 1000)],
        lambda g, x: composites.reduce_sum(g, x, (0,), True), "ReduceSum_", axes=(0,), keepdims=1),
    one("argmax 4000x1000", [(4000, 1000)],
        lambda g, x: g.op("argmax", x, axis=1, keepdims=False, last=False),
        "ArgMax", axis=1, keepdims=0),
    one("concat 3 x 2M axis 1", [(8, 256, 1024)] * 3,
        lambda g, *xs: g.op("concat", *xs, axis=1), "Concat", axis=1),
)  # fmt: skip


def ours(case: Case, arrays: Sequence[Any]) -> tuple[Callable[[], object], Any, float]:
    """(run, the result's array, seconds to build) of the fused graph."""
    g = GraphBuilder("case")
    graph = g.finish(
        {"y": case.ours(g, *(g.input(f"x{i}", TensorType(F32, a.shape)) for i, a in enumerate(arrays)))}
    )
    started = time.perf_counter()
    state = Lowering(graph, targets.host())
    node = graph.nodes[0] if len(graph.nodes) == 1 else _group(graph)
    LOWERINGS[node.op](state, node)
    text = emit_module([step.kernel.function for step in state.steps], linkage="")
    engine = Engine(compile_module(text, targets.host()))
    seconds = time.perf_counter() - started
    (output,) = graph.outputs
    result = _aligned(output.type.shape, output.type.dtype.numpy)
    values = dict(zip(graph.inputs, arrays, strict=True)) | {output: result}
    calls = []
    for step in state.steps:
        address = engine.address(step.kernel.function.name)
        kinds = [ctypes.c_void_p] * len(step.arguments) + [ctypes.c_int64] * 2
        call = ctypes.CFUNCTYPE(None, *kinds)(address)
        calls.append((call, [values[v].ctypes.data for v in step.arguments], step.kernel.items))

    def run() -> object:
        for call, addresses, items in calls:
            call(*addresses, 0, items)
        return engine

    return run, result, seconds


def _group(graph: Graph) -> Node:
    inside = {result for node in graph.nodes for result in node.results}
    operands = tuple(dict.fromkeys(o for n in graph.nodes for o in n.operands if o not in inside))
    assert nest_supports(graph.nodes), graph
    return replace(graph.nodes[-1], op="group", operands=operands, body=graph.nodes)


def theirs(case: Case, arrays: Sequence[Any], result: Any) -> Callable[[], object]:
    """onnxruntime on one thread, its result bound to an array."""
    nodes = []
    constants = []
    for op, inputs, outputs, attrs in case.theirs:
        if op == "ReduceSum_":
            attrs = dict(attrs)
            constants.append(helper.make_tensor("axes", TensorProto.INT64, [1], list(attrs.pop("axes"))))
            op, inputs = "ReduceSum", (*inputs, "axes")
        elif op == "ReduceMean":
            attrs = dict(attrs)
            axes = list(attrs.pop("axes"))
            constants.append(helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes))
            inputs = (*inputs, "axes")
        nodes.append(helper.make_node(op, list(inputs), list(outputs), **attrs))
    graph = helper.make_graph(
        nodes, "case",
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, a.shape) for i, a in enumerate(arrays)],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(result.dtype), result.shape)],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for i, array in enumerate(arrays):
        binding.bind_cpu_input(f"x{i}", array)
    binding.bind_output("y", "cpu", 0, result.dtype, result.shape, result.ctypes.data)
    return lambda: session.run_with_iobinding(binding)


def _aligned(shape: Shape, dtype: Any) -> Any:
    """Zeros that start at a cache line, all pages touched."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(count + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[:] = 0
    return room[start : start + count].view(dtype).reshape(shape)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--filter", default="")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    print(f"{'case':44} {'ours ms':>10} {'ort ms':>10} {'ratio':>6} {'GB/s':>6} {'build ms':>9}")
    for case in CASES:
        if arguments.filter not in case.name:
            continue
        arrays = []
        for shape in case.shapes:
            array = _aligned(shape, np.float32)
            array[...] = generator.standard_normal(shape)
            arrays.append(array)
        mine, result, build = ours(case, arrays)
        other = _aligned(result.shape, result.dtype)
        peer = theirs(case, arrays, other)
        mine(), peer()
        np.testing.assert_allclose(result, other, rtol=2e-4, atol=2e-4)
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        started = time.perf_counter()
        while time.perf_counter() - started < arguments.seconds:
            for name, run in (("ours", mine), ("theirs", peer)):
                begin = time.thread_time()
                run()
                times[name].append(time.thread_time() - begin)
        a, b = min(times["ours"]), min(times["theirs"])
        moved = sum(x.nbytes for x in (*arrays, result))
        speed = moved / a / 1e9
        print(f"{case.name:44} {a * 1e3:10.3f} {b * 1e3:10.3f} {b / a:6.2f} {speed:6.1f} {build * 1e3:9.1f}")


if __name__ == "__main__":
    main()
