"""Takes the branches of TensorFlow 1's conditionals whose condition is constant.

    f, t = Switch(x, pred)              with pred constantly false: f is x, and nothing that needs t is computed
    y, which = Merge(a(f), b(t))        y is a(f)

A node is dead if an input of it is, or a node that it waits for; a Merge only if all of its inputs are. Switches
whose condition depends on the inputs stay, and so do the Merges behind them.
"""

from collections.abc import Sequence

from tilewright.frontends.tensorflow.model import Input, Node, constant_node
from tilewright.frontends.tensorflow.tensors import scalar
from tilewright.frontends.tensorflow.tracing import truth

SWITCHES = {"Switch", "RefSwitch"}
MERGES = {"Merge", "RefMerge"}
MAX_MERGED = 64
"""Merges of more branches are left alone; conditionals have two."""


def taken(nodes: Sequence[Node]) -> tuple[tuple[Node, ...], dict[Input, Input]]:
    """The nodes, with those that say which branch was taken, and what decided Switches and Merges stand for."""
    if not any(node.op in SWITCHES for node in nodes):
        return tuple(nodes), {}
    known = {node.name: node for node in nodes}
    aliases: dict[Input, Input] = {}
    dead_results: list[Input] = []
    found: dict[Input, bool | None] = {}
    for node in nodes:
        if node.op in SWITCHES and len(node.inputs) == 2:
            condition = truth(known, node.inputs[1], found)
            if condition is not None:
                aliases[Input(node.name, int(condition))] = node.inputs[0]
                dead_results.append(Input(node.name, int(not condition)))
    dead = _dead(nodes, dead_results)
    extra: list[Node] = []
    for node in nodes:
        if node.op in MERGES and len(node.inputs) <= MAX_MERGED and node.name not in dead:
            alive = [index for index, given in enumerate(node.inputs) if given not in dead and given.node not in dead]
            if len(alive) == 1:
                which = f"{node.name}/value_index"
                extra.append(constant_node(which, scalar(alive[0])))
                aliases[Input(node.name, 0)] = node.inputs[alive[0]]
                aliases[Input(node.name, 1)] = Input(which)
    return (*nodes, *extra), aliases


def _dead(nodes: Sequence[Node], results: Sequence[Input]) -> set[Input | str]:
    """The dead nodes, by name, and the dead results of living ones."""
    users: dict[Input | str, list[Node]] = {}
    for node in nodes:
        for given in dict.fromkeys(node.inputs):
            users.setdefault(given, []).append(node)
            users.setdefault(given.node, []).append(node)
        for name in node.controls:
            users.setdefault(name, []).append(node)
    dead: set[Input | str] = set(results)
    waiting: list[Input | str] = list(results)
    while waiting:
        for node in users.get(waiting.pop(), ()):
            if node.op in MERGES and len(node.inputs) > MAX_MERGED:
                continue
            ends = node.op not in MERGES or all(given in dead or given.node in dead for given in node.inputs)
            if ends and node.name not in dead:
                dead.add(node.name)
                waiting.append(node.name)
    return dead
