"""Operators that tensors come from without being computed."""

from tilewright.compiler.ir import Value
from tilewright.errors import GraphError, UnsupportedError
from tilewright.frontends.tensorflow.model import ElementType, Tensor
from tilewright.frontends.tensorflow.operators.table import Call, operator


@operator("Const")
def const(call: Call) -> Value:
    tensor, declared = call.attribute("value"), call.node.attributes.get("dtype")
    if not isinstance(tensor, Tensor):
        raise GraphError(f"attribute 'value' should be a tensor, not {tensor!r}")
    if isinstance(declared, ElementType) and declared != tensor.type:
        raise GraphError(f"attribute 'dtype' is {declared}, but the tensor holds {tensor.type}")
    if tensor.array is None:
        raise UnsupportedError(f"it holds {tensor.type} elements, which Tilewright lacks")
    return call.g.constant(tensor.array, call.node.name)


@operator("PlaceholderWithDefault")
def placeholder_with_default(call: Call) -> Value:
    """Its default: where it is an input of the model it is never translated."""
    return call.operand(0)
