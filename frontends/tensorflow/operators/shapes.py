"""Operators that move elements, speak of shapes, or make constants."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

from tilewright.compiler.ir import I32, Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.builder import FOLD_LIMIT
from tilewright.errors import GraphError, ResourceError
from tilewright.frontends.tensorflow.operators.table import Call, operator

# ---- shapes as values


def _shape_of(call: Call, x: Value) -> Value:
    return call.vector(x.type.shape, call.dtype("out_type", I32))


@operator("Shape")
def shape(call: Call) -> Value:
    return _shape_of(call, call.operand(0))


@operator("ShapeN")
def shape_n(call: Call) -> list[Value]:
    return [_shape_of(call, x) for x in call.operands]


@operator("Size")
def size(call: Call) -> Value:
    return call.g.constant(call.operand(0).type.elements, dtype=call.dtype("out_type", I32).numpy)


@operator("Rank")
def rank(call: Call) -> Value:
    return call.g.constant(call.operand(0).type.rank, dtype=np.int32)


@operator("BroadcastArgs")
def broadcast_args(call: Call) -> Value:
    """The shape that operands of two shapes broadcast to."""
    one, other = call.integers(0, "shape"), call.integers(1, "shape")
    return call.vector(np.broadcast_shapes(one, other), call.operand(0).type.dtype)


# ---- constants


def _checked(dims: Sequence[int]) -> tuple[int, ...]:
    if any(dim < 0 for dim in dims):
        raise GraphError(f"the shape is {tuple(dims)}; dimensions count from 0")
    return tuple(dims)


@operator("Fill")
def fill(call: Call) -> Value:
    value = call.operand(1)
    if value.type.rank:
        raise GraphError(f"operand 1 has shape {value.type.shape}; it takes a scalar")
    return call.g.op("broadcast", value, shape=_checked(call.integers(0, "dims")))


def _filled_like(call: Call, number: int) -> Value:
    x = call.operand(0)
    value = call.g.constant(np.asarray(number).astype(x.type.dtype.numpy))
    return call.g.op("broadcast", value, shape=x.type.shape)


@operator("ZerosLike")
def zeros_like(call: Call) -> Value:
    return _filled_like(call, 0)


@operator("OnesLike")
def ones_like(call: Call) -> Value:
    return _filled_like(call, 1)


@operator("Range")
def range_(call: Call) -> Value:
    arrays = [call.constant(index, what) for index, what in enumerate(("start", "limit", "delta"))]
    if any(array.size != 1 for array in arrays):
        raise GraphError("its start, limit and delta must be scalars")
    start, limit, delta = (array.reshape(()).item() for array in arrays)
    if not all(np.isfinite(number) for number in (start, limit, delta)) or not delta:
        raise GraphError(f"start, limit and delta are {start}, {limit} and {delta}; delta must not be 0")
    count = max(ceil((limit - start) / delta), 0)
    if count > FOLD_LIMIT:
        raise ResourceError(f"it would have {count} elements, more than 2**28")
    with np.errstate(over="ignore"):
        steps = np.arange(count).astype(arrays[0].dtype)
        return call.g.constant((arrays[0].reshape(()) + steps * arrays[2].reshape(())).astype(arrays[0].dtype))


# ---- other shapes


@operator("Reshape")
def reshape(call: Call) -> Value:
    """-1 takes what is left; 0 is a dimension of 0."""
    x, wanted = call.operand(0), call.integers(1, "shape")
    dims = list(wanted)
    if dims.count(-1) == 1:
        rest = prod(dim for dim in dims if dim != -1)
        if rest and x.type.elements % rest == 0:
            dims[dims.index(-1)] = x.type.elements // rest
        elif rest == 0 and x.type.elements == 0:
            dims[dims.index(-1)] = 0
    if any(dim < 0 for dim in dims):
        raise GraphError(f"an operand of shape {x.type.shape} cannot become {wanted}")
    return call.g.op("reshape", x, shape=tuple(dims))


@operator("Squeeze")
def squeeze(call: Call) -> Value:
    return composites.squeeze(call.g, call.operand(0), call.wholes("squeeze_dims") or None)


@operator("ExpandDims")
def expand_dims(call: Call) -> Value:
    return composites.unsqueeze(call.g, call.operand(0), (call.integer(1, "axis"),))


@operator("BroadcastTo")
def broadcast_to(call: Call) -> Value:
    return call.g.op("broadcast", call.operand(0), shape=_checked(call.integers(1, "shape")))


@operator("Tile")
def tile(call: Call) -> Value:
    return composites.tile(call.g, call.operand(0), _checked(call.integers(1, "multiples")))


# ---- order


@operator("Transpose")
def transpose(call: Call) -> Value:
    x, perm = call.operand(0), call.integers(1, "perm")
    return call.g.op("transpose", x, perm=tuple(call.axis(axis, x.type.rank) for axis in perm))


@operator("InvertPermutation")
def invert_permutation(call: Call) -> Value:
    perm = call.integers(0, "permutation")
    if sorted(perm) != list(range(len(perm))):
        raise GraphError(f"operand 0 is {perm}, no permutation")
    return call.vector([perm.index(axis) for axis in range(len(perm))], call.operand(0).type.dtype)


@operator("ReverseV2")
def reverse(call: Call) -> Value:
    x = call.operand(0)
    return composites.flip(call.g, x, call.axes(call.integers(1, "axis"), x.type.rank))


# ---- joining and padding


@operator("ConcatV2")
def concat(call: Call) -> Value:
    parts = call.variadic(len(call.operands) - 1)
    return call.g.op("concat", *parts, axis=call.axis(call.integer(-1, "axis"), parts[0].type.rank))


@operator("Concat")
def concat_axis_first(call: Call) -> Value:
    parts = call.variadic(len(call.operands) - 1, first=1)
    return call.g.op("concat", *parts, axis=call.axis(call.integer(0, "concat_dim"), parts[0].type.rank))


@operator("Pack")
def pack(call: Call) -> Value:
    return composites.stack(call.g, call.variadic(len(call.operands)), call.whole("axis", 0))


@operator("Unpack")
def unpack(call: Call) -> list[Value]:
    x = call.operand(0)
    axis = call.axis(call.whole("axis", 0), x.type.rank)
    if call.whole("num") != x.type.shape[axis]:
        raise GraphError(f"attribute 'num' is {call.whole('num')}, but axis {axis} has {x.type.shape[axis]} elements")
    parts = call.parts(x, (1,) * x.type.shape[axis], axis)
    return [composites.squeeze(call.g, part, (axis,)) for part in parts]


def _paddings(call: Call, x: Value) -> tuple[tuple[int, ...], tuple[int, ...]]:
    pairs = call.pairs(1, "paddings")
    if len(pairs) != x.type.rank or any(side < 0 for pair in pairs for side in pair):
        raise GraphError(f"paddings of {pairs} do not fit an operand of shape {x.type.shape}")
    return tuple(low for low, _ in pairs), tuple(high for _, high in pairs)


@operator("Pad")
def pad(call: Call) -> Value:
    x = call.operand(0)
    low, high = _paddings(call, x)
    return call.g.op("pad", x, low=low, high=high)


@operator("PadV2")
def pad_value(call: Call) -> Value:
    x, value = call.operand(0), call.constant(2, "constant_values")
    if value.size != 1:
        raise GraphError(f"operand 2 (constant_values) has {value.size} elements; it takes one")
    low, high = _paddings(call, x)
    return call.g.op("pad", x, low=low, high=high, value=value.reshape(()).item())


@operator("MirrorPad")
def mirror_pad(call: Call) -> Value:
    """REFLECT leaves the border element out, SYMMETRIC repeats it."""
    x, mode = call.operand(0), call.text("mode")
    if mode not in ("REFLECT", "SYMMETRIC"):
        raise GraphError(f"attribute 'mode' is '{mode}'; it can be REFLECT or SYMMETRIC")
    low, high = _paddings(call, x)
    for dim, *sides in zip(x.type.shape, low, high, strict=True):
        if max(sides) > dim - (mode == "REFLECT"):
            raise GraphError(f"paddings of {sides} reach beyond the {dim} elements that they mirror")
    return call.g.op("pad", x, low=low, high=high, mode=mode.lower())
