"""Lowering of what one loop nest computes: element-wise nodes, reductions, index maps, and their groups."""

from tilewright.compiler.ir import Node, Value
from tilewright.compiler.ir.graph import Array as Numbers
from tilewright.compiler.kernels.nest import Access, Input, Nest, Output, Region, build
from tilewright.compiler.lower.context import Lowering, lowering
from tilewright.compiler.lower.index_maps import Unfit
from tilewright.compiler.lower.nests import REDUCTIONS, VIEWS, array_of, nest_of, nest_supports
from tilewright.compiler.ops import PRIMITIVES
from tilewright.errors import CompileError

__all__ = ["lower_nest", "nest_supports"]

_ELEMENTWISE = tuple(name for name, primitive in PRIMITIVES.items() if primitive.formula is not None)


@lowering("group", *_ELEMENTWISE, *REDUCTIONS, *VIEWS)
def lower_nest(state: Lowering, node: Node) -> None:
    """Lower a group without a template, or one node of its kinds, to one kernel."""
    nodes = node.body or (node,)
    if nodes[-1].results[0].type.elements == 0:
        return
    if len(nodes) == 1 and nodes[0].op == "reshape":
        lower_reshape(state, nodes[0])
        return
    scalars: dict[Value, Numbers] = {}
    for operand in node.operands:
        array = state.scalar_of(operand)
        if array is not None:
            scalars[operand] = array
    try:
        planned = nest_of(nodes, scalars)
    except Unfit:
        raise CompileError(
            "no loop nest computes this group, please report it", node=node.source, operator=nodes[-1].op
        ) from None
    key = (state.target, nodes_key(nodes, scalars, planned.operands))
    kernel = state.kernel("nest", key, lambda name: build(name, planned.nest, state.target))
    state.call(kernel, (*planned.operands, nodes[-1].results[0]), node, "nest")


def nodes_key(
    nodes: tuple[Node, ...], scalars: dict[Value, Numbers], operands: tuple[Value, ...]
) -> tuple[object, ...]:
    """Everything the code of fused nodes depends on."""
    numbers: dict[Value, object] = {value: i for i, value in enumerate(operands)}
    numbers |= {value: (value.type, array.tobytes()) for value, array in scalars.items()}
    steps = []
    for position, node in enumerate(nodes):
        steps.append((node.op, node.attrs, tuple(numbers[o] for o in node.operands), node.results[0].type))
        numbers[node.results[0]] = ("step", position)
    return (tuple(value.type for value in operands), tuple(steps))


def lower_reshape(state: Lowering, node: Node) -> None:
    """Copy a row-major tensor as it lies."""
    (x,) = node.operands
    y = node.results[0]
    if not (x.type.layout.is_row_major and y.type.layout.is_row_major):
        raise CompileError("a reshape needs row-major tensors", node=node.source, operator=node.op)
    flat = Region(
        (x.type.elements,), frozenset(), (Access(0, 0, (1,)),), Output(Input(0), Access(1, 0, (1,)))
    )
    nest = Nest((array_of(x),), array_of(y), (flat,))
    kernel = state.kernel(
        "copy", (state.target, x.type.dtype, x.type.elements), lambda name: build(name, nest, state.target)
    )
    state.call(kernel, (x, y), node, "copy")
