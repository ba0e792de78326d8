"""Functions of one item: loops over it are gone, results are the same."""

import numpy as np
from support import run

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.nodes import F32, INDEX, Function, Instr, Operand
from tilewright.compiler.loops.whole import one_item


def kinds(function: Function) -> list[str]:
    return [type(instr).__name__ for instr in function.body]


def test_a_loop_over_one_item_becomes_its_body() -> None:
    b = Builder("f")
    x, y = b.input("x", F32, 1), b.output("y", F32, 1)
    begin, end = b.scalar("begin"), b.scalar("end")
    b.for_(begin, end, lambda i, _: b.store(y, i, b.add(b.load(x, i), 1.0)))
    folded = one_item(b.finish())
    assert kinds(folded) == ["Load", "Arith", "Store"]
    out = np.zeros(1, np.float32)
    run(folded, {"x": np.float32([2]), "y": out}, {"begin": 0, "end": 1})
    assert out[0] == 3


def test_what_follows_from_the_item_folds_too() -> None:
    """Indices, conditions, carried values, and a loop inside that stays because it runs more than once."""
    b = Builder("f")
    x, y = b.input("x", F32, 12), b.output("y", F32, 3)
    begin, end = b.scalar("begin"), b.scalar("end")

    def item(i: Operand, _: list[Operand]) -> None:
        row, column = b.div(i, 2), b.rem(i, 2)
        start = b.add(b.mul(row, 6), b.mul(column, 3))
        b.if_(b.compare("gt", i, 0), lambda: b.store(y, 2, b.const(9, F32)), lambda: b.store(y, 2, b.const(7, F32)))

        def add(k: Operand, sums: list[Operand]) -> list[Operand]:
            return [b.add(sums[0], b.load(x, b.add(start, k)))]

        (total,) = b.for_(0, 4, add, carried=[b.const(0, F32)])
        b.store(y, i, total)
        (once,) = b.for_(i, b.add(i, 1), add, carried=[total])
        b.store(y, b.add(i, 1), once)

    b.for_(begin, end, item)
    function = b.finish()
    folded = one_item(function)
    assert kinds(folded) == ["Store", "For", "Store", "Load", "Arith", "Store"]
    x_, outs = np.arange(1, 13, dtype=np.float32), [np.zeros(3, np.float32) for _ in range(2)]
    for made, out in zip((function, folded), outs, strict=True):
        run(made, {"x": x_, "y": out}, {"begin": 0, "end": 1})
        np.testing.assert_array_equal(out, [10, 11, 7])


def test_an_empty_loop_gives_what_it_was_given() -> None:
    b = Builder("f")
    y = b.output("y", F32, 1)
    begin, end = b.scalar("begin"), b.scalar("end")
    (last,) = b.for_(end, begin, lambda i, c: [b.add(c[0], 1.0)], carried=[b.const(5, F32)])
    b.store(y, 0, last)
    folded = one_item(b.finish())
    assert kinds(folded) == ["Store"]
    (store,) = folded.body
    assert isinstance(store, nodes.Store) and store.value == nodes.Const(F32, 5)


def test_other_scalars_stay() -> None:
    b = Builder("f")
    y = b.output("y", F32, 4)
    where = b.scalar("where", INDEX)
    begin, end = b.scalar("begin"), b.scalar("end")
    b.for_(begin, end, lambda i, _: b.store(y, b.add(i, where), b.const(1, F32)))
    folded = one_item(b.finish())
    body: list[Instr] = list(folded.body)
    assert not any(isinstance(instr, nodes.For) for instr in body)
    out = np.zeros(4, np.float32)
    run(folded, {"y": out}, {"where": 2, "begin": 0, "end": 1})
    np.testing.assert_array_equal(out, [0, 0, 1, 0])
