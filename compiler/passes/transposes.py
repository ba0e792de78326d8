"""Move transposes down the graph until they meet and cancel.

    %a = transpose(%x) {perm=(0, 2, 3, 1)}                    %r = relu(%x)
    %r = relu(%a)                                     ->      %m = add(%r, %bias as 1x64x1x1)
    %m = add(%r, %bias as 64)                                 %y = conv(%m, %w)
    %t = transpose(%m) {perm=(0, 3, 1, 2)}
    %y = conv(%t, %w)

A graph with the channels last has a transpose before and one behind every convolution, since ours take the
channels first. What stands between moves over: element-wise operations (their constants are turned round),
reductions, pads, slices, concatenations, resizing, and reshapes; of what a reshape needs in order, only that is
turned before it. A transpose that only moves axes of one element is a reshape. What is left stands at inputs, at
outputs, or where the order matters.

The result is taken only if it moves fewer elements than before, or as many in fewer transposes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tilewright.compiler.ir import Attrs, Graph, Node, Shape, Value
from tilewright.compiler.ir.graph import Array, rewrite
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops.gather import Resample
from tilewright.compiler.ops.movement import Broadcast, Concat, Pad, Reshape, Slice, Transpose
from tilewright.compiler.ops.reduction import ArgReduce, Reduce
from tilewright.compiler.passes.build import new_constant, new_node
from tilewright.compiler.passes.cleanup import merge_equal, remove_dead

Perm = tuple[int, ...]
Change = tuple[Sequence[Node], Mapping[Value, Value]]


def move_transposes(graph: Graph) -> Graph:
    """Apply the pass of the module's docstring."""
    before = cost(graph)
    if before == (0, 0):
        return graph
    moved = remove_dead(merge_equal(_Sinking(graph).run()))
    return moved if cost(moved) < before else graph


def cost(graph: Graph) -> tuple[int, int]:
    """How many elements the graph's transposes put in another order, and how many transposes there are."""
    perms = [(node, node.attrs.perm) for node in graph.nodes if isinstance(node.attrs, Transpose)]
    moving = [node for node, perm in perms if not keeps_order(node.operands[0].type.shape, perm)]
    return sum(node.result.type.elements for node in moving), len(perms)


