"""Replaces calls of functions by their bodies.

    y = PartitionedCall(x, w, f="dense")            y/MatMul = MatMul(x, w)
    function dense(a, b):                 ->        alias y:0 -> y/MatMul:0
        MatMul = MatMul(a, b)
        return MatMul:product:0

A function is called by PartitionedCall and StatefulPartitionedCall, by a node whose operator is its name, and by If
and StatelessIf where their condition is constant. Its nodes are named after the call. The calling node goes; what its
results are now called is an alias. In a body, a result is named by its place among the operator's results that have
names; `RESULTS` lists these for the operators that have more than one.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.errors import GraphError, ModelError
from tilewright.frontends.expansion import Expansion, Extent
from tilewright.frontends.tensorflow.attributes import Payloads, read_attributes, read_input, read_node
from tilewright.frontends.tensorflow.messages import Message
from tilewright.frontends.tensorflow.model import Attribute, Function, Input, Node, Reference
from tilewright.frontends.tensorflow.tracing import follow, truth

MAX_CALL_DEPTH = 64

MAX_ROUNDS = 64
"""Conditions that depend on results of other conditional calls, one behind the other, more often than that stay."""

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
BRANCHES = {"If", "StatelessIf"}

_BATCH_NORM = ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3")
RESULTS: Mapping[str, tuple[str, ...]] = {
    "FusedBatchNorm": _BATCH_NORM,
    "FusedBatchNormV2": _BATCH_NORM,
    "FusedBatchNormV3": _BATCH_NORM,
    "_FusedBatchNormEx": _BATCH_NORM,
    "BroadcastGradientArgs": ("r0", "r1"),
    "ListDiff": ("out", "idx"),
    "MaxPoolWithArgmax": ("output", "argmax"),
    "Merge": ("output", "value_index"),
    "NonMaxSuppressionV4": ("selected_indices", "valid_outputs"),
    "NonMaxSuppressionV5": ("selected_indices", "selected_scores", "valid_outputs"),
    "Switch": ("output_false", "output_true"),
    "TopK": ("values", "indices"),
    "TopKV2": ("values", "indices"),
    "Unique": ("y", "idx"),
    "UniqueV2": ("y", "idx"),
    "UniqueWithCounts": ("y", "idx", "count"),
}


@dataclass(frozen=True)
class Inlined:
    """Nodes without calls, and the results of the calls."""

    nodes: tuple[Node, ...]
    aliases: dict[Input, Input]


def inline(graph: Message, payloads: Payloads) -> Inlined:
    """The nodes of a GraphDef, calls replaced; raises ModelError, GraphError and ResourceError."""
    inliner = _Inliner(graph, payloads)
    scope = _Scope((), "", sorted(node.name for node in graph.node))
    for proto in graph.node:
        inliner.add(read_node(proto, payloads), scope)
    inliner.take_branches()
    return Inlined(rewired(inliner.nodes, inliner.aliases), inliner.aliases)


def rewired(nodes: Iterable[Node], aliases: dict[Input, Input]) -> tuple[Node, ...]:
    """The nodes with every input that is an alias replaced by what it stands for."""
    found: list[Node] = []
    for node in nodes:
        inputs = tuple(follow(aliases, given) for given in node.inputs)
        found.append(
            node if inputs == node.inputs else Node(node.name, node.op, inputs, node.controls, node.attributes)
        )
    return tuple(found)


@dataclass(frozen=True)
class _Body:
    """A function, read once: its nodes with the texts of their inputs, and their names sorted."""

    proto: Message
    nodes: tuple[tuple[Node, tuple[str, ...]], ...]
    operators: Mapping[str, str]
    names: Sequence[str]
    defaults: Mapping[str, Attribute]
    extent: Extent


@dataclass(frozen=True)
class _Scope:
    """Where a node stands: the functions that are being called, what its name begins with, and the rest of its and
    its neighbours' names, sorted."""

    calls: tuple[str, ...]
    prefix: str
    names: Sequence[str]

    def is_folder(self, name: str) -> bool:
        """Whether neighbours lie below a node, as 'a/b' does below 'a'."""
        below = f"{name.removeprefix(self.prefix)}/"
        at = bisect_left(self.names, below)
        return at < len(self.names) and self.names[at].startswith(below)


