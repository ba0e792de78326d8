"""Operators that move elements, speak of shapes, or make constants."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

from tilewright.compiler.ir import Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.builder import FOLD_LIMIT
from tilewright.errors import GraphError, ResourceError, UnsupportedError
from tilewright.frontends.onnx.operators.table import Call, operator
from tilewright.frontends.onnx.tensors import dtype_of, type_name

# ---- constants


@operator("Constant", since=1)
def constant(call: Call) -> Value:
    """Exactly one attribute holds the value."""
    g = call.g
    for name, value in call.node.attributes.items():
        match name:
            case "value":
                array = call.tensor("value")
                assert array is not None
                return g.constant(array)
            case "value_float":
                return g.constant(call.number(name), dtype=np.float32)
            case "value_floats":
                return g.constant(call.numbers(name), dtype=np.float32)
            case "value_int":
                return g.constant(call.whole(name), dtype=np.int64)
            case "value_ints":
                return g.constant(call.wholes(name), dtype=np.int64)
            case _:
                what = value.kind if hasattr(value, "kind") else "string"
                raise UnsupportedError(f"its value is a {what} (attribute '{name}'), which Tilewright lacks")
    raise GraphError("it has no value")


@operator("ConstantOfShape", since=9)
def constant_of_shape(call: Call) -> Value:
    shape = call.known_ints(0, "shape") or ()
    value = call.tensor("value")
    if value is None:
        value = np.zeros(1, dtype=np.float32)
    if value.size != 1:
        raise GraphError(f"attribute 'value' has {value.size} elements; it takes one")
    if any(dim < 0 for dim in shape):
        raise GraphError(f"the shape is {shape}; dimensions count from 0")
    return call.g.op("broadcast", call.g.constant(value.reshape(())), shape=shape)


@operator("Shape", since=1)
def shape(call: Call) -> Value:
    dims = call.operand(0).type.shape
    start, end = call.whole("start", 0), call.whole("end", len(dims))
    return call.vector(dims[start:end])  # slices clamp as the specification wants


@operator("Size", since=1)
def size(call: Call) -> Value:
    return call.g.constant(call.operand(0).type.elements, dtype=np.int64)


@operator("Range", since=11)
def range_(call: Call) -> Value:
    numbers = [call.known(index, what) for index, what in enumerate(("start", "limit", "delta"))]
    arrays = [np.asarray(number).reshape(()) for number in numbers if number is not None]
    if len(arrays) != 3:
        raise GraphError("it takes a start, a limit and a delta")
    start, limit, delta = (array.item() for array in arrays)
    if not delta:
        raise GraphError("delta is 0")
    if not all(np.isfinite(number) for number in (start, limit, delta)):
        raise GraphError(f"start, limit and delta are {start}, {limit} and {delta}; they must be finite")
    count = max(ceil((limit - start) / delta), 0)
    if count > FOLD_LIMIT:
        raise ResourceError(f"it would have {count} elements, more than 2**28")
    with np.errstate(over="ignore"):
        return call.g.constant((arrays[0] + np.arange(count) * arrays[2]).astype(arrays[0].dtype))


@operator("EyeLike", since=9)
def eye_like(call: Call) -> Value:
    x = call.operand(0)
    if x.type.rank != 2:
        raise GraphError(f"operand 0 has shape {x.type.shape}; it takes a matrix")
    number = call.whole("dtype", 0)
    dtype = dtype_of(number) if number else x.type.dtype
    if dtype is None:
        raise UnsupportedError(f"it makes {type_name(number)} elements, which Tilewright lacks")
    # As a comparison of two vectors, so that nothing large is built here.
    g, (rows, columns) = call.g, x.type.shape
    row = g.constant(np.arange(rows, dtype=np.int64).reshape(-1, 1) + call.whole("k", 0))
    return call.cast(g.op("equal", row, g.constant(np.arange(columns, dtype=np.int64))), dtype)


# ---- shapes


@operator("Reshape", since=5)
def reshape(call: Call) -> Value:
    """0 copies the operand's dimension (unless allowzero), -1 takes what is left."""
    x, wanted = call.operand(0), call.known_ints(1, "shape")
    if wanted is None:
        raise GraphError("operand 1, the shape, is missing")
    dims = list(wanted)
    if not call.whole("allowzero", 0):
        for axis, dim in enumerate(dims):
            if dim == 0:
                if axis >= x.type.rank:
                    raise GraphError(
                        f"the shape {wanted} copies dimension {axis}; the operand has {x.type.rank}"
                    )
                dims[axis] = x.type.shape[axis]
    if dims.count(-1) == 1:
        rest = prod(dim for dim in dims if dim != -1)
        if rest == 0 or x.type.elements % rest:
            raise GraphError(f"an operand of shape {x.type.shape} cannot become {wanted}")
        dims[dims.index(-1)] = x.type.elements // rest
    if any(dim < 0 for dim in dims):
        raise GraphError(f"an operand of shape {x.type.shape} cannot become {wanted}")
    return call.g.op("reshape", x, shape=tuple(dims))


