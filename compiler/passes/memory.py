"""Where every buffer lies: which values share one, and at which offset of the workspace each starts.

    %a, %b, %c  live at steps 0-2, 1-3, 3-4   ->   %a at 0, %b at 4096, %c at 0; 8192 bytes in all

A buffer lives from the first step that writes it to the last that reads it. Buffers are placed largest first, each
at the lowest offset where it overlaps none that lives at the same time: a greedy rule that is close to the lower
bound (the most bytes alive at one step) for networks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.ir import Graph, Node, TensorType, Value
from tilewright.compiler.ops.movement import Concat

ALIGNMENT = 64


@dataclass(frozen=True)
class Place:
    """A value's place inside another value's buffer: `offset` elements from its start."""

    root: Value
    offset: int


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets of the buffers in the workspace.

    `bytes` is the workspace's size, `lower_bound` the most bytes that are alive at one step, and `live`
    those alive at each.
    """

    offsets: Mapping[Value, int]
    bytes: int
    lower_bound: int
    live: tuple[int, ...] = ()


def find_aliases(graph: Graph) -> dict[Value, Place]:
    """Values that are computed straight into another value's buffer, or are another value's buffer read anew.

    A reshape is its operand; the operands of a concatenation whose pieces are contiguous are pieces of it. Inputs,
    constants and outputs keep their own buffers, but a reshape of an input or constant may be read from its.
    """
    fixed = {*graph.inputs, *graph.constants}
    outputs = set(graph.outputs)
    places: dict[Value, Place] = {}

    def root(value: Value) -> Place:
        offset = 0
        while value in places:
            offset += places[value].offset
            value = places[value].root
        return Place(value, offset)

    for node in reversed(graph.nodes):
        node = node.body[0] if len(node.body) == 1 else node
        pieces = _pieces(node)
        if pieces is None:
            continue
        result = node.results[0]
        whole = root(result)
        for operand, offset in pieces:
            if operand not in fixed and operand not in outputs and operand not in places and operand != whole.root:
                places[operand] = Place(whole.root, whole.offset + offset)
            elif len(pieces) == 1 and result not in outputs and result not in places and root(operand).root != result:
                places[result] = Place(operand, 0)
    return {value: root(value) for value in places}


def placed_operands(node: Node, places: Mapping[Value, Place]) -> frozenset[int]:
    """Which operands of a node that only joins them already lie where its result has them, by position."""
    node = node.body[0] if len(node.body) == 1 else node
    pieces = _pieces(node)
    if pieces is None:
        return frozenset()
    whole = places.get(node.results[0], Place(node.results[0], 0))
    return frozenset(
        position
        for position, (operand, offset) in enumerate(pieces)
        if places.get(operand, Place(operand, 0)) == Place(whole.root, whole.offset + offset)
    )


def _pieces(node: Node) -> list[tuple[Value, int]] | None:
    """The operands of a node that only joins them, with their element offsets in its result; else None."""
    if node.op == "reshape" or (node.op == "relayout" and _same_order(node)):
        return [(node.operands[0], 0)]
    if node.op != "concat" or not isinstance(node.attrs, Concat):
        return None
    axis, result = node.attrs.axis, node.results[0].type
    if any(dim != 1 for dim in result.shape[:axis]) or len(set(node.operands)) != len(node.operands):
        return None
    layouts = {operand.type.layout for operand in node.operands} | {result.layout}
    if len(layouts) != 1 or result.layout.axes:
        return None
    block = result.layout.block(axis)
    if any(operand.type.shape[axis] % block for operand in node.operands[:-1]):
        return None
    pieces, offset = [], 0
    for operand in node.operands:
        pieces.append((operand, offset))
        offset += operand.type.layout.size(operand.type.shape)
    return pieces


def _same_order(node: Node) -> bool:
    """True for a relayout between layouts that put the elements in the same order without any fill."""
    source, result = node.operands[0].type, node.results[0].type
    if source.layout.size(source.shape) != source.elements or result.layout.size(result.shape) != result.elements:
        return False
    return _order(source) == _order(result)


def _order(type: TensorType) -> list[tuple[int, int, int]]:
    """The physical dimensions of more than one element: (axis, block or 0, extent), outermost first."""
    layout, shape = type.layout, type.shape
    axes = [(axis, -(-shape[axis] // layout.block(axis))) for axis in layout.order(len(shape))]
    axes += [(axis, size) for axis, size in layout.blocks]
    merged: list[tuple[int, int, int]] = []
    for axis, extent in axes:
        if extent == 1:
            continue
        if merged and merged[-1][0] == axis:
            merged[-1] = (axis, 0, merged[-1][2] * extent)
        else:
            merged.append((axis, 0, extent))
    return merged


def plan_memory(uses: Sequence[Iterable[Value]], sizes: Mapping[Value, int]) -> MemoryPlan:
    """Place buffers; `uses[i]` are the buffers that step i touches, `sizes` the bytes of those to place."""
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for step, touched in enumerate(uses):
        for value in touched:
            if value in sizes:
                first.setdefault(value, step)
                last[value] = step
    padded = {value: -(-sizes[value] // ALIGNMENT) * ALIGNMENT for value in first}
    offsets: dict[Value, int] = {}
    for value in sorted(first, key=lambda value: (-padded[value], first[value])):
        alive = sorted(
            (offsets[other], padded[other])
            for other in offsets
            if first[other] <= last[value] and first[value] <= last[other]
        )
        offset = 0
        for start, size in alive:
            if offset + padded[value] <= start:
                break
            offset = max(offset, start + size)
        offsets[value] = offset
    total = max((offsets[value] + padded[value] for value in offsets), default=0)
    live = tuple(
        sum(padded[value] for value in first if first[value] <= step <= last[value]) for step in range(len(uses))
    )
    return MemoryPlan(offsets, total, max(live, default=0), live)
