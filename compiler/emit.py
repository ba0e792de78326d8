"""From kernel calls to LLVM IR text: where every buffer lies, and the entry point that calls every kernel.

    Program(graph, steps, places)  ->  Emitted(text, constants, workspace_bytes, ..)

A batch of any size is computed by several programs, one after the other, with equal constants stored once.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from tilewright.compiler.codegen.batch import Strides, emit_batch_entry
from tilewright.compiler.codegen.entry import EntryCall, Location, Space, emit_entry
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.pool import has_pool
from tilewright.compiler.deferred import Constant, Recipe, identity_of, size_of, write
from tilewright.compiler.ir import Graph, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.loops.whole import one_item
from tilewright.compiler.lower.chunks import chunks
from tilewright.compiler.lower.context import Step
from tilewright.compiler.passes.memory import ALIGNMENT, Place, plan_memory
from tilewright.compiler.targets import Target
from tilewright.errors import ResourceError
from tilewright.runtime.artifact import Room

ENTRY, PROFILED = "tw_run", "tw_run.profiled"
MAX_WORKSPACE = 2**37
"""Bytes; a model that needs more is refused."""


@dataclass(frozen=True)
class Program:
    """A lowered graph: its steps, the places of values that share buffers, and constants yet to be computed."""

    graph: Graph
    steps: tuple[Step, ...]
    places: Mapping[Value, Place]
    recipes: Mapping[Value, Recipe]


@dataclass(frozen=True)
class Emitted:
    """Programs as text, with their constants and where each starts in their bytes.

    `workspace_bytes` is for one thread, each further one takes `thread_bytes`; `shared` says whether any kernel
    call is cut into chunks. `calls` are the kernel calls of the first program, one for each step, and `live` the
    bytes of the workspace in use at each.
    """

    text: str
    calls: tuple[EntryCall, ...]
    live: tuple[int, ...]
    constants: dict[Value, Constant]
    starts: Mapping[Value, int]
    workspace_bytes: int
    workspace_bound: int
    thread_bytes: int
    shared: bool


@dataclass(frozen=True)
class _Body:
    """A program's kernel calls, the bytes in use at each, and the bytes it needs in the workspace."""

    calls: tuple[EntryCall, ...]
    live: tuple[int, ...]
    bytes: int
    bound: int
    slot: int


def emit(program: Program, target: Target, library: bool = False) -> Emitted:
    """The text of a program; where the target has no thread pool, no call is cut into chunks for threads.

    For a `library`, all that it defines is internal, and there is a second entry point, PROFILED, that is timed.
    """
    constants = _used_constants(program)
    starts = place_constants(constants)
    body = _body(program, starts, target)
    linkage, index = "internal " if library else "", _index(target)
    entries = emit_entry(ENTRY, body.calls, index, linkage)
    if library:
        entries += "\n" + emit_entry(PROFILED, body.calls, index, linkage, timed=0)
    return _emitted([program], [body], entries, constants, starts, target, library)


def emit_batch(
    programs: Mapping[int, Program], strides: Strides, target: Target, library: bool = False
) -> Emitted:
    """The text of programs for several numbers of samples, the largest first, 1 the last, that share one workspace.

    `library` as for `emit`; kernels of the largest number are reported with their numbers, others as -1.
    """
    constants: dict[Value, Constant] = {}
    seen: dict[Hashable, Value] = {}
    twins: dict[Value, Value] = {}
    for program in programs.values():
        for value, constant in _used_constants(program).items():
            key = value if len(programs) == 1 else _key(constant)
            twins[value] = seen.setdefault(key, value)
            constants.setdefault(twins[value], constant)
    starts = place_constants(constants)
    everywhere = {value: starts[twin] for value, twin in twins.items()}
    bodies = [_body(program, everywhere, target) for program in programs.values()]
    names = [f"{ENTRY}.{samples}" for samples in programs]
    entries = [
        emit_entry(name, body.calls, _index(target), "internal ") for name, body in zip(names, bodies, strict=True)
    ]
    linkage = "internal " if library else ""
    entries.append(emit_batch_entry(ENTRY, list(zip(programs, names, strict=True)), strides, linkage))
    if library:
        timed = [f"{PROFILED}.{samples}" for samples in programs]
        for number, (name, body) in enumerate(zip(timed, bodies, strict=True)):
            entries.append(emit_entry(name, body.calls, _index(target), linkage, timed=-1 if number else 0))
        entries.append(emit_batch_entry(PROFILED, list(zip(programs, timed, strict=True)), strides, linkage, True))
    return _emitted(list(programs.values()), bodies, "\n".join(entries), constants, starts, target, library)


def _key(constant: Constant) -> Hashable:
    """The same for equal constants."""
    if isinstance(constant, Recipe):
        return identity_of(constant)
    return constant.nbytes, blake3(np.ascontiguousarray(constant).reshape(-1).view(np.uint8).data).digest()


def _index(target: Target) -> str:
    """LLVM's type for items."""
    return f"i{target.pointer_bits}"


