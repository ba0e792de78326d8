"""What translators ask about a node, whatever the format: attributes, checked, and operands that must be known.

    call.whole("axis", 0)                       an integer attribute; 0 if the node does not carry it
    call.axis(-1, rank=4)                       3

Each format's table has a `Call` of its own, with the node's operands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tilewright.compiler.ir import DType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.errors import GraphError, UnsupportedError


class Attributed(Protocol):
    """A node of a model."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes by name, as Python values."""


AnyNode = TypeVar("AnyNode", bound=Attributed)


@dataclass(frozen=True)
class NodeCall(Generic[AnyNode]):
    """One node to translate, and the builder to write to. What is wrong with the node raises GraphError."""

    g: GraphBuilder
    node: AnyNode

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute; required where there is no default."""
        value = self.node.attributes.get(name, default)
        if value is None:
            raise GraphError(f"attribute '{name}' is missing")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """An integer attribute; required where there is no default."""
        value = self.attribute(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise GraphError(f"attribute '{name}' should be an integer, not {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A float attribute; required where there is no default."""
        value = self.attribute(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise GraphError(f"attribute '{name}' should be a number, not {value!r}")
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        """A string attribute; required where there is no default."""
        value = self.attribute(name, default)
        if not isinstance(value, str):
            raise GraphError(f"attribute '{name}' should be a string, not {value!r}")
        return value

    def wholes(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, None if the node does not carry it."""
        value = self.node.attributes.get(name)
        if value is None:
            return None
        found = tuple(item for item in value if isinstance(item, int)) if isinstance(value, tuple) else None
        if found != value:
            raise GraphError(f"attribute '{name}' should be a list of integers, not {value!r}")
        return found

    def constant_of(self, value: Value, index: int, what: str) -> Array:
        """What is in operand `index`, whose value must be known while compiling, such as a shape."""
        array = self.g.constant_of(value)
        if array is None:
            raise UnsupportedError(
                f"operand {index} ({what}) is computed from the inputs' values at run time, but decides about "
                "shapes; fix it to a constant in the model"
            )
        return array

    def integers_of(self, value: Value, index: int, what: str) -> tuple[int, ...]:
        """The same as integers, whatever its rank."""
        array = self.constant_of(value, index, what)
        if array.dtype.kind not in "iu":
            raise GraphError(f"operand {index} ({what}) should hold integers, not {array.dtype}")
        return tuple(int(number) for number in array.reshape(-1))

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from either end, checked, as counted from the front."""
        if not -rank <= axis < rank:
            raise GraphError(f"axis {axis} does not exist in a tensor of {rank} axes")
        return axis % rank

    def cast(self, value: Value, dtype: DType) -> Value:
        """The value in another element type."""
        return value if value.type.dtype == dtype else self.g.op("cast", value, dtype=dtype)
