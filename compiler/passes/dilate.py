"""Convolutions of images cut into a batch of smaller ones are dilated convolutions of the whole.

    %p = pad(%x)  reshape  transpose  reshape          space to batch: every second row and column, say
    %y = conv(%p, %w)                                                           %y = conv(%x, %w) {dilations=(2, 2)}
    %z = relu(%y)                                                        ->     %z = relu(%y)
    reshape  transpose  reshape  slice(%z)             batch to space

TensorFlow's older graphs write dilated convolutions in this way. What stands between the convolution and the end
may be element-wise, with constants that are the same everywhere in an image; and nobody else may see the batch of
small images. Only images with the channels last are cut like this; the convolution itself has them first, between
two transposes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.ir import Graph, Node, Value
from tilewright.compiler.ir.graph import rewrite
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops.contraction import Conv
from tilewright.compiler.ops.movement import Pad, Slice, Transpose
from tilewright.compiler.passes.build import is_per_channel, new_node

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
CUT = (2, 4, 0, 1, 3, 5)
"""The transpose that makes a batch of the rows and columns of blocks: (n, rows, row, columns, column, c)."""
JOIN = (2, 3, 0, 4, 1, 5)
"""What puts (row, column, n, rows, columns, c) back."""

Pads = tuple[tuple[int, int], ...]
Alone = Callable[[Value], Node | None]
"""What computes a value, None where more than one node needs it."""


@dataclass(frozen=True)
class Cut:
    """How images were cut: their rows and columns, padded, in steps of `block`."""

    x: Value
    block: tuple[int, int]
    pads: Pads


def dilate(graph: Graph) -> Graph:
    """Apply the rewrite of the module's docstring."""
    if not any(isinstance(node.attrs, Transpose) and node.attrs.perm == JOIN for node in graph.nodes):
        return graph
    producers, users = graph.producers(), graph.users()
    outputs = set(graph.outputs)

    def alone(value: Value) -> Node | None:
        return producers.get(value) if len(users.get(value, ())) == 1 and value not in outputs else None

    def visit(node: Node) -> tuple[Sequence[Node], Mapping[Value, Value]] | None:
        if not isinstance(node.attrs, Slice):
            return None
        join = _joined(node, alone)
        if join is None:
            return None
        value, block, crops = join
        between: list[Node] = []
        inner = alone(value)
        while inner is not None and inner.op != "transpose" and _uniform(inner, graph):
            between.append(inner)
            value = next(operand for operand in inner.operands if operand not in graph.constants)
            inner = alone(value)
        conv = alone(inner.operands[0]) if inner is not None and inner.attrs == Transpose(perm=LAST) else None
        if conv is None or not isinstance(conv.attrs, Conv) or conv.attrs.strides != (1, 1):
            return None
        before = alone(conv.operands[0])
        cut = _cut(before.operands[0], alone) if before is not None and before.attrs == Transpose(perm=FIRST) else None
        if cut is None or cut.block != block:
            return None
        # A pad of the small images is one of as many blocks.
        pads = tuple(
            (low + inside[0] * step - crop[0], high + inside[1] * step - crop[1])
            for (low, high), inside, crop, step in zip(cut.pads, conv.attrs.pads, crops, block, strict=True)
        )
        if any(side < 0 for pair in pads for side in pair):
            return None
        dilations = tuple(step * old for step, old in zip(block, conv.attrs.dilations, strict=True))
        nodes = [new_node("transpose", [cut.x], Transpose(perm=FIRST), source=conv.source)]
        attrs = replace(conv.attrs, pads=pads, dilations=dilations)
        nodes.append(new_node("conv", [nodes[-1].result, conv.operands[1]], attrs, source=conv.source))
        nodes.append(new_node("transpose", [nodes[-1].result], Transpose(perm=LAST), source=conv.source))
        for old in reversed(between):
            operands = [operand if operand in graph.constants else nodes[-1].result for operand in old.operands]
            nodes.append(new_node(old.op, operands, old.attrs, source=old.source))
        if nodes[-1].result.type != node.result.type:
            return None
        return nodes, {node.result: nodes[-1].result}

    return rewrite(graph, visit)


def _uniform(node: Node, graph: Graph) -> bool:
    """An element-wise node of one computed operand and constants that vary by channel only."""
    if node.op not in PRIMITIVES or PRIMITIVES[node.op].family != "elementwise":
        return False
    constants = [graph.constants[operand] for operand in node.operands if operand in graph.constants]
    computed = [operand for operand in node.operands if operand not in graph.constants]
    rank = node.results[0].type.rank
    return len(set(computed)) == 1 and rank == 4 and all(is_per_channel(array, 4, 3) for array in constants)


def _chain(value: Value, ops: Sequence[str], alone: Alone) -> list[Node] | None:
    """The nodes of `ops`, the last one first, that a value comes from."""
    found: list[Node] = []
    for op in ops:
        node = alone(value)
        if node is None or node.op != op:
            return None
        found.append(node)
        value = node.operands[0]
    return found


def _cut(value: Value, alone: Alone) -> Cut | None:
    """How a batch of small images was made, if it is one."""
    chain = _chain(value, ("reshape", "transpose", "reshape", "pad"), alone)
    if chain is None:
        return None
    merge, turn, split, pad = chain
    shape, around = split.result.type.shape, pad.attrs
    assert isinstance(around, Pad)
    zeros = around.mode == "constant" and around.value == 0 and not any(around.interior)
    pads = tuple(zip(around.low, around.high, strict=True))
    if turn.attrs != Transpose(perm=CUT) or not zeros or any(side < 0 for pair in pads for side in pair):
        return None
    n, rows, row, columns, column, c = shape
    whole, small = (n, rows * row, columns * column, c), (row * column * n, rows, columns, c)
    if pad.result.type.shape != whole or merge.result.type.shape != small or any(pads[0]) or any(pads[3]):
        return None
    return Cut(pad.operands[0], (row, column), pads[1:3])


def _joined(node: Node, alone: Alone) -> tuple[Value, tuple[int, int], Pads] | None:
    """The small images that a slice puts together again, their number by row and column, and what it cuts off."""
    chain = _chain(node.operands[0], ("reshape", "transpose", "reshape"), alone)
    if chain is None:
        return None
    merge, turn, split = chain
    kept = node.attrs
    assert isinstance(kept, Slice)
    if turn.attrs != Transpose(perm=JOIN) or any(step != 1 for step in kept.step):
        return None
    row, column, n, rows, columns, c = split.result.type.shape
    whole, small = (n, rows * row, columns * column, c), (row * column * n, rows, columns, c)
    if merge.result.type.shape != whole or split.operands[0].type.shape != small:
        return None
    crops = tuple(
        (start, dim - start - size) for start, size, dim in zip(kept.start, kept.size, whole, strict=True)
    )
    if any(crops[0]) or any(crops[3]):
        return None
    return split.operands[0], (row, column), crops[1:3]
