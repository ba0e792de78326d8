"""Loop functions as text, for people and for golden files; there is no parser.

    function sum(in x: f32[100], out y: f32[1], n: index)
      total: f32x16 = for i in 0..n step 16 carrying c: f32x16 = 0.0
        v: f32x16 = load x[i + 3] active 7
        t: f32x16 = add c, v
        yield t
      s: f32 = reduce add total
      store y[0], s

The type after a name is the result's. A constant stands as its number, one with a number a lane as a list.
"""

from collections.abc import Iterable, Iterator, Sequence

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.nodes import Buffer, Const, Function, Instr, Operand, Ref, Var


def print_function(function: Function) -> str:
    """The text of one function, without those it calls; ends with a newline."""
    params = ", ".join(_parameter(param) for param in function.params)
    return "\n".join([f"function {function.name}({params})", *_block(function.body, 1)]) + "\n"


def _parameter(param: Buffer | Var) -> str:
    return f"{param.access} {_buffer(param)}" if isinstance(param, Buffer) else _typed(param)


def _buffer(buffer: Buffer) -> str:
    return f"{buffer.name}: {buffer.type}[{buffer.size}]"


def _typed(var: Var) -> str:
    return f"{var.name}: {var.type}"


def _operand(operand: Operand) -> str:
    if isinstance(operand, Var):
        return operand.name
    if isinstance(operand.value, tuple):
        return f"[{', '.join(map(str, operand.value))}]"
    return str(float(operand.value) if operand.type.is_float else operand.value)


def _place(buffer: Buffer, index: Operand, offset: int, steps: Operand | None = None) -> str:
    if isinstance(index, Const) and not isinstance(index.value, tuple):
        place = str(int(index.value) + offset)
    elif offset:
        place = f"{_operand(index)} {'+' if offset > 0 else '-'} {abs(offset)}"
    else:
        place = _operand(index)
    return f"{buffer.name}[{place}{'' if steps is None else f', {_operand(steps)}'}]"


def _active(active: int, lanes: int) -> str:
    return f" active {active}" if active < lanes else ""


def _block(body: Iterable[Instr], depth: int) -> Iterator[str]:
    for instr in body:
        for line in _lines(instr):
            yield "  " * depth + line


def _results(results: Sequence[Var]) -> str:
    return f"{', '.join(map(_typed, results))} = " if results else ""


def _lines(instr: Instr) -> Iterator[str]:
    """An instruction's lines; those after the first are indented against it."""
    match instr:
        case nodes.For():
            pairs = zip(instr.carried, instr.initial, strict=True)
            carried = ", ".join(f"{_typed(var)} = {_operand(start)}" for var, start in pairs)
            bounds = f"{_operand(instr.lo)}..{_operand(instr.hi)} step {instr.step}"
            head = f"for {instr.variable.name} in {bounds}"
            yield _results(instr.results) + head + (f" carrying {carried}" if carried else "")
            yield from _block(instr.body, 1)
            if instr.yields:
                yield f"  yield {', '.join(map(_operand, instr.yields))}"
        case nodes.If():
            yield f"if {_operand(instr.condition)}"
            yield from _block(instr.then, 1)
            if instr.otherwise:
                yield "else"
                yield from _block(instr.otherwise, 1)
        case _:
            yield _line(instr)


def _line(instr: Instr) -> str:
    match instr:
        case nodes.Store(buffer, index, offset, value, active, streaming):
            hints = _active(active, value.type.lanes) + (" streaming" if streaming else "")
            return f"store {_place(buffer, index, offset)}, {_operand(value)}{hints}"
        case nodes.Prefetch(buffer, index, offset, locality):
            return f"prefetch {_place(buffer, index, offset)} locality {locality}"
        case nodes.Alloc(buffer):
            return f"alloc {_buffer(buffer)}"
        case nodes.Call(function, arguments):
            shown = (
                _place(argument.buffer, argument.index, argument.offset) if isinstance(argument, Ref) else
                _operand(argument) for argument in arguments
            )  # fmt: skip
            return f"call {function.name}({', '.join(shown)})"
    result, text = _value(instr)
    return f"{_typed(result)} = {text}"


def _value(instr: Instr) -> tuple[Var, str]:
    """The result of an instruction and what stands after its equals sign."""
    match instr:
        case nodes.Arith(result, op, a, b):
            return result, f"{op} {_operand(a)}, {_operand(b)}"
        case nodes.Unary(result, op, a):
            return result, f"{op} {_operand(a)}"
        case nodes.Fma(result, a, b, c):
            return result, f"fma {_operand(a)}, {_operand(b)}, {_operand(c)}"
        case nodes.Compare(result, op, a, b):
            return result, f"compare {op} {_operand(a)}, {_operand(b)}"
        case nodes.Select(result, condition, a, b):
            return result, f"select {_operand(condition)}, {_operand(a)}, {_operand(b)}"
        case nodes.Cast(result, op, a):
            return result, f"{op} {_operand(a)}"
        case nodes.Broadcast(result, a):
            return result, f"broadcast {_operand(a)}"
        case nodes.ReduceLanes(result, op, a):
            return result, f"reduce {op} {_operand(a)}"
        case nodes.Shuffle(result, a, b, lanes):
            return result, f"shuffle {_operand(a)}, {_operand(b)}, [{', '.join(map(str, lanes))}]"
        case nodes.Extract(result, a, lane):
            return result, f"extract {_operand(a)}, {lane}"
        case nodes.Load(result, buffer, index, offset, active):
            return result, f"load {_place(buffer, index, offset)}{_active(active, result.type.lanes)}"
        case nodes.Gather(result, buffer, index, offset, steps, active):
            place = _place(buffer, index, offset, steps)
            return result, f"gather {place}{_active(active, result.type.lanes)}"
    raise TypeError(f"no text for a {type(instr).__name__}")
