"""Writes TensorFlow graphs for tests, node by node, without TensorFlow.

    g = GraphDefWriter()
    g.placeholder("x", np.float32, (1, 8, 8, 3))
    g.constant("w", w)
    g.node("y", "Conv2D", "x", "w", T=np.float32, strides=[1, 1, 1, 1], padding="SAME")
    g.bytes()                                   a binary GraphDef, TensorFlow reads it too
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.frontends.tensorflow.messages import TYPE_NAMES, GraphDef

PRODUCER = 2000
"""The graph version that current TensorFlow writes, near enough."""

_NUMBERS = {name: number for number, name in TYPE_NAMES.items()}
_RENAMED = {"float32": "float", "float64": "double", "float16": "half"}


def type_number(dtype: Any) -> int:
    """TensorFlow's number of NumPy's element type."""
    name = np.dtype(dtype).name
    return _NUMBERS[_RENAMED.get(name, name)]


class GraphDefWriter:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.graph = GraphDef()
        self.graph.versions.producer = PRODUCER

    def node(self, name: str, op: str, *inputs: str, **attrs: Any) -> str:
        """Append a node; attributes are Python values, NumPy element types, arrays, or lists. Returns its name."""
        node = self.graph.node.add(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            _write(node.attr[key], value)
        return name

    def placeholder(self, name: str, dtype: Any, shape: tuple[int | None, ...]) -> str:
        """Append an input; None is an unknown dimension."""
        self.node(name, "Placeholder", dtype=np.dtype(dtype))
        dims = self.graph.node[-1].attr["shape"].shape
        dims.SetInParent()
        for dim in shape:
            dims.dim.add(size=-1 if dim is None else dim)
        return name

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Append a constant."""
        return self.node(name, "Const", dtype=array.dtype, value=array)

    def bytes(self) -> bytes:
        """The graph as a file holds it."""
        return bytes(self.graph.SerializeToString())


def _write(attr: Any, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        attr.list.SetInParent()
        for item in value:
            if isinstance(item, str):
                attr.list.s.append(item.encode())
            elif isinstance(item, float):
                attr.list.f.append(item)
            elif isinstance(item, int):
                attr.list.i.append(item)
            else:
                attr.list.type.append(type_number(item))
    elif isinstance(value, bool):
        attr.b = value
    elif isinstance(value, int):
        attr.i = value
    elif isinstance(value, float):
        attr.f = value
    elif isinstance(value, str):
        attr.s = value.encode()
    elif isinstance(value, np.ndarray):
        tensor = attr.tensor
        tensor.dtype = type_number(value.dtype)
        tensor.tensor_shape.SetInParent()
        for dim in value.shape:
            tensor.tensor_shape.dim.add(size=dim)
        tensor.tensor_content = np.ascontiguousarray(value).tobytes()
    else:
        attr.type = type_number(value)
