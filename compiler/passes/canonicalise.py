"""One spelling for each thing, so that later passes have fewer to know.

    transpose {perm=(0, 1)}                    gone
    reshape(reshape(%x))                       reshape(%x)
    transpose(transpose(%x))                   one transpose
    sub(%x, 2)                                 add(%x, -2)
    add(add(%x, 5), 100)   (integers)          add(%x, 105)
    conv(pad(%x) with zeros)                   conv(%x) with larger pads; sum_pool, max_pool of a relu likewise
    matmul over an axis of 0                   zeros
    reduce_sum over an image's rows and columns    the same with kept dimensions, which blocked channels allow; reshape
    mul(%image, %scale (C, 1, 1))              mul(%image, %scale (1, C, 1, 1)), which blocked channels allow too
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tilewright.compiler.ir import Graph, Node, Value
from tilewright.compiler.ir.graph import Array, rewrite
from tilewright.compiler.ops import PRIMITIVES
from tilewright.compiler.ops.contraction import Conv
from tilewright.compiler.ops.movement import Broadcast, Concat, Pad, Reshape, Slice, Transpose
from tilewright.compiler.ops.reduction import Reduce
from tilewright.compiler.ops.window import Pool
from tilewright.compiler.passes.build import new_constant, new_node

Change = tuple[Sequence[Node], Mapping[Value, Value]]


def canonicalise(graph: Graph) -> Graph:
    """Apply the rewrites of the module's docstring until none applies."""
    while True:
        changed = _once(graph)
        if changed is graph:
            return graph
        graph = changed


def _once(graph: Graph) -> Graph:
    made: dict[Value, Node] = {}
    constants: dict[Value, Array] = dict(graph.constants)
    touched = False

    def visit(node: Node) -> Change | None:
        nonlocal touched
        change = (
            _no_operation(node) or _two_movements(node, made) or _pad_into_window(node, made, constants)
            or _integer_sums(node, made, constants) or _empty_product(node, constants) or _image_reduction(node, made)
            or _equal_ranks(node)
        )  # fmt: skip
        if change is None:
            made.update((result, node) for result in node.results)
            return None
        touched = True
        for built in change[0]:
            made.update((result, built) for result in built.results)
        return change

    rewritten = rewrite(replace(graph, constants=constants), visit)
    if not touched:
        return graph
    return rewritten.with_nodes(rewritten.nodes, constants)


def _no_operation(node: Node) -> Change | None:
    """Nodes that give their operand back."""
    attrs = node.attrs
    if not node.operands:
        return None
    operand = node.operands[0]
    same_shape = operand.type == node.results[0].type
    keeps = (
        (isinstance(attrs, Transpose) and attrs.perm == tuple(range(len(attrs.perm))))
        or (isinstance(attrs, Reshape | Broadcast) and same_shape)
        or (node.op == "cast" and same_shape)
        or (isinstance(attrs, Slice) and same_shape and all(step == 1 for step in attrs.step))
        or (isinstance(attrs, Pad) and same_shape and not any(attrs.low) and not any(attrs.high))
        or (isinstance(attrs, Concat) and len(node.operands) == 1)
    )
    return ([], {node.result: operand}) if keeps else None


def _two_movements(node: Node, made: Mapping[Value, Node]) -> Change | None:
    """A reshape of a reshape, a transpose of a transpose."""
    inner = made.get(node.operands[0]) if node.operands else None
    if inner is None or inner.op != node.op:
        return None
    if isinstance(node.attrs, Reshape):
        attrs: Reshape | Transpose = node.attrs
    elif isinstance(node.attrs, Transpose) and isinstance(inner.attrs, Transpose):
        attrs = Transpose(perm=tuple(inner.attrs.perm[axis] for axis in node.attrs.perm))
    else:
        return None
    merged = new_node(node.op, inner.operands, attrs, source=node.source, name=node.result.name)
    return [merged], {node.result: merged.result}


