"""A function of a range of items where there is but one item: its loops over items, and what follows, folded.

    for i in begin..end                 one_item(function):    v: i32 = load x[0]
      v: i32 = load x[i]                                       w: i32 = add v, 103
      w: i32 = add v, 103                                      store y[0], w
      store y[i], w

A loop that runs once becomes its body; indices that are known become numbers.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.nodes import INDEX, Const, Function, Instr, Operand, Ref, Var

_ARITH: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "rem": lambda a, b: a % b,
    "min": min,
    "max": max,
}
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def one_item(function: Function) -> Function:
    """The function for items 0..1, whatever its last two parameters, `begin` and `end`, are."""
    begin, end = function.params[-2:]
    assert isinstance(begin, Var) and isinstance(end, Var)
    known: dict[Var, Operand] = {begin: Const(INDEX, 0), end: Const(INDEX, 1)}
    return Function(function.name, function.params, tuple(_block(function.body, known)))


def _block(body: Iterable[Instr], known: dict[Var, Operand]) -> list[Instr]:
    """The instructions with what is `known` in place; adds to that what they make known."""
    out: list[Instr] = []
    for instr in body:
        moved = _with(instr, known)
        numbers = [_number(getattr(moved, name, None)) for name in ("a", "b")]
        a, b = numbers
        if isinstance(moved, nodes.Arith) and a is not None and b is not None and moved.op in _ARITH:
            known[moved.result] = Const(INDEX, _ARITH[moved.op](a, b))
        elif isinstance(moved, nodes.Compare) and a is not None and b is not None:
            known[moved.result] = Const(moved.result.type, _COMPARE[moved.op](a, b))
        elif isinstance(moved, nodes.For):
            out += _loop(moved, known)
        elif isinstance(moved, nodes.If) and isinstance(moved.condition, Const):
            out += _block(moved.then if moved.condition.value else moved.otherwise, known)
        elif isinstance(moved, nodes.If):
            then, otherwise = (tuple(_block(part, dict(known))) for part in (moved.then, moved.otherwise))
            out.append(replace(moved, then=then, otherwise=otherwise))
        else:
            out.append(moved)
    return out


def _loop(loop: nodes.For, known: dict[Var, Operand]) -> list[Instr]:
    lo, hi = _number(loop.lo), _number(loop.hi)
    if lo is None or hi is None or lo + loop.step < hi:
        inside = dict(known)
        body = tuple(_block(loop.body, inside))
        return [replace(loop, body=body, yields=tuple(_operand(value, inside) for value in loop.yields))]
    last = loop.initial
    out: list[Instr] = []
    if lo < hi:
        known |= {loop.variable: loop.lo, **dict(zip(loop.carried, loop.initial, strict=True))}
        out = _block(loop.body, known)
        last = tuple(_operand(value, known) for value in loop.yields)
    known |= dict(zip(loop.results, last, strict=True))
    return out


def _with(instr: Instr, known: dict[Var, Operand]) -> Instr:
    """The instruction with known operands in place; its blocks, and what a loop yields, stay as they are."""
    inner = ("result", "results", "variable", "carried", "body", "yields", "then", "otherwise")
    changed = {}
    for field in fields(instr):
        if field.name not in inner:
            value = getattr(instr, field.name)
            moved = _moved(value, known)
            if moved is not value:
                changed[field.name] = moved
    return replace(instr, **changed) if changed else instr


def _moved(value: Any, known: dict[Var, Operand]) -> Any:
    if isinstance(value, Var):
        return known.get(value, value)
    if isinstance(value, Ref):
        return Ref(value.buffer, _operand(value.index, known), value.offset)
    if isinstance(value, tuple):
        return tuple(_moved(part, known) for part in value)
    return value


def _operand(value: Operand, known: dict[Var, Operand]) -> Operand:
    return known.get(value, value) if isinstance(value, Var) else value


def _number(operand: object) -> int | None:
    """An index that is known."""
    if isinstance(operand, Const) and operand.type == INDEX and not isinstance(operand.value, tuple):
        return int(operand.value)
    return None
