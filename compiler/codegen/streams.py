"""Addresses that move on by one distance in each iteration of an innermost loop.

    for c in 0..64 step 2              Stream(buffer=x, fixed=((at, 1),), pace=16)      element at + c * 16
      t: index = mul c, 16             (x, u) -> that stream, 8 elements further
      u: index = add at, t
      v: f32 = load x[u + 8]

LLVM finds them too, but its loop strength reduction takes as long as everything else that it does for a kernel of
many accesses, and then it keeps dozens of pointers. Here accesses whose indices differ by constants share one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.nodes import Buffer, Const, For, Instr, Operand, Type, Var

MOST = 8
"""Streams of one loop: pointers stay in registers."""


@dataclass(frozen=True)
class Stream:
    """Element `variable * pace + sum(operand * factor)` of a buffer, over the (operand, factor) in `fixed`."""

    buffer: Buffer
    fixed: tuple[tuple[Var, int], ...]
    pace: int


Found = dict[tuple[Buffer, Operand], tuple[Stream, int]]
"""By buffer and index: the stream that an access belongs to, and how many elements behind it lies."""

_Form = tuple[int, dict[Var, int]]
"""A constant and factors of operands: what an index adds up to."""


def find_streams(loop: For) -> Found:
    """The streams of a loop's accesses; none where it holds another loop."""
    forms: dict[Var, _Form | None] = dict.fromkeys(loop.carried)
    forms[loop.variable] = 0, {loop.variable: 1}
    found: Found = {}
    streams: dict[Stream, None] = {}
    for instr in _flat(loop.body):
        if isinstance(instr, For):
            return {}
        if isinstance(instr, nodes.Load | nodes.Store | nodes.Prefetch | nodes.Gather):
            form = _form(instr.index, forms)
            pace = form[1].pop(loop.variable, 0) if form else 0
            if form and pace:
                constant, factors = form
                stream = Stream(instr.buffer, tuple(factors.items()), pace)
                if stream in streams or len(streams) < MOST:
                    streams[stream] = None
                    found[instr.buffer, instr.index] = stream, constant
        result = getattr(instr, "result", None)
        if result is not None and result.type.kind == "n":
            forms[result] = _combined(instr, forms) if isinstance(instr, nodes.Arith) else None
    return found


def _flat(body: Iterable[Instr]) -> Iterable[Instr]:
    """The instructions of a block, and of the branches in it."""
    for instr in body:
        yield instr
        if isinstance(instr, nodes.If):
            yield from _flat(instr.then)
            yield from _flat(instr.otherwise)


def _form(operand: Operand, forms: dict[Var, _Form | None]) -> _Form | None:
    """What an operand adds up to, to be changed freely; None if it is made in the loop in another way."""
    if isinstance(operand, Const):
        return (int(operand.value), {}) if not isinstance(operand.value, tuple) else None
    form = forms.get(operand, (0, {operand: 1}))
    return (form[0], dict(form[1])) if form else None


def _combined(instr: nodes.Arith, forms: dict[Var, _Form | None]) -> _Form | None:
    a, b = _form(instr.a, forms), _form(instr.b, forms)
    if a is None or b is None:
        return None
    if instr.op == "mul" and not (a[1] and b[1]):
        (constant, factors), scale = (a, b[0]) if not b[1] else (b, a[0])
        return constant * scale, {operand: factor * scale for operand, factor in factors.items() if scale}
    if instr.op not in ("add", "sub"):
        return None
    sign = 1 if instr.op == "add" else -1
    factors = a[1]
    for operand, factor in b[1].items():
        factors[operand] = factors.get(operand, 0) + sign * factor
    return a[0] + sign * b[0], {operand: factor for operand, factor in factors.items() if factor}


class Emits(Protocol):
    """What is needed of an emitter; see `Spelling`."""

    index: str
    names: dict[Var | Buffer, str]

    def emit(self, text: str) -> str:
        """Add an instruction."""

    def memory_name(self, type: Type) -> str:
        """LLVM's name of a type in memory."""


def first_address(emitter: Emits, stream: Stream, lo: Operand) -> str:
    """Where a stream begins, computed before the loop."""
    terms = dict(stream.fixed)
    constant = 0
    if isinstance(lo, Var):
        terms[lo] = terms.get(lo, 0) + stream.pace
    else:
        assert not isinstance(lo.value, tuple)
        constant = int(lo.value) * stream.pace
    total = ""
    for operand, factor in terms.items():
        term = emitter.names[operand]
        if factor != 1:
            term = emitter.emit(f"mul nsw {emitter.index} {term}, {factor}")
        total = emitter.emit(f"add nsw {emitter.index} {total}, {term}") if total else term
    if constant or not total:
        total = emitter.emit(f"add nsw {emitter.index} {total}, {constant}") if total else str(constant)
    return _element(emitter, stream, emitter.names[stream.buffer], total)


def next_addresses(emitter: Emits, pointers: Mapping[Stream, str], step: int) -> dict[Stream, str]:
    """Where each stream is in the next iteration.

    Frozen, a pointer is opaque to loop strength reduction.
    """
    return {
        stream: _element(emitter, stream, emitter.emit(f"freeze ptr {pointer}"), str(stream.pace * step))
        for stream, pointer in pointers.items()
    }


def _element(emitter: Emits, stream: Stream, base: str, index: str) -> str:
    element = emitter.memory_name(stream.buffer.type)
    return emitter.emit(f"getelementptr nusw {element}, ptr {base}, {emitter.index} {index}")
