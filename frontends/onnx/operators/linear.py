"""Convolutions, matrix products and pooling: weighted sums, and windows."""

from dataclasses import dataclass

from tilewright.compiler.ir import Shape, Value
from tilewright.compiler.ops import composites
from tilewright.errors import GraphError, UnsupportedError
from tilewright.frontends.onnx.operators.table import Call, operator

Pads = tuple[tuple[int, int], ...]


# ---- windows


def _per_axis(call: Call, name: str, count: int) -> tuple[int, ...]:
    """A list of one positive number a spatial axis, by default ones."""
    values = call.wholes(name) or (1,) * count
    if len(values) != count:
        raise GraphError(f"attribute '{name}' is {values}; the operand has {count} spatial axes")
    if any(value < 1 for value in values):
        raise GraphError(f"attribute '{name}' is {values}; it counts from 1")
    return values


def _spatial(x: Value) -> Shape:
    if x.type.rank < 3:
        raise GraphError(f"operand 0 has shape {x.type.shape}; it takes (batch, channels, spatial axes ...)")
    return x.type.shape[2:]


def _declared_pads(call: Call, count: int) -> Pads:
    """The attribute: all the beginnings, then all the ends."""
    pads = call.wholes("pads") or (0,) * (2 * count)
    if len(pads) != 2 * count:
        raise GraphError(f"attribute 'pads' is {pads}; {count} spatial axes take {2 * count}")
    return tuple(zip(pads[:count], pads[count:], strict=True))


