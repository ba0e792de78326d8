"""The table of TensorFlow operators and what a translator gets.

    @operator("Relu6")
    def relu6(call: Call) -> Value:
        return composites.clip(call.g, call.operand(0), 0.0, 6.0)

A translator turns one node into primitives and composites. Shapes are static, so operands that decide about
them (`constant`) must be known while compiling; what is computed from shapes and constants alone is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tilewright.compiler.ir import DType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError, ResourceError, UnsupportedError
from tilewright.frontends.calls import NodeCall
from tilewright.frontends.tensorflow.model import ElementType, Node

Results = Value | Sequence[Value | None]
"""One result, or a node's results in order; None for one that Tilewright does not compute."""

Translator = Callable[["Call"], Results]
Registered = TypeVar("Registered", bound=Translator)

OPERATORS: dict[str, Translator] = {}
"""Operator -> translator."""


def operator(*names: str) -> Callable[[Registered], Registered]:
    """Register a translator for the named operators."""

    def register(translator: Registered) -> Registered:
        for name in names:
            if name in OPERATORS:
                raise ValueError(f"operator {name} is registered twice")
            OPERATORS[name] = translator
        return translator

    return register


MAX_RESULTS = 1 << 16
"""More results than any sensible node has: what an absurd number in a file would ask for."""


@dataclass(frozen=True)
class Call(NodeCall[Node]):
    """One node to translate: the builder to write to, the node, and its operands (no control inputs)."""

    operands: tuple[Value, ...]

    def operand(self, index: int) -> Value:
        """An operand; negative indices count from the end."""
        if not -len(self.operands) <= index < len(self.operands):
            raise GraphError(f"operand {index} is missing; the node has {len(self.operands)}")
        return self.operands[index]

    def variadic(self, count: int, first: int = 0) -> tuple[Value, ...]:
        """`count` operands from `first` on, at least one."""
        if count < 1:
            raise GraphError(f"it takes {count} operands; at least one is needed")
        return tuple(self.operand(first + index) for index in range(count))

    # ---- operands whose values decide about shapes

    def constant(self, index: int, what: str) -> Array:
        """An operand whose value must be known while compiling, such as a shape."""
        return self.constant_of(self.operand(index), index, what)

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """Such an operand as integers, whatever its rank."""
        return self.integers_of(self.operand(index), index, what)

    def integer(self, index: int, what: str) -> int:
        """Such an operand as one integer."""
        numbers = self.integers(index, what)
        if len(numbers) != 1:
            raise GraphError(f"operand {index} ({what}) has {len(numbers)} elements; it takes one")
        return numbers[0]

    def pairs(self, index: int, what: str) -> tuple[tuple[int, int], ...]:
        """Such an operand, of shape (n, 2), as n pairs of integers."""
        shape = self.operand(index).type.shape
        if len(shape) != 2 or shape[1] != 2:
            raise GraphError(f"operand {index} ({what}) has shape {shape}; it takes (n, 2)")
        numbers = self.integers(index, what)
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))

    # ---- attributes

    def flag(self, name: str, default: bool | None = None) -> bool:
        """A Boolean attribute."""
        value = self.attribute(name, default)
        if not isinstance(value, bool):
            raise GraphError(f"attribute '{name}' should be true or false, not {value!r}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, empty if the node does not carry it."""
        value = self.node.attributes.get(name, ())
        found = tuple(item for item in value if isinstance(item, str)) if isinstance(value, tuple) else None
        if found is None or found != value:
            raise GraphError(f"attribute '{name}' should be a list of strings, not {value!r}")
        return found

    def dtype(self, name: str, default: DType | None = None) -> DType:
        """An element type; raises UnsupportedError for one that Tilewright lacks."""
        value = self.node.attributes.get(name)
        if value is None and default is not None:
            return default
        value = self.attribute(name)
        if not isinstance(value, ElementType):
            raise GraphError(f"attribute '{name}' should be an element type, not {value!r}")
        if value.dtype is None:
            raise UnsupportedError(f"attribute '{name}' is {value}, an element type that Tilewright lacks")
        return value.dtype

    # ---- small helpers

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Axes counted from either end as counted from the front, in order, each once."""
        return tuple(sorted({self.axis(axis, rank) for axis in axes}))

    def parts(self, x: Value, sizes: Sequence[int], axis: int) -> tuple[Value, ...]:
        """x cut along an axis; raises ResourceError for absurdly many parts."""
        if len(sizes) > MAX_RESULTS:
            raise ResourceError(f"it would have {len(sizes)} results, more than {MAX_RESULTS}")
        return composites.split(self.g, x, sizes, axis)

    def vector(self, numbers: Sequence[int], dtype: DType) -> Value:
        """A constant vector."""
        return self.g.constant(np.array(numbers, dtype=dtype.numpy))
