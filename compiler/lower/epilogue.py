"""The epilogue of a template: the element-wise nodes fused behind it, computed on each of its vectors.

    conv -> vector at (n, c, y, x) -> add(bias at c) -> relu -> store into the result at (n, c, y, x)
    conv -> vector at (n, g * K + k, y, x) -> relu -> channel shuffle -> store at (n, k * G + g, y, x)
    conv -> 2 x 2 vectors from (n, c, 2 y, 2 x) on -> relu of each -> max_pool -> store at (n, c, y, x)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.ir import Node, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.kernels.kernel import Coordinates, View, loop_type
from tilewright.compiler.loops import BOOL, Builder, Const, Operand
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops.movement import shuffled_groups


@dataclass(frozen=True)
class GroupEpilogue:
    """The element-wise `body` behind a template's result `anchor`.

    `operands` are the values the body reads besides the anchor, without the scalar constants in `scalars`, which
    become immediates. `axis` is the template's lane axis. At last, the channels of the result are shuffled where there
    are `groups` of them.
    """

    anchor: Value
    body: tuple[Node, ...]
    operands: tuple[Value, ...]
    scalars: dict[Value, Array]
    result: Value
    axis: int
    groups: int

    @staticmethod
    def of(body: tuple[Node, ...], constants: dict[Value, Array], axis: int) -> "GroupEpilogue":
        """The epilogue of a group whose first node is the template's."""
        groups = shuffled_groups(body[-3:])
        anchor, rest = body[0].results[0], body[1:-3] if groups else body[1:]
        inside = {result for node in body for result in node.results}
        outer = dict.fromkeys(operand for node in rest for operand in node.operands if operand not in inside)
        scalars = {value: constants[value] for value in outer if value in constants and constants[value].size == 1}
        operands = tuple(value for value in outer if value not in scalars)
        return GroupEpilogue(anchor, rest, operands, scalars, body[-1].results[0], axis, groups)

    @property
    def key(self) -> tuple[object, ...]:
        """Everything the generated code depends on, for sharing kernels."""
        numbers: dict[Value, object] = {self.anchor: "anchor"}
        numbers |= {value: i for i, value in enumerate(self.operands)}
        numbers |= {value: (value.type.dtype, array.tobytes()) for value, array in self.scalars.items()}
        steps = []
        for position, node in enumerate(self.body):
            steps.append((node.op, node.attrs, tuple(numbers[operand] for operand in node.operands)))
            numbers[node.results[0]] = ("step", position)
        return (tuple(value.type for value in self.operands), tuple(steps), self.result.type, self.axis, self.groups)

    @property
    def pools(self) -> bool:
        """Whether it takes 2 x 2 vectors at a time, see `store_window`."""
        return any(node.op == "max_pool" for node in self.body)

    def declare(self, b: Builder) -> None:
        """Add the operands and the result to the function's buffers."""
        for position, value in enumerate(self.operands):
            b.input(f"e{position}", loop_type(value.type.dtype), value.type.layout.size(value.type.shape))
        result = self.result.type
        b.output("y", loop_type(result.dtype), result.layout.size(result.shape))

    def store(self, b: Builder, at: Coordinates, value: Operand, active: int) -> None:
        """Compute the body on one vector and store its result."""
        self._store(b, at, self._compute(b, self.body, self.anchor, at, value, active), active)

    def store_window(self, b: Builder, at: Coordinates, values: Sequence[Operand], pooled: Coordinates) -> None:
        """Compute the body on a window's four vectors, row by row, the first of them at `at`; store at `pooled`."""
        middle = next(position for position, node in enumerate(self.body) if node.op == "max_pool")
        *outer, (y, down), (x, across) = at
        lanes = values[0].type.lanes
        computed = [
            self._compute(
                b, self.body[:middle], self.anchor, (*outer, (y, down + i // 2), (x, across + i % 2)), value, lanes
            )
            for i, value in enumerate(values)
        ]
        top, bottom = (b.max(left, right) for left, right in (computed[:2], computed[2:]))
        rest, largest = self.body[middle + 1 :], b.max(top, bottom)
        self._store(b, pooled, self._compute(b, rest, self.body[middle].result, pooled, largest, lanes), lanes)

    def _compute(
        self, b: Builder, body: Sequence[Node], start: Value, at: Coordinates, value: Operand, active: int
    ) -> Operand:
        """What a part of the body makes of a vector of `start`."""
        lanes = value.type.lanes
        known: dict[Value, Operand] = {start: value}
        for scalar, array in self.scalars.items():
            type = loop_type(scalar.type.dtype).vector(lanes)
            known[scalar] = Const(type, array.reshape(()).item())
        needed = {operand for node in body for operand in node.operands}
        for position, operand in enumerate(self.operands):
            if operand in needed:
                known[operand] = self._load(b, f"e{position}", operand.type, at, lanes, active)
        for node in body:
            formula = PRIMITIVES[node.op].formula
            assert formula is not None
            value = known[node.results[0]] = formula(b, node.attrs, *(known[operand] for operand in node.operands))
        return value

    def prefetch(self, b: Builder, at: Coordinates) -> None:
        """Fetch the lines of operands as large as the result, and of the result."""
        whole = {f"e{i}": value for i, value in enumerate(self.operands) if value.type.shape == self.anchor.type.shape}
        for name, value, where in (*((*item, at) for item in whole.items()), ("y", self.result, self._place(b, at))):
            index, offset = View.of(value.type).address(b, where)
            b.prefetch(b.parameter(name), index, offset=offset, locality=3)

    def _load(
        self, b: Builder, name: str, type: TensorType, at: Coordinates, lanes: int, active: int
    ) -> Operand:
        """The operand's elements at `at`, broadcast along its axes of 1."""
        view = View.of(type)
        missing = len(at) - type.rank
        kept = [(0, 0) if dim == 1 else where for dim, where in zip(type.shape, at[missing:], strict=True)]
        lane_axis = self.axis - missing
        index, offset = view.address(b, kept)
        buffer = b.parameter(name)
        if lane_axis < 0 or type.shape[lane_axis] == 1:
            return b.splat(b.load(buffer, index, offset=offset), lanes)
        return b.load(buffer, index, lanes, offset=offset, active=active)

    def _place(self, b: Builder, at: Coordinates) -> Coordinates:
        """Where the result has what was computed for `at`."""
        if not self.groups:
            return at
        image, (base, constant), *spatial = at
        size = self.result.type.shape[1] // self.groups
        channel = b.add(base, constant)
        return (image, (b.add(b.mul(b.rem(channel, size), self.groups), b.div(channel, size)), 0), *spatial)

    def _store(self, b: Builder, at: Coordinates, value: Operand, active: int) -> None:
        """Store the result, with zeros in the lanes beyond the last channel of a blocked one."""
        view = View.of(self.result.type)
        index, offset = view.address(b, self._place(b, at))
        channels, block = self.result.type.shape[self.axis], view.blocks[self.axis]
        real = channels % block
        if real:
            base, constant = at[self.axis]
            first = b.add(base, constant)
            is_real = Const(BOOL.vector(block), tuple(lane < real for lane in range(block)))
            if not isinstance(first, int):
                masked = b.select(is_real, value, 0)
                value = b.select(b.compare("ge", first, channels - real), masked, value)
            elif first >= channels - real:
                value = b.select(is_real, value, 0)
        b.store(b.parameter("y"), index, value, offset=offset, active=active)