def keeps_order(shape: Shape, perm: Perm) -> bool:
    """Whether a transpose leaves the elements where they are, as one of axes of one element does."""
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def inverse(perm: Perm) -> Perm:
    """The transpose that undoes `perm`."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def turned(values: Sequence[int], perm: Sequence[int]) -> tuple[int, ...]:
    """One number an axis, in the order that a transpose gives the axes."""
    return tuple(values[axis] for axis in perm)


class _Sinking:
    """One pass down the graph; `sources` says what every transposed value is a transpose of."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sources: dict[Value, tuple[Value, Perm]] = {}
        self.constants: dict[Value, Array] = dict(graph.constants)
        self.made: dict[Value, Node] = {}
        self.users = {value: len(users) for value, users in graph.users().items()}
        for value in graph.outputs:
            self.users[value] = self.users.get(value, 0) + 1
        self.asked = {
            (node.operands[0], node.attrs.perm) for node in graph.nodes if isinstance(node.attrs, Transpose)
        }

    def run(self) -> Graph:
        """The graph with its transposes moved; nodes that nobody needs any more are still in it."""
        changed = rewrite(replace(self.graph, constants=self.constants), self.visit)
        return changed.with_nodes(changed.nodes, self.constants)

    def visit(self, node: Node) -> Change | None:
        """What stands in the place of a node."""
        change = self.transpose(node) if isinstance(node.attrs, Transpose) else self.sink(node)
        for built in [node] if change is None else change[0]:
            self.made.update((result, built) for result in built.results)
        return change

    def transpose(self, node: Node) -> Change:
        """Join a transpose with the one before it; take one before a pad, where the pad may join a convolution."""
        assert isinstance(node.attrs, Transpose)
        x, perm = node.operands[0], node.attrs.perm
        if x in self.sources:
            x, inner = self.sources[x]
            perm = turned(inner, perm)
        nodes: list[Node] = []
        pad = self.made.get(x)
        if pad is not None and isinstance(pad.attrs, Pad) and self.users.get(x) == 1:
            nodes += self.ordered(pad.operands[0], perm, node)
            inside = nodes[-1].result if nodes else pad.operands[0]
            nodes.append(new_node("pad", [inside], _turned_pad(pad.attrs, perm), source=pad.source))
        else:
            nodes += self.ordered(x, perm, node)
        return nodes, {node.result: nodes[-1].result if nodes else x}

    def ordered(self, x: Value, perm: Perm, node: Node) -> list[Node]:
        """The node that gives x in the order of `perm`; none where that is x itself."""
        if perm == tuple(range(len(perm))):
            return []
        if keeps_order(x.type.shape, perm):
            shape = turned(x.type.shape, perm)
            made = new_node("reshape", [x], Reshape(shape=shape), source=node.source, name=node.result.name)
        else:
            made = new_node("transpose", [x], Transpose(perm=perm), source=node.source, name=node.result.name)
        self.sources[made.result] = x, perm
        return [made]

    def sink(self, node: Node) -> Change | None:
        """Do a node's work before the transposes of its operands."""
        if not any(operand in self.sources for operand in node.operands) or len(node.results) != 1:
            return None
        if node.op in PRIMITIVES and PRIMITIVES[node.op].family == "elementwise":
            return self.elementwise(node)
        if isinstance(node.attrs, Concat):
            return self.concat(node)
        x = node.operands[0]
        if x not in self.sources:
            return None
        source, perm = self.sources[x]
        attrs: Attrs | None = None
        after = perm
        before: list[Node] = []
        match node.attrs:
            case Pad() as pad:
                attrs = _turned_pad(pad, inverse(perm))
            case Slice(start, size, step):
                back = inverse(perm)
                attrs = Slice(start=turned(start, back), size=turned(size, back), step=turned(step, back))
            case Broadcast(shape) if len(shape) == len(perm):
                attrs = Broadcast(shape=turned(shape, inverse(perm)))
            case Resample(axis):
                attrs = Resample(axis=perm[axis])
            case Reduce(axes, keepdims):
                attrs = Reduce(axes=tuple(sorted(turned(perm, axes))), keepdims=keepdims)
                after = perm if keepdims else _without(perm, [perm[axis] for axis in axes])
            case ArgReduce(axis, keepdims, last):
                attrs = ArgReduce(axis=perm[axis], keepdims=keepdims, last=last)
                after = perm if keepdims else _without(perm, [perm[axis]])
            case Reshape(shape):
                found = _reshape_first(source.type.shape, perm, shape)
                if found is None:
                    return None
                first, inner, after = found
                attrs = Reshape(shape=inner)
                if first != tuple(range(len(first))):
                    before.append(new_node("transpose", [source], Transpose(perm=first), source=node.source))
                    source = before[0].result
        if attrs is None:
            return None
        return self.swapped(node, [source, *node.operands[1:]], attrs, after, before)

    def swapped(
        self, node: Node, operands: Sequence[Value], attrs: Attrs, perm: Perm, before: Sequence[Node]
    ) -> Change:
        """The node on other operands, and behind it the transpose that gives its result."""
        inner = new_node(node.op, operands, attrs, source=node.source, name=node.result.name)
        behind = self.ordered(inner.result, perm, node)
        return [*before, inner, *behind], {node.result: behind[-1].result if behind else inner.result}

    def elementwise(self, node: Node) -> Change | None:
        rank = node.result.type.rank
        perms = [self.sources[x][1] for x in node.operands if x in self.sources and x.type.rank == rank]
        if not perms:
            return None
        return self.together(node, perms[0], node.attrs)

    def concat(self, node: Node) -> Change | None:
        assert isinstance(node.attrs, Concat)
        perm = next(self.sources[x][1] for x in node.operands if x in self.sources)
        return self.together(node, perm, Concat(axis=perm[node.attrs.axis]))

    def together(self, node: Node, perm: Perm, attrs: Attrs) -> Change | None:
        """A node whose operands all have to be turned back by `perm`; None where that would cost a transpose."""
        before: list[Node] = []
        operands = []
        for operand in node.operands:
            found = self.turned_back(operand, perm, node, before)
            if found is None:
                return None
            operands.append(found)
        return self.swapped(node, operands, attrs, perm, before)

    def turned_back(self, x: Value, perm: Perm, node: Node, before: list[Node]) -> Value | None:
        """x without the transpose `perm`: at no cost, or as a value that somebody else needs as well."""
        if self.sources.get(x, (x, None))[1] == perm:
            return self.sources[x][0]
        if x.type.rank == 0:
            return x
        shape = (1,) * (len(perm) - x.type.rank) + x.type.shape
        back = inverse(perm)
        if x in self.constants:
            array = np.ascontiguousarray(self.constants[x].reshape(shape).transpose(back))
            constant = new_constant(array, x.name)
            self.constants[constant] = array
            return constant
        if keeps_order(shape, back):
            before.append(new_node("reshape", [x], Reshape(shape=turned(shape, back)), source=node.source))
        elif x.type.rank == len(perm) and (x, back) in self.asked:
            before.append(new_node("transpose", [x], Transpose(perm=back), source=node.source))
        else:
            return None
        return before[-1].result


