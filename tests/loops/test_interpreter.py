"""What the checking interpreter refuses; what it computes is compared with machine code in tests/codegen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.interpreter import InterpreterError, interpret
from tilewright.compiler.loops.nodes import F32, I32, INDEX, Function

Build = Callable[[Builder], None]


def refused(build: Build, message: str, buffers: dict[str, Any] | None = None, **scalars: int) -> None:
    b = Builder("f")
    build(b)
    with pytest.raises(InterpreterError, match=message):
        interpret(b.finish(), buffers or {}, scalars)


def floats(count: int) -> Any:
    return np.zeros(count, np.float32)


def test_a_load_past_the_end() -> None:
    def build(b: Builder) -> None:
        b.load(b.input("x", F32, 10), b.scalar("i"), 4)

    refused(build, r"x\[10\] is outside its 10 elements", {"x": floats(20)}, i=7)
    refused(build, r"x\[-1\] is outside", {"x": floats(20)}, i=-1)


def test_a_masked_load_and_gather_read_only_active_lanes() -> None:
    b = Builder("f")
    x, y = b.input("x", F32, 10), b.output("y", F32, 8)
    b.store(y, 0, b.load(x, 8, 4, active=2))
    b.store(y, 4, b.gather(x, 8, [0, 1, 2, 3], active=2))
    interpret(b.finish(), {"x": floats(10), "y": floats(8)})


def test_a_gather_past_the_end() -> None:
    def build(b: Builder) -> None:
        b.gather(b.input("x", F32, 10), 8, [0, 1, 2, 3])

    refused(build, r"x\[10\] is outside", {"x": floats(10)})


def test_a_store_to_an_input() -> None:
    def build(b: Builder) -> None:
        b.store(b.input("x", F32, 10), 3, 1.0)

    refused(build, r"x\[3\] is written, but the buffer is only read", {"x": floats(10)})


def test_reads_before_writes() -> None:
    def output(b: Builder) -> None:
        x = b.output("x", F32, 10)
        b.store(x, 0, b.const(1.0, F32.vector(4)))
        b.load(x, 1, 4)

    def local(b: Builder) -> None:
        b.load(b.alloc("scratch", F32, 4), 0)

    def again(b: Builder) -> None:
        """Scratch allocated anew in each iteration is not what the last one wrote."""

        def body(i: Any, _: Any) -> None:
            scratch = b.alloc("scratch", F32, 1)
            b.if_(b.compare("gt", i, 0), lambda: b.store(b.output("y", F32, 1), 0, b.load(scratch, 0)))
            b.store(scratch, 0, 1.0)

        b.for_(0, b.scalar("n"), body)

    refused(output, r"x\[4\] is read before it is written", {"x": floats(10)})
    refused(local, r"scratch0\[0\] is read before it is written")
    refused(again, r"scratch.*\[0\] is read before it is written", {"y": floats(1)}, n=2)


def callee(read: bool) -> Function:
    b = Builder("callee")
    x, y = b.input("x", F32, 4), b.output("y", F32, 4)
    b.store(y, 0, b.load(x, 0, 4))
    if not read:
        b.load(y, 0, 4)
    return b.finish()


def test_calls_carry_the_callers_bounds_and_access() -> None:
    def outside(b: Builder) -> None:
        x, y = b.input("x", F32, 10), b.output("y", F32, 10)
        b.call(callee(True), b.ref(x, 7), b.ref(y))

    def unwritten(b: Builder) -> None:
        y, z = b.output("y", F32, 10), b.output("z", F32, 10)
        b.call(callee(True), b.ref(y), b.ref(z))

    def only_read(b: Builder) -> None:
        x = b.input("x", F32, 10)
        b.call(callee(True), b.ref(x), b.ref(x, 4))

    def shared(b: Builder) -> None:
        x = b.inout("x", F32, 10)
        b.call(callee(True), b.ref(x), b.ref(x, 3))

    refused(outside, r"x\[10\] is outside its 10", {"x": floats(10), "y": floats(10)})
    refused(unwritten, r"y\[0\] is read before it is written", {"y": floats(10), "z": floats(10)})
    refused(only_read, r"x\[4\] is written, but the buffer is only read", {"x": floats(10)})
    refused(shared, "x and y of callee share an element that is written", {"x": floats(10)})


def test_arguments_may_share_a_buffer_apart() -> None:
    b = Builder("f")
    x = b.inout("x", F32, 8)
    b.call(callee(False), b.ref(x), b.ref(x, 4))
    numbers = np.arange(8, dtype=np.float32)
    interpret(b.finish(), {"x": numbers})
    np.testing.assert_array_equal(numbers, [0, 1, 2, 3, 0, 1, 2, 3])


def test_indices_do_not_overflow() -> None:
    def product(b: Builder) -> None:
        b.mul(b.scalar("i"), b.const(1 << 40, INDEX))

    def quotient(b: Builder) -> None:
        b.div(b.scalar("i"), 2)

    refused(product, "mul of indices overflows", i=1 << 30)
    refused(quotient, "div of the indices -3 and 2, of which one is negative", i=-3)


def test_undefined_integer_arithmetic() -> None:
    def by(op: str) -> Build:
        def build(b: Builder) -> None:
            getattr(b, op)(b.scalar("a", I32), b.scalar("c", I32))

        return build

    refused(by("div"), "div of i32 by 0", a=5, c=0)
    refused(by("rem"), "rem of the least i32 by -1", a=-(2**31), c=-1)
    refused(by("shl"), "shl of i32 by 32 bits", a=1, c=32)


def test_misaligned_streaming_stores() -> None:
    def build(b: Builder) -> None:
        b.store(b.output("y", F32, 64), b.scalar("i"), b.const(0.0, F32.vector(16)), streaming=True)

    refused(build, r"streaming store to y\[8\], no multiple of 16", {"y": floats(64)}, i=8)


def test_arrays_that_do_not_fit() -> None:
    def build(b: Builder) -> None:
        b.input("x", F32, 10)

    refused(build, "x needs 10 contiguous f32, not 9 float32", {"x": floats(9)})
    refused(build, "x needs 10 contiguous f32, not 10 int32", {"x": np.zeros(10, np.int32)})
