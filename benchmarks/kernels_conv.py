"""How fast are the convolution and pooling kernels, layer by layer, beside PyTorch on one thread?

    python benchmarks/kernels_conv.py [--filter vgg] [--seconds 0.5] [--csv]

For each layer the contenders take turns; the table shows the least processor time of each, the ratio (above
1: faster than torch in the better of its two memory formats), and which part of the machine's peak is
reached, measured in the same turns by a loop of multiply-adds on registers. For 3x3 convolutions with stride 1
it then shows Winograd's tile, times and ratio; its filters are transformed beforehand.
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tilewright.compiler import targets
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.ir.types import F32, Layout, TensorType
from tilewright.compiler.kernels import conv_direct, conv_tiles, conv_winograd, depthwise, pool
from tilewright.compiler.kernels.kernel import Kernel, KernelPlan, StoreResult, View
from tilewright.compiler.loops import Builder, Operand
from tilewright.compiler.loops.nodes import F32 as LOOP_F32
from tilewright.compiler.loops.nodes import Buffer, Function
from tilewright.runtime.jit import Engine

Call = Callable[[], object]


@dataclass(frozen=True)
class Layer:
    """A convolution from c to o channels on size x size, or pooling ("max", "sum": o = c)."""

    name: str
    c: int
    o: int
    size: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    kind: str = "conv"
    planar: bool = False

    @property
    def pad(self) -> int:
        """Zeros on each side."""
        return self.kernel // 2 if self.kind == "conv" or self.kernel % 2 else 0


LAYERS = (
    Layer("vgg first", 3, 64, 224, planar=True),
    *(Layer(f"vgg {c}-{o}@{s}", c, o, s) for c, o, s in (
        (64, 64, 224), (64, 128, 112), (128, 128, 112), (256, 256, 56), (512, 512, 28), (512, 512, 14))),
    Layer("resnet first 7x7s2", 3, 64, 224, 7, 2, planar=True),
    *(Layer(f"resnet 1x1 {c}-{o}@{s}", c, o, s, 1) for c, o, s in (
        (64, 64, 56), (64, 256, 56), (256, 64, 56), (128, 512, 28), (512, 128, 28), (256, 1024, 14),
        (1024, 256, 14), (512, 2048, 7), (2048, 512, 7))),
    *(Layer(f"resnet 1x1s2 {c}-{o}@{s}", c, o, s, 1, 2) for c, o, s in ((256, 512, 56), (1024, 2048, 14))),
    *(Layer(f"resnet 3x3 {c}-{c}@{s}", c, c, s) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7))),
    Layer("resnet 3x3s2 512-512@14", 512, 512, 14, 3, 2),
    Layer("mobilenet first 3x3s2", 3, 32, 224, 3, 2, planar=True),
    *(Layer(f"mobilenet 1x1 {c}-{o}@{s}", c, o, s, 1) for c, o, s in (
        (32, 16, 112), (16, 96, 112), (96, 24, 56), (24, 144, 56), (192, 32, 28), (64, 384, 14),
        (576, 96, 14), (160, 960, 7), (960, 160, 7), (320, 1280, 7))),
    *(Layer(f"mobilenet dw {c}@{s}s{st}", c, c, s, 3, st, c) for c, s, st in (
        (32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (960, 7, 1))),
    Layer("resnext 3x3 g32 128@56", 512, 512, 14, 3, 1, 32),
    Layer("max 2x2s2 64@224", 64, 64, 224, 2, 2, kind="max"),
    Layer("max 2x2s2 512@28", 512, 512, 28, 2, 2, kind="max"),
    Layer("max 3x3s2 64@112", 64, 64, 112, 3, 2, kind="max"),
    Layer("sum 3x3 192@28", 192, 192, 28, 3, 1, kind="sum"),
    Layer("sum 7x7 2048@7 (global)", 2048, 2048, 7, 7, 7, kind="sum"),
)  # fmt: skip


def aligned(elements: int) -> np.ndarray:
    """Random numbers on a 64-byte boundary."""
    raw = np.empty(elements + 16, np.float32)
    start = -raw.ctypes.data // 4 % 16
    array = raw[start : start + elements]
    array[:] = np.random.default_rng(0).standard_normal(elements, np.float32)
    return array


def call_of(function: Function, arrays: list[np.ndarray], *numbers: int) -> tuple[Call, float]:
    """A call without arguments of the function's machine code, and the seconds its compilation took."""
    start = time.perf_counter()
    engine = Engine(compile_module(emit_module([function], linkage=""), targets.host()))
    seconds = time.perf_counter() - start
    kinds = [ctypes.c_void_p if isinstance(p, Buffer) else ctypes.c_int64 for p in function.params]
    code = ctypes.CFUNCTYPE(None, *kinds)(engine.address(function.name))
    values = [*(array.ctypes.data for array in arrays), *numbers]
    return lambda keep=(engine, arrays): code(*values), seconds


