"""Small helpers that passes share: new nodes with inferred types, constants computed at compile time."""

from collections.abc import Sequence

from tilewright.compiler.ir import Attrs, NoAttrs, Node, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ir.types import from_numpy
from tilewright.compiler.ops import infer


def new_node(
    op: str, operands: Sequence[Value], attrs: Attrs | None = None, *, source: str = "", name: str = ""
) -> Node:
    """A node of primitive `op` with fresh results; `name` (or the source, or the operation) names them."""
    attrs = NoAttrs() if attrs is None else attrs
    types = infer(op, attrs, [operand.type for operand in operands], source)
    stem = name or source or op
    results = tuple(Value(stem if i == 0 else f"{stem}.{i}", type) for i, type in enumerate(types))
    return Node(op, tuple(operands), results, attrs, source)


def new_constant(array: Array, name: str) -> Value:
    """A value for a row-major constant; the caller puts it into the graph's constants."""
    return Value(name, TensorType(from_numpy(array.dtype), array.shape))


def is_per_channel(array: Array, rank: int, axis: int = 1) -> bool:
    """True where a constant, broadcast to `rank`, varies along `axis` alone (or not at all)."""
    shape = (1,) * (rank - array.ndim) + array.shape
    return array.ndim <= rank and all(dim == 1 for position, dim in enumerate(shape) if position != axis)
