"""The whole compile as one ordered list of named stages: from a graph to an Artifact.

    graph -> canonicalise, fold, fold_scales, ... -> select -> layout -> fuse      (graphs; STAGES)
          -> lower -> plan memory -> emit -> compile                               (steps, text, object code)

Each stage is logged with the time it took; `trace` sees the graph after each.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal

from tilewright.compiler.batch import follow, resized, tile_sizes
from tilewright.compiler.codegen.batch import Strides
from tilewright.compiler.codegen.entry import EntryCall
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.codegen.parts import split
from tilewright.compiler.codegen.pool import pool_code
from tilewright.compiler.deferred import defer
from tilewright.compiler.emit import ENTRY, Emitted, Program, emit, emit_batch, pack_constants
from tilewright.compiler.ir import Graph, TensorType, Value
from tilewright.compiler.link.merge import merged
from tilewright.compiler.loops import Buffer
from tilewright.compiler.lower.context import Step
from tilewright.compiler.lower.graph import lower, nestable
from tilewright.compiler.passes.canonicalise import canonicalise
from tilewright.compiler.passes.cleanup import fold_constants, merge_equal, remove_dead
from tilewright.compiler.passes.dilate import dilate
from tilewright.compiler.passes.fold_scales import fold_scales
from tilewright.compiler.passes.fuse import fuse
from tilewright.compiler.passes.layout import assign_layouts
from tilewright.compiler.passes.memory import find_aliases, placed_operands
from tilewright.compiler.passes.own_outputs import own_outputs
from tilewright.compiler.passes.pair_resamples import pair_resamples
from tilewright.compiler.passes.select import select
from tilewright.compiler.passes.transposes import move_transposes
from tilewright.compiler.passes.winograd import choose_winograd
from tilewright.compiler.targets import Target
from tilewright.runtime.artifact import (
    Artifact,
    Batch,
    BufferSpec,
    KernelSpec,
    Manifest,
    Room,
    TensorSpec,
    aligned_empty,
)

log = logging.getLogger(__name__)

Stage = tuple[str, Callable[[Graph, Target], Graph]]

STAGES: tuple[Stage, ...] = (
    ("dilate", lambda graph, target: dilate(graph)),
    ("canonicalise", lambda graph, target: canonicalise(graph)),
    ("fold", lambda graph, target: remove_dead(fold_constants(graph))),
    ("cse", lambda graph, target: merge_equal(graph)),
    ("transposes", lambda graph, target: remove_dead(canonicalise(move_transposes(graph)))),
    ("fold-scales", lambda graph, target: remove_dead(fold_scales(graph))),
    ("pair-resamples", lambda graph, target: pair_resamples(graph)),
    ("own-outputs", lambda graph, target: own_outputs(graph)),
    ("winograd", choose_winograd),
    ("select", select),
    ("layout", lambda graph, target: assign_layouts(graph)),
    ("pack", lambda graph, target: fold_constants(graph, SMALL)),
    ("fuse", lambda graph, target: fuse(graph, nestable)),
)
SMALL = 1 << 16
"""Bytes up to which constants are packed at once; larger ones are while code is generated."""

Trace = Callable[[str, Graph], None]
Convolutions = Literal["auto", "direct"]
"""How convolutions may be computed: in whichever way is fastest, or only by adding up the products of each window."""


@dataclass(frozen=True)
class Planned:
    """A model as LLVM IR text, its constants not packed yet: all but code generation is done."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    emitted: Emitted
    batch: Batch | None = None


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


def lower_graph(graph: Graph, target: Target, prefix: str = "") -> Program:
    """The kernel calls of an optimised graph; the names of kernels begin with `prefix`."""
    graph, recipes = defer(graph)
    places = find_aliases(graph)
    steps = lower(graph, target, lambda node: placed_operands(node, places), prefix)
    return Program(graph, tuple(steps), places, recipes)


def compile_graph(graph: Graph, target: Target, trace: Trace | None = None, conv: Convolutions = "auto") -> Artifact:
    """Compile a graph whose shapes are all known."""
    return compile_planned(plan_graph(graph, target, trace, conv), target)


def plan_graph(
    graph: Graph, target: Target, trace: Trace | None = None, conv: Convolutions = "auto", library: bool = False
) -> Planned:
    """A graph whose shapes are all known, up to LLVM IR text; `library` as in `emit`."""
    program = lower_graph(optimise(graph, target, trace, conv), target)
    emitted = emit(program, target, library)
    steps = program.steps
    del program  # with its constants, which from here on only `emitted` holds
    inputs = [tensor_spec(value.name, value.type) for value in graph.inputs]
    outputs = [tensor_spec(name, value.type) for name, value in zip(graph.output_names, graph.outputs, strict=True)]
    return Planned(graph.name, tuple(inputs), tuple(outputs), steps, emitted)


