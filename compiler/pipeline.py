"""The whole compile as one ordered list of named stages: from a graph to an Artifact.

    graph -> canonicalise, fold, fold_scales, ... -> select -> layout -> fuse      (graphs; STAGES)
          -> lower -> plan memory -> emit -> compile                               (steps, text, object code)

Each stage is logged with the time it took; `trace` sees the graph after each.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from tilewright.compiler.codegen.entry import EntryCall, Location, Space, emit_entry
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.codegen.pool import has_pool, pool_code
from tilewright.compiler.ir import Graph, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.lower.chunks import chunks
from tilewright.compiler.lower.context import Step
from tilewright.compiler.lower.graph import lower, nestable
from tilewright.compiler.passes.canonicalise import canonicalise
from tilewright.compiler.passes.cleanup import fold_constants, merge_equal, remove_dead
from tilewright.compiler.passes.fold_scales import fold_scales
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.passes.layout import assign_layouts
from tilewright.compiler.passes.memory import ALIGNMENT, Place, find_aliases, placed_operands, plan_memory
from tilewright.compiler.passes.own_outputs import own_outputs
from tilewright.compiler.passes.pair_resamples import pair_resamples
from tilewright.compiler.passes.select import select
from tilewright.compiler.passes.winograd import choose_winograd
from tilewright.compiler.targets import Target
from tilewright.errors import ResourceError
from tilewright.runtime.artifact import Artifact, KernelSpec, Manifest, TensorSpec, aligned_empty

log = logging.getLogger(__name__)
ENTRY = "tw_run"
MAX_WORKSPACE = 2**37
"""Bytes; a model that needs more is refused."""

Stage = tuple[str, Callable[[Graph, Target], Graph]]

STAGES: tuple[Stage, ...] = (
    ("canonicalise", lambda graph, target: canonicalise(graph)),
    ("fold", lambda graph, target: remove_dead(fold_constants(graph))),
    ("cse", lambda graph, target: merge_equal(graph)),
    ("fold-scales", lambda graph, target: remove_dead(fold_scales(graph))),
    ("pair-resamples", lambda graph, target: pair_resamples(graph)),
    ("own-outputs", lambda graph, target: own_outputs(graph)),
    ("winograd", choose_winograd),
    ("select", select),
    ("layout", lambda graph, target: assign_layouts(graph)),
    ("pack", lambda graph, target: fold_constants(graph)),
    ("fuse", lambda graph, target: fuse(graph, nestable)),
)
Trace = Callable[[str, Graph], None]
Convolutions = Literal["auto", "direct"]
"""How convolutions may be computed: in whichever way is fastest, or only by adding up the products of each window."""


@dataclass(frozen=True)
class Program:
    """A lowered graph: its steps, the places of values that share buffers."""

    graph: Graph
    steps: tuple[Step, ...]
    places: Mapping[Value, Place]


def optimise(graph: Graph, target: Target, trace: Trace | None = None, conv: Convolutions = "auto") -> Graph:
    """Run the graph stages in order."""
    for name, stage in STAGES:
        if name == "winograd" and conv == "direct":
            continue
        started = time.perf_counter()
        changed = stage(graph, target)
        log.debug("%s: %.1f ms, %d nodes", name, (time.perf_counter() - started) * 1e3, len(changed.nodes))
        graph = changed
        if trace is not None:
            trace(name, graph)
    return graph


def lower_graph(graph: Graph, target: Target) -> Program:
    """The kernel calls of an optimised graph."""
    places = find_aliases(graph)
    steps = lower(graph, target, lambda node: placed_operands(node, places))
    return Program(graph, tuple(steps), places)


@dataclass(frozen=True)
class Emitted:
    """A program as text: bytes of workspace for one thread, and how many more for each further one.

    `shared` says whether any kernel call is cut into chunks.
    """

    text: str
    constants: Array
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
    constants, starts = pack_constants({v: array for v, array in graph.constants.items() if v in used})

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
                kernel.function.name, buffers, kernel.items, number if shares else 1, kernel.group,
                slot if kernel.scratch else 0,
            )
        )  # fmt: skip
    functions = list({step.kernel.function: None for step in program.steps})
    return Emitted(
        emit_module(functions, emit_entry(ENTRY, calls)), constants, memory.bytes + slot, memory.lower_bound + slot,
        slot, any(call.chunks > 1 for call in calls),
    )  # fmt: skip


def pack_constants(constants: Mapping[Value, Array]) -> tuple[Array, dict[Value, int]]:
    """All constants in one 64-byte aligned array of bytes, and where each starts."""
    starts: dict[Value, int] = {}
    total = 0
    for value, array in constants.items():
        starts[value] = total
        total += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    blob = aligned_empty(total)
    for value, array in constants.items():
        space = blob[starts[value] : starts[value] + array.nbytes]
        space.view(array.dtype).reshape(array.shape)[...] = array
        blob[starts[value] + array.nbytes :][: -array.nbytes % ALIGNMENT] = 0
    return blob, starts


def compile_graph(
    graph: Graph, target: Target, trace: Trace | None = None, conv: Convolutions = "auto"
) -> Artifact:
    """Compile a graph whose shapes are all known."""
    optimised = optimise(graph, target, trace, conv)
    program = lower_graph(optimised, target)
    emitted = emit(program, shares=has_pool(target))
    started = time.perf_counter()
    code = compile_module(emitted.text, target)
    pool = pool_code(target) if emitted.shared else b""
    log.debug("compile: %.1f ms, %d bytes of code", (time.perf_counter() - started) * 1e3, len(code))
    kernels = tuple(
        KernelSpec(step.kernel.function.name, step.source, step.template, step.kernel.flops)
        for step in program.steps
    )
    manifest = Manifest(
        graph.name, ENTRY, tuple(map(tensor_spec, [v.name for v in graph.inputs], [v.type for v in graph.inputs])),
        tuple(map(tensor_spec, graph.output_names, [v.type for v in graph.outputs])),
        emitted.workspace_bytes, emitted.workspace_bound, emitted.thread_bytes, kernels, target.name,
        version("tilewright"),
    )  # fmt: skip
    return Artifact(code, emitted.constants, manifest, pool)


def tensor_spec(name: str, type: TensorType) -> TensorSpec:
    """How the manifest describes an input or output."""
    return TensorSpec(name, type.dtype.numpy.name, type.shape)


