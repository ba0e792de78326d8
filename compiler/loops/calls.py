"""Which functions a loop function calls."""

from collections.abc import Iterable

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.nodes import Function, Instr


def called(function: Function) -> list[Function]:
    """The functions that `function` calls, directly or not, callees before callers."""
    found: dict[Function, None] = {}

    def visit(body: Iterable[Instr]) -> None:
        for instr in body:
            if isinstance(instr, nodes.Call):
                if instr.function not in found:
                    visit(instr.function.body)
                    found[instr.function] = None
            elif isinstance(instr, nodes.For):
                visit(instr.body)
            elif isinstance(instr, nodes.If):
                visit(instr.then)
                visit(instr.otherwise)

    visit(function.body)
    return list(found)
