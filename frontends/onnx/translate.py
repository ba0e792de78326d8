"""Turns a model into a graph of primitives.

    model = read_model("vgg16.onnx")
    graph = translate(model, outputs=["conv1_2"], shapes={"input": (1, 224, 224, 3)})

Only what the requested outputs need is looked at. Shapes are static: they follow from the inputs' shapes,
which the model declares or `shapes` gives. What the model declares about other tensors is never used, except
that the declared outputs must agree where the inputs have their declared shapes.
"""

from collections.abc import Mapping, Sequence
from math import prod

from tilewright.compiler.ir import BF16, F16, Graph, Shape, TensorType, Value
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.compiler.ops.registry import MAX_ELEMENTS
from tilewright.errors import (
    GraphError,
    ResourceError,
    ShapeNeededError,
    TilewrightError,
    UnknownNameError,
    UnsupportedError,
)
from tilewright.frontends.onnx import operators
from tilewright.frontends.onnx.model import Dim, Model, Node, Port
from tilewright.frontends.onnx.names import resolve
from tilewright.frontends.onnx.operators.table import Call, find, why_unsupported
from tilewright.frontends.onnx.sorting import needed, wire
from tilewright.frontends.onnx.tensors import MAX_RANK

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
        raise UnsupportedError(_missing_message(missing))
    for name in shapes:
        if name not in wires.inputs:
            raise UnknownNameError("input", name, wires.inputs)

    used = {tensor for node in nodes for tensor in node.inputs} | set(wanted.values())
    ports = [port for port in model.inputs if port.name in used]
    g = GraphBuilder(model.graph_name or "graph")
    values: dict[str, Value] = {}
    for port, type in zip(ports, _input_types(model, ports, shapes), strict=True):
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
    if not pairs:
        raise GraphError("no output is asked for; name at least one", model=model.name)
    wanted = dict(pairs)
    if len(wanted) < len(pairs):
        twice = next(name for name, _ in pairs if [name for name, _ in pairs].count(name) > 1)
        raise GraphError(f"output '{twice}' is asked for twice", model=model.name)
    return wanted


def _unsupported(nodes: Sequence[Node]) -> dict[str, list[str]]:
    missing: dict[str, list[str]] = {}
    for node in nodes:
        if find(node) is None:
            missing.setdefault(why_unsupported(node), []).append(node.name)
    return missing


def _missing_message(missing: Mapping[str, Sequence[str]]) -> str:
    """One sentence an operator, with the first of its nodes."""
    shown = []
    for op, nodes in missing.items():
        names = ", ".join(f"'{name}'" for name in nodes[:5]) + (
            f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
        )
        shown.append(f"{op} ({names})")
    count = "1 operator is" if len(missing) == 1 else f"{len(missing)} operators are"
    return (
        f"{count} not supported: {'; '.join(shown)}. Ask for outputs that do not need "
        f"{'it' if len(missing) == 1 else 'them'}, or export the model with other operators (opset 7 to 28)"
    )


def _input_types(model: Model, ports: Sequence[Port], shapes: Mapping[str, Shape]) -> list[TensorType]:
    """The types of the needed inputs; symbols that one given shape settles hold for the other inputs, too."""
    symbols: dict[str, int] = {}
    for port in model.inputs:
        for dim, size in zip(port.dims or (), shapes.get(port.name, ()), strict=False):
            if isinstance(dim, str):
                symbols.setdefault(dim, size)
    types, open_ports = [], {}
    for port in ports:
        if port.dtype is None or port.dtype in (F16, BF16):
            raise UnsupportedError(
                f"input '{port.name}' is of type {port.type_name}, which Tilewright lacks; convert the model "
                "to float32"
            )
        given = shapes.get(port.name)
        if given is not None:
            given = tuple(given)
            if port.dims is not None and len(given) != len(port.dims):
                raise GraphError(
                    f"shapes= gives input '{port.name}' the shape {given}; the model declares {port}"
                )
        dims: Sequence[Dim] | None = given if given is not None else port.dims
        if dims is not None:
            dims = tuple(symbols.get(dim, dim) if isinstance(dim, str) else dim for dim in dims)
        shape = tuple(dim for dim in dims or () if isinstance(dim, int))
        if dims is None or len(shape) < len(dims):
            open_ports[port.name] = dims
            continue
        if any(dim < 0 for dim in shape):
            raise GraphError(f"input '{port.name}' would have the shape {shape}; dimensions count from 0")
        if len(shape) > MAX_RANK or prod(max(dim, 1) for dim in shape) > MAX_ELEMENTS:
            raise ResourceError(
                f"input '{port.name}' would have {'x'.join(map(str, shape))} elements, more than 2**36; "
                "check the model's shapes or pass smaller ones with shapes="
            )
        types.append(TensorType(port.dtype, shape))
    if open_ports:
        raise ShapeNeededError(open_ports)
    return types


def _add(g: GraphBuilder, node: Node, values: dict[str, Value]) -> None:
    """Translate one node; its results join `values`."""
    translator = find(node)
    assert translator is not None  # unsupported nodes were listed before
    operands = tuple(values[tensor] if tensor else None for tensor in node.inputs)
    try:
        with g.at(node.name):
            results = translator(Call(g, node, operands))
    except TilewrightError as error:
        # The primitive's own name says less to a user than the model's operator.
        error.operator = node.full_op
        raise error.located(node=node.name) from error.__cause__
    except MemoryError:
        raise ResourceError("it is too large to compute", node=node.name, operator=node.full_op) from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Translators check what they read; what is left comes from attributes that contradict the
        # specification.
        raise GraphError(
            f"its attributes and operands do not fit together ({error})",
            node=node.name,
            operator=node.full_op,
        ) from error
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