@operator("Flatten", since=1)
def flatten(call: Call) -> Value:
    x, axis = call.operand(0), call.whole("axis", 1)
    if not -x.type.rank <= axis <= x.type.rank:
        raise GraphError(f"axis {axis} does not exist in a tensor of {x.type.rank} axes")
    axis = axis + x.type.rank if axis < 0 else axis
    return call.g.op("reshape", x, shape=(prod(x.type.shape[:axis]), prod(x.type.shape[axis:])))


def _unsqueeze(call: Call, axes: Sequence[int] | None) -> Value:
    if axes is None:
        raise GraphError("it has no axes")
    return composites.unsqueeze(call.g, call.operand(0), axes)


@operator("Squeeze", since=1)
def squeeze_attribute(call: Call) -> Value:
    return composites.squeeze(call.g, call.operand(0), call.wholes("axes"))


@operator("Squeeze", since=13)
def squeeze(call: Call) -> Value:
    return composites.squeeze(call.g, call.operand(0), call.known_ints(1, "axes"))


@operator("Unsqueeze", since=1)
def unsqueeze_attribute(call: Call) -> Value:
    return _unsqueeze(call, call.wholes("axes"))


@operator("Unsqueeze", since=13)
def unsqueeze(call: Call) -> Value:
    return _unsqueeze(call, call.known_ints(1, "axes"))


@operator("Expand", since=8)
def expand(call: Call) -> Value:
    """Broadcasts both ways: the result may be larger than the wanted shape."""
    x, wanted = call.operand(0), call.known_ints(1, "shape")
    if wanted is None:
        raise GraphError("operand 1, the shape, is missing")
    rank = max(len(wanted), x.type.rank)
    sides = [(*[1] * (rank - len(side)), *side) for side in (x.type.shape, wanted)]
    dims = []
    for have, want in zip(*sides, strict=True):
        if have != want and 1 not in (have, want):
            raise GraphError(f"operands of shapes {x.type.shape} and {wanted} do not broadcast")
        dims.append(want if have == 1 else have)
    return call.g.op("broadcast", x, shape=tuple(dims))


@operator("Tile", since=6)
def tile(call: Call) -> Value:
    repeats = call.known_ints(1, "repeats") or ()
    if any(count < 0 for count in repeats):
        raise GraphError(f"repeats is {repeats}; it counts from 0")
    return composites.tile(call.g, call.operand(0), repeats)


# ---- order


@operator("Transpose", since=1)
def transpose(call: Call) -> Value:
    x = call.operand(0)
    perm = call.wholes("perm") or tuple(range(x.type.rank))[::-1]
    return call.g.op("transpose", x, perm=call.axes(perm, x.type.rank))


def _image(call: Call) -> Value:
    x = call.operand(0)
    if x.type.rank != 4:
        raise GraphError(f"operand 0 has shape {x.type.shape}; it takes (batch, channels, height, width)")
    return x


def _depth_first(call: Call) -> bool:
    mode = call.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise GraphError(f"attribute 'mode' is '{mode}'; it can be DCR or CRD")
    return mode == "DCR"


@operator("DepthToSpace", since=1)
def depth_to_space(call: Call) -> Value:
    return composites.depth_to_space(call.g, _image(call), call.whole("blocksize"), _depth_first(call))


