"""Pooling and convolution composites: padding rules, averages, transposed convolution."""

from collections.abc import Sequence

import numpy as np

from tilewright.compiler.ir import Shape, Value
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.compiler.ops.normalisation import mean, reduce_max
from tilewright.compiler.ops.window import Pads
from tilewright.errors import GraphError


def same_pads(
    spatial: Shape, kernel: Shape, strides: Sequence[int], dilations: Sequence[int], upper: bool = True
) -> Pads:
    """Pads that give ceil(size / stride) windows an axis; an odd one goes after (`upper`) or before."""
    found = []
    for size, taps, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        windows = -(-size // stride)
        total = max((windows - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if upper else (more, less))
    return tuple(found)


def ceil_pads(
    spatial: Shape, kernel: Shape, strides: Sequence[int], dilations: Sequence[int], pads: Pads
) -> Pads:
    """Pads with what a last, partial window needs after each axis; none that would begin beyond the data."""
    found = []
    for axis, size in enumerate(spatial):
        low, high = pads[axis]
        room = size + low + high - ((kernel[axis] - 1) * dilations[axis] + 1)
        windows = -(-room // strides[axis]) + 1
        if (windows - 1) * strides[axis] >= size + low:
            windows -= 1
        found.append((low, high + max((windows - 1) * strides[axis] - room, 0)))
    return tuple(found)


def max_pool(
    g: GraphBuilder,
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    dilations: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Value:
    """Maximum over windows of x (N, C, *spatial); with `ceil_mode` also over a partial last one."""
    kernel, strides = tuple(kernel), tuple(strides)
    dilations = tuple(dilations or (1,) * len(kernel))
    if ceil_mode:
        pads = ceil_pads(x.type.shape[2:], kernel, strides, dilations, pads)
    return g.op("max_pool", x, kernel=kernel, strides=strides, dilations=dilations, pads=tuple(pads))


def avg_pool(
    g: GraphBuilder,
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    dilations: Sequence[int] | None = None,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Value:
    """Average over windows of x (N, C, *spatial), of x's elements alone or of the pads too.

    What `ceil_mode` adds after the pads never counts.
    """
    kernel, strides = tuple(kernel), tuple(strides)
    dilations = tuple(dilations or (1,) * len(kernel))
    spatial = x.type.shape[2:]
    given = tuple(pads)
    if ceil_mode:
        pads = ceil_pads(spatial, kernel, strides, dilations, given)
    total = g.op("sum_pool", x, kernel=kernel, strides=strides, dilations=dilations, pads=tuple(pads))
    counts = np.ones((), np.int64)
    for axis, size in enumerate(spatial):
        start = np.arange(total.type.shape[2 + axis]) * strides[axis] - pads[axis][0]
        taps = start[:, None] + np.arange(kernel[axis]) * dilations[axis]
        low, high = given[axis] if count_include_pad else (0, 0)
        inside = np.sum((taps >= -low) & (taps < size + high), axis=1)
        counts = counts[..., None] * inside
    # A window of pads alone divides 0 by 1.
    counts = np.maximum(counts, 1)
    if counts.size and np.all(counts == counts.flat[0]):
        return g.op("div", total, g.scalar(int(counts.flat[0]), x))
    return g.op("div", total, g.constant(counts[None, None], dtype=x.type.dtype.numpy))


def lp_pool(
    g: GraphBuilder,
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    dilations: Sequence[int] | None = None,
    ceil_mode: bool = False,
    p: int = 2,
) -> Value:
    """The p-norm of each window."""
    kernel, strides = tuple(kernel), tuple(strides)
    dilations = tuple(dilations or (1,) * len(kernel))
    if ceil_mode:
        pads = ceil_pads(x.type.shape[2:], kernel, strides, dilations, pads)
    raised = g.op("pow", g.op("abs", x), g.scalar(p, x)) if p not in (1, 2) else g.op("abs", x)
    raised = g.op("mul", x, x) if p == 2 else raised
    total = g.op("sum_pool", raised, kernel=kernel, strides=strides, dilations=dilations, pads=tuple(pads))
    if p == 1:
        return total
    return g.op("sqrt", total) if p == 2 else g.op("pow", total, g.scalar(1 / p, x))


def global_average_pool(g: GraphBuilder, x: Value) -> Value:
    """Mean over the spatial axes of x (N, C, *spatial), kept as dimensions of 1."""
    return mean(g, x, range(2, x.type.rank), keepdims=True)


def global_max_pool(g: GraphBuilder, x: Value) -> Value:
    """Maximum over the spatial axes of x (N, C, *spatial), kept as dimensions of 1."""
    return reduce_max(g, x, range(2, x.type.rank), keepdims=True)


def conv(
    g: GraphBuilder,
    x: Value,
    w: Value,
    bias: Value | None = None,
    *,
    strides: Sequence[int] | None = None,
    pads: Pads | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Value:
    """Convolution of x (N, C, *spatial) by w (O, C/groups, *kernel), plus bias (O,)."""
    spatial = x.type.rank - 2
    result = g.op(
        "conv", x, w, strides=tuple(strides or (1,) * spatial), pads=tuple(pads or ((0, 0),) * spatial),
        dilations=tuple(dilations or (1,) * spatial), groups=groups,
    )  # fmt: skip
    return result if bias is None else g.op("add", result, _per_channel(g, bias, spatial))


def _per_channel(g: GraphBuilder, bias: Value, spatial: int) -> Value:
    return g.op("reshape", bias, shape=(1, bias.type.elements, *[1] * spatial))


def conv_transpose_pads(
    spatial: Shape,
    kernel: Shape,
    strides: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    sizes: Sequence[int],
    upper: bool,
) -> Pads:
    """Pads of a transposed convolution whose result is to have `sizes`; an odd one goes after if `upper`."""
    found = []
    for axis, size in enumerate(spatial):
        full = strides[axis] * (size - 1) + output_padding[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = full - sizes[axis]
        less = total // 2
        found.append((less, total - less) if upper else (total - less, less))
    return tuple(found)


def conv_transpose(
    g: GraphBuilder,
    x: Value,
    w: Value,
    bias: Value | None = None,
    *,
    strides: Sequence[int] | None = None,
    pads: Pads | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
    output_padding: Sequence[int] | None = None,
) -> Value:
    """The transpose of a convolution: x (N, C, *spatial), w (C, O/groups, *kernel), bias (O,).

    It is a convolution by the flipped filters of x with strides - 1 zeros between elements. An axis of the
    result has strides * (size - 1) + (kernel - 1) * dilation + 1 - sum(pads) + output_padding elements.
    """
    spatial, kernel = x.type.rank - 2, w.type.shape[2:]
    strides = tuple(strides or (1,) * spatial)
    dilations = tuple(dilations or (1,) * spatial)
    pads = tuple(pads or ((0, 0),) * spatial)
    extra = tuple(output_padding or (0,) * spatial)
    channels, filters = w.type.shape[:2]
    if x.type.shape[1] != channels or channels % groups:
        raise GraphError(
            f"the filters have shape {w.type.shape} and {groups} groups; x has {x.type.shape[1]} channels",
            node=g.source,
        )
    reach = [(taps - 1) * dilation for taps, dilation in zip(kernel, dilations, strict=True)]
    around = tuple((r - low, r - high + e) for r, (low, high), e in zip(reach, pads, extra, strict=True))
    inner = tuple(stride - 1 for stride in strides)
    if any(inner) or any(pad < 0 for pair in around for pad in pair):
        low, high = zip(*around, strict=True)
        x = g.op("pad", x, low=(0, 0, *low), high=(0, 0, *high), interior=(0, 0, *inner))
        around = ((0, 0),) * spatial
    flipped = flip(g, w, range(2, w.type.rank))
    grouped = g.op("reshape", flipped, shape=(groups, channels // groups, filters, *kernel))
    swapped = g.op("transpose", grouped, perm=(0, 2, 1, *range(3, 3 + spatial)))
    turned = g.op("reshape", swapped, shape=(groups * filters, channels // groups, *kernel))
    return conv(g, x, turned, bias, pads=around, dilations=dilations, groups=groups)


def flip(g: GraphBuilder, x: Value, axes: Sequence[int]) -> Value:
    """x with the elements of each of `axes` in reverse order."""
    turned = {axis % x.type.rank for axis in axes}
    shape = x.type.shape
    return g.op(
        "slice", x, size=shape,
        start=tuple(max(dim - 1, 0) if axis in turned else 0 for axis, dim in enumerate(shape)),
        step=tuple(-1 if axis in turned else 1 for axis in range(len(shape))),
    )  # fmt: skip
