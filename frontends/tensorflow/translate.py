"""Turns a model into a graph of primitives.

    model = read_model("frozen.pb")
    graph = translate(model, outputs=["conv1_2"], shapes={"input": (1, 224, 224, 3)})

Only what the requested outputs need is looked at. Shapes are static: they follow from the inputs' shapes, which the
model declares or `shapes` gives; what it declares about other tensors is never used.
"""

from collections.abc import Mapping, Sequence

from tilewright.compiler.ir import BF16, F16, Graph, Shape, Value
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.errors import GraphError, TilewrightError, UnknownNameError, UnsupportedError
from tilewright.frontends.ports import Port
from tilewright.frontends.tensorflow import operators
from tilewright.frontends.tensorflow.functions import BRANCHES, CALLS
from tilewright.frontends.tensorflow.model import ElementType, Function, Input, Model, Node
from tilewright.frontends.tensorflow.names import resolve
from tilewright.frontends.tensorflow.operators.table import OPERATORS, Call
from tilewright.frontends.tensorflow.sorting import in_order, reachable, wire
from tilewright.frontends.tensorflow.variables import VARIABLES
from tilewright.frontends.translation import input_types, missing_message, once, translating

# Importing `operators` fills the table.
__all__ = ["needed_inputs", "operators", "operators_of", "translate", "unsupported"]

LOOPS = {"Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch"}


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
    wanted = _wanted(model, outputs)
    nodes = reachable(model, wire(model), wanted.values())
    return tuple(model.inputs[tensor] for tensor in _supplied(model, nodes, wanted))


def unsupported(model: Model, outputs: Sequence[str | int] | None = None) -> dict[str, list[str]]:
    """The operators among the needed nodes that Tilewright lacks, each with the names of its nodes."""
    return _unsupported(reachable(model, wire(model), _wanted(model, outputs).values()))


def operators_of(model: Model) -> tuple[str, ...]:
    """The operators of the nodes that the model's own outputs need, of all nodes where there is no telling."""
    try:
        nodes: Sequence[Node] = reachable(model, wire(model), _wanted(model, None).values())
    except TilewrightError:
        nodes = model.nodes
    return tuple(node.op for node in nodes)


def _translate(model: Model, outputs: Sequence[str | int] | None, shapes: Mapping[str, Shape]) -> Graph:
    wanted = _wanted(model, outputs)
    nodes = reachable(model, wire(model), wanted.values())
    missing = _unsupported(nodes)  # before looking for cycles: loops have them
    if missing:
        raise UnsupportedError(missing_message(missing, _remedy(nodes)))
    nodes = in_order(model, nodes)
    names = [port.name for port in model.inputs.values()]
    for name in shapes:
        if name not in names:
            raise UnknownNameError("input", name, names)
    supplied = _supplied(model, nodes, wanted)
    ports = [model.inputs[tensor] for tensor in supplied]
    if len({port.name for port in ports}) < len(ports):
        raise GraphError(f"two inputs are called the same: {', '.join(port.name for port in ports)}")
    g = GraphBuilder("graph")
    values: dict[Input, Value] = {}
    types = input_types(model.inputs.values(), ports, shapes)
    for tensor, port, type in zip(supplied, ports, types, strict=True):
        values[tensor] = g.input(port.name, type)
    for node in nodes:
        _add(g, node, values)
    return g.finish({name: _value(values, tensor, f"output '{name}'") for name, tensor in wanted.items()})


def _wanted(model: Model, outputs: Sequence[str | int] | None) -> dict[str, Input]:
    """What to call each output -> its tensor."""
    if outputs is not None:
        return once([(str(name), resolve(model, name)) for name in outputs], model.name)
    names = wire(model)
    for name, tensor in model.outputs.items():
        if tensor not in model.inputs and tensor.node not in names:
            raise GraphError(
                f"its output '{name}' is '{tensor}', which no node computes; the model is incomplete", model=model.name
            )
    if not model.outputs:
        why = "it has no outputs"
        if model.signatures:
            why = f"it has several signatures ({', '.join(model.signatures)}) and none is called serving_default"
        raise GraphError(f"{why}; say with outputs= which tensors to compute", model=model.name)
    return once(list(model.outputs.items()), model.name)


def _supplied(model: Model, nodes: Sequence[Node], wanted: Mapping[str, Input]) -> list[Input]:
    """The inputs of the model that nodes or outputs use, in order."""
    used = {tensor for node in nodes for tensor in node.inputs} | set(wanted.values())
    return [tensor for tensor in model.inputs if tensor in used]


def _unsupported(nodes: Sequence[Node]) -> dict[str, list[str]]:
    missing: dict[str, list[str]] = {}
    for node in nodes:
        if node.op not in OPERATORS:
            missing.setdefault(_called(node), []).append(node.name)
    return missing


def _called(node: Node) -> str:
    """What to call an operator that is missing; for a call, with the function that the library lacks."""
    function = node.attributes.get("f")
    if node.op in CALLS and isinstance(function, Function):
        return f"{node.op} of '{function.name}', which the library lacks"
    return node.op or "a node without operator"


def _remedy(nodes: Sequence[Node]) -> str:
    """What else to do about missing operators."""
    missing = {node.op for node in nodes if node.op not in OPERATORS}
    if missing & VARIABLES:
        return "freeze the graph, or pass the SavedModel's folder with its variables"
    if missing & BRANCHES or missing & LOOPS:
        return "freeze the graph with its conditions constant: Tilewright runs no branches and loops of TensorFlow's"
    return "export the model with other operators"


def _add(g: GraphBuilder, node: Node, values: dict[Input, Value]) -> None:
    """Translate one node; its results join `values`."""
    with translating(g, node.name, node.op):
        operands = tuple(_value(values, tensor, "an input of it") for tensor in node.inputs)
        results = OPERATORS[node.op](Call(g, node, operands))
        results = (results,) if isinstance(results, Value) else results
        for index, value in enumerate(results):
            if value is not None:
                _check_type(g, node, value)
                values[Input(node.name, index)] = value


def _check_type(g: GraphBuilder, node: Node, value: Value) -> None:
    """Raise UnsupportedError for arithmetic in 16-bit floats, which Tilewright lacks; constants may have them."""
    kinds = (value.type.dtype, *(kind.dtype for kind in node.attributes.values() if isinstance(kind, ElementType)))
    half = next((kind for kind in kinds if kind in (F16, BF16)), None)
    if half is not None and g.constant_of(value) is None:
        raise UnsupportedError(f"it computes in {half}, which Tilewright lacks; convert the model to float32")


def _value(values: Mapping[Input, Value], tensor: Input, what: str) -> Value:
    found = values.get(tensor)
    if found is None:
        raise UnsupportedError(f"{what} is '{tensor}', a result that the node lacks or Tilewright does not compute")
    return found