class _Inliner:
    def __init__(self, graph: Message, payloads: Payloads) -> None:
        self.payloads = payloads
        self.functions: dict[str, Message] = {}
        for function in graph.library.function:
            if function.signature.name in self.functions:
                raise ModelError(f"two functions in it are called '{function.signature.name}'")
            self.functions[function.signature.name] = function
        self.bodies: dict[str, _Body] = {}
        self.nodes: list[Node] = []
        self.aliases: dict[Input, Input] = {}
        self.branches: list[tuple[Node, _Scope]] = []
        self.expansion = Expansion()

    def add(self, node: Node, scope: _Scope) -> None:
        """Append a node, or the body of the function that it calls."""
        called = node.attributes.get("f") if node.op in CALLS else Function(node.op, node.attributes)
        if node.op in BRANCHES:
            self.branches.append((node, scope))
        elif isinstance(called, Function) and called.name in self.functions:
            self.expand(called, node, node.inputs, scope)
        else:
            self.nodes.append(node)

    def take_branches(self) -> None:
        """Replace the conditional calls whose conditions are constant; the others stay as they are."""
        for _ in range(MAX_ROUNDS):
            known = {node.name: node for node in self.nodes}
            left, self.branches = self.branches, []
            waiting = []
            found: dict[Input, bool | None] = {}
            for node, scope in left:
                taken = truth(known, node.inputs[0], found, self.aliases) if node.inputs else None
                branch = node.attributes.get("then_branch" if taken else "else_branch")
                if taken is None or not isinstance(branch, Function) or branch.name not in self.functions:
                    waiting.append((node, scope))
                else:
                    self.expand(branch, node, node.inputs[1:], scope)
            self.branches += waiting
            if len(waiting) == len(left):  # what is left is not constant
                break
        self.nodes += [node for node, _ in self.branches]

    def expand(self, called: Function, node: Node, inputs: Sequence[Input], scope: _Scope) -> None:
        """Append the body of a function for the call `node`."""
        if called.name in scope.calls:
            raise GraphError(f"function '{called.name}' calls itself", node=node.name, operator=node.op)
        if len(scope.calls) >= MAX_CALL_DEPTH:
            raise GraphError(f"its calls nest deeper than {MAX_CALL_DEPTH}", node=node.name, operator=node.op)
        body = self.body(called.name)
        self.expansion.call(body.extent, node.name)
        given = {**body.defaults, **called.attributes}
        arguments = self._arguments(body.proto, node, inputs, given)
        prefix = f"{node.name}.call" if scope.is_folder(node.name) else node.name
        inner_scope = _Scope((*scope.calls, called.name), f"{prefix}/", body.names)

        def tensor(text: str) -> Input:
            name, _, rest = text.partition(":")
            if name in body.operators:
                return Input(f"{prefix}/{name}", self._place(body.operators[name], rest, node))
            if name not in arguments:
                raise GraphError(
                    f"function '{called.name}' uses '{text}', which nothing in it defines", node=node.name
                )
            place = read_input(text, node.name).index
            if place >= len(arguments[name]):
                raise GraphError(f"function '{called.name}' uses '{text}', which the call lacks", node=node.name)
            return arguments[name][place]

        for inner, texts in body.nodes:
            operands = tuple(tensor(text) for text in texts)
            controls = tuple(f"{prefix}/{name}" for name in inner.controls)
            bound = {name: _bound(value, given) for name, value in inner.attributes.items()}
            chosen = {name: value for name, value in bound.items() if value is not None}
            self.add(Node(f"{prefix}/{inner.name}", inner.op, operands, controls, chosen), inner_scope)
        for index, result in enumerate(body.proto.signature.output_arg):
            if result.name not in body.proto.ret:
                raise GraphError(f"function '{called.name}' does not return '{result.name}'", node=node.name)
            self.aliases[Input(node.name, index)] = tensor(body.proto.ret[result.name])

    def body(self, name: str) -> _Body:
        """A function of the library."""
        if name not in self.bodies:
            proto = self.functions[name]
            operators = {inner.name: inner.op for inner in proto.node_def}
            nodes = []
            for inner in proto.node_def:
                texts = tuple(text for text in inner.input if not text.startswith("^"))
                controls = tuple(text[1:] for text in inner.input if text[:1] == "^" and text[1:] in operators)
                attributes = read_attributes(inner.attr, self.payloads)
                nodes.append((Node(inner.name, inner.op, (), controls, attributes), texts))
            defaults = read_attributes(proto.attr, self.payloads)
            parts = sum(len(inner.input) + len(inner.attr) for inner in proto.node_def)
            parts += len(proto.signature.input_arg) + len(proto.signature.output_arg)
            extent = Extent(len(nodes), parts, proto.ByteSize())
            self.bodies[name] = _Body(proto, tuple(nodes), operators, sorted(operators), defaults, extent)
        return self.bodies[name]

    def _arguments(
        self, function: Message, node: Node, inputs: Sequence[Input], given: Mapping[str, Attribute]
    ) -> dict[str, tuple[Input, ...]]:
        """The inputs of a call by the names of the function's parameters."""
        found: dict[str, tuple[Input, ...]] = {}
        at = 0
        for parameter in function.signature.input_arg:
            many = given.get(parameter.type_list_attr or parameter.number_attr, 1)
            count = len(many) if isinstance(many, tuple) else many if isinstance(many, int) else 1
            found[parameter.name] = tuple(inputs[at : at + count])
            at += count
        if at != len(inputs):
            raise GraphError(
                f"function '{function.signature.name}' takes {at} inputs, the call passes {len(inputs)}",
                node=node.name, operator=node.op,
            )  # fmt: skip
        return found

    def _place(self, operator: str, rest: str, call: Node) -> int:
        """The index of the result `name:index` among an operator's results."""
        name, _, index = rest.partition(":")
        if index and not (index.isascii() and index.isdecimal() and len(index) < 10):
            raise GraphError(f"'{rest}' is not a result of {operator}", node=call.name)
        names: Sequence[str] = RESULTS.get(operator, ())
        if operator in self.functions:
            names = [result.name for result in self.functions[operator].signature.output_arg]
        return (names.index(name) if name in names else 0) + int(index or 0)


def _bound(value: Attribute, given: Mapping[str, Attribute]) -> Attribute | None:
    """An attribute in a function's body as the call wants it; None where the call leaves it to the default."""
    return given.get(value.name) if isinstance(value, Reference) else value