def _pads(call: Call, size: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> Pads:
    """Pads of a convolution or pooling, declared or as `auto_pad` says."""
    mode = call.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return _declared_pads(call, len(size))
    if mode == "VALID":
        return ((0, 0),) * len(size)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise GraphError(
            f"attribute 'auto_pad' is '{mode}'; it can be NOTSET, VALID, SAME_UPPER or SAME_LOWER"
        )
    return composites.same_pads(size, kernel, strides, dilations, upper=mode == "SAME_UPPER")


def _cropped(call: Call, x: Value, pads: Pads) -> tuple[Value, Pads]:
    """Negative pads drop elements; the window primitives take none."""
    if all(side >= 0 for pair in pads for side in pair):
        return x, pads
    low = (0, 0, *(min(before, 0) for before, _ in pads))
    high = (0, 0, *(min(after, 0) for _, after in pads))
    kept = tuple((max(before, 0), max(after, 0)) for before, after in pads)
    return call.g.op("pad", x, low=low, high=high), kept


# ---- convolutions


def _kernel(call: Call, w: Value, count: int) -> Shape:
    """The weights' spatial shape, which the attribute may repeat."""
    if w.type.rank != count + 2:
        raise GraphError(f"weights of shape {w.type.shape} do not fit an operand with {count} spatial axes")
    kernel = w.type.shape[2:]
    declared = call.wholes("kernel_shape")
    if declared is not None and declared != kernel:
        raise GraphError(f"attribute 'kernel_shape' is {declared}, but the weights have shape {w.type.shape}")
    return kernel


def _with_bias(call: Call, y: Value, index: int) -> Value:
    bias = call.optional(index)
    if bias is None:
        return y
    if bias.type.shape != (y.type.shape[1],):
        raise GraphError(
            f"the bias has shape {bias.type.shape}; {y.type.shape[1]} filters take as many elements"
        )
    shape = (1, y.type.shape[1], *[1] * (y.type.rank - 2))
    return call.g.op("add", y, call.g.op("reshape", bias, shape=shape))


@operator("Conv", since=1)
def conv(call: Call) -> Value:
    x, w = call.operand(0), call.operand(1)
    size = _spatial(x)
    kernel = _kernel(call, w, len(size))
    strides, dilations = _per_axis(call, "strides", len(size)), _per_axis(call, "dilations", len(size))
    x, pads = _cropped(call, x, _pads(call, size, kernel, strides, dilations))
    groups = call.whole("group", 1)
    y = call.g.op("conv", x, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    return _with_bias(call, y, 2)


@operator("ConvTranspose", since=1)
def conv_transpose(call: Call) -> Value:
    """Its result has (size - 1) * stride + reach + output_padding - pads elements an axis.

    Given `output_shape`, or SAME (size * stride), the pads follow; the odd one goes to the end for
    SAME_UPPER.
    """
    x, w = call.operand(0), call.operand(1)
    size = _spatial(x)
    count = len(size)
    kernel = _kernel(call, w, count)
    strides, dilations = _per_axis(call, "strides", count), _per_axis(call, "dilations", count)
    extra = call.wholes("output_padding") or (0,) * count
    if len(extra) != count or any(elements < 0 for elements in extra):
        raise GraphError(f"attribute 'output_padding' is {extra}; the operand has {count} spatial axes")
    mode = call.text("auto_pad", "NOTSET")
    wanted = call.wholes("output_shape")
    if wanted is not None:
        wanted = wanted[-count:]  # some exporters give all dimensions
        if len(wanted) != count or any(dim < 0 for dim in wanted):
            raise GraphError(f"attribute 'output_shape' is {wanted}; the operand has {count} spatial axes")
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(dim * stride for dim, stride in zip(size, strides, strict=True))
    if wanted is None:
        pads = ((0, 0),) * count if mode == "VALID" else _declared_pads(call, count)
    else:
        upper = mode == "SAME_UPPER"
        pads = composites.conv_transpose_pads(size, kernel, strides, dilations, extra, wanted, upper)
    y = composites.conv_transpose(
        call.g, x, w, strides=strides, pads=pads, dilations=dilations, groups=call.whole("group", 1),
        output_padding=extra,
    )  # fmt: skip
    return _with_bias(call, y, 2)


# ---- matrix products


@operator("MatMul", since=1)
def matmul(call: Call) -> Value:
    return composites.matmul(call.g, call.operand(0), call.operand(1))


@operator("Gemm", since=7)
def gemm(call: Call) -> Value:
    a, b = call.operand(0), call.operand(1)
    for index, matrix in enumerate((a, b)):
        if matrix.type.rank != 2:
            raise GraphError(f"operand {index} has shape {matrix.type.shape}; it takes matrices")
    return composites.gemm(
        call.g, a, b, call.optional(2),
        alpha=call.number("alpha", 1.0), beta=call.number("beta", 1.0),
        transpose_a=bool(call.whole("transA", 0)), transpose_b=bool(call.whole("transB", 0)),
    )  # fmt: skip


# ---- pooling


@dataclass(frozen=True)
class Pooling:
    """What the pooling operators share; negative pads are applied to `x` already."""

    x: Value
    kernel: Shape
    strides: Shape
    pads: Pads
    dilations: Shape
    ceil_mode: bool


def _pooling(call: Call) -> Pooling:
    x = call.operand(0)
    size = _spatial(x)
    kernel = call.wholes("kernel_shape") or ()
    if len(kernel) != len(size) or any(dim < 1 for dim in kernel):
        raise GraphError(f"attribute 'kernel_shape' is {kernel}; the operand has {len(size)} spatial axes")
    strides, dilations = _per_axis(call, "strides", len(size)), _per_axis(call, "dilations", len(size))
    x, pads = _cropped(call, x, _pads(call, size, kernel, strides, dilations))
    return Pooling(x, kernel, strides, pads, dilations, bool(call.whole("ceil_mode", 0)))


@operator("MaxPool", since=1)
def max_pool(call: Call) -> Value:
    if call.results > 1:
        raise UnsupportedError("its second result, the indices of the maxima, is not supported")
    p = _pooling(call)
    return composites.max_pool(call.g, p.x, p.kernel, p.strides, p.pads, p.dilations, p.ceil_mode)


@operator("AveragePool", since=7)
def average_pool(call: Call) -> Value:
    p, included = _pooling(call), bool(call.whole("count_include_pad", 0))
    return composites.avg_pool(call.g, p.x, p.kernel, p.strides, p.pads, p.dilations, p.ceil_mode, included)


def _norm(call: Call) -> int:
    p = call.whole("p", 2)
    if p < 1:
        raise GraphError(f"attribute 'p' is {p}; it counts from 1")
    return p


@operator("LpPool", since=2)
def lp_pool(call: Call) -> Value:
    p = _pooling(call)
    return composites.lp_pool(call.g, p.x, p.kernel, p.strides, p.pads, p.dilations, p.ceil_mode, _norm(call))


@operator("GlobalAveragePool", since=1)
def global_average_pool(call: Call) -> Value:
    x = call.operand(0)
    _spatial(x)
    return composites.global_average_pool(call.g, x)


@operator("GlobalMaxPool", since=1)
def global_max_pool(call: Call) -> Value:
    x = call.operand(0)
    _spatial(x)
    return composites.global_max_pool(call.g, x)


@operator("GlobalLpPool", since=2)
def global_lp_pool(call: Call) -> Value:
    """One window as large as the map."""
    x = call.operand(0)
    ones, pads = (1,) * len(_spatial(x)), ((0, 0),) * len(_spatial(x))
    return composites.lp_pool(call.g, x, _spatial(x), ones, pads, p=_norm(call))
