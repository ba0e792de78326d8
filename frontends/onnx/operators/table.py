"""The table of ONNX operators and what a translator gets.

    @operator("Clip", since=11)
    def clip(call: Call) -> Value:
        return composites.clip(call.g, call.operand(0), call.optional(1), call.optional(2))

A translator turns one node into primitives and composites. `since` is the operator set whose definition of
the operator it implements; it holds until the next higher `since` of that operator. A node older than the
lowest one is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.compiler.ir import Value
from tilewright.compiler.ir.graph import Array
from tilewright.errors import GraphError, UnsupportedError
from tilewright.frontends.calls import NodeCall
from tilewright.frontends.onnx.model import Node, Tensor

LATEST_OPSET = 28
"""The newest operator set that the table was checked against."""

Results = Value | Sequence[Value | None]
Translator = Callable[["Call"], Results]

OPERATORS: dict[str, dict[int, Translator]] = {}
"""Operator -> first operator set -> translator. ONNX's own domain only."""


def operator(*names: str, since: int) -> Callable[[Translator], Translator]:
    """Register a translator for the named operators from operator set `since` on."""

    def register(translator: Translator) -> Translator:
        for name in names:
            versions = OPERATORS.setdefault(name, {})
            if since in versions:
                raise ValueError(f"operator {name} since {since} is registered twice")
            versions[since] = translator
        return translator

    return register


def find(node: Node) -> Translator | None:
    """The translator for a node, None if there is none for its operator or operator set."""
    if node.domain or node.opset > LATEST_OPSET:
        return None
    versions = OPERATORS.get(node.op, {})
    fitting = [since for since in versions if since <= node.opset]
    return versions[max(fitting)] if fitting else None


def why_unsupported(node: Node) -> str:
    """What to call a node without a translator: its operator, and the version where that is the reason."""
    if not node.domain and node.op in OPERATORS:
        return f"{node.op} of opset {node.opset}"
    return node.full_op


@dataclass(frozen=True)
class Call(NodeCall[Node]):
    """One node to translate: the builder to write to, the node, and its operands (None where left out)."""

    operands: tuple[Value | None, ...]

    @property
    def results(self) -> int:
        """How many results somebody may use; a trailing one with an empty name counts as not there."""
        used = [index for index, name in enumerate(self.node.outputs) if name]
        return used[-1] + 1 if used else 0

    def operand(self, index: int) -> Value:
        """A required operand."""
        value = self.optional(index)
        if value is None:
            raise GraphError(f"operand {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """An operand that may be left out."""
        return self.operands[index] if index < len(self.operands) else None

    def variadic(self) -> tuple[Value, ...]:
        """All operands, at least one."""
        if not self.operands:
            raise GraphError("the node has no operands")
        return tuple(self.operand(index) for index in range(len(self.operands)))

    def known(self, index: int, what: str) -> Array | None:
        """An optional operand whose value must be known while compiling, such as a shape."""
        value = self.optional(index)
        return None if value is None else self.constant_of(value, index, what)

    def known_ints(self, index: int, what: str) -> tuple[int, ...] | None:
        """The same as a tuple of integers."""
        value = self.optional(index)
        return None if value is None else self.integers_of(value, index, what)

    def known_floats(self, index: int, what: str) -> tuple[float, ...] | None:
        """The same as a tuple of floats."""
        array = self.known(index, what)
        if array is None:
            return None
        if array.dtype.kind not in "iuf":
            raise GraphError(f"operand {index} ({what}) should hold numbers, not {array.dtype}")
        return tuple(float(number) for number in array.reshape(-1))

    def has(self, name: str) -> bool:
        """True if the node carries the attribute."""
        return name in self.node.attributes

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """A list of floats, None if the node does not carry it."""
        value = self.node.attributes.get(name)
        if value is None:
            return None
        found = (
            tuple(float(item) for item in value if not isinstance(item, str))
            if isinstance(value, tuple)
            else ()
        )
        if found != value:
            raise GraphError(f"attribute '{name}' should be a list of numbers, not {value!r}")
        return found

    def tensor(self, name: str) -> Array | None:
        """A tensor attribute, None if the node does not carry it."""
        value = self.node.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise GraphError(f"attribute '{name}' should be a tensor, not {value!r}")
        if value.array is None:
            raise UnsupportedError(
                f"attribute '{name}' holds {value.type_name} elements, which Tilewright lacks"
            )
        return value.array

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Axes counted from either end as counted from the front; they must differ."""
        found = tuple(self.axis(axis, rank) for axis in axes)
        if len(set(found)) != len(found):
            raise GraphError(f"axes {tuple(axes)} name one axis twice")
        return found

    def vector(self, numbers: Sequence[int]) -> Value:
        """A constant vector of i64."""
        return self.g.constant(np.array(numbers, dtype=np.int64))
