"""Reads a TensorFlow model into plain data: open it, inline its functions, settle its variables and branches.

    model = read_model("saved_model_folder")        Model; see tilewright.frontends.tensorflow.model

The inputs are those of the signature and every other Placeholder; the outputs are the signature's. A graph without
signatures computes what nothing in it uses. A PlaceholderWithDefault is its default, unless the signature names it.
"""

import os
from collections.abc import Iterable, Mapping, Sequence

from tilewright.errors import TilewrightError
from tilewright.frontends.ports import Port
from tilewright.frontends.tensorflow.attributes import read_input, read_shape
from tilewright.frontends.tensorflow.branches import taken
from tilewright.frontends.tensorflow.bundle import open_bundle
from tilewright.frontends.tensorflow.functions import inline, rewired
from tilewright.frontends.tensorflow.messages import Message
from tilewright.frontends.tensorflow.model import ElementType, Input, Model, Node, PartialShape
from tilewright.frontends.tensorflow.reading import Loaded, Source, load
from tilewright.frontends.tensorflow.tensors import element_type
from tilewright.frontends.tensorflow.tracing import follow
from tilewright.frontends.tensorflow.variables import with_values

DEFAULT_SIGNATURE = "serving_default"

SILENT = {"Assert", "Const", "NoOp", "Placeholder", "Print", "PrintV2", "VarHandleOp", "VarIsInitializedOp"}
"""Operators whose unused results nobody asks for."""

FREE_SHAPES = 24
"""Graphs of an earlier producer write a scalar shape where they mean that the shape is free."""


def read_model(source: Source, *, name: str = "") -> Model:
    """Read a model from a path (file or SavedModel folder), bytes, or a GraphDef, MetaGraphDef or SavedModel message.

    `name` is what messages call the model; the path if not given. Raises TilewrightError: ModelError where the file
    cannot be read, GraphError and ResourceError for functions that contradict themselves.
    """
    name = name or (str(os.fspath(source)) if isinstance(source, str | os.PathLike) else "the model")
    try:
        return _assembled(load(source), name)
    except TilewrightError as error:
        error.model = name
        raise


def _assembled(loaded: Loaded, name: str) -> Model:
    inlined = inline(loaded.graph, loaded.payloads)
    nodes, files = inlined.nodes, loaded.files
    if loaded.variables is not None:
        bundle = open_bundle(loaded.variables)
        nodes = with_values(nodes, bundle)
        files += bundle.files
    nodes, decided = taken(nodes)
    aliases = inlined.aliases | decided
    nodes = rewired(nodes, decided)
    signature = _signature(loaded.signatures)
    producer = loaded.graph.versions.producer
    inputs = _inputs(nodes, signature, producer)
    inputs = {tensor: port for tensor, port in inputs.items() if port.name != loaded.file_name.partition(":")[0]}
    if signature is not None:
        outputs = {key: read_input(signature.outputs[key].name) for key in sorted(signature.outputs)}
        outputs = {key: follow(aliases, tensor) for key, tensor in outputs.items() if tensor.node}
    else:
        outputs = {} if loaded.signatures or loaded.serving else _unused(loaded.graph, nodes, aliases, inputs)
    signatures = tuple(sorted(key for key in loaded.signatures if not key.startswith("__")))
    keys = [port.name for port in inputs.values()] if signature is None else signature.inputs
    declared = tuple(port for port in inputs.values() if port.name in keys)
    return Model(name, nodes, inputs, outputs, declared, aliases, signatures, files)


def _signature(signatures: Mapping[str, Message]) -> Message | None:
    """The signature that counts: the default one, or the only one."""
    named = {key: value for key, value in signatures.items() if not key.startswith("__")}  # not initialisation
    if DEFAULT_SIGNATURE in named:
        return named[DEFAULT_SIGNATURE]
    return next(iter(named.values())) if len(named) == 1 else None


def _inputs(nodes: Sequence[Node], signature: Message | None, producer: int) -> dict[Input, Port]:
    """The tensors that a call supplies: those of the signature by its names, other placeholders by theirs."""
    found: dict[Input, Port] = {}
    for key in sorted(signature.inputs) if signature is not None else ():
        info = signature.inputs[key] if signature is not None else None
        if info is not None and info.name:
            type = element_type(info.dtype)
            found[read_input(info.name)] = Port(key, type.dtype, type.name, read_shape(info.tensor_shape).dims)
    for node in nodes:
        if node.op == "Placeholder" and Input(node.name) not in found:
            kind, shape = node.attributes.get("dtype"), node.attributes.get("shape")
            kind = kind if isinstance(kind, ElementType) else element_type(0)
            dims = shape.dims if isinstance(shape, PartialShape) else None
            if dims == () and producer < FREE_SHAPES:
                dims = None
            found[Input(node.name)] = Port(node.name, kind.dtype, kind.name, dims)
    return found


def _unused(
    graph: Message, nodes: Sequence[Node], aliases: dict[Input, Input], inputs: Iterable[Input]
) -> dict[str, Input]:
    """What a graph without signatures computes: results that nothing uses, of nodes that depend on an input.

    Where no such node does, all of them.
    """
    used = {text.partition(":")[0] for proto in graph.node for text in proto.input}
    known = {node.name: node for node in nodes}
    results: dict[str, list[int]] = {}
    for alias in aliases:
        results.setdefault(alias.node, []).append(alias.index)
    found: dict[str, Input] = {}
    for proto in graph.node:
        if proto.name not in used and proto.op not in SILENT:
            node = known.get(proto.name)
            indices = results.get(proto.name) or (range(_results(node)) if node is not None else ())
            found |= {str(Input(proto.name, at)): follow(aliases, Input(proto.name, at)) for at in sorted(indices)}
    users: dict[str, list[str]] = {}
    for node in nodes:
        for given in node.inputs:
            users.setdefault(given.node, []).append(node.name)
    dependent = _reached((given.node for given in inputs), users)
    return {name: tensor for name, tensor in found.items() if tensor.node in dependent} or found


def _results(node: Node) -> int:
    """How many results of an unused node count as outputs."""
    if node.op == "IdentityN":
        return len(node.inputs)
    count = node.attributes.get({"Split": "num_split", "SplitV": "num_split", "Unpack": "num"}.get(node.op, ""))
    if isinstance(count, int):
        return max(1, min(count, 1000))
    return 2 if node.op in ("TopK", "TopKV2", "Unique") else 1


def _reached(start: Iterable[str], edges: Mapping[str, Sequence[str]]) -> set[str]:
    found = set(start)
    waiting = list(found)
    while waiting:
        for name in edges.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found
