"""Which elements are fetched, with steps between lines that are known beforehand or only at run time."""

from typing import Any

import pytest

from tilewright.compiler.kernels.prefetch import Lines
from tilewright.compiler.loops import F32, Builder, Index
from tilewright.compiler.loops.nodes import Arith, Const, Prefetch, Var


def fetched(known: bool, step: int, every: int) -> list[int]:
    """The elements fetched in steps 0 and `every`, and 12 steps later, of lines from element 100 + 7 on."""
    b = Builder("f")
    x, at, apart = b.input("x", F32, 4096), b.scalar("at"), b.scalar("apart")
    between: Index = step if known else apart
    lines = Lines(x, at, 7, between, every)
    for which in (lines, lines.later(b, 12)):
        for number in (0, every):
            which.fetch(b, number)
    values, found = {at: 100, apart: step}, []

    def value(operand: Any) -> int:
        return operand.value if isinstance(operand, Const) else values[operand]

    for node in b.finish().body:
        if isinstance(node, Prefetch):
            found.append(value(node.index) + node.offset)
        else:
            assert isinstance(node, Arith) and isinstance(node.result, Var)
            a, c = value(node.a), value(node.b)
            values[node.result] = {"add": a + c, "mul": a * c, "div": a // c}[node.op]
    return found


@pytest.mark.parametrize(("step", "every"), [(16, 1), (32, 2), (8, 4)])
def test_lines_lie_where_steps_say(step: int, every: int) -> None:
    later = 12 // every * step
    expected = [107, 107 + step, 107 + later, 107 + later + step]
    assert fetched(True, step, every) == expected
    assert fetched(False, step, every) == expected
