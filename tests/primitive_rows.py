"""The table of primitives that tests sweep: at least one row each, with what PyTorch makes of the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tilewright.compiler.ir import BOOL, F32, I32, I64, U8, Layout
from tilewright.compiler.winograd import Scheme

Array = NDArray[Any]
rng = np.random.default_rng(7)


@dataclass(frozen=True)
class Row:
    """One use of a primitive: operand arrays, attributes, and what PyTorch makes of the same."""

    op: str
    operands: tuple[Array, ...]
    oracle: Callable[..., Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    source: Layout = field(default_factory=Layout)

    def __str__(self) -> str:
        shapes = "-".join("x".join(map(str, a.shape)) or "scalar" for a in self.operands)
        return f"{self.op}-{self.operands[0].dtype}-{shapes}"


def floats(*shape: int, dtype: Any = np.float32) -> Array:
    return np.asarray(rng.standard_normal(shape), dtype=dtype)


def ints(*shape: int, low: int = -9, high: int = 10, dtype: Any = np.int64) -> Array:
    return np.asarray(rng.integers(low, high, shape), dtype=dtype)


def bools(*shape: int) -> Array:
    return np.asarray(rng.integers(0, 2, shape), dtype=np.bool_)


def _unary() -> list[Row]:
    x, p = floats(3, 4), np.abs(floats(2, 3)) + np.float32(0.1)
    x[0, 0] = np.nan
    halves = np.arange(-2.5, 3, 0.5, dtype=np.float32)
    rows = [
        Row("neg", (x,), torch.neg),
        Row("neg", (ints(3),), torch.neg),
        Row("abs", (x,), torch.abs),
        Row("abs", (ints(3, dtype=np.int32),), torch.abs),
        Row("sqrt", (p,), torch.sqrt),
        Row("sign", (ints(5),), torch.sign),
        Row("relu", (x,), torch.relu),
        Row("relu", (ints(4),), torch.relu),
        Row("not", (bools(4),), torch.logical_not),
        Row("not", (ints(4),), torch.bitwise_not),
        Row("is_nan", (x,), torch.isnan),
        Row("reciprocal", (p,), torch.reciprocal),
        Row("sign", (floats(3),), torch.sign),
        Row("neg", (np.array(2.0, np.float32),), torch.neg),
    ]
    rows += [Row(op, (halves,), getattr(torch, op)) for op in ("floor", "ceil", "round")]
    for op in ("exp", "expm1", "sigmoid", "tanh", "erf", "sin", "cos"):
        rows.append(Row(op, (x,), getattr(torch, op), exact=False))
    rows += [
        Row(op, (floats(4, dtype=np.float64),), getattr(torch, op), exact=False) for op in ("exp", "erf")
    ]
    return [*rows, Row("log", (p,), torch.log, exact=False), Row("log1p", (p,), torch.log1p, exact=False)]


def _binary() -> list[Row]:
    a, b = floats(2, 1, 4), floats(3, 1)
    i, j = ints(2, 1, 4), ints(3, 1, low=1, high=5) * np.array([[1], [-1], [1]])
    a[0, 0, 0] = np.nan
    rows = []
    oracles: dict[str, Callable[..., Any]] = {
        "add": torch.add, "sub": torch.sub, "mul": torch.mul, "min": torch.minimum, "max": torch.maximum,
        "mod": torch.remainder, "rem": torch.fmod,
        "equal": torch.eq, "less": torch.lt, "less_equal": torch.le,
    }  # fmt: skip
    for op, oracle in oracles.items():
        rows += [Row(op, (a, b), oracle), Row(op, (i, j), oracle)]
    for op in ("and", "or", "xor"):
        rows.append(Row(op, (bools(3, 1), bools(4)), getattr(torch, f"logical_{op}")))
        rows.append(Row(op, (i, j), getattr(torch, f"bitwise_{op}")))
    truncated = lambda x, y: torch.div(x, y, rounding_mode="trunc")  # noqa: E731
    return [
        *rows,
        Row("equal", (bools(3), bools(3)), torch.eq),
        Row("div", (a, b), torch.div),
        Row("div", (i, j), truncated),
        Row("pow", (np.abs(a), b), torch.pow, exact=False),
        Row("pow", (i, np.abs(j)), torch.pow),
        Row("where", (bools(2, 1), floats(3), floats(2, 3)), torch.where),
        Row("where", (bools(3), ints(3), ints(3)), torch.where),
        Row("cast", (floats(3) * 3,), lambda x: x.to(torch.int32), {"dtype": I32}),
        Row("cast", (ints(3),), lambda x: x.to(torch.float32), {"dtype": F32}),
        Row("cast", (ints(5, low=-1, high=2),), lambda x: x.to(torch.bool), {"dtype": BOOL}),
        Row("cast", (bools(3),), lambda x: x.to(torch.int64), {"dtype": I64}),
        Row("cast", (ints(4, low=-300, high=300),), lambda x: x.to(torch.uint8), {"dtype": U8}),
    ]


def _padded(mode: str, x: torch.Tensor, low: tuple[int, ...], high: tuple[int, ...]) -> torch.Tensor:
    flat = [n for pair in zip(low[::-1], high[::-1], strict=True) for n in pair]
    modes = {"edge": "replicate", "wrap": "circular"}
    return F.pad(x, flat[: 2 * (x.ndim - 2)], mode=modes.get(mode, mode))


def _movement() -> list[Row]:
    x, image = floats(2, 3, 4), floats(1, 2, 5, 6)
    spread = torch.zeros(2, 3, 10)
    spread[:, :, 1:8:2] = torch.from_numpy(x)
    rows = [
        Row("reshape", (x,), lambda x: x.reshape(6, 4), {"shape": (6, 4)}),
        Row("transpose", (x,), lambda x: x.permute(2, 0, 1), {"perm": (2, 0, 1)}),
        Row("broadcast", (floats(3, 1),), lambda x: x.expand(2, 3, 4), {"shape": (2, 3, 4)}),
        Row("slice", (x,), lambda x: x[1:, ::2, 1:3].contiguous(),
            {"start": (1, 0, 1), "size": (1, 2, 2), "step": (1, 2, 1)}),
        Row("slice", (x,), lambda x: x.flip(1)[:, :, 3:].contiguous(),
            {"start": (0, 2, 3), "size": (2, 3, 1), "step": (1, -1, 1)}),
        Row("slice", (x,), lambda x: x[:, :0], {"start": (0, 0, 0), "size": (2, 0, 4), "step": (1, 1, 1)}),
        Row("concat", (x, floats(2, 1, 4), x), lambda *xs: torch.cat(xs, 1), {"axis": 1}),
        Row("pad", (x,), lambda x: F.pad(x, (1, 2, 0, 1, 3, 0), value=7.5),
            {"low": (3, 0, 1), "high": (0, 1, 2), "value": 7.5}),
        Row("pad", (x,), lambda x: F.pad(x, (-1, 2, 1, -2)), {"low": (0, 1, -1), "high": (0, -2, 2)}),
        Row("pad", (x,), lambda x: x[:, 1:, :-1], {"low": (0, -1, 0), "high": (0, 0, -1)}),
        Row("pad", (x,), lambda x: spread, {"low": (0, 0, 1), "high": (0, 0, 2), "interior": (0, 0, 1)}),
        Row("pad", (x,), lambda x: spread[:, :, 2:9],
            {"low": (0, 0, -1), "high": (0, 0, 1), "interior": (0, 0, 1)}),
    ]  # fmt: skip
    low, high = (0, 0, 2, 1), (0, 0, 1, 3)
    for mode in ("reflect", "edge", "wrap"):
        oracle = lambda x, mode=mode: _padded(mode, x, low, high)  # noqa: E731
        rows.append(Row("pad", (image,), oracle, {"low": low, "high": high, "mode": mode}))
    line = np.arange(3, dtype=np.float32)
    rows.append(Row("pad", (line,), lambda x: x[[2, 1, 0, 0, 1, 2, 2, 1]],
                    {"low": (3,), "high": (2,), "mode": "symmetric"}))  # fmt: skip
    return rows


def _gather() -> list[Row]:
    x, index = floats(3, 4, 5), ints(2, 6, low=0, high=4)
    at = ints(3, 7, 5, low=0, high=4)
    weight = floats(6, 2)
    taps = ints(6, 2, low=0, high=4)
    return [
        Row("gather", (x, index), lambda x, i: x[:, i], {"axis": 1}),
        Row("gather", (x, index - 4), lambda x, i: x[:, i + 4], {"axis": 1}),
        Row("gather", (x, np.array(2, np.int32)), lambda x, i: x[2], {"axis": 0}),
        Row("gather", (floats(4), np.array(2)), lambda x, i: x[2], {"axis": 0}),
        Row("gather", (x, np.array([9, -9])), lambda x, i: x[:, [3, 0]], {"axis": 1}),
        Row("gather_elements", (x, at), lambda x, i: x.gather(1, i), {"axis": 1}),
        Row("gather_elements", (x, at[:2, :, :3]), lambda x, i: x.gather(1, i), {"axis": 1}),
        Row("resample", (x, taps, weight), lambda x, i, w: torch.einsum("antb,nt->anb", x[:, i], w),
            {"axis": 1}, exact=False),
        Row("resample2d",
            (floats(2, 3, 4, 5), ints(6, 2, low=0, high=4), weight, ints(7, 3, low=0, high=5), floats(7, 3)),
            lambda x, i, w, j, v: torch.einsum("ncisjt,is,jt->ncij", x[:, :, i][..., j], w, v), exact=False),
    ]  # fmt: skip


def _reduction() -> list[Row]:
    x = floats(3, 4, 5)
    x[1, 1, 1] = np.nan
    i = ints(3, 4)
    rows = []
    for op in ("sum", "prod", "max", "min"):
        name = f"reduce_{op}"
        multi = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}.get(op)
        one = getattr(torch, {"max": "amax", "min": "amin"}.get(op, op))
        if multi:
            oracle = lambda x, f=multi: f(x, (0, 2), keepdim=True)  # noqa: E731
            rows.append(Row(name, (x,), oracle, {"axes": (0, 2), "keepdims": True}, exact=False))
        rows.append(Row(name, (x,), lambda x, f=one: f(x, 1), {"axes": (1,)}, exact=False))
        rows.append(Row(name, (i,), lambda x, f=one: f(x, 0), {"axes": (0,)}))
        rows.append(Row(name, (i,), lambda x: x, {"axes": ()}))
    for op in ("argmax", "argmin"):
        find = getattr(torch, op)
        rows.append(Row(op, (x,), lambda x, f=find: f(x, 1), {"axis": 1}))
        rows.append(Row(op, (i,), lambda x, f=find: f(x, 0, keepdim=True), {"axis": 0, "keepdims": True}))
    ties = np.array([[1, 5, 5, 0, 0]], np.float32)
    for axis, k, largest in ((1, 2, True), (2, 3, False), (0, 1, True)):
        order = partial(_first_sorted, axis, k, largest)
        rows += [Row("top_k", (y,), order, {"axis": axis, "k": k, "largest": largest}) for y in (x, ints(2, 3, 4))]
    rows.append(Row("top_k", (ties,), lambda x: torch.tensor([[1, 2, 0, 3]]), {"axis": 1, "k": 4}))
    rows.append(Row("top_k", (ties,), lambda x: torch.tensor([[3, 4, 0]]), {"axis": 1, "k": 3, "largest": False}))
    many = np.array([[3, 1, 3, 3, 1, 2, 3, 1]], np.float32)
    rows.append(Row("top_k", (many,), lambda x: torch.tensor([[0, 2, 3, 6, 5, 1, 4]]), {"axis": 1, "k": 7}))
    broken = np.array([[1, np.nan, 5, np.nan]], np.float32)
    rows.append(Row("top_k", (broken,), lambda x: torch.tensor([[1, 3, 2]]), {"axis": 1, "k": 3}))
    rows.append(Row("top_k", (broken,), lambda x: torch.tensor([[0, 2, 1]]), {"axis": 1, "k": 3, "largest": False}))
    rows.append(Row("argmax", (ties,), lambda x: torch.tensor([2]), {"axis": 1, "last": True}))
    rows.append(Row("argmin", (ties,), lambda x: torch.tensor([4]), {"axis": 1, "last": True}))
    return rows


def _first_sorted(axis: int, k: int, largest: bool, x: torch.Tensor) -> Any:
    return x.sort(dim=axis, descending=largest, stable=True)[1].narrow(axis, 0, k)


def _positionally(pool: Callable[..., Any], *settings_and_x: Any) -> Any:
    *settings, x = settings_and_x
    return pool(x, *settings)


def _times(factor: int, average: Callable[..., Any], x: torch.Tensor) -> Any:
    return average(x) * factor


def _windows() -> list[Row]:
    rows = []
    oracle: Callable[..., Any]
    attrs: dict[str, Any]
    for spatial in ((9,), (9, 8), (6, 7, 5)):
        n = len(spatial)
        x = floats(2, 3, *spatial)
        kernel, strides, dilations = (3, 2, 2)[:n], (2, 1, 2)[:n], (1, 2, 1)[:n]
        pads = ((1, 1), (1, 1), (0, 0))[:n]
        attrs = {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads}
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
        symmetric = tuple(low for low, _ in pads)
        oracle = partial(_positionally, pool, kernel, strides, symmetric, dilations)
        rows.append(Row("max_pool", (x,), oracle, attrs))
        average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
        attrs = attrs | {"dilations": (1,) * n}
        oracle = partial(_positionally, average, kernel, strides, symmetric)
        rows.append(Row("sum_pool", (x,), partial(_times, prod(kernel), oracle), attrs, exact=False))
    negative = -np.abs(floats(1, 1, 4, 4)) - 1
    attrs = {"kernel": (2, 2), "strides": (1, 1), "dilations": (1, 1), "pads": ((1, 0), (0, 1))}
    oracle = lambda x: F.max_pool2d(F.pad(x, (0, 1, 1, 0), value=-np.inf), 2, 1)  # noqa: E731
    rows.append(Row("max_pool", (negative,), oracle, attrs))
    for before, after in ((2, 2), (0, 1), (9, 3)):
        attrs = {"before": before, "after": after}
        oracle = partial(_added_squares, before, after)
        rows.append(Row("channel_squares", (floats(2, 7, 3, 5),), oracle, attrs, exact=False))
    return rows


def _added_squares(before: int, after: int, x: torch.Tensor) -> Any:
    planes = F.pad((x * x)[:, None].flatten(3), (0, 0, before, after))
    return F.avg_pool2d(planes, (before + after + 1, 1), 1).reshape(x.shape) * (before + after + 1)


def _contraction() -> list[Row]:
    rows = []
    for spatial in ((11,), (11, 9), (6, 7, 8)):
        n = len(spatial)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
        for groups, channels, filters in ((1, 3, 5), (2, 4, 6), (4, 4, 8)):
            for strides, dilations in (((1, 1, 1), (1, 1, 1)), ((2, 1, 3), (1, 2, 2))):
                x = floats(2, channels, *spatial, dtype=np.float64)
                w = floats(filters, channels // groups, *(3, 2, 2)[:n], dtype=np.float64)
                pads = ((1, 2), (0, 1), (2, 0))[:n]
                flat = [pad for pair in pads[::-1] for pad in pair]

                def oracle(x: Any, w: Any, f: Any = convolve, flat: Any = flat, s: Any = strides[:n],
                           d: Any = dilations[:n], g: int = groups) -> Any:  # fmt: skip
                    return f(F.pad(x, flat), w, None, s, 0, d, g)

                attrs = {"strides": strides[:n], "pads": pads, "dilations": dilations[:n], "groups": groups}
                rows.append(Row("conv", (x, w), oracle, attrs, exact=False))
    for left, right in (((3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 2)), ((1, 0), (0, 3))):
        rows.append(Row("matmul", (floats(*left), floats(*right)), torch.matmul, exact=False))
    rows.append(Row("matmul", (ints(3, 4), ints(4, 2)), torch.matmul))
    return rows


def _winograd() -> list[Row]:
    rows = []
    for tile, taps, pads in ((4, 3, ((1, 1), (1, 1))), (2, 3, ((0, 2), (1, 0))), (2, 5, ((2, 2), (2, 2)))):
        x, w = floats(2, 5, 9, 8), floats(6, 5, taps, taps)
        g = torch.tensor([[float(c) for c in row] for row in Scheme(tile, taps).filters], dtype=torch.float64)

        def transformed(w: torch.Tensor, g: torch.Tensor = g) -> torch.Tensor:
            return torch.einsum("ip,jq,ocpq->ijoc", g, g, w.double()).flatten(0, 1).float()

        def convolved(x: torch.Tensor, u: torch.Tensor, w: Any = w, pads: Any = pads) -> torch.Tensor:
            (top, bottom), (left, right) = pads
            return F.conv2d(F.pad(x, (left, right, top, bottom)), torch.from_numpy(w))

        u = transformed(torch.from_numpy(w)).contiguous().numpy()
        rows.append(Row("winograd_filter", (w,), transformed, {"tile": tile}, exact=False))
        attrs = {"tile": tile, "kernel": taps, "pads": pads}
        rows.append(Row("winograd_conv", (x, u), convolved, attrs, exact=False))
        rows.append(Row("winograd_conv", (x, w), convolved, attrs, exact=False))
    return rows


def _layout() -> list[Row]:
    x = floats(2, 5, 3, 4)
    blocked = Layout(axes=(0, 1, 2, 3), blocks=((1, 4),), pads=((0, 0), (0, 0), (1, 1), (1, 2)))

    def packed(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (1, 2, 1, 1, 0, 3))
        return padded.reshape(2, 2, 4, 5, 7).permute(0, 1, 3, 4, 2)

    physical = packed(torch.from_numpy(x)).contiguous().numpy()
    row = Layout()
    attrs = {"layout": blocked, "source": row, "shape": x.shape}
    back = {"layout": row, "source": blocked, "shape": x.shape}
    return [
        Row("relayout", (x,), packed, attrs),
        Row("relayout", (physical,), lambda p: torch.from_numpy(x), back, source=blocked),
    ]


ROWS = [row for make in (_unary, _binary, _movement, _gather, _reduction, _windows, _contraction, _winograd, _layout)
        for row in make()]  # fmt: skip
