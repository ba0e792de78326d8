"""Checks that `infer` functions share; each raises GraphError that names the operand, axis or dimension."""

from collections.abc import Callable, Sequence

import numpy as np

from tilewright.compiler.ir import DType, Shape, TensorType
from tilewright.errors import GraphError

Accepts = Callable[[DType], bool]

KINDS: dict[str, Accepts] = {
    "floats": lambda dtype: dtype.is_float,
    "numbers": lambda dtype: dtype.is_float or dtype.is_integer,
    "integers": lambda dtype: dtype.is_integer,
    "bools": lambda dtype: dtype.kind == "bool",
    "bools or integers": lambda dtype: dtype.kind == "bool" or dtype.is_integer,
    "anything": lambda dtype: True,
}
"""The names of dtype sets, as messages show them."""


def check_count(operands: Sequence[TensorType], count: int) -> None:
    """Exactly `count` operands."""
    if len(operands) != count:
        raise GraphError(f"takes {count} operand{'s' * (count != 1)}, not {len(operands)}")


def check_dtype(type: TensorType, position: int, kind: str) -> None:
    """Operand `position` holds one of the dtypes that `kind` names."""
    if not KINDS[kind](type.dtype):
        raise GraphError(f"operand {position} holds {type.dtype}; expected {kind}")


def check_same_dtype(types: Sequence[TensorType], first: int = 0) -> None:
    """All operands from position `first` on hold one dtype."""
    for position, type in enumerate(types[first:], first):
        if type.dtype != types[first].dtype:
            raise GraphError(
                f"operand {position} holds {type.dtype}; expected {types[first].dtype} as operand {first}"
            )


def check_rank(type: TensorType, position: int, at_least: int) -> None:
    """Operand `position` has `at_least` dimensions or more."""
    if type.rank < at_least:
        raise GraphError(
            f"operand {position} has shape {type.shape}; expected at least {at_least} dimensions"
        )


def check_axis(axis: int, rank: int, name: str = "axis") -> None:
    """0 <= axis < rank."""
    if not 0 <= axis < rank:
        raise GraphError(f"{name} {axis} is out of range; operand 0 has {rank} dimensions")


def check_axes(axes: Sequence[int], rank: int) -> None:
    """Axes of an operand, each at most once."""
    for axis in axes:
        check_axis(axis, rank)
    if len(set(axes)) != len(axes):
        raise GraphError(f"axes {tuple(axes)} name an axis twice")


def check_length(values: Sequence[object], length: int, name: str, per: str = "axis") -> None:
    """One value an axis."""
    if len(values) != length:
        raise GraphError(f"{name} has {len(values)} entries; expected {length}, one per {per}")


def broadcast_shape(types: Sequence[TensorType]) -> Shape:
    """The shape that operands broadcast to, as NumPy does it."""
    shape: Shape = ()
    for position, type in enumerate(types):
        try:
            shape = np.broadcast_shapes(shape, type.shape)
        except ValueError:
            raise GraphError(
                f"operand {position} has shape {type.shape}, which does not broadcast with {shape}"
            ) from None
    return shape
