"""From kernel calls to LLVM IR text: where every buffer lies, and the entry point that calls every kernel.

    Program(graph, steps, places)  ->  Emitted(text, constants, workspace_bytes, ..)
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.compiler.codegen.entry import EntryCall, Location, Space, emit_entry
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.ir import Graph, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.ir.pages import release
from tilewright.compiler.lower.chunks import chunks
from tilewright.compiler.lower.context import Step
from tilewright.compiler.passes.memory import ALIGNMENT, Place, plan_memory
from tilewright.errors import ResourceError
from tilewright.runtime.artifact import aligned_empty

ENTRY = "tw_run"
MAX_WORKSPACE = 2**37
"""Bytes; a model that needs more is refused."""


@dataclass(frozen=True)
class Program:
    """A lowered graph: its steps, the places of values that share buffers."""

    graph: Graph
    steps: tuple[Step, ...]
    places: Mapping[Value, Place]


@dataclass(frozen=True)
class Emitted:
    """A program as text, with its constants and where each starts in their bytes.

    `workspace_bytes` is for one thread, each further one takes `thread_bytes`; `shared` says whether any kernel
    call is cut into chunks. `calls` are the kernel calls, one for each step, and `live` the bytes of the workspace
    in use at each.
    """

    text: str
    calls: tuple[EntryCall, ...]
    live: tuple[int, ...]
    constants: dict[Value, Array]
    starts: Mapping[Value, int]
    workspace_bytes: int
    workspace_bound: int
    thread_bytes: int
    shared: bool


def emit(program: Program, shares: bool = True) -> Emitted:
    """The text of a program; without `shares`, no call is cut into chunks for threads."""
    graph, places = program.graph, program.places
    roots = {value: place.root for value, place in places.items()}
    fixed: dict[Value, tuple[Space, int]] = {value: ("inputs", i) for i, value in enumerate(graph.inputs)}
    fixed |= {value: ("outputs", i) for i, value in enumerate(graph.outputs)}
    uses = [[roots.get(value, value) for value in step.arguments] for step in program.steps]
    sizes = {
        value: value.type.bytes
        for touched in uses
        for value in touched
        if value not in fixed and value not in graph.constants
    }
    memory = plan_memory(uses, sizes)
    if memory.bytes > MAX_WORKSPACE:
        raise ResourceError(
            f"the intermediate results need {memory.bytes >> 30} GiB; pass smaller input shapes with shapes=",
            model=graph.name,
        )
    used = {value for touched in uses for value in touched}
    constants = {value: array for value, array in graph.constants.items() if value in used}
    starts = place_constants(constants)

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
    functions = list({step.kernel.function: None for step in program.steps})
    # Kernels stay visible, so that each can be timed alone; hidden means that calls need no detour.
    return Emitted(
        emit_module(functions, emit_entry(ENTRY, calls), linkage="hidden "), tuple(calls), live, constants, starts,
        memory.bytes + slot, memory.lower_bound + slot, slot, any(call.chunks > 1 for call in calls),
    )  # fmt: skip


def place_constants(constants: Mapping[Value, Array]) -> dict[Value, int]:
    """Where each constant starts in the artifact's bytes: one after the other, aligned."""
    starts: dict[Value, int] = {}
    total = 0
    for value, array in constants.items():
        starts[value] = total
        total += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return starts


def pack_constants(emitted: Emitted) -> Array:
    """All constants in one 64-byte aligned array of bytes, with zeros between them.

    They are taken out of `emitted` one by one: at most one is there twice.
    """
    ends = [start + -(-emitted.constants[v].nbytes // ALIGNMENT) * ALIGNMENT for v, start in emitted.starts.items()]
    blob = aligned_empty(max(ends, default=0))
    # The largest first: it is there twice while LLVM beside has hardly begun to take memory.
    for value in sorted(emitted.starts, key=lambda value: -emitted.constants[value].nbytes):
        start, array = emitted.starts[value], emitted.constants.pop(value)
        blob[start : start + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        blob[start + array.nbytes :][: -array.nbytes % ALIGNMENT] = 0
        release(array)
    return blob
