"""Printed loop functions, one golden file a test."""

from collections.abc import Callable

from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.nodes import F32, I32, INDEX
from tilewright.compiler.loops.printer import print_function

Golden = Callable[[str], None]


def test_reduction_with_a_tail(golden: Golden) -> None:
    b = Builder("sum")
    x, y, n = b.input("x", F32, 103), b.output("y", F32, 1), b.scalar("n")
    zero = b.const(0.0, F32.vector(16))
    (total,) = b.for_(0, n, lambda i, c: [b.add(c[0], b.load(x, i, 16, offset=3))], step=16, carried=[zero])
    tail = b.load(x, 96, 16, active=7)
    b.store(y, 0, b.reduce("add", b.add(total, tail)))
    golden(print_function(b.finish()))


def test_memory(golden: Golden) -> None:
    inner = Builder("inner")
    inner.store(inner.output("out", F32, 4), inner.scalar("at"), 1.0)
    b = Builder("memory")
    x, y, i = b.inout("x", F32, 64), b.output("y", F32, 64), b.scalar("i")
    scratch = b.alloc("scratch", F32, 32)
    b.prefetch(x, i, offset=64, locality=2)
    v = b.gather(x, i, [0, 2, 4, 6], offset=-1, active=3)
    b.store(scratch, 4, v, active=3)
    b.store(y, i, b.load(x, b.mul(i, 16), lanes=16), streaming=True)
    b.call(inner.finish(), b.ref(y, i, 8), 3)
    golden(print_function(b.finish()))


def test_arithmetic(golden: Golden) -> None:
    b = Builder("arithmetic")
    x, y = b.load(b.input("x", F32, 8), 0, 8), b.scalar("y", F32)
    v = b.fma(x, y, -0.5)
    small = b.compare("lt", v, 1)
    w = b.select(small, b.sqrt(b.abs(v)), b.min(v, 2.0))
    k = b.add(b.convert(w, I32), b.vector_const(range(8), I32))
    swapped = b.shuffle(k, k, [1, 0, 3, 2])
    first = b.extract(b.bitcast(swapped, F32), 0)
    b.store(b.output("out", F32, 8), 0, b.splat(first, 8))
    golden(print_function(b.finish()))


def test_control(golden: Golden) -> None:
    b = Builder("control")
    y, n = b.output("y", INDEX, 10), b.scalar("n")
    zero = b.index(0)

    def body(i: object, carried: list[object]) -> list[object]:
        even = b.compare("eq", b.rem(i, 2), 0)  # type: ignore[arg-type]
        b.if_(even, lambda: b.store(y, i, i), lambda: b.store(y, i, zero))  # type: ignore[arg-type]
        b.if_(even, lambda: None)
        return [carried[1], b.add(carried[0], i)]  # type: ignore[arg-type]

    b.for_(0, n, body, step=2, carried=[zero, n])  # type: ignore[arg-type]
    golden(print_function(b.finish()))