def _turned_pad(pad: Pad, perm: Perm) -> Pad:
    low, high, interior = (turned(sides, perm) for sides in (pad.low, pad.high, pad.interior))
    return Pad(low=low, high=high, interior=interior, mode=pad.mode, value=pad.value)


def _without(perm: Perm, gone: Sequence[int]) -> Perm:
    """What is left of a transpose once the operand's axes `gone` are reduced."""
    kept = sorted(set(perm) - set(gone))
    return tuple(kept.index(axis) for axis in perm if axis not in gone)


def _reshape_first(source: Shape, perm: Perm, shape: Shape) -> tuple[Perm, Shape, Perm] | None:
    """A reshape of a transpose as a transpose, a reshape and a transpose; the first, if at all, a smaller one.

    The axes before and behind the reshape fall into groups of equally many elements. What the reshape needs is that
    the axes of a group stand side by side and in order; the groups can be turned behind it. None where the second
    transpose would do nothing.
    """
    if 0 in shape:
        return None
    pieces = []
    for first, second in _groups(turned(source, perm), shape):
        axes = [perm[axis] for axis in first]
        wide = [axis for axis in axes if source[axis] != 1]
        pieces.append((min(wide, default=-1), axes, second))
    order = sorted(range(len(pieces)), key=lambda index: pieces[index][0])
    before = tuple(axis for index in order for axis in pieces[index][1])
    made = [axis for index in order for axis in pieces[index][2]]
    after = tuple(made.index(axis) for axis in range(len(shape)))
    if keeps_order(source, before):
        before = tuple(range(len(before)))
    elif after == tuple(range(len(after))):
        return None
    return before, turned(shape, made), after


def _groups(one: Shape, other: Shape) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes in runs of equally many elements, as short as they can be."""
    found: list[tuple[list[int], list[int]]] = []
    shapes, at = (one, other), [0, 0]
    while at[0] < len(one) or at[1] < len(other):
        runs: tuple[list[int], list[int]] = ([], [])
        counts = [1, 1]
        growing = [side for side in (0, 1) if at[side] < len(shapes[side])]
        while growing:
            for side in growing:
                runs[side].append(at[side])
                counts[side] *= shapes[side][at[side]]
                at[side] += 1
            growing = [] if counts[0] == counts[1] else [0 if counts[0] < counts[1] else 1]
        found.append(runs)
    return found
