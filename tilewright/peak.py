"""What one core of this machine can do at best, measured: the two limits of a roofline.

    machine_peak()  ->  Peak(flops=1.4e11, bandwidth=9.8e9)
    yardstick()     ->  Yardstick(call, flops)     the same arithmetic for some 70 us, to be timed beside other work

Two loops are compiled for the target and timed: one only multiplies and adds in registers, the other only reads
an array larger than the caches.
"""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.loops import F32, Builder, Function, Operand
from tilewright.compiler.targets import Target, host
from tilewright.runtime.artifact import aligned_empty
from tilewright.runtime.jit import Engine
from tilewright.runtime.model import Array

CHAINS = 12
"""Independent sums: more than latency times throughput of any core so far, and they fit in 16 registers."""
STEPS = 1 << 18
SHORT_STEPS = 1 << 15
"""Those of a yardstick: the call from Python, half a microsecond, should not count."""
MEMORY = 256 << 20
"""Bytes read, more than a core's share of a last-level cache."""
ROUNDS = {"multiply_adds": 200, "reads": 9}
"""Calls of each loop, the fastest of which counts; the processor is shared and its clock varies."""


@dataclass(frozen=True)
class Peak:
    """One core's most float32 operations a second, a multiply-add being two, and most bytes a second read."""

    flops: float
    bandwidth: float

    def seconds(self, flops: int, bytes: int) -> float:
        """The least time for so much work, the longer of the two limits' (Williams, Waterman, Patterson 2009)."""
        return max(flops / self.flops, bytes / self.bandwidth)

    def memory_bound(self, flops: int, bytes: int) -> bool:
        """Whether bandwidth is the lower limit."""
        return bytes / self.bandwidth > flops / self.flops


@dataclass(frozen=True)
class Yardstick:
    """A call that does so many operations on registers, as fast as the core can at the time."""

    call: Callable[[], object]
    flops: int


@cache
def yardstick() -> Yardstick:
    """Multiply-adds to be timed right beside other work."""
    return arithmetic(SHORT_STEPS)


@cache
def machine_peak() -> Peak:
    """The peak of the core this runs on; takes about half a second, once a process."""
    target, sums = host(), arithmetic(STEPS)
    large = aligned_empty(MEMORY).view(np.float32)
    large.fill(1)
    reading = _compiled(reads(target.lanes(32), large.size), large, target)
    return Peak(sums.flops / _fastest(sums.call, ROUNDS["multiply_adds"]), MEMORY / _fastest(reading, ROUNDS["reads"]))


def arithmetic(steps: int) -> Yardstick:
    """A call of `steps` steps of multiply-adds, compiled for this machine."""
    target = host()
    lanes = target.lanes(32)
    call = _compiled(multiply_adds(lanes, steps), np.full(2 * lanes, 0.5, np.float32), target)
    return Yardstick(call, 2 * CHAINS * lanes * steps)


def multiply_adds(lanes: int, steps: int) -> Function:
    """`steps` times CHAINS vectors a = a * x + y that do not wait for each other."""
    b = Builder("multiply_adds")
    x = b.input("x", F32, 2 * lanes)
    b.output("y", F32, lanes)
    factor, term = b.load(x, 0, lanes), b.load(x, lanes, lanes)

    def step(_: object, sums: list[Operand]) -> Sequence[Operand]:
        return [b.fma(total, factor, term) for total in sums]

    starts = [b.const(float(k), F32.vector(lanes)) for k in range(CHAINS)]
    _store_sum(b, b.for_(0, steps, step, carried=starts))
    return b.finish()


def reads(lanes: int, size: int) -> Function:
    """The sum of `size` elements, a multiple of 8 vectors, with as many loads under way as the core can."""
    b = Builder("reads")
    x = b.input("x", F32, size)
    b.output("y", F32, lanes)

    def step(i: Operand, sums: list[Operand]) -> Sequence[Operand]:
        return [b.add(total, b.load(x, i, lanes, offset=k * lanes)) for k, total in enumerate(sums)]

    starts = [b.const(0.0, F32.vector(lanes))] * 8
    _store_sum(b, b.for_(0, size, step, step=8 * lanes, carried=starts))
    return b.finish()


def _store_sum(b: Builder, sums: Sequence[Operand]) -> None:
    total = sums[0]
    for other in sums[1:]:
        total = b.add(total, other)
    b.store(b.parameter("y"), 0, total)


def _compiled(function: Function, x: Array, target: Target) -> Callable[[], object]:
    """A call of the function on x and a vector for its result."""
    engine = Engine(compile_module(emit_module([function], linkage=""), target))
    code = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(engine.address(function.name))
    y = aligned_empty(target.lanes(32) * 4)
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]

    def call(kept: object = (engine, x, y)) -> None:
        code(*addresses)

    return call


def _fastest(call: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest call."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best