def peak() -> tuple[Call, int]:
    """A loop of independent multiply-adds on registers, and its FLOPs."""
    target = targets.host()
    lanes, chains, rounds = target.lanes(32), target.registers - 4, 100_000
    b = Builder("peak")
    out = b.output("out", LOOP_F32, lanes)
    factor = b.splat(b.scalar("factor", LOOP_F32), lanes)
    end = b.scalar("end")

    def step(_: object, sums: list[Operand]) -> list[Operand]:
        return [b.fma(factor, value, value) for value in sums]

    sums = b.for_(0, end, step, carried=[factor] * chains)
    total = sums[0]
    for value in sums[1:]:
        total = b.add(total, value)
    b.store(out, 0, total)
    function = b.finish()
    engine = Engine(compile_module(emit_module([function], linkage=""), target))
    code = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_float, ctypes.c_int64)(engine.address("peak"))
    array = aligned(lanes)
    return lambda keep=engine: code(array.ctypes.data, 0.0, rounds), 2 * lanes * chains * rounds


def ours(layer: Layer) -> tuple[KernelPlan, Kernel, list[np.ndarray]]:
    """The layer's kernel and its arrays."""
    target = targets.host()
    x = TensorType(F32, (1, layer.c, layer.size, layer.size))
    w = TensorType(F32, (layer.o, layer.c // layer.groups, layer.kernel, layer.kernel))
    out = conv_tiles.output_size(layer.size, layer.kernel, layer.stride, (layer.pad, layer.pad), 1)
    result = TensorType(F32, (1, layer.o, out, out))
    window: dict[str, Any] = {
        "strides": (layer.stride,) * 2,
        "pads": ((layer.pad,) * 2,) * 2,
        "dilations": (1, 1),
        "target": target,
    }
    plan: KernelPlan | None
    if layer.kind != "conv":
        plan = pool.plan(
            x, result, mode="max" if layer.kind == "max" else "sum", kernel=(layer.kernel,) * 2, **window
        )
    elif layer.groups == layer.c:
        plan = depthwise.plan(x, w, groups=layer.groups, **window)
    else:
        plan = conv_direct.plan(x, w, groups=layer.groups, x_is_blocked_source=not layer.planar, **window)
    assert plan is not None, layer
    x = x.with_layout(plan.operand_layouts[0])
    # As in a network: the next convolution reads the result with a border of zeros.
    lanes = target.lanes(32)
    result = result.with_layout(Layout(blocks=((1, lanes),), pads=((0, 0), (0, 0), (1, 1), (1, 1))))
    epilogue = StoreResult(View.of(result))
    types = [x, result]
    if isinstance(plan, pool.Plan):
        kernel = pool.build("kernel", plan, x, result, epilogue)
    else:
        w = w.with_layout(plan.operand_layouts[1])
        types.insert(1, w)
        module = depthwise if isinstance(plan, depthwise.Plan) else conv_direct
        kernel = module.build("kernel", plan, x, w, result, epilogue)
    return plan, kernel, [aligned(t.layout.size(t.shape)) for t in types]


def winograd(layer: Layer, tile: int) -> Call | None:
    """A call of the layer by Winograd's minimal filtering; None where that does not apply."""
    if layer.kind != "conv" or layer.kernel != 3 or layer.stride != 1 or layer.groups != 1 or layer.planar:
        return None
    x = TensorType(F32, (1, layer.c, layer.size, layer.size))
    u = TensorType(F32, ((tile + 2) ** 2, layer.o, layer.c))
    plan = conv_winograd.plan(x, u, tile=tile, kernel=3, pads=((1, 1), (1, 1)), target=targets.host())
    assert plan is not None, layer
    x, u = (t.with_layout(layout) for t, layout in zip((x, u), plan.operand_layouts, strict=True))
    layout = plan.result_layout.with_pads(((0, 0), (0, 0), (1, 1), (1, 1)))
    result = TensorType(F32, (1, layer.o, layer.size, layer.size), layout)
    kernel = conv_winograd.build("kernel", plan, x, u, result, StoreResult(View.of(result)))
    arrays = [aligned(t.layout.size(t.shape)) for t in (x, u, result)]
    v = aligned(conv_winograd.inputs_type(plan, x, result).elements)
    of_x = v if plan.shared else arrays[0]
    main, _ = call_of(kernel.function, [of_x, *arrays[1:], aligned(kernel.scratch // 4)], 0, kernel.items)
    if not plan.shared:
        return main
    inputs = conv_winograd.build_inputs("inputs", plan, x, result)
    before, _ = call_of(inputs.function, [arrays[0], v], 0, inputs.items)
    return lambda: (before(), main())


def theirs(layer: Layer) -> list[Call]:
    """Torch's layer, with tensors in both memory formats."""
    calls: list[Call] = []
    for memory in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(1, layer.c, layer.size, layer.size).contiguous(memory_format=memory)
        w = torch.randn(layer.o, layer.c // layer.groups, layer.kernel, layer.kernel).contiguous(
            memory_format=memory
        )

        def call(x: torch.Tensor = x, w: torch.Tensor = w) -> object:
            if layer.kind == "max":
                return torch.nn.functional.max_pool2d(x, layer.kernel, layer.stride, layer.pad)
            if layer.kind == "sum":
                return torch.nn.functional.avg_pool2d(x, layer.kernel, layer.stride, layer.pad)
            return torch.nn.functional.conv2d(x, w, None, layer.stride, layer.pad, 1, layer.groups)

        calls.append(call)
    return calls


def interleaved(calls: list[Call], seconds: float) -> list[float]:
    """The least processor time of each call, taking turns for `seconds` (and at least four turns)."""
    best = [float("inf")] * len(calls)
    end, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turns < 4:
        for k, call in enumerate(calls):
            start = time.thread_time()
            call()
            best[k] = min(best[k], time.thread_time() - start)
        turns += 1
    return best


def describe(plan: KernelPlan) -> str:
    """The tile, briefly."""
    if isinstance(plan, conv_direct.Plan):
        return f"{plan.vectors} x {plan.rows} x {plan.pixels}"
    return f"{getattr(plan, 'rows', 1)} x {getattr(plan, 'pixels', 1)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description="Time the convolution kernels beside PyTorch, on one thread."
    )
    parser.add_argument("--filter", default="", help="only layers whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds a layer")
    parser.add_argument("--csv", action="store_true", help="comma-separated values")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peak_call, peak_flops = peak()
    form = "{},{},{},{},{},{},{},{}" if options.csv else "{:28} {:>10} {:>9} {:>9} {:>6} {:>6} {:>8}  {}"
    print(form.format("layer", "tile", "ours ms", "torch ms", "ratio", "peak", "compile", "Winograd"))
    for layer in LAYERS:
        if options.filter not in layer.name:
            continue
        plan, kernel, arrays = ours(layer)
        call, seconds = call_of(kernel.function, arrays, 0, kernel.items)
        with torch.inference_mode():
            fast = {tile: made for tile in (2, 4) if (made := winograd(layer, tile)) is not None}
            calls = [call, peak_call, *theirs(layer), *fast.values()]
            mine, top, *others = interleaved(calls, options.seconds)
        others, times = others[:2], others[2:]
        torch_ms = min(others) * 1e3
        share = kernel.flops / mine / (peak_flops / top)
        print(
            form.format(
                layer.name, describe(plan), f"{mine * 1e3:.3f}", f"{torch_ms:.3f}",
                f"{torch_ms / mine / 1e3:.2f}", f"{share:.0%}", f"{seconds * 1e3:.0f} ms",
                "  ".join(
                    f"F{tile}: {t * 1e3:.3f} ms {torch_ms / t / 1e3:.2f}"
                    for tile, t in zip(fast, times, strict=True)
                ),
            ),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
