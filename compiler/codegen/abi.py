"""The C interface of a shared object as LLVM IR text: the functions that `NAME.h` declares, around an entry point.

    int32_t NAME_call(const tw_tensor *inputs, tw_tensor *outputs, tw_context *context)     any shapes, all options
    int32_t NAME_run(const NAME_inputs *, const NAME_outputs *, void *workspace)            one thread
    int32_t NAME_run_alloc(const NAME_inputs *, const NAME_outputs *, int32_t threads)      workspace from malloc
    size_t NAME_workspace_bytes(const int64_t *dims, int32_t threads)
    const char *NAME_missing_feature(void), *NAME_error_text(int32_t), *NAME_metadata_json(void)
    uint32_t NAME_abi_version(void)

Every argument is checked before a kernel sees it, by tables: a row for each tensor says its bytes, alignment and
dims. These functions are compiled for the least processor of the architecture, so that they can refuse one that
lacks what the kernels need (`cpu`). All names but those above are internal.

Weights are reached through a variable that holds their address, and never by name: then they may lie farther away
than an instruction can say, and LLVM cannot fold their unknown content.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import Template
from typing import Literal

from tilewright.compiler.codegen import abi_text
from tilewright.compiler.codegen.clock import emit_clock
from tilewright.compiler.codegen.cpu import emit_cpu
from tilewright.compiler.targets import Target
from tilewright.runtime.abi import ABI_VERSION, ALIGNMENT, ERRORS, MOST_THREADS, WEIGHTS_PAGE

Weights = Literal["embed", "external", "none"]


@dataclass(frozen=True)
class Port:
    """An input or output as the interface checks it: bytes of an element, dims, None for the size of the batch."""

    item_bytes: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Interface:
    """What the functions of a model called `name` are made from.

    `entry` is the entry point in the same module, `profiled` the one that reports times. `pool` is the symbol of the
    thread pool's table, or "". Sizes in bytes; `weights_header` is what a separate file of weights begins with.
    """

    name: str
    entry: str
    profiled: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batched: bool
    workspace_bytes: int
    thread_bytes: int
    pool: str
    weights: Weights
    weights_bytes: int
    weights_header: bytes
    metadata: str


def emit_abi(interface: Interface, target: Target, checked: bool = True) -> str:
    """LLVM IR text of the interface's functions; the entry points are defined elsewhere in the module.

    Unless `checked`, they take any processor for good enough, and name none themselves.
    """
    plain = plain_attributes(target) if checked else "nounwind"
    size = f"i{target.pointer_bits}"
    name = interface.name
    exported = "dllexport " if target.system == "windows" else ""
    dims = [-1 if dim is None else dim for port in (*interface.inputs, *interface.outputs) for dim in port.shape]
    starts = list(_starts([len(port.shape) for port in (*interface.inputs, *interface.outputs)]))
    count = len(interface.inputs)
    texts = [text for _, text in ERRORS]
    values = {
        "size": size,
        "plain": plain,
        "export": exported,
        "name": name,
        "abi": ABI_VERSION,
        "most": MOST_THREADS if interface.pool else 1,
        "mask": ALIGNMENT - 1,
        "inputs": count,
        "outputs": len(interface.outputs),
        "input_rows": _rows(interface.inputs, starts[:count]),
        "output_rows": _rows(interface.outputs, starts[count:]),
        "ndims": len(dims),
        "dims": f"[{', '.join(f'i64 {dim}' for dim in dims)}]" if dims else "zeroinitializer",
        "workspace": interface.workspace_bytes,
        "thread": interface.thread_bytes,
        "entry": interface.entry,
        "profiled": interface.profiled,
        "pool": f"bitcast ({{ i8*, i8* }}* @{interface.pool} to i8*)" if interface.pool else "null",
        "last_n": ", i64 %n" if interface.batched else "",
        "metadata_bytes": len(interface.metadata.encode()) + 1,
        "metadata": _string(interface.metadata),
        "errors": len(ERRORS),
        "error_texts": "\n".join(
            f'@tw.error.{i} = internal constant [{len(text) + 1} x i8] c"{text}\\00"' for i, text in enumerate(texts)
        ),
        "error_rows": ", ".join(
            f"i8* getelementptr ([{len(text) + 1} x i8], [{len(text) + 1} x i8]* @tw.error.{i}, i32 0, i32 0)"
            for i, text in enumerate(texts)
        ),
        "weights_bytes": interface.weights_bytes,
        "weights_words": ", ".join(f"i64 {word}" for word in struct.unpack("<8q", interface.weights_header)),
        "page": WEIGHTS_PAGE,
        "inverse": -ALIGNMENT,
        "to_size": _resized("%bytes", "i64", size),
        "needed_to_size": _resized("%needed", "i64", size),
        "run_alloc_size": _resized("%bytes", "i64", size),
        "bytes_to_i64": _resized("%bytes", size, "i64"),
        **_typed(interface),
        **{code: -number for number, (code, _) in enumerate(ERRORS)},
    }
    batch = abi_text.BATCH if interface.batched else abi_text.SINGLE
    pieces = [
        abi_text.TYPES, abi_text.TABLES, abi_text.CHECKS, abi_text.WEIGHTS[interface.weights], batch, abi_text.CALL,
        abi_text.TYPED,
    ]  # fmt: skip
    if has_libc(target):
        pieces.append(abi_text.ALLOC)
    filled = [Template(piece).substitute(values) for piece in pieces]
    cpu = emit_cpu(name, exported, plain, target if checked else replace(target, requires=()))
    return "\n".join([*filled, emit_clock(target, plain), cpu])


def _resized(value: str, source: str, target: str) -> str:
    """An integer in another type: sizes are unsigned and no larger than an address."""
    if source == target:
        return f"add {target} {value}, 0"
    return f"{'trunc' if source == 'i64' else 'zext'} {source} {value} to {target}"


def _typed(interface: Interface) -> dict[str, object]:
    """The struct of a typed call, and how its last members are read."""
    members, reads = [], {}
    for kind, type_, present in (("weights", "i8*", interface.weights == "external"), ("n", "i64", interface.batched)):
        if present:
            members.append(type_)
            reads[kind] = (
                f"%{kind}.at = getelementptr %tw.typed, %tw.typed* %inputs, i32 0, i32 {len(members)}\n"
                f"  %{kind} = load {type_}, {type_}* %{kind}.at"
            )
    return {
        "typed_members": "".join(f", {member}" for member in members),
        "typed_count": len(interface.inputs) + len(members),
        "typed_weights": reads.get("weights", "%weights = bitcast i8* null to i8*"),
        "typed_batch": reads.get("n", "%n = add i64 0, 1"),
    }


def exported_functions(interface: Interface, target: Target) -> tuple[str, ...]:
    """The names of the functions that others may call."""
    suffixes = ["abi_version", "call", "error_text", "metadata_json", "missing_feature", "run"]
    suffixes += ["run_alloc"] if has_libc(target) else []
    return tuple(f"{interface.name}_{suffix}" for suffix in [*suffixes, "workspace_bytes"])


def has_libc(target: Target) -> bool:
    """Whether there is a C library to take memory from: everywhere but on bare WebAssembly."""
    return not (target.architecture.startswith("wasm") and target.system != "wasi")


def plain_attributes(target: Target) -> str:
    """Attributes of functions that run on every processor of the architecture."""
    cpu = ' "target-cpu"="x86-64" "target-features"="+sse2"' if target.architecture == "x86_64" else ""
    return f"nounwind{cpu}"


def _starts(counts: Sequence[int]) -> Sequence[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def _rows(ports: Sequence[Port], starts: Sequence[int]) -> str:
    rows = []
    for port, start in zip(ports, starts, strict=True):
        bytes_ = port.item_bytes
        for dim in port.shape:
            bytes_ *= 1 if dim is None else dim
        batched = int(None in port.shape)
        align = min(port.item_bytes & -port.item_bytes, 8) - 1
        rows.append(f"%tw.spec {{ i64 {bytes_}, i32 {align}, i32 {len(port.shape)}, i32 {start}, i32 {batched} }}")
    return f"[{', '.join(rows)}]" if rows else "zeroinitializer"


def _string(text: str) -> str:
    """A C string as LLVM spells its bytes."""
    shown = [chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:02X}" for b in text.encode()]
    return f'c"{"".join(shown)}\\00"'
