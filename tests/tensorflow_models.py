"""Small TensorFlow graphs that several tests use: functions, branches, variables, a network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_graphs import GraphDefWriter

Array = NDArray[Any]
F32 = np.float32


def simple() -> GraphDefWriter:
    """y = x * w + 1, z = -x"""
    g = GraphDefWriter()
    g.placeholder("x", F32, (None, 3))
    g.constant("w", np.array([1, 10, 100], F32))
    g.constant("one", np.array(1, F32))
    g.node("scaled", "Mul", "x", "w", T=np.dtype(F32))
    g.node("y", "AddV2", "scaled:0", "one", "^w", T=np.dtype(F32))
    g.node("z", "Neg", "x", T=np.dtype(F32))
    return g


def function(g: GraphDefWriter, name: str, inputs: str, outputs: Mapping[str, str]) -> Any:
    """A function of the library, to add nodes to; inputs are names apart by spaces."""
    definition = g.graph.library.function.add()
    definition.signature.name = name
    for given in inputs.split():
        definition.signature.input_arg.add(name=given, type=1)
    for result, tensor in outputs.items():
        definition.signature.output_arg.add(name=result, type=1)
        definition.ret[result] = tensor
    return definition


def call(g: GraphDefWriter, name: str, called: str, *inputs: str, op: str = "PartitionedCall") -> str:
    g.node(name, op, *inputs)
    g.graph.node[-1].attr["f"].func.name = called
    return name


def network() -> bytes:
    """Two blocks of convolution, bias and ReLU, pooling, and a dense layer, as Keras writes them."""
    g = GraphDefWriter()
    g.placeholder("image", F32, (None, 8, 8, 3))
    last = "image"
    for block, (inner, outer) in enumerate([(3, 4), (4, 8)], 1):
        name = f"model/block{block}"
        weights = g.constant(f"{name}/w", np.ones((3, 3, inner, outer), F32))
        bias = g.constant(f"{name}/b", np.ones(outer, F32))
        T = np.dtype(F32)
        last = g.node(f"{name}/Conv2D", "Conv2D", last, weights, T=T, strides=[1, 1, 1, 1], padding="SAME")
        last = g.node(f"{name}/BiasAdd", "BiasAdd", last, bias, T=T)
        last = g.node(f"{name}/Relu", "Relu", last, T=T)
        last = g.node(
            f"{name}/MaxPool", "MaxPool", last, T=T, strides=[1, 2, 2, 1], ksize=[1, 2, 2, 1], padding="VALID"
        )
    flat = g.node("model/flat", "Reshape", last, g.constant("model/flat/shape", np.array([-1, 32], np.int32)))
    g.node("model/dense/MatMul", "MatMul", flat, g.constant("model/dense/w", np.ones((32, 5), F32)), T=np.dtype(F32))
    return g.bytes()


def conditional(condition: bool | None) -> GraphDefWriter:
    """TensorFlow 1's cond(p, -x, constant 7 + x)."""
    g = GraphDefWriter()
    g.placeholder("x", F32, (2, 3))
    if condition is None:
        g.placeholder("p", np.bool_, ())
    else:
        g.constant("p", np.array(condition))
    T = np.dtype(F32)
    g.node("switch", "Switch", "x", "p", T=T)
    g.node("pivots", "Switch", "p", "p", T=np.dtype(np.bool_))
    g.node("no_pivot", "Identity", "pivots", T=np.dtype(np.bool_))
    g.node("yes", "Neg", "switch:1", T=T)
    g.constant("seven", np.full((2, 3), 7, F32))
    g.graph.node[-1].input.append("^no_pivot")
    g.node("merge", "Merge", "seven", "yes", T=T)
    g.node("no", "AddV2", "switch:0", "seven", T=T)
    g.node("sums", "Merge", "no", "yes", T=T)
    g.node("out", "Identity", "sums", T=T)
    return g


def variables_graph() -> tuple[GraphDefWriter, dict[str, Array]]:
    """y = (x * w + b) @ gather(table), with variables restored by a function under other names."""
    g = GraphDefWriter()
    g.placeholder("serving_default_x", F32, (None, 3))
    resource = g.graph.node.add
    for name in ("w", "b", "table"):
        resource(name=name, op="VarHandleOp").attr["shared_name"].s = f"layer/{name}".encode()
    body = function(g, "serve", "a w b table", {"r": "product:product:0"})
    T = 1
    for name in ("w", "b"):
        body.node_def.add(name=f"{name}/Read", op="ReadVariableOp", input=[name]).attr["dtype"].type = T
        body.node_def.add(name=f"{name}/Pass", op="Identity", input=[f"{name}/Read:value:0"]).attr["T"].type = T
    body.node_def.add(name="ids", op="Const").attr["dtype"].type = 3
    body.node_def[-1].attr["value"].tensor.dtype = 3
    body.node_def[-1].attr["value"].tensor.tensor_shape.dim.add(size=3)
    body.node_def[-1].attr["value"].tensor.int_val.extend([2, 0, 1])
    body.node_def.add(name="rows", op="ResourceGather", input=["table", "ids:output:0"]).attr["dtype"].type = T
    body.node_def.add(name="scaled", op="Mul", input=["a", "w/Pass:output:0"]).attr["T"].type = T
    body.node_def.add(name="moved", op="AddV2", input=["scaled:z:0", "b/Pass:output:0"]).attr["T"].type = T
    body.node_def.add(name="product", op="MatMul", input=["moved:z:0", "rows:output:0"]).attr["T"].type = T
    call(g, "serve_it", "serve", "serving_default_x", "w", "b", "table", op="StatefulPartitionedCall")
    g.placeholder("file", F32, ())
    restore = function(g, "restore", "file w b", {})
    names = restore.node_def.add(name="names", op="Const")
    names.attr["value"].tensor.dtype = 7
    names.attr["value"].tensor.string_val.extend([b"k/0", b"k/1"])
    restore.node_def.add(name="all", op="RestoreV2", input=["file", "names:output:0", "names:output:0"])
    for index, name in enumerate(("w", "b")):
        restore.node_def.add(name=f"{name}/i", op="Identity", input=[f"all:tensors:{index}"]).attr["T"].type = 1
        restore.node_def.add(name=f"{name}/a", op="AssignVariableOp", input=[name, f"{name}/i:output:0"])
    call(g, "restore_it", "restore", "file", "w", "b", op="StatefulPartitionedCall")
    arrays = {
        "k/0": np.array([1, 10, 100], F32),
        "k/1": np.array([5, 6, 7], F32),
        "layer/table": np.arange(12, dtype=F32).reshape(3, 4),
    }
    return g, arrays
