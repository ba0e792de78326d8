"""What both frontends build operators from: plain functions of a GraphBuilder and values.

    from tilewright.compiler.ops import composites
    y = composites.softmax(g, x, axes=(1,))

By topic: activations, normalisation (and reductions), pooling (and convolutions), resizing; here, shapes and
matrix products.
"""

from collections.abc import Sequence
from math import prod

from tilewright.compiler.ir import Value
from tilewright.compiler.ops.activations import (
    celu,
    clip,
    elu,
    floor_div,
    gelu,
    greater,
    greater_equal,
    hard_sigmoid,
    hard_swish,
    is_inf,
    leaky_relu,
    mish,
    not_equal,
    power,
    prelu,
    rsqrt,
    scaled,
    selu,
    shifted,
    shrink,
    softplus,
    softsign,
    square,
    swish,
    tan,
    thresholded_relu,
)
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.compiler.ops.indexing import gather, one_hot, top_k
from tilewright.compiler.ops.normalisation import (
    along,
    axes_of,
    axis_of,
    batch_norm,
    cumulative_sum,
    group_norm,
    instance_norm,
    layer_norm,
    log_softmax,
    lp_normalise,
    lrn,
    mean,
    normalise,
    reduce_all,
    reduce_any,
    reduce_l1,
    reduce_l2,
    reduce_log_sum,
    reduce_log_sum_exp,
    reduce_max,
    reduce_sum,
    reduce_sum_square,
    rms_norm,
    softmax,
    variance,
)
from tilewright.compiler.ops.pooling import (
    avg_pool,
    ceil_pads,
    conv,
    conv_transpose,
    conv_transpose_pads,
    flip,
    global_average_pool,
    global_max_pool,
    lp_pool,
    max_pool,
    same_pads,
)
from tilewright.compiler.ops.resizing import (
    ResizeMode,
    adaptive_average,
    resize,
    resized_sizes,
    scaled_sizes,
)
from tilewright.errors import GraphError

__all__ = [
    "ResizeMode",
    "adaptive_average",
    "along",
    "avg_pool",
    "axes_of",
    "axis_of",
    "batch_norm",
    "batch_to_space",
    "ceil_pads",
    "celu",
    "clip",
    "conv",
    "conv_transpose",
    "conv_transpose_pads",
    "cumulative_sum",
    "depth_to_space",
    "elu",
    "flatten",
    "flip",
    "floor_div",
    "gather",
    "gelu",
    "gemm",
    "global_average_pool",
    "global_max_pool",
    "greater",
    "greater_equal",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "instance_norm",
    "is_inf",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "lp_normalise",
    "lp_pool",
    "lrn",
    "matmul",
    "max_pool",
    "mean",
    "mish",
    "normalise",
    "not_equal",
    "one_hot",
    "power",
    "prelu",
    "reduce_all",
    "reduce_any",
    "reduce_l1",
    "reduce_l2",
    "reduce_log_sum",
    "reduce_log_sum_exp",
    "reduce_max",
    "reduce_sum",
    "reduce_sum_square",
    "resize",
    "resized_sizes",
    "rms_norm",
    "rsqrt",
    "same_pads",
    "scaled",
    "scaled_sizes",
    "selu",
    "shifted",
    "shrink",
    "slice_axes",
    "softmax",
    "softplus",
    "softsign",
    "space_to_batch",
    "space_to_depth",
    "split",
    "square",
    "squeeze",
    "stack",
    "swish",
    "tan",
    "thresholded_relu",
    "tile",
    "top_k",
    "transpose_last",
    "unsqueeze",
    "variance",
]


def squeeze(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None) -> Value:
    """x without `axes`, each of 1 element; None means all such axes."""
    shape, rank = x.type.shape, x.type.rank
    if axes is None:
        gone: tuple[int, ...] = tuple(axis for axis, dim in enumerate(shape) if dim == 1)
    else:
        gone = axes_of(axes, rank)
    for axis in gone:
        if shape[axis] != 1:
            raise GraphError(
                f"axis {axis} of {shape} has {shape[axis]} elements; expected 1", node=g.source
            )
    return g.op("reshape", x, shape=tuple(dim for axis, dim in enumerate(shape) if axis not in gone))


def unsqueeze(g: GraphBuilder, x: Value, axes: Sequence[int]) -> Value:
    """x with axes of 1 element put in; `axes` count in the result."""
    rank = x.type.rank + len(axes)
    added = axes_of(axes, rank)
    if len(added) != len(axes):
        raise GraphError(f"axes {tuple(axes)} name an axis twice", node=g.source)
    rest = iter(x.type.shape)
    return g.op("reshape", x, shape=tuple(1 if axis in added else next(rest) for axis in range(rank)))