def compile_batch(
    two: Graph, three: Graph, symbol: str, target: Target, trace: Trace | None = None, conv: Convolutions = "auto"
) -> Artifact:
    """Compile a model for any number of samples; see `plan_batch`."""
    return compile_planned(plan_batch(two, three, symbol, target, trace, conv), target)


def plan_batch(
    two: Graph, three: Graph, symbol: str, target: Target, trace: Trace | None = None, conv: Convolutions = "auto",
    library: bool = False,
) -> Planned:  # fmt: skip
    """A model for any number of samples, which the manifest calls `symbol`, up to LLVM IR text.

    `two` and `three` are its graphs for 2 and 3 samples along the leading axis of some inputs. Raises UnsupportedError
    where results mix samples, see `tilewright.compiler.batch`.
    """
    places = follow(two, three)
    one = resized(two, places, 1)
    sizes = tile_sizes(one)
    strides = Strides(
        tuple(value.type.bytes if old in places else 0 for value, old in zip(one.inputs, two.inputs, strict=True)),
        tuple(value.type.bytes for value in one.outputs),
    )
    programs = {}
    for samples in sizes:
        graph = optimise(resized(two, places, samples, sizes[0] // samples), target, trace, conv)
        programs[samples] = lower_graph(graph, target, f"n{samples}_" if len(sizes) > 1 else "")
    emitted = emit_batch(programs, strides, target, library)
    steps = programs[sizes[0]].steps
    del graph, programs, one

    def spec(name: str, value: Value) -> TensorSpec:
        plain = tensor_spec(name, value.type)
        return replace(plain, shape=(symbol, *plain.shape[1:])) if value in places else plain

    inputs = [spec(value.name, value) for value in two.inputs]
    outputs = [spec(name, value) for name, value in zip(two.output_names, two.outputs, strict=True)]
    return Planned(two.name, tuple(inputs), tuple(outputs), steps, emitted, Batch(symbol, sizes[0]))


def compile_planned(planned: Planned, target: Target, room: Room = aligned_empty) -> Artifact:
    """Compile a planned model for this process; its constants come to lie in what `room` gives."""
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:  # LLVM and NumPy both let go of the interpreter lock
        packing = beside.submit(pack_constants, planned.emitted, room)
        code = generate(planned.emitted.text, target)
        constants = packing.result()
    log.debug("compile: %.1f ms, %d bytes of code", (time.perf_counter() - started) * 1e3, len(code))
    pool = pool_code(target) if planned.emitted.shared else b""
    return Artifact(code, constants, manifest_of(planned, target), pool)


def generate(text: str, target: Target) -> bytes:
    """Object code of a text for this process, large ones in parts at the same time."""
    # Objects are joined where they are 64-bit ELF, which every 64-bit machine has that the JIT engine runs on.
    parts = split(text) if target.pointer_bits == 64 else [text]
    with ThreadPoolExecutor(len(parts)) as together:
        return merged(list(together.map(lambda part: compile_module(part, target), parts)))


def manifest_of(planned: Planned, target: Target) -> Manifest:
    """The description of a planned model."""
    emitted = planned.emitted
    kernels = tuple(map(kernel_spec, planned.steps, emitted.calls, emitted.live))
    return Manifest(
        planned.name, ENTRY, planned.inputs, planned.outputs, emitted.workspace_bytes, emitted.workspace_bound,
        emitted.thread_bytes, kernels, target.name, version("tilewright"), planned.batch,
    )  # fmt: skip


def kernel_spec(step: Step, call: EntryCall, live: int) -> KernelSpec:
    """How the manifest describes a kernel call. Its result is the last value that it writes.

    What two parameters read, as the epilogue of sums of squares does, counts as read once.
    """
    kernel = step.kernel
    params = [param for param in kernel.function.params if isinstance(param, Buffer)]
    sizes = [param.size * param.type.bytes for param in params]
    written = [value for param, value in zip(params, step.arguments, strict=False) if param.access != "in"]
    buffers = [BufferSpec(at.space, at.offset, at.index, size) for at, size in zip(call.buffers, sizes, strict=True)]
    moved = sum(buffer.bytes for buffer, _ in {(b, param.access) for b, param in zip(buffers, params, strict=True)})
    return KernelSpec(
        kernel.function.name, step.source, step.template, kernel.flops, kernel.items, written[-1].type.shape,
        moved - kernel.scratch, tuple(buffers), live, kernel.performed,
    )  # fmt: skip


def tensor_spec(name: str, type: TensorType) -> TensorSpec:
    """How the manifest describes an input or output."""
    return TensorSpec(name, type.dtype.numpy.name, type.shape)
