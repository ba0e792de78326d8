"""Pointers that move on in innermost loops: which accesses share one, and that code with them reads what it should."""

from typing import Any

import numpy as np
import pytest
from support import run

from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.streams import MOST, find_streams
from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.interpreter import interpret
from tilewright.compiler.loops.nodes import F32, I32, INDEX, For, Function


def loop_of(function: Function) -> For:
    (found,) = (instr for instr in function.body if isinstance(instr, For))
    return found


def same(function: Function, size: int, scalars: dict[str, float]) -> None:
    """Compiled code writes to y what the interpreter does."""
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    results = []
    for way in (run, interpret):
        y = np.zeros(size, np.float32)
        way(function, {"x": x, "y": y}, scalars)
        results.append(y)
    assert results[0].any()
    np.testing.assert_array_equal(*results)


def test_accesses_a_constant_apart_share_a_pointer() -> None:
    b = Builder("f")
    x, y, at, n = b.input("x", F32, 256), b.output("y", F32, 256), b.scalar("at"), b.scalar("n")

    def step(i: Any, _: Any) -> None:
        near, far = b.add(at, b.mul(i, 3)), b.add(b.mul(b.add(i, 2), 3), b.sub(at, 1))
        b.store(y, i, b.add(b.load(x, near, 4, offset=1), b.load(x, far, 4)))

    b.for_(at, n, step, step=4)
    function = b.finish()
    found = find_streams(loop_of(function))
    reads = {(stream.pace, stream.fixed, behind) for (buffer, _), (stream, behind) in found.items() if buffer is x}
    assert reads == {(3, ((at, 1),), 0), (3, ((at, 1),), 5)}
    assert emit_module([function]).count("phi ptr") == 2
    same(function, 256, {"at": 4, "n": 30})


def test_downwards_and_under_conditions() -> None:
    b = Builder("f")
    x, y, n = b.input("x", F32, 64), b.output("y", F32, 64), b.scalar("n")

    def step(i: Any, _: Any) -> None:
        down = b.sub(63, b.mul(i, 2))
        b.if_(
            b.compare("lt", i, 5),
            lambda: b.store(y, i, b.load(x, down)),
            lambda: b.store(y, i, b.gather(x, down, (-1, 0), active=2)),
        )

    b.for_(0, n, step)
    function = b.finish()
    assert {stream.pace for stream, _ in find_streams(loop_of(function)).values()} == {1, -2}
    same(function, 64, {"n": 20})


def test_what_moves_in_other_ways() -> None:
    """Carried and loaded indices, quotients, squares."""
    b = Builder("f")
    x, y, n = b.input("x", F32, 64), b.output("y", F32, 64), b.scalar("n")

    def step(i: Any, carried: Any) -> Any:
        (at,) = carried
        loaded = b.convert(b.convert(b.load(x, b.div(i, 2)), I32), INDEX)
        other = b.load(x, b.add(b.mul(i, 0), b.mul(loaded, 0)), offset=3)
        b.store(y, b.add(i, at), b.add(b.load(x, b.mul(i, i)), other))
        return [b.add(at, 1)]

    b.for_(0, n, step, carried=[b.index(2)])
    function = b.finish()
    assert find_streams(loop_of(function)) == {}
    same(function, 64, {"n": 7})


def test_more_than_pointers_are_kept_for() -> None:
    b = Builder("f")
    x, y, n = b.input("x", F32, 1024), b.output("y", F32, 1024), b.scalar("n")

    def step(i: Any, _: Any) -> None:
        for k in range(MOST + 3):
            b.store(y, b.mul(i, k + 1), b.load(x, b.mul(i, k + 1)), offset=50 * k)

    b.for_(0, n, step)
    function = b.finish()
    assert len({stream for stream, _ in find_streams(loop_of(function)).values()}) == MOST
    same(function, 1024, {"n": 40})


@pytest.mark.parametrize("n", [0, 1, 9])
def test_only_innermost_loops(n: int) -> None:
    b = Builder("f")
    x, y, count = b.input("x", F32, 256), b.output("y", F32, 256), b.scalar("n")

    def outer(i: Any, _: Any) -> None:
        b.store(y, b.mul(i, 16), b.load(x, i))
        b.for_(1, count, lambda j, _: b.store(y, b.add(b.mul(i, 16), j), b.load(x, b.add(i, b.mul(j, 9)))))

    b.for_(0, 16, outer)
    function = b.finish()
    assert find_streams(loop_of(function)) == {}
    assert emit_module([function]).count("phi ptr") == 2
    same(function, 256, {"n": n})