def slice_axes(
    g: GraphBuilder,
    x: Value,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Value:
    """x[start:end:step] along some axes (None: the first ones); starts and ends as in Python slices."""
    shape, rank = x.type.shape, x.type.rank
    axes = range(len(starts)) if axes is None else axes
    start, size, step = [0] * rank, list(shape), [1] * rank
    for position, axis in enumerate(axes):
        axis = axis_of(axis, rank)
        by = steps[position] if steps else 1
        if by == 0:
            raise GraphError(f"the step of axis {axis} is 0", node=g.source)
        first, last = starts[position], ends[position]
        # slice() reads a negative end as counted from the back; one far below means "to the first element".
        last_or_none = None if by < 0 and last < -shape[axis] else last
        chosen = range(*slice(first, last_or_none, by).indices(shape[axis]))
        size[axis], step[axis] = len(chosen), by
        start[axis] = chosen.start if len(chosen) else 0
    return g.op("slice", x, start=tuple(start), size=tuple(size), step=tuple(step))


def split(g: GraphBuilder, x: Value, sizes: Sequence[int], axis: int = 0) -> tuple[Value, ...]:
    """x cut along `axis` in parts of `sizes`."""
    axis = axis_of(axis, x.type.rank)
    shape = x.type.shape
    if sum(sizes) != shape[axis] or any(size < 0 for size in sizes):
        raise GraphError(f"sizes {tuple(sizes)} do not add up to axis {axis}'s {shape[axis]}", node=g.source)
    parts, at = [], 0
    for size in sizes:
        parts.append(slice_axes(g, x, [at], [at + size], [axis]))
        at += size
    return tuple(parts)


def stack(g: GraphBuilder, values: Sequence[Value], axis: int = 0) -> Value:
    """Values of one shape along a new axis."""
    axis = axis_of(axis, values[0].type.rank + 1)
    return g.op("concat", *(unsqueeze(g, value, (axis,)) for value in values), axis=axis)


def tile(g: GraphBuilder, x: Value, repeats: Sequence[int]) -> Value:
    """x repeated `repeats[i]` times along axis i."""
    shape = x.type.shape
    if len(repeats) != len(shape):
        raise GraphError(f"repeats {tuple(repeats)} are not one for each of {shape}", node=g.source)
    apart = g.op("reshape", x, shape=tuple(n for dim in shape for n in (1, dim)))
    wide = tuple(n for count, dim in zip(repeats, shape, strict=True) for n in (count, dim))
    joined = tuple(count * dim for count, dim in zip(repeats, shape, strict=True))
    return g.op("reshape", g.op("broadcast", apart, shape=wide), shape=joined)


def depth_to_space(g: GraphBuilder, x: Value, block: int, depth_first: bool = True) -> Value:
    """x (N, C, H, W) to (N, C / block**2, H block, W block).

    `depth_first` (ONNX's DCR, TensorFlow's): channel = (row, column, c); otherwise (CRD, PyTorch's pixel
    shuffle) channel = (c, row, column).
    """
    n, c, h, w = x.type.shape
    if block < 1 or c % (block * block):
        raise GraphError(f"{c} channels cannot be spread over blocks of {block} x {block}", node=g.source)
    inner = c // (block * block)
    if depth_first:
        apart = g.op("reshape", x, shape=(n, block, block, inner, h, w))
        moved = g.op("transpose", apart, perm=(0, 3, 4, 1, 5, 2))
    else:
        apart = g.op("reshape", x, shape=(n, inner, block, block, h, w))
        moved = g.op("transpose", apart, perm=(0, 1, 4, 2, 5, 3))
    return g.op("reshape", moved, shape=(n, inner, h * block, w * block))


def space_to_depth(g: GraphBuilder, x: Value, block: int) -> Value:
    """x (N, C, H, W) to (N, C block**2, H / block, W / block), channel = (row, column, c)."""
    n, c, h, w = x.type.shape
    if block < 1 or h % block or w % block:
        raise GraphError(f"{h} x {w} elements do not divide into blocks of {block}", node=g.source)
    apart = g.op("reshape", x, shape=(n, c, h // block, block, w // block, block))
    moved = g.op("transpose", apart, perm=(0, 3, 5, 1, 2, 4))
    return g.op("reshape", moved, shape=(n, c * block * block, h // block, w // block))


def space_to_batch(g: GraphBuilder, x: Value, block: Sequence[int], pads: Sequence[tuple[int, int]]) -> Value:
    """x (N, spatial ..., rest), zero-padded, to (blocks' elements times N, spatial / block ..., rest).

    Image (row, column, n) of the result holds x's n-th image from that row and column on, in steps of the block.
    """
    count, rank = len(block), x.type.rank
    around = ((0, 0), *pads, *[(0, 0)] * (rank - 1 - count))
    if len(pads) != count or len(around) != rank or any(side < 0 for pair in pads for side in pair):
        raise GraphError(f"pads {tuple(pads)} and blocks {tuple(block)} do not fit shape {x.type.shape}", node=g.source)
    low, high = zip(*around, strict=True)
    padded = g.op("pad", x, low=low, high=high)
    batch, *dims = padded.type.shape
    for size, dim in zip(block, dims, strict=False):
        if dim % size:
            raise GraphError(f"{dim} elements do not divide into blocks of {size}", node=g.source)
    split = [n for size, dim in zip(block, dims, strict=False) for n in (dim // size, size)]
    apart = g.op("reshape", padded, shape=(batch, *split, *dims[count:]))
    inner, outer = range(2, 2 * count + 1, 2), range(1, 2 * count + 1, 2)
    moved = g.op("transpose", apart, perm=(*inner, 0, *outer, *range(2 * count + 1, apart.type.rank)))
    return g.op("reshape", moved, shape=(prod(block) * batch, *split[::2], *dims[count:]))


def batch_to_space(g: GraphBuilder, x: Value, block: Sequence[int], crops: Sequence[tuple[int, int]]) -> Value:
    """What `space_to_batch` did, undone; `crops` elements go from the ends of the spatial axes."""
    count = len(block)
    batch, *dims = x.type.shape
    if len(crops) != count or count > len(dims) or batch % prod(block):
        raise GraphError(
            f"crops {tuple(crops)} and blocks {tuple(block)} do not fit shape {x.type.shape}", node=g.source
        )
    apart = g.op("reshape", x, shape=(*block, batch // prod(block), *dims))
    merged = [axis for each in range(count) for axis in (count + 1 + each, each)]
    moved = g.op("transpose", apart, perm=(count, *merged, *range(2 * count + 1, apart.type.rank)))
    spread = [dim * size for dim, size in zip(dims, block, strict=False)]
    whole = g.op("reshape", moved, shape=(batch // prod(block), *spread, *dims[count:]))
    for (low, high), dim in zip(crops, spread, strict=True):
        if low < 0 or high < 0 or low + high > dim:
            raise GraphError(f"crops {tuple(crops)} leave nothing of {spread} elements", node=g.source)
    ends = [dim - high for (_, high), dim in zip(crops, spread, strict=True)]
    return slice_axes(g, whole, [low for low, _ in crops], ends, range(1, count + 1))


def transpose_last(g: GraphBuilder, x: Value) -> Value:
    """x with its last two axes exchanged."""
    rank = x.type.rank
    return g.op("transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))


def matmul(g: GraphBuilder, a: Value, b: Value) -> Value:
    """numpy.matmul: a vector is a row on the left or a column on the right, and that axis goes again."""
    if 0 in (a.type.rank, b.type.rank):
        raise GraphError("matmul of a scalar; both operands need a dimension", node=g.source)
    left = unsqueeze(g, a, (0,)) if a.type.rank == 1 else a
    right = unsqueeze(g, b, (1,)) if b.type.rank == 1 else b
    product = g.op("matmul", left, right)
    gone = ((-2,) if a.type.rank == 1 else ()) + ((-1,) if b.type.rank == 1 else ())
    return squeeze(g, product, gone) if gone else product


def gemm(
    g: GraphBuilder,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Value:
    """alpha a b + beta c, with a (M, K) and b (K, N) after their transpositions; c broadcasts to (M, N)."""
    a = transpose_last(g, a) if transpose_a else a
    b = transpose_last(g, b) if transpose_b else b
    product = scaled(g, g.op("matmul", a, b), alpha)
    return product if c is None or beta == 0 else g.op("add", product, scaled(g, c, beta))


def flatten(g: GraphBuilder, x: Value, axis: int = 1) -> Value:
    """x as a matrix: the axes before `axis` make the rows."""
    shape = x.type.shape
    at = axis + len(shape) if axis < 0 else axis
    return g.op("reshape", x, shape=(prod(shape[:at]), prod(shape[at:])))
