"""Turns a model into a graph of primitives.

    model = read_model("vgg16.onnx")
    graph = translate(model, outputs=["conv1_2"], shapes={"input": (1, 224, 224, 3)})

Only what the requested outputs need is looked at. Shapes are static: they follow from the inputs' shapes,
which the model declares or `shapes` gives. What the model declares about other tensors is never used, except
that the declared outputs must agree where the inputs have their declared shapes.
"""

from collections.abc import Mapping, Sequence

from tilewright.compiler.ir import BF16, F16, Graph, Shape, Value
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.errors import (
    GraphError,
    TilewrightError,
    UnknownNameError,
    UnsupportedError,
)
from tilewright.frontends.onnx import operators
from tilewright.frontends.onnx.model import Model, Node
from tilewright.frontends.onnx.names import resolve
from tilewright.frontends.onnx.operators.table import Call, find, why_unsupported
from tilewright.frontends.onnx.sorting import needed, wire
from tilewright.frontends.ports import Port
from tilewright.frontends.translation import input_types, missing_message, once, translating

__all__ = ["operators", "translate", "unsupported"]  # importing `operators` fills the table


def translate(
    model: Model,
    *,
    outputs: Sequence[str | int] | None = None,
    shapes: Mapping[str, Shape] | None = None,
) -> Graph:
    """The graph that computes `outputs` (the model's own if None) for inputs of the given or declared shapes.

    The graph's inputs are the model's inputs that the outputs need, in order; its outputs have the names that
    were asked for. An output may be an input or a constant itself.

    Raises UnknownNameError for a name that is not there, ShapeNeededError where an input's shape is not
    known, UnsupportedError listing every operator that is missing, GraphError where the model contradicts
    itself, and ResourceError for absurd dimensions.
    """
    try:
        return _translate(model, outputs, shapes or {})
    except TilewrightError as error:
        raise error.located(model=model.name) from error.__cause__


def needed_inputs(model: Model, outputs: Sequence[str | int] | None = None) -> tuple[Port, ...]:
    """The model's inputs that the outputs need, in order."""
    wires = wire(model)
    wanted = _wanted(model, outputs)
    used = {tensor for node in needed(model, wires, wanted.values()) for tensor in node.inputs} | set(
        wanted.values()
    )
    return tuple(port for port in model.inputs if port.name in used)


def unsupported(model: Model, outputs: Sequence[str | int] | None = None) -> dict[str, list[str]]:
    """The operators among the needed nodes that Tilewright lacks, each with the names of its nodes."""
    wires = wire(model)
    return _unsupported(needed(model, wires, _wanted(model, outputs).values()))


def _translate(model: Model, outputs: Sequence[str | int] | None, shapes: Mapping[str, Shape]) -> Graph:
    wires = wire(model)
    wanted = _wanted(model, outputs)
    nodes = needed(model, wires, wanted.values())
    missing = _unsupported(nodes)
    if missing:
        raise UnsupportedError(missing_message(missing, "export the model with other operators (opset 7 to 28)"))
    for name in shapes:
        if name not in wires.inputs:
            raise UnknownNameError("input", name, wires.inputs)

    used = {tensor for node in nodes for tensor in node.inputs} | set(wanted.values())
    ports = [port for port in model.inputs if port.name in used]
    g = GraphBuilder(model.graph_name or "graph")
    values: dict[str, Value] = {}
    for port, type in zip(ports, input_types(model.inputs, ports, shapes), strict=True):
        values[port.name] = g.input(port.name, type)
    for name, tensor in wires.initializers.items():
        if name not in used:
            continue
        if tensor.array is None:
            raise UnsupportedError(
                f"tensor '{name}' holds {tensor.type_name} elements, which Tilewright lacks; convert the "
                "model to float32"
            )
        values[name] = g.constant(tensor.array, name)
    for node in nodes:
        _add(g, node, values)
    for name, wanted_tensor in wanted.items():
        if wanted_tensor not in values:
            raise UnsupportedError(f"output '{name}' is a result that Tilewright does not compute")
    if outputs is None and not shapes:
        _check_declared(model, values)
    return g.finish({name: values[tensor] for name, tensor in wanted.items()})


def _wanted(model: Model, outputs: Sequence[str | int] | None) -> dict[str, str]:
    """What to call each output -> its tensor."""
    if outputs is None:
        names = [port.name for port in model.outputs]
        known = wire(model)
        for name in names:
            if name not in known:
                raise GraphError(
                    f"its output '{name}' is computed by no node; the model is incomplete", model=model.name
                )
        pairs = [(name, name) for name in names]
    else:
        pairs = [(str(name), resolve(model, name)) for name in outputs]
    return once(pairs, model.name)


def _unsupported(nodes: Sequence[Node]) -> dict[str, list[str]]:
    missing: dict[str, list[str]] = {}
    for node in nodes:
        if find(node) is None:
            missing.setdefault(why_unsupported(node), []).append(node.name)
    return missing


def _add(g: GraphBuilder, node: Node, values: dict[str, Value]) -> None:
    """Translate one node; its results join `values`."""
    translator = find(node)
    assert translator is not None  # unsupported nodes were listed before
    operands = tuple(values[tensor] if tensor else None for tensor in node.inputs)
    with translating(g, node.name, node.full_op):
        results = translator(Call(g, node, operands))
    results = (results,) if isinstance(results, Value) else results
    for name, value in zip(node.outputs, results, strict=False):
        if not name or value is None:
            continue
        if value.type.dtype in (F16, BF16) and g.constant_of(value) is None:
            raise UnsupportedError(
                f"it computes in {value.type.dtype}, which Tilewright lacks; convert the model to float32",
                node=node.name, operator=node.full_op,
            )  # fmt: skip
        values[name] = value
    lacking = [name for name in node.outputs if name and name not in values]
    if lacking:
        raise UnsupportedError(
            f"its result '{lacking[0]}' is not computed by Tilewright", node=node.name, operator=node.full_op
        )


def _check_declared(model: Model, values: Mapping[str, Value]) -> None:
    """The declared outputs are assertions: raise GraphError where a fixed dimension or the type differs."""
    for port in model.outputs:
        type = values[port.name].type
        fits = port.dtype in (None, type.dtype)
        if port.dims is not None and fits:
            fits = len(port.dims) == type.rank and all(
                not isinstance(dim, int) or dim == size
                for dim, size in zip(port.dims, type.shape, strict=True)
            )
        if not fits:
            raise GraphError(
                f"output '{port.name}' is declared {port}, but the graph computes {type}; correct the "
                "declaration, or pass shapes= to compile for these inputs anyway"
            )
