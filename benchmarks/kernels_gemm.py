"""How fast are the matrix and planar kernels beside PyTorch on one thread?

    python benchmarks/kernels_gemm.py [--filter gemv] [--seconds 0.3]

The contenders take turns; the table shows each one's least and median processor time (on a shared machine
compare the least), the ratio of the least (above 1: faster than torch), and GFLOP/s or GB/s. Packing constant
operands is not counted, on either side.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from tilewright.compiler import targets
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.ir.types import F32, Layout, Shape, TensorType
from tilewright.compiler.kernels import conv_planar, gemm, gemv, pool_planar
from tilewright.compiler.kernels.kernel import Kernel, StoreResult, View
from tilewright.runtime.jit import Engine

Call = Callable[[], object]

GEMM = (
    (126, 768, 768), (126, 768, 3072), (126, 3072, 768), (126, 1024, 4096), (504, 1024, 1024),
    (8, 1024, 4096), (4, 512, 512), (32, 512, 1000), (197, 64, 197), (1000, 100, 10), (2048, 2048, 2048),
)  # fmt: skip
GEMV = ((25088, 4096), (4096, 4096), (4096, 1000), (512, 1000), (128, 10), (4096, 1))


@dataclass(frozen=True)
class Conv:
    """A convolution of one image, the same along every spatial axis."""

    channels: int
    filters: int
    spatial: Shape
    kernel: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        size = "x".join(map(str, self.spatial))
        return f"{self.channels}-{self.filters}@{size} k{self.kernel} s{self.stride} g{self.groups}"


CONVS = (
    Conv(64, 64, (16000,), 3), Conv(1, 32, (16000,), 25, 4), Conv(256, 256, (100,), 5),
    Conv(64, 64, (56, 56), 3, 1, 8), Conv(256, 256, (14, 14), 3, 1, 32), Conv(240, 240, (28, 28), 1, 1, 3),
    Conv(96, 96, (56, 56), 7, 1, 96), Conv(512, 512, (7, 7), 3), Conv(512, 512, (3, 3), 3),
    Conv(3, 64, (16, 56, 56), 3), Conv(32, 32, (8, 28, 28), 3), Conv(64, 64, (4, 14, 14), 3, 2),
)  # fmt: skip
POOLS: tuple[tuple[pool_planar.Mode, int, Shape, int, int], ...] = (
    ("max", 64, (112, 112), 3, 2), ("max", 64, (224, 224), 2, 2), ("sum", 192, (28, 28), 3, 1),
    ("sum", 2048, (7, 7), 7, 7), ("max", 32, (16, 56, 56), 3, 2),
)  # fmt: skip


def aligned(shape: Shape) -> np.ndarray:
    """Random numbers on a 64-byte boundary."""
    count = int(np.prod(shape))
    raw = np.empty(count * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + 4 * count].view(np.float32).reshape(shape)
    array[...] = np.random.default_rng(0).standard_normal(shape, np.float32)
    return array


def relaid(array: np.ndarray, layout: Layout) -> np.ndarray:
    """A copy of the array in another layout."""
    rank = array.ndim
    blocks = [layout.block(axis) for axis in range(rank)]
    pads = [layout.pad(axis) for axis in range(rank)]
    array = np.pad(array, [(before, after + -size % block) for size, block, (before, after)
                           in zip(array.shape, blocks, pads, strict=True)])  # fmt: skip
    parted = array.reshape(
        [n for size, block in zip(array.shape, blocks, strict=True) for n in (size // block, block)]
    )
    order = [2 * axis for axis in layout.order(rank)] + [2 * axis + 1 for axis, _ in layout.blocks]
    order += [dim for dim in range(2 * rank) if dim not in order]
    found = aligned((array.size,))
    found[...] = parted.transpose(order).ravel()
    return found


def caller(kernel: Kernel, operands: list[np.ndarray], result: np.ndarray) -> Call:
    """The kernel as a call over all its items."""
    engine = Engine(compile_module(emit_module([kernel.function], linkage=""), targets.host()))
    buffers = [*operands, result]
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(buffers), ctypes.c_int64, ctypes.c_int64)(
        engine.address(kernel.function.name)
    )
    arguments = [array.ctypes.data for array in buffers]
    function.keep = (engine, buffers)  # type: ignore[attr-defined]  # what the addresses point into
    return lambda: function(*arguments, 0, kernel.items)


def typed(array: np.ndarray, layout: Layout | None = None) -> TensorType:
    """The tensor type of an f32 array."""
    return TensorType(F32, array.shape, layout or Layout())


def products() -> Iterator[tuple[str, str, float, Call, Call]]:
    """Matrix products: (name, unit, amount of work, ours, torch's), checked."""
    for m, k, n in (*GEMM, *((1, k, n) for k, n in GEMV)):
        a, w, y = aligned((m, k)), aligned((k, n)), aligned((m, n))
        w *= 0.03
        plan = gemv.plan(typed(a), typed(w), target=targets.host()) or gemm.plan(
            typed(a), typed(w), target=targets.host()
        )
        assert plan is not None
        rows, layout = plan.operand_layouts
        store = StoreResult(View.of(typed(y)))
        build = gemv.build if isinstance(plan, gemv.GemvPlan) else gemm.build
        kernel = build("kernel", plan, typed(a, rows), typed(w, layout), typed(y), store)  # type: ignore[arg-type]
        padded = relaid(a, rows)
        product = caller(kernel, [padded, relaid(w, layout)], y)

        def padding(a: np.ndarray = a, padded: np.ndarray = padded, product: Call = product) -> None:
            """What the plan asks for at run time is counted: a copy of `a` with padded rows."""
            padded.reshape(a.shape[0], -1)[:, : a.shape[1]] = a
            product()

        ours = product if rows.is_row_major else padding
        x, weight = torch.from_numpy(a), torch.from_numpy(np.ascontiguousarray(w.T))
        ours()
        exact = a.astype(np.float64) @ w.astype(np.float64)
        error = np.sqrt(np.mean((y - exact) ** 2))
        theirs = np.sqrt(np.mean((functional.linear(x, weight).numpy() - exact) ** 2))
        name = f"{plan.template} {m}x{k}x{n}"
        work, unit = (2 * m * k * n, "GFLOP/s") if m > 3 else (4 * k * n, "GB/s")
        note = f"error {error / max(theirs, 1e-30):.2f} of torch's"
        yield f"{name:24} {note}", unit, work, ours, lambda x=x, weight=weight: functional.linear(x, weight)


def convolutions() -> Iterator[tuple[str, str, float, Call, Call]]:
    """Planar convolutions, as `products`."""
    for case in CONVS:
        rank = len(case.spatial)
        x = aligned((1, case.channels, *case.spatial))
        w = aligned((case.filters, case.channels // case.groups, *(case.kernel,) * rank))
        strides, ones, pad = (case.stride,) * rank, (1,) * rank, case.kernel // 2
        plan = conv_planar.plan(
            typed(x), typed(w), strides=strides, pads=((pad, pad),) * rank, dilations=ones,
            groups=case.groups, target=targets.host(),
        )  # fmt: skip
        assert plan is not None
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
        tensors = torch.from_numpy(x), torch.from_numpy(w), None, strides, pad, ones, case.groups
        expected = convolve(*tensors).numpy()
        y = aligned(expected.shape)
        layout = plan.operand_layouts[0]
        kernel = conv_planar.build(
            "kernel", plan, typed(x, layout), typed(w), typed(y), StoreResult(View.of(typed(y)))
        )
        ours = caller(kernel, [relaid(x, layout), w], y)
        ours()
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
        yield f"conv {case}", "GFLOP/s", kernel.flops, ours, lambda c=convolve, t=tensors: c(*t)


def pools() -> Iterator[tuple[str, str, float, Call, Call]]:
    """Planar pooling, as `products`."""
    for kind, channels, spatial, size, stride in POOLS:
        rank = len(spatial)
        x = aligned((1, channels, *spatial))
        pad = 1 if size == 3 else 0
        of_max = (functional.max_pool2d, functional.max_pool3d)[rank - 2]
        source = torch.from_numpy(x)

        def pooled(
            kind: str = kind,
            of_max: Callable[..., torch.Tensor] = of_max,
            source: torch.Tensor = source,
            how: tuple[int, int, int] = (size, stride, pad),
        ) -> torch.Tensor:
            if kind == "max":
                return of_max(source, *how)
            return functional.avg_pool2d(source, *how, divisor_override=1)

        expected = pooled().numpy()
        y = aligned(expected.shape)
        plan = pool_planar.plan(
            typed(x), typed(y), mode=kind, kernel=(size,) * rank, strides=(stride,) * rank,
            dilations=(1,) * rank, pads=((pad, pad),) * rank, target=targets.host(),
        )  # fmt: skip
        assert plan is not None
        kernel = pool_planar.build("kernel", plan, typed(x), typed(y), StoreResult(View.of(typed(y))))
        ours = caller(kernel, [x], y)
        ours()
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
        shape = "x".join(map(str, spatial))
        yield f"{kind}_pool {channels}@{shape} k{size} s{stride}", "GB/s", x.nbytes + y.nbytes, ours, pooled


def times(calls: list[Call], seconds: float) -> list[list[float]]:
    """Seconds of processor time a call, by contender: turns of at least 0.1 ms, for `seconds`."""
    found: list[list[float]] = [[] for _ in calls]
    repeats = []
    for call in calls:
        begin = time.perf_counter()
        call()
        repeats.append(max(int(1e-4 / max(time.perf_counter() - begin, 1e-7)), 1))
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(found[0]) < 5:
        for call, repeat, taken in zip(calls, repeats, found, strict=True):
            begin = time.thread_time_ns()
            for _ in range(repeat):
                call()
            taken.append((time.thread_time_ns() - begin) / repeat / 1e9)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'case':50} {'ours ms: min':>12} {'median':>8} {'torch: min':>10} {'median':>8} {'ratio':>6}")
    with torch.inference_mode():
        for cases in (products, convolutions, pools):
            for name, unit, work, ours, theirs in cases():
                if options.filter not in name:
                    continue
                (a, b) = times([ours, theirs], options.seconds)
                row = [1e3 * value for taken in (a, b) for value in (min(taken), statistics.median(taken))]
                ratio = min(b) / min(a)
                speed = work / min(a) / 1e9
                figures = f"{row[0]:12.4f} {row[1]:8.4f} {row[2]:10.4f} {row[3]:8.4f} {ratio:6.2f}"
                print(f"{name:50} {figures} {speed:6.1f} {unit}", flush=True)


if __name__ == "__main__":
    main()
