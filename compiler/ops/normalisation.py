"""Composites around reductions: means, softmax, and the normalisations."""

from collections.abc import Sequence

import numpy as np

from tilewright.compiler.ir import I32, Value
from tilewright.compiler.ops.activations import power, scaled, shifted, square
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.errors import GraphError


def axis_of(axis: int, rank: int) -> int:
    """`axis` as 0..rank-1; negative ones count from the end."""
    if not -rank <= axis < rank:
        raise GraphError(f"axis {axis} is out of range for {rank} dimensions")
    return axis % rank


def axes_of(axes: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes as 0..rank-1 in order; None means all of them."""
    return tuple(range(rank)) if axes is None else tuple(sorted({axis_of(axis, rank) for axis in axes}))


def _reduce(g: GraphBuilder, op: str, x: Value, axes: Sequence[int] | None, keepdims: bool) -> Value:
    return g.op(op, x, axes=axes_of(axes, x.type.rank), keepdims=keepdims)


def reduce_sum(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """Sum over axes (None: all; negative ones count from the end)."""
    return _reduce(g, "reduce_sum", x, axes, keepdims)


def reduce_max(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """Maximum over axes."""
    return _reduce(g, "reduce_max", x, axes, keepdims)


def _reduce_bools(g: GraphBuilder, op: str, x: Value, axes: Sequence[int] | None, keepdims: bool) -> Value:
    found = _reduce(g, op, g.op("cast", x, dtype=I32), axes, keepdims)
    # Not a cast to bool: of no elements at all the extremum is the type's own limit.
    return g.op("less", g.scalar(0, found), found)


def reduce_any(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """Whether some of the bools are true; of none at all false."""
    return _reduce_bools(g, "reduce_max", x, axes, keepdims)


def reduce_all(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """Whether all of the bools are true; of none at all true."""
    return _reduce_bools(g, "reduce_min", x, axes, keepdims)


def cumulative_sum(
    g: GraphBuilder, x: Value, axis: int, exclusive: bool = False, reverse: bool = False
) -> Value:
    """Sums of all elements up to each along an axis, without itself if `exclusive`, from the end if `reverse`.

    Sums of 1, 2, 4 ... neighbours: as many additions of the whole tensor as the axis' size has bits.
    """
    axis = axis_of(axis, x.type.rank)
    size = x.type.shape[axis]

    def moved(value: Value, by: int) -> Value:
        before = tuple(by if position == axis else 0 for position in range(x.type.rank))
        after = tuple(-count for count in before)
        low, high = (after, before) if reverse else (before, after)
        return g.op("pad", value, low=low, high=high)

    total = moved(x, 1) if exclusive and size else x
    reach = 1
    while reach < size:
        total = g.op("add", total, moved(total, reach))
        reach *= 2
    return total


def mean(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """Mean over axes; of integers truncated."""
    total = reduce_sum(g, x, axes, keepdims)
    count = x.type.elements // max(total.type.elements, 1)
    return g.op("div", total, g.scalar(count, x))


def variance(
    g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False, correction: int = 0
) -> Value:
    """Mean of (x - mean)**2 over axes, dividing by the count minus `correction`."""
    centred = g.op("sub", x, mean(g, x, axes, keepdims=True))
    total = reduce_sum(g, square(g, centred), axes, keepdims)
    count = x.type.elements // max(total.type.elements, 1)
    return g.op("div", total, g.scalar(count - correction, x))


def reduce_l1(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """Sum of magnitudes over axes."""
    return reduce_sum(g, g.op("abs", x), axes, keepdims)


def reduce_sum_square(
    g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False
) -> Value:
    """Sum of squares over axes."""
    return reduce_sum(g, square(g, x), axes, keepdims)


def reduce_l2(g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False) -> Value:
    """Euclidean norm over axes."""
    return g.op("sqrt", reduce_sum_square(g, x, axes, keepdims))


def reduce_log_sum(
    g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False
) -> Value:
    """log(sum(x)) over axes."""
    return g.op("log", reduce_sum(g, x, axes, keepdims))


def reduce_log_sum_exp(
    g: GraphBuilder, x: Value, axes: Sequence[int] | None = None, keepdims: bool = False
) -> Value:
    """log(sum(exp(x))) over axes, with the maximum taken out; infinite maxima are left in."""
    axes = axes_of(axes, x.type.rank)
    largest = reduce_max(g, x, axes, keepdims=True)
    infinite = g.op("equal", g.op("abs", largest), g.scalar(float("inf"), x))
    largest = g.op("where", infinite, g.scalar(0, x), largest)
    total = reduce_sum(g, g.op("exp", g.op("sub", x, largest)), axes, keepdims=True)
    result = g.op("add", g.op("log", total), largest)
    if keepdims:
        return result
    kept = tuple(dim for axis, dim in enumerate(x.type.shape) if axis not in axes)
    return g.op("reshape", result, shape=kept)


def softmax(g: GraphBuilder, x: Value, axes: Sequence[int] = (-1,)) -> Value:
    """exp(x) / sum(exp(x)) over axes, with the maximum taken out.

    Elements are multiplied by the reciprocal of the sum, which lies between 1 and their number: one rounding more than
    a division of each, and less time.
    """
    raised = g.op("exp", g.op("sub", x, reduce_max(g, x, axes, keepdims=True)))
    return g.op("mul", raised, g.op("reciprocal", reduce_sum(g, raised, axes, keepdims=True)))


def log_softmax(g: GraphBuilder, x: Value, axes: Sequence[int] = (-1,)) -> Value:
    """log(softmax(x)) over axes, without taking the logarithm of a small number."""
    centred = g.op("sub", x, reduce_max(g, x, axes, keepdims=True))
    return g.op("sub", centred, g.op("log", reduce_sum(g, g.op("exp", centred), axes, keepdims=True)))


# ---- normalisations


def along(g: GraphBuilder, parameter: Value, rank: int, axis: int) -> Value:
    """A vector of one number a channel, shaped (1, C, 1, ...) to broadcast along `axis` of `rank` axes."""
    shape = [1] * rank
    shape[axis_of(axis, rank)] = parameter.type.elements
    return g.op("reshape", parameter, shape=tuple(shape))


def batch_norm(
    g: GraphBuilder,
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    epsilon: float = 1e-5,
    axis: int = 1,
) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias as x * factor + offset.

    The parameters have shape (C,), C being the channels along `axis`.
    Constant parameters give a constant factor and offset, computed in float64.
    """
    channels = x.type.shape[axis_of(axis, x.type.rank)]
    for name, parameter in (("scale", scale), ("bias", bias), ("mean", mean), ("variance", variance)):
        if parameter.type.shape != (channels,):
            raise GraphError(
                f"{name} has shape {parameter.type.shape}; expected ({channels},)", node=g.source
            )
    arrays = [g.constant_of(parameter) for parameter in (scale, bias, mean, variance)]
    if all(array is not None for array in arrays):
        s, b, m, v = (np.asarray(array, np.float64) for array in arrays)
        with np.errstate(all="ignore"):
            ratio = s / np.sqrt(v + epsilon)
            shift = b - m * ratio
        factor = g.constant(ratio.astype(x.type.dtype.numpy))
        offset = g.constant(shift.astype(x.type.dtype.numpy))
    else:
        factor = g.op("div", scale, g.op("sqrt", shifted(g, variance, epsilon)))
        offset = g.op("sub", bias, g.op("mul", mean, factor))
    product = g.op("mul", x, along(g, factor, x.type.rank, axis))
    return g.op("add", product, along(g, offset, x.type.rank, axis))


def normalise(
    g: GraphBuilder, x: Value, axes: Sequence[int], epsilon: float = 1e-5
) -> tuple[Value, Value, Value]:
    """(x - mean) / sqrt(variance + epsilon) over axes; also the mean and the factor, with kept dimensions."""
    centre = mean(g, x, axes, keepdims=True)
    centred = g.op("sub", x, centre)
    spread = mean(g, square(g, centred), axes, keepdims=True)
    factor = g.op("reciprocal", g.op("sqrt", shifted(g, spread, epsilon)))
    return g.op("mul", centred, factor), centre, factor


def _affine(g: GraphBuilder, x: Value, scale: Value | None, bias: Value | None) -> Value:
    x = x if scale is None else g.op("mul", x, scale)
    return x if bias is None else g.op("add", x, bias)


def layer_norm(
    g: GraphBuilder,
    x: Value,
    scale: Value | None = None,
    bias: Value | None = None,
    axes: Sequence[int] = (-1,),
    epsilon: float = 1e-5,
) -> Value:
    """Normalised over axes, then scale and bias, which broadcast."""
    normal, _, _ = normalise(g, x, axes, epsilon)
    return _affine(g, normal, scale, bias)


def rms_norm(
    g: GraphBuilder, x: Value, scale: Value | None = None, axes: Sequence[int] = (-1,), epsilon: float = 1e-5
) -> Value:
    """x / sqrt(mean(x**2) + epsilon) over axes, times scale."""
    factor = g.op("reciprocal", g.op("sqrt", shifted(g, mean(g, square(g, x), axes, keepdims=True), epsilon)))
    return _affine(g, g.op("mul", x, factor), scale, None)


def instance_norm(
    g: GraphBuilder, x: Value, scale: Value | None, bias: Value | None, epsilon: float = 1e-5
) -> Value:
    """x (N, C, *spatial) normalised over each image's channel; scale and bias (C,)."""
    rank = x.type.rank
    normal, _, _ = normalise(g, x, range(2, rank), epsilon)
    shaped = [None if p is None else along(g, p, rank, 1) for p in (scale, bias)]
    return _affine(g, normal, *shaped)


def group_norm(
    g: GraphBuilder, x: Value, groups: int, scale: Value | None, bias: Value | None, epsilon: float = 1e-5
) -> Value:
    """x (N, C, *spatial) normalised over each image's groups of channels; scale and bias (C,)."""
    batch, channels, *_ = shape = x.type.shape
    if groups < 1 or channels % groups:
        raise GraphError(f"{groups} groups do not divide {channels} channels", node=g.source)
    elements = x.type.elements // max(batch * groups, 1)
    normal, _, _ = normalise(g, g.op("reshape", x, shape=(batch, groups, elements)), (2,), epsilon)
    shaped = [None if p is None else along(g, p, x.type.rank, 1) for p in (scale, bias)]
    return _affine(g, g.op("reshape", normal, shape=shape), *shaped)


def lp_normalise(g: GraphBuilder, x: Value, axis: int = -1, p: int = 2, epsilon: float = 0.0) -> Value:
    """x / max(norm, epsilon) along an axis, p 1 or 2; zero vectors stay zero where epsilon is 0."""
    norm = (reduce_l1 if p == 1 else reduce_l2)(g, x, (axis,), keepdims=True)
    if epsilon:
        return g.op("div", x, g.op("max", norm, g.scalar(epsilon, x)))
    none = g.op("equal", norm, g.scalar(0, x))
    return g.op("div", x, g.op("where", none, g.scalar(1, x), norm))


def lrn(
    g: GraphBuilder,
    x: Value,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
) -> Value:
    """x / (bias + alpha / size * s) ** beta, s the sum of squares over the `size` channels around.

    x is (N, C, *spatial); of an even size, the longer half lies after the channel.
    """
    shape = x.type.shape
    if len(shape) == 2:
        x = g.op("reshape", x, shape=(*shape, 1))
    sums = g.op("channel_squares", x, before=(size - 1) // 2, after=size // 2)
    base = shifted(g, scaled(g, sums, alpha / size), bias)
    y = g.op("mul", x, power(g, base, g.scalar(-beta, x)))  # rounds as often as a division, and takes less time
    return g.op("reshape", y, shape=shape) if len(shape) == 2 else y