@operator("SpaceToDepth", since=1)
def space_to_depth(call: Call) -> Value:
    """Channels come out in the order (row, column, channel), or (channel, row, column) for mode CRD."""
    g, x, block = call.g, _image(call), call.whole("blocksize")
    y = composites.space_to_depth(g, x, block)
    if _depth_first(call):
        return y
    n, channels, h, w = y.type.shape
    y = g.op("reshape", y, shape=(n, block * block, channels // (block * block), h, w))
    return g.op("reshape", g.op("transpose", y, perm=(0, 2, 1, 3, 4)), shape=(n, channels, h, w))


# ---- parts


@operator("Concat", since=4)
def concat(call: Call) -> Value:
    parts = call.variadic()
    return call.g.op("concat", *parts, axis=call.axis(call.whole("axis"), parts[0].type.rank))


def _split(call: Call, sizes: Sequence[int] | None) -> list[Value]:
    """Parts of the given sizes, by default as equal as can be, the last one smaller."""
    x = call.operand(0)
    axis = call.axis(call.whole("axis", 0), x.type.rank)
    dim, parts = x.type.shape[axis], len(call.node.outputs)
    if call.has("num_outputs") and call.whole("num_outputs") != parts:
        raise GraphError(
            f"attribute 'num_outputs' is {call.whole('num_outputs')}, but it has {parts} results"
        )
    if sizes is None:
        if dim % parts and not call.has("num_outputs"):
            raise GraphError(f"the {dim} elements of axis {axis} do not divide into {parts} equal parts")
        each = -(-dim // parts)
        sizes = [max(min(each, dim - index * each), 0) for index in range(parts)]
    if len(sizes) != parts or sum(sizes) != dim or any(part < 0 for part in sizes):
        raise GraphError(
            f"parts of {tuple(sizes)} elements were asked for; axis {axis} has {dim}, the node {parts} "
            "results"
        )
    return list(composites.split(call.g, x, sizes, axis))


@operator("Split", since=2)
def split_attribute(call: Call) -> list[Value]:
    return _split(call, call.wholes("split"))


@operator("Split", since=13)
def split(call: Call) -> list[Value]:
    return _split(call, call.known_ints(1, "split"))


def _slice(
    call: Call, starts: Sequence[int] | None, ends: Sequence[int] | None, axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Value:  # fmt: skip
    """Starts and ends count from the end where negative, and are clamped, as in Python."""
    x = call.operand(0)
    if starts is None or ends is None:
        raise GraphError("it has no starts or no ends")
    axes = call.axes(range(len(starts)) if axes is None else axes, x.type.rank)
    if not len(starts) == len(ends) == len(axes) == len(steps or axes):
        raise GraphError(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} differ in length")
    return composites.slice_axes(call.g, x, starts, ends, axes, steps)


@operator("Slice", since=1)
def slice_attributes(call: Call) -> Value:
    return _slice(call, call.wholes("starts"), call.wholes("ends"), call.wholes("axes"), None)


@operator("Slice", since=10)
def slice_(call: Call) -> Value:
    starts, ends, axes, steps = (
        call.known_ints(index, what)
        for index, what in enumerate(("starts", "ends", "axes", "steps"), start=1)
    )
    return _slice(call, starts, ends, axes, steps)


def _pad(call: Call, pads: Sequence[int] | None, axes: Sequence[int] | None, value: float) -> Value:
    """All the beginnings, then all the ends; negative ones drop elements."""
    x, mode = call.operand(0), call.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise GraphError(f"attribute 'mode' is '{mode}'; it can be constant, reflect, edge or wrap")
    axes = tuple(range(x.type.rank)) if axes is None else call.axes(axes, x.type.rank)
    if pads is None or len(pads) != 2 * len(axes):
        raise GraphError(f"pads is {pads}; {len(axes)} axes take {2 * len(axes)}")
    low, high = [0] * x.type.rank, [0] * x.type.rank
    for position, axis in enumerate(axes):
        low[axis], high[axis] = pads[position], pads[len(axes) + position]
    return call.g.op("pad", x, low=tuple(low), high=tuple(high), mode=mode, value=value)


@operator("Pad", since=2)
def pad_attributes(call: Call) -> Value:
    return _pad(call, call.wholes("pads"), None, call.number("value", 0.0))


@operator("Pad", since=11)
def pad(call: Call) -> Value:
    value = call.known(2, "constant_value")
    if value is not None and value.size != 1:
        raise GraphError(f"operand 2 (constant_value) has {value.size} elements; it takes one")
    number = 0.0 if value is None else value.reshape(()).item()
    return _pad(call, call.known_ints(1, "pads"), call.known_ints(3, "axes"), number)


@operator("Gather", since=1)
def gather(call: Call) -> Value:
    x = call.operand(0)
    return call.g.op("gather", x, call.operand(1), axis=call.axis(call.whole("axis", 0), x.type.rank))


@operator("GatherElements", since=11)
def gather_elements(call: Call) -> Value:
    x = call.operand(0)
    return call.g.op(
        "gather_elements", x, call.operand(1), axis=call.axis(call.whole("axis", 0), x.type.rank)
    )


@operator("Trilu", since=14)
def trilu(call: Call) -> Value:
    """The upper or lower triangle of the last two axes, zeros elsewhere."""
    g, x = call.g, call.operand(0)
    if x.type.rank < 2:
        raise GraphError(f"operand 0 has shape {x.type.shape}; it takes matrices")
    k = (call.known_ints(1, "k") or (0,))[0]
    row = g.constant(np.arange(x.type.shape[-2], dtype=np.int64).reshape(-1, 1) + k)
    column = g.constant(np.arange(x.type.shape[-1], dtype=np.int64))
    sides = (row, column) if call.whole("upper", 1) else (column, row)
    zero = g.constant(np.zeros((), dtype=x.type.dtype.numpy))
    return g.op("where", g.op("less_equal", *sides), x, zero)


@operator("OneHot", since=9)
def one_hot(call: Call) -> Value:
    """Indices from -depth to depth - 1; others give a row without a hot element."""
    g, indices, values = call.g, call.operand(0), call.operand(2)
    depths = call.known_floats(1, "depth")
    if depths is None or len(depths) != 1 or depths[0] < 1:
        raise GraphError(f"the depth is {depths}; it takes one positive number")
    if values.type.shape != (2,):
        raise GraphError(f"the values have shape {values.type.shape}; they take (off, on)")
    if depths[0] > FOLD_LIMIT:
        raise ResourceError(f"the depth is {depths[0]}, more than 2**28")
    depth = int(depths[0])
    axis = call.axis(call.whole("axis", -1), indices.type.rank + 1)
    wrapped = g.op("add", indices, g.scalar(depth, indices))
    chosen = g.op("where", g.op("less", indices, g.scalar(0, indices)), wrapped, indices)
    off, on = (g.op("reshape", part, shape=()) for part in composites.split(g, values, (1, 1)))
    return composites.one_hot(g, chosen, depth, on, off, axis)
