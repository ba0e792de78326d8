"""The builder: what folds, what is built once, what it refuses."""

import pytest

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.nodes import BOOL, F32, F64, INDEX, Const


def kinds(body: tuple[nodes.Instr, ...]) -> list[str]:
    return [type(instr).__name__ for instr in body]


def test_python_numbers_fold() -> None:
    b = Builder("f")
    i = b.scalar("i")
    assert b.add(b.mul(3, 4), b.div(7, 2)) == 15
    assert b.add(i, 0) is i and b.mul(1, i) is i and b.mul(i, 0) == 0 and b.rem(i, 1) == 0
    assert b.finish().body == ()


def test_equal_index_arithmetic_is_built_once() -> None:
    b = Builder("f")
    i = b.scalar("i")
    first = b.add(b.mul(i, 16), 3)
    assert b.add(b.mul(i, 16), 3) is first
    assert b.compare("lt", first, 9) is b.compare("lt", first, 9)
    assert b.compare("le", first, 9) is not b.compare("lt", first, 9)
    assert kinds(b.finish().body) == ["Arith", "Arith", "Compare", "Compare"]


def test_inner_blocks_use_outer_index_arithmetic_but_not_the_reverse() -> None:
    b = Builder("f")
    x, n = b.output("x", F32, 100), b.scalar("n")
    outer = b.mul(n, 2)
    inside = []

    def body(i: object, _: object) -> None:
        assert b.mul(n, 2) is outer
        inside.append(b.mul(n, 3))
        b.if_(b.compare("lt", inside[0], 5), lambda: b.store(x, b.mul(n, 3), 0.0))

    b.for_(0, n, body)
    b.if_(b.compare("lt", n, 5), lambda: inside.append(b.mul(n, 3)), lambda: inside.append(b.mul(n, 3)))
    assert len({id(var) for var in [*inside, b.mul(n, 3)]}) == 4


def test_float_arithmetic_is_not_shared() -> None:
    b = Builder("f")
    x = b.scalar("x", F32)
    assert b.add(x, 1.0) is not b.add(x, 1.0)


def test_numbers_take_the_type_of_the_operand_beside_them() -> None:
    b = Builder("f")
    x, v = b.scalar("x", F32), b.load(b.input("v", F32, 8), 0, lanes=8)
    assert b.add(1, x).type == F32
    assert b.mul(x, v).type == F32.vector(8)
    assert b.compare("lt", x, v).type == BOOL.vector(8)
    assert b.index(5) == Const(INDEX, 5)


def test_mixed_types_are_refused() -> None:
    b = Builder("f")
    with pytest.raises(TypeError, match="operands of types f64 and f32 in f"):
        b.add(b.scalar("x", F32), b.scalar("y", F64))
    with pytest.raises(TypeError, match="store of f64 into f32 buffer out in f"):
        b.store(b.output("out", F32, 1), 0, b.const(1.0, F64))
    with pytest.raises(TypeError, match="yields other types than it carries"):
        b.for_(0, b.scalar("n"), lambda i, c: [], carried=[b.const(1.0, F32)])


def test_numbers_that_do_not_fit_are_refused() -> None:
    b = Builder("f")
    with pytest.raises(TypeError, match=r"the number 0\.5 beside a index in f"):
        b.add(b.scalar("i"), 0.5)
    three = b.vector_const([1, 2, 3], F32)
    with pytest.raises(TypeError, match="reduction of a f32x3 in f, whose lanes are no power of two"):
        b.reduce("add", three)


def test_tiles_and_lanes_cover_the_range_once() -> None:
    seen: list[tuple[object, int]] = []
    b = Builder("f")
    b.tiled(40, 16, lambda i, width: seen.append((i if isinstance(i, int) else "i", width)))
    assert seen == [("i", 16), (32, 8)]
    seen.clear()
    b.lanes(16, 16, lambda i, active: seen.append((i, active)))
    b.lanes(5, 16, lambda i, active: seen.append((i, active)))
    b.lanes(0, 16, lambda i, active: seen.append((i, active)))
    assert seen == [(0, 16), (0, 5)]