def _pad_into_window(node: Node, made: Mapping[Value, Node], constants: Mapping[Value, Array]) -> Change | None:
    """Zeros around a convolution's input are its own padding; around a maximum's only where nothing is negative."""
    if not isinstance(node.attrs, Conv | Pool):
        return None
    pad = made.get(node.operands[0])
    if pad is None or not isinstance(pad.attrs, Pad):
        return None
    around = pad.attrs
    zeros = around.mode == "constant" and around.value == 0 and not any(around.interior)
    spatial = tuple(zip(around.low, around.high, strict=True))
    if not zeros or any(map(any, spatial[:2])) or any(low < 0 or high < 0 for low, high in spatial):
        return None
    pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(node.attrs.pads, spatial[2:], strict=True))
    if isinstance(node.attrs, Pool) and node.op == "max_pool":
        before = made.get(pad.operands[0])
        # Every window must meet an element: pads never win, where zeros may.
        met = all(max(pair) < taps for pair, taps in zip(pads, node.attrs.kernel, strict=True))
        if before is None or before.op != "relu" or not met or any(step != 1 for step in node.attrs.dilations):
            return None
    operands = (pad.operands[0], *node.operands[1:])
    merged = new_node(node.op, operands, replace(node.attrs, pads=pads), source=node.source, name=node.result.name)
    return [merged], {node.result: merged.result}


def _integer_sums(node: Node, made: Mapping[Value, Node], constants: dict[Value, Array]) -> Change | None:
    """Sums of an integer tensor and constants are one sum; integers wrap around, so the order is free."""
    if node.op not in ("add", "sub") or not node.result.type.dtype.is_integer:
        return None
    left, right = node.operands
    if node.op == "add" and left in constants and right not in constants:
        left, right = right, left
    if right not in constants or left in constants:
        return None
    amount = constants[right]
    changed = node.op == "sub"
    if changed:
        amount = np.negative(amount)
    inner = made.get(left)
    if inner is not None and inner.op == "add" and inner.operands[1] in constants:
        left, amount = inner.operands[0], constants[inner.operands[1]] + amount
        changed = True
    if not changed:
        return None
    constant = new_constant(np.asarray(amount), f"{node.result.name}.amount")
    constants[constant] = np.asarray(amount)
    merged = new_node("add", (left, constant), source=node.source, name=node.result.name)
    if merged.result.type != node.result.type:
        return None
    return [merged], {node.result: merged.result}


def _image_reduction(node: Node, made: Mapping[Value, Node]) -> Change | None:
    """Reductions of whole images keep their dimensions, as those of blocked channels have to; so do means."""
    if node.op in ("mul", "div") and node.operands[1].type.elements == 1:
        return _scaled_reduction(node, made)
    if not isinstance(node.attrs, Reduce) or node.attrs.keepdims or node.operands[0].type.rank != 4:
        return None
    if node.attrs.axes != (2, 3):
        return None
    attrs = replace(node.attrs, keepdims=True)
    kept = new_node(node.op, node.operands, attrs, source=node.source, name=node.result.name)
    flat = new_node("reshape", [kept.result], Reshape(shape=node.result.type.shape), source=node.source)
    return [kept, flat], {node.result: flat.result}


def _equal_ranks(node: Node) -> Change | None:
    """Element-wise operands beside images say where their channels are."""
    if node.op not in PRIMITIVES or PRIMITIVES[node.op].family != "elementwise" or node.result.type.rank != 4:
        return None
    shaped = {
        operand: new_node("reshape", [operand], Reshape(shape=(*[1] * (4 - rank), *operand.type.shape)))
        for operand in dict.fromkeys(node.operands)
        if 1 < (rank := operand.type.rank) < 4
    }
    if not shaped:
        return None
    operands = [shaped[operand].result if operand in shaped else operand for operand in node.operands]
    equal = new_node(node.op, operands, node.attrs, source=node.source, name=node.result.name)
    return [*shaped.values(), equal], {node.result: equal.result}


def _scaled_reduction(node: Node, made: Mapping[Value, Node]) -> Change | None:
    """A reduction of whole images, flattened and divided by a number: divided and flattened."""
    flat = made.get(node.operands[0])
    total = made.get(flat.operands[0]) if flat is not None and flat.op == "reshape" else None
    if total is None or not isinstance(total.attrs, Reduce) or total.attrs != Reduce(axes=(2, 3), keepdims=True):
        return None
    scaled = new_node(node.op, (total.result, node.operands[1]), source=node.source, name=node.result.name)
    again = new_node("reshape", [scaled.result], Reshape(shape=node.result.type.shape), source=node.source)
    return [scaled, again], {node.result: again.result}


def _empty_product(node: Node, constants: dict[Value, Array]) -> Change | None:
    """A sum over nothing is zero."""
    if node.op != "matmul" or node.operands[0].type.shape[-1] != 0:
        return None
    zero = np.zeros((), node.result.type.dtype.numpy)
    constant = new_constant(zero, f"{node.result.name}.zero")
    constants[constant] = zero
    attrs = Broadcast(shape=node.result.type.shape)
    zeros = new_node("broadcast", [constant], attrs, source=node.source, name=node.result.name)
    return [zeros], {node.result: zeros.result}
