"""Convolution by Winograd's minimal filtering, in two primitives.

winograd_filter{tile}                  w (O, C, r, r) -> u (n * n, O, C), where n = tile + r - 1
winograd_conv{tile, kernel, pads}      x (N, C, H, W), u (n * n, O, C) as above -> y (N, O, H', W')
                                       or raw filters (O, C, r, r), which its kernel transforms

Together they are a `conv` with stride 1, no dilation and one group. The filter's transform is computed in double
precision and rounded once; filters that are constants are transformed at compile time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.compiler.ir import F32, Attrs, TensorType
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ops.checks import check_count, check_same_dtype
from tilewright.compiler.ops.registry import primitive
from tilewright.compiler.ops.window import Pads, window_shape
from tilewright.compiler.winograd import Matrix, Scheme
from tilewright.errors import GraphError

_BAND = 1 << 20
"""Filter elements transformed at a time, which bounds the double-precision copy."""


@dataclass(frozen=True)
class WinogradFilter(Attrs):
    """For output tiles of `tile` x `tile`."""

    tile: int


@dataclass(frozen=True)
class WinogradConv(Attrs):
    """Output tiles of `tile` x `tile`, filters of `kernel` x `kernel`, (before, after) zeros by spatial axis."""

    tile: int
    kernel: int
    pads: Pads


def _scheme(tile: int, kernel: int) -> Scheme:
    try:
        return Scheme(tile, kernel)
    except ValueError as error:
        raise GraphError(str(error)) from None


def _check_f32(type: TensorType, position: int) -> None:
    if type.dtype != F32:
        raise GraphError(f"operand {position} holds {type.dtype}; expected {F32}")


def _doubles(matrix: Matrix) -> NDArray[np.float64]:
    return np.array([[float(x) for x in row] for row in matrix])


def _infer_filter(attrs: WinogradFilter, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 1)
    (w,) = types
    if w.rank != 4 or w.shape[2] != w.shape[3]:
        raise GraphError(f"operand 0 has shape {w.shape}; expected square filters (O, C, r, r)")
    _check_f32(w, 0)
    window = _scheme(attrs.tile, w.shape[2]).window
    return (TensorType(w.dtype, (window * window, *w.shape[:2])),)


def _reference_filter(attrs: WinogradFilter, w: Array) -> tuple[Array]:
    outputs, channels, kernel = w.shape[:3]
    g = _doubles(_scheme(attrs.tile, kernel).filters)
    both = np.kron(g, g)
    u = np.empty((len(both), outputs, channels), w.dtype)
    band = max(_BAND // max(channels * kernel * kernel, 1), 1)
    for first in range(0, outputs, band):
        rows = w[first : first + band].reshape(-1, kernel * kernel).astype(np.float64)
        u[:, first : first + band] = (both @ rows.T).reshape(len(both), -1, channels)
    return (u,)


primitive(
    "winograd_filter", family="contraction", attrs=WinogradFilter, infer=_infer_filter, reference=_reference_filter
)


def _infer_conv(attrs: WinogradConv, *types: TensorType) -> tuple[TensorType, ...]:
    check_count(types, 2)
    x, u = types
    if x.rank != 4:
        raise GraphError(f"operand 0 has shape {x.shape}; expected 4 dimensions (N, C, H, W)")
    _check_f32(x, 0)
    check_same_dtype(types)
    products, kernel = _scheme(attrs.tile, attrs.kernel).window ** 2, attrs.kernel
    outputs = u.shape[0 if u.rank == 4 else 1] if u.rank > 1 else 0
    if u.shape not in ((products, outputs, x.shape[1]), (outputs, x.shape[1], kernel, kernel)):
        raise GraphError(
            f"operand 1 has shape {u.shape}; expected ({products}, filters, {x.shape[1]}) or "
            f"(filters, {x.shape[1]}, {kernel}, {kernel})"
        )
    windows = window_shape(x.shape[2:], (kernel, kernel), (1, 1), (1, 1), attrs.pads)
    return (TensorType(x.dtype, (x.shape[0], outputs, *windows)),)


def _reference_conv(attrs: WinogradConv, x: Array, u: Array) -> tuple[Array]:
    """Tiles as they overlap, both transforms and the products in double precision."""
    if u.ndim == 4:
        (u,) = _reference_filter(WinogradFilter(attrs.tile), u)
    scheme = _scheme(attrs.tile, attrs.kernel)
    m, n = scheme.tile, scheme.window
    a, b = _doubles(scheme.outputs), _doubles(scheme.inputs)
    height, width = window_shape(x.shape[2:], (attrs.kernel,) * 2, (1, 1), (1, 1), attrs.pads)
    tiles = -(-height // m), -(-width // m)
    padded = np.zeros((*x.shape[:2], *(count * m + n - m for count in tiles)))
    (top, _), (left, _) = attrs.pads
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (n, n), axis=(2, 3))[:, :, ::m, ::m]
    v = np.einsum("ip,jq,ncyxpq->ijncyx", b, b, windows, optimize=True)
    products = np.einsum("koc,kncyx->knoyx", u.astype(np.float64), v.reshape(n * n, *v.shape[2:]), optimize=True)
    spread = products.reshape(n, n, *products.shape[1:])
    y = np.einsum("pi,qj,ijnoyx->noypxq", a, a, spread, optimize=True)
    y = y.reshape(*y.shape[:2], tiles[0] * m, tiles[1] * m)[:, :, :height, :width]
    return (np.ascontiguousarray(y, x.dtype),)


primitive("winograd_conv", family="contraction", attrs=WinogradConv, infer=_infer_conv, reference=_reference_conv)
