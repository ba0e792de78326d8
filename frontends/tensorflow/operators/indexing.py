"""Operators that choose elements: slices, gathers, one-hot vectors, the largest elements."""

from collections.abc import Iterator
from math import prod

from tilewright.compiler.ir import I32, I64, Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.builder import FOLD_LIMIT
from tilewright.errors import GraphError, ResourceError
from tilewright.frontends.tensorflow.operators.table import Call, operator

# ---- slices


@operator("Slice")
def slice_(call: Call) -> Value:
    """A size of -1 takes all that is left."""
    x = call.operand(0)
    begin, size = call.integers(1, "begin"), call.integers(2, "size")
    if not len(begin) == len(size) == x.type.rank:
        raise GraphError(f"begin {begin} and size {size} do not fit an operand of shape {x.type.shape}")
    taken = tuple(
        dim - first if count == -1 else count for dim, first, count in zip(x.type.shape, begin, size, strict=True)
    )
    for dim, first, count in zip(x.type.shape, begin, taken, strict=True):
        if first < 0 or count < 0 or first + count > dim:
            raise GraphError(f"begin {begin} and size {size} leave an operand of shape {x.type.shape}")
    start = tuple(first if count else 0 for first, count in zip(begin, taken, strict=True))
    return call.g.op("slice", x, start=start, size=taken, step=(1,) * x.type.rank)


@operator("StridedSlice")
def strided_slice(call: Call) -> Value:
    """x[begin:end:stride] as Python and NumPy write it; bit i of a mask speaks of entry i.

    An ellipsis stands for the axes that no entry names, a new axis for none, a shrunk one for the single index `begin`,
    whatever the masks of begin and end say.
    """
    x = call.operand(0)
    begin, end, strides = (call.integers(i, what) for i, what in ((1, "begin"), (2, "end"), (3, "strides")))
    if not len(begin) == len(end) == len(strides):
        raise GraphError(f"begin {begin}, end {end} and strides {strides} differ in length")

    def mask(name: str) -> list[bool]:
        bits = call.whole(f"{name}_mask", 0)
        return [bool(bits >> entry & 1) for entry in range(len(begin))]

    no_begin, no_end, ellipsis, new, shrink = map(mask, ("begin", "end", "ellipsis", "new_axis", "shrink_axis"))
    if sum(ellipsis) > 1:
        raise GraphError("it has two ellipses")
    named = sum(not (new[entry] or ellipsis[entry]) for entry in range(len(begin)))
    if named > x.type.rank:
        raise GraphError(f"it names {named} axes of an operand of shape {x.type.shape}")
    start, size, step = [0] * x.type.rank, list(x.type.shape), [1] * x.type.rank
    shape: list[int] = []
    rest: Iterator[int] = iter(range(x.type.rank))
    for entry in range(len(begin)):
        if ellipsis[entry]:
            shape += [x.type.shape[next(rest)] for _ in range(x.type.rank - named)]
        elif new[entry]:
            shape.append(1)
        else:
            axis = next(rest)
            dim, by = x.type.shape[axis], strides[entry]
            if shrink[entry]:
                index = begin[entry]
                if not -dim <= index < dim or by < 1:
                    raise GraphError(f"index {index} in steps of {by} does not exist in axis {axis} of {dim} elements")
                start[axis], size[axis] = index % dim, 1
                continue
            if by == 0:
                raise GraphError(f"the stride of axis {axis} is 0")
            chosen = range(dim)[
                slice(None if no_begin[entry] else begin[entry], None if no_end[entry] else end[entry], by)
            ]
            start[axis], size[axis], step[axis] = chosen.start if chosen else 0, len(chosen), by
            shape.append(len(chosen))
    shape += [x.type.shape[axis] for axis in rest]
    part = call.g.op("slice", x, start=tuple(start), size=tuple(size), step=tuple(step))
    return call.g.op("reshape", part, shape=tuple(shape))


@operator("Split")
def split(call: Call) -> list[Value]:
    x, count = call.operand(1), call.whole("num_split")
    axis = call.axis(call.integer(0, "split_dim"), x.type.rank)
    if count < 1 or x.type.shape[axis] % count:
        raise GraphError(f"the {x.type.shape[axis]} elements of axis {axis} do not divide into {count} equal parts")
    return list(call.parts(x, (x.type.shape[axis] // count,) * count, axis))


@operator("SplitV")
def split_sizes(call: Call) -> list[Value]:
    """One size may be -1: what is left."""
    x, sizes = call.operand(0), list(call.integers(1, "size_splits"))
    axis = call.axis(call.integer(2, "split_dim"), x.type.rank)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = x.type.shape[axis] - sum(sizes) - 1
    return list(call.parts(x, sizes, axis))


# ---- gathers


@operator("Gather")
def gather(call: Call) -> Value:
    return composites.gather(call.g, call.operand(0), call.operand(1), 0, call.whole("batch_dims", 0))


@operator("GatherV2")
def gather_axis(call: Call) -> Value:
    x, indices = call.operand(0), call.operand(1)
    return composites.gather(call.g, x, indices, call.integer(2, "axis"), call.whole("batch_dims", 0))


@operator("GatherNd")
def gather_nd(call: Call) -> Value:
    """The last axis of the indices holds positions in the first axes of x."""
    g, x, indices = call.g, call.operand(0), call.operand(1)
    if indices.type.rank < 1 or indices.type.shape[-1] > x.type.rank:
        raise GraphError(f"indices of shape {indices.type.shape} do not fit an operand of shape {x.type.shape}")
    named = indices.type.shape[-1]
    lead, rest = x.type.shape[:named], x.type.shape[named:]
    strides = [prod(lead[axis + 1 :]) for axis in range(named)]
    weighted = g.op("mul", call.cast(indices, I64), call.vector(strides, I64))
    flat = g.op("reduce_sum", weighted, axes=(indices.type.rank - 1,), keepdims=False)
    return g.op("gather", g.op("reshape", x, shape=(prod(lead), *rest)), flat, axis=0)


@operator("OneHot")
def one_hot(call: Call) -> Value:
    """An index outside 0 to depth - 1 gives a row without a hot element."""
    indices, depth = call.operand(0), call.integer(1, "depth")
    if not 0 <= depth <= FOLD_LIMIT:
        raise ResourceError(f"the depth is {depth}; it can be 0 to 2**28")
    axis = call.axis(call.whole("axis", -1), indices.type.rank + 1)
    return composites.one_hot(call.g, indices, depth, call.operand(2), call.operand(3), axis)


@operator("TopKV2")
def top_k(call: Call) -> list[Value]:
    x, k = call.operand(0), call.integer(1, "k")
    if x.type.rank < 1 or not 0 <= k <= x.type.shape[-1]:
        raise GraphError(f"the {k} largest elements were asked for along the last axis of shape {x.type.shape}")
    values, indices = composites.top_k(call.g, x, k, x.type.rank - 1)
    return [values, call.cast(indices, call.dtype("index_type", I32))]


