"""Fold multiplications and additions by constants into the convolution or product before them.

    %y = conv(%x, %w)                      %y = conv(%x, %w * s)
    %a = add(%y, %b)                       %c = add(%y, %b * s + t)
    %m = mul(%a, %s)               ->
    %c = add(%m, %t)

This is what a batch normalisation after a convolution turns into. It reorders floating-point arithmetic, which
changes results by rounding only; it applies where the constants vary along the output channels alone and nobody
else sees the intermediate values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tilewright.compiler.ir import Graph, Node, Value
from tilewright.compiler.ir.graph import Array, rewrite
from tilewright.compiler.passes.build import is_per_channel, new_constant, new_node

Change = tuple[Sequence[Node], Mapping[Value, Value]]


def fold_scales(graph: Graph) -> Graph:
    """Apply the rewrite of the module's docstring to every convolution and matrix product with constant weights."""
    made: dict[Value, Node] = {}
    constants: dict[Value, Array] = dict(graph.constants)
    uses = {value: len(nodes) for value, nodes in graph.users().items()}
    for value in graph.outputs:
        uses[value] = uses.get(value, 0) + 1

    def constant(array: Array, name: str) -> Value:
        value = new_constant(array, name)
        constants[value] = array
        return value

    def visit(node: Node) -> Change | None:
        change = _fold(node, made, uses, constants, constant)
        for built in [node] if change is None else change[0]:
            made.update((result, built) for result in built.results)
        if change is not None:
            for old, new in change[1].items():
                uses[new] = uses.get(old, 0)
        return change

    rewritten = rewrite(replace(graph, constants=constants), visit)
    return rewritten.with_nodes(rewritten.nodes, constants)


def _fold(
    node: Node,
    made: Mapping[Value, Node],
    uses: dict[Value, int],
    constants: Mapping[Value, Array],
    constant: Callable[[Array, str], Value],
) -> Change | None:
    if node.op not in ("add", "sub", "mul", "div") or not node.result.type.dtype.is_float:
        return None
    chain, by = node.operands
    if node.op in ("add", "mul") and chain in constants:
        chain, by = by, chain
    inner = made.get(chain)
    if by not in constants or inner is None or uses.get(chain, 0) != 1 or chain.type != node.result.type:
        return None
    rank, name = chain.type.rank, node.result.name
    channel = 1 if _anchor(inner, made) == "conv" else rank - 1
    amount = constants[by]
    if not is_per_channel(amount, rank, channel):
        return None
    if node.op in ("mul", "div"):
        with np.errstate(all="ignore"):
            scale = amount if node.op == "mul" else 1 / amount
        return _scale(node, inner, np.asarray(scale, dtype=amount.dtype), channel, uses, made, constants, constant)
    if _anchor(inner, made) and inner.op == "add" and inner.operands[1] in constants:
        total = constants[inner.operands[1]] + (amount if node.op == "add" else -amount)
        merged = new_node("add", (inner.operands[0], constant(total, f"{name}.bias")), source=node.source, name=name)
        return [merged], {node.result: merged.result}
    return None


def _anchor(node: Node, made: Mapping[Value, Node]) -> str:
    """ "conv" or "matmul" where `node` is one, or adds a constant to one; else nothing."""
    if node.op == "add":
        before = made.get(node.operands[0])
        return before.op if before is not None and before.op in ("conv", "matmul") else ""
    return node.op if node.op in ("conv", "matmul") else ""


def _scale(
    node: Node,
    inner: Node,
    scale: Array,
    channel: int,
    uses: dict[Value, int],
    made: Mapping[Value, Node],
    constants: Mapping[Value, Array],
    constant: Callable[[Array, str], Value],
) -> Change | None:
    """`node` multiplies what `inner` computes by `scale`: multiply the constants that `inner` computes it from."""
    name = node.result.name
    bias = None
    product: Node | None = inner
    if inner.op == "add":
        bias = inner.operands[1]
        product = made.get(inner.operands[0])
        if bias not in constants or uses.get(inner.operands[0], 0) != 1:
            return None
    if product is None or product.op not in ("conv", "matmul") or product.operands[1] not in constants:
        return None
    weight = constants[product.operands[1]]
    rank = product.result.type.rank
    factors = scale.reshape((1,) * (rank - scale.ndim) + scale.shape)
    channels = product.result.type.shape[channel]
    factors = np.broadcast_to(factors.reshape(-1), (channels,)) if factors.size in (1, channels) else factors
    if product.op == "conv":
        scaled = weight * factors.reshape(-1, *(1,) * (weight.ndim - 1))
    else:
        scaled = weight * factors
    operands = (product.operands[0], constant(np.ascontiguousarray(scaled, weight.dtype), f"{name}.weight"))
    nodes = [new_node(product.op, operands, product.attrs, source=product.source, name=product.result.name)]
    uses[nodes[0].result] = 1
    if bias is not None:
        shift = constant(constants[bias] * scale, f"{name}.bias")
        nodes.append(new_node("add", (nodes[0].result, shift), source=inner.source, name=inner.result.name))
    return nodes, {node.result: nodes[-1].result}