def _emitted(
    programs: Sequence[Program], bodies: Sequence[_Body], entries: str, constants: dict[Value, Constant],
    starts: Mapping[Value, int], target: Target, library: bool,
) -> Emitted:  # fmt: skip
    kernels = {step.kernel.function: step.kernel for program in programs for step in program.steps}
    functions = [one_item(function) if kernel.items == 1 else function for function, kernel in kernels.items()]
    # In this process kernels stay visible, so that each can be timed alone; hidden: calls need no detour.
    text = emit_module(functions, entries, "internal " if library else "hidden ", target)
    return Emitted(
        text, bodies[0].calls, bodies[0].live, constants, starts,
        max(body.bytes + body.slot for body in bodies), max(body.bound + body.slot for body in bodies),
        max(body.slot for body in bodies), any(call.chunks > 1 for body in bodies for call in body.calls),
    )  # fmt: skip


def _used_constants(program: Program) -> dict[Value, Constant]:
    """The constants that the steps read."""
    places = program.places
    used = {places[v].root if v in places else v for step in program.steps for v in step.arguments}
    constants: dict[Value, Constant] = {**program.graph.constants, **program.recipes}
    return {value: constant for value, constant in constants.items() if value in used}


def _body(program: Program, starts: Mapping[Value, int], target: Target) -> _Body:
    """Place every buffer of a program whose constants start at `starts`."""
    graph, places = program.graph, program.places
    largest = max((value.type.bytes for step in program.steps for value in step.arguments), default=0)
    if largest >= 1 << (target.pointer_bits - 1):
        raise ResourceError(
            f"a tensor of {largest >> 20} MiB is more than {target.pointer_bits}-bit addresses reach", model=graph.name
        )
    shares = has_pool(target)
    roots = {value: place.root for value, place in places.items()}
    fixed: dict[Value, tuple[Space, int]] = {value: ("inputs", i) for i, value in enumerate(graph.inputs)}
    fixed |= {value: ("outputs", i) for i, value in enumerate(graph.outputs)}
    uses = [[roots.get(value, value) for value in step.arguments] for step in program.steps]
    sizes = {
        value: value.type.bytes
        for touched in uses
        for value in touched
        if value not in fixed and value not in starts
    }
    memory = plan_memory(uses, sizes)
    if memory.bytes > MAX_WORKSPACE:
        raise ResourceError(
            f"the intermediate results need {memory.bytes >> 30} GiB; pass smaller input shapes with shapes=",
            model=graph.name,
        )

    def locate(value: Value) -> Location:
        place = places.get(value, Place(value, 0))
        root, offset = place.root, place.offset * value.type.dtype.bytes
        if root in fixed:
            space, index = fixed[root]
            return Location(space, offset, index)
        if root in starts:
            return Location("constants", starts[root] + offset)
        return Location("workspace", memory.offsets[root] + offset)

    slot = max((-(-step.kernel.scratch // ALIGNMENT) * ALIGNMENT for step in program.steps), default=0)
    numbers = chunks([step.kernel for step in program.steps])
    calls = []
    for step, number in zip(program.steps, numbers, strict=True):
        kernel, buffers = step.kernel, tuple(map(locate, step.arguments))
        if kernel.scratch:
            buffers = (*buffers, Location("workspace", memory.bytes))
        calls.append(
            EntryCall(
                kernel.function.name, buffers, kernel.items, number if shares else 1,
                slot if kernel.scratch else 0,
            )
        )  # fmt: skip
    live = tuple(
        size + (slot if step.kernel.scratch else 0) for size, step in zip(memory.live, program.steps, strict=True)
    )
    return _Body(tuple(calls), live, memory.bytes, memory.lower_bound, slot)


def place_constants(constants: Mapping[Value, Constant]) -> dict[Value, int]:
    """Where each constant starts in the artifact's bytes: one after the other, aligned."""
    starts: dict[Value, int] = {}
    total = 0
    for value, constant in constants.items():
        starts[value] = total
        total += -(-size_of(constant) // ALIGNMENT) * ALIGNMENT
    return starts


def packed_bytes(emitted: Emitted) -> int:
    """How many bytes `pack_constants` will give."""
    sizes = {value: size_of(constant) for value, constant in emitted.constants.items()}
    ends = [start + -(-sizes[value] // ALIGNMENT) * ALIGNMENT for value, start in emitted.starts.items()]
    return max(ends, default=0)


def pack_constants(emitted: Emitted, room: Room) -> Array:
    """All constants in one array of bytes that `room` gives, with zeros between them.

    They are taken out of `emitted` one by one: at most one is there twice.
    """
    sizes = {value: size_of(constant) for value, constant in emitted.constants.items()}
    blob = room(packed_bytes(emitted))
    # The largest first: it is there twice while LLVM beside has hardly begun to take memory.
    for value in sorted(emitted.starts, key=lambda value: -sizes[value]):
        start, end = emitted.starts[value], emitted.starts[value] + sizes[value]
        write(emitted.constants.pop(value), blob[start:end])
        blob[end:][: -sizes[value] % ALIGNMENT] = 0
    return blob
