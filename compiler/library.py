"""A planned model as a Library: kernels, entry points, thread pool and C interface in one module.

    library = build_library(plan_graph(graph, target, library=True), target, LibraryOptions(name="net"))
    write_shared(library, Path("net.so"))                  see tilewright.compiler.link

The kernels are those that run in this process too: the same text, compiled by the same code generator.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from blake3 import blake3

from tilewright.compiler.codegen.abi import Interface, Port, emit_abi, exported_functions, has_libc
from tilewright.compiler.codegen.cpu import checked_features
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.codegen.pool import emit_pool, has_pool
from tilewright.compiler.emit import ENTRY, PROFILED, pack_constants, packed_bytes
from tilewright.compiler.link import Library
from tilewright.compiler.link.header import HeaderFacts, c_name, c_names, header
from tilewright.compiler.pipeline import Planned, manifest_of
from tilewright.compiler.targets import Target
from tilewright.errors import CallError, UnsupportedError
from tilewright.runtime.abi import ABI_VERSION, ALIGNMENT, ERRORS, MOST_THREADS, weights_header
from tilewright.runtime.artifact import Manifest, Room, TensorSpec, aligned_empty

POOL = "tw.pool"


@dataclass(frozen=True)
class LibraryOptions:
    """What the user says of a library: the name that its functions begin with, where its weights are, None for inside
    where the file format can hold them; and the hash of the model's file, if it is known."""

    name: str
    weights: Literal["embed", "external"] | None = None
    source_hash: str = ""


def library_name(text: str) -> str:
    """A file's stem or a model's name as the name of a library: an identifier of C."""
    return c_name(text)


def build_library(
    planned: Planned, target: Target, options: LibraryOptions, room: Room = aligned_empty
) -> Library:
    """Compile a model that was planned with `library=True`; its constants come to lie in what `room` gives.

    Raises CallError for a name that is no identifier of C, UnsupportedError for weights that cannot be embedded.
    """
    if options.name != c_name(options.name):
        raise CallError(
            f"'{options.name}' is no name that C functions can begin with; {c_name(options.name)} would be one"
        )
    manifest, size = manifest_of(planned, target), packed_bytes(planned.emitted)
    kind = _weights_kind(options.weights, size, target)
    with ThreadPoolExecutor(1) as beside:  # LLVM, NumPy and the hash let go of the interpreter lock
        packing = beside.submit(pack_constants, planned.emitted, room)
        # The hash of weights elsewhere stands in the code that checks them; others need not be waited for.
        digest = blake3(packing.result().data).digest() if kind == "external" else bytes(32)
        interface = _interface(manifest, target, options, (kind, size, digest), planned.emitted.shared)
        threads = [emit_pool(target, POOL, "internal ")] if interface.pool else []
        text, plain = (
            _joined([planned.emitted.text, emit_abi(interface, target, checked), *threads])
            for checked in (True, False)
        )
        code = compile_module(text, target)
        constants = packing.result()
    return Library(
        options.name, target.triple, code, text, plain, constants, kind, interface.weights_header,
        header(_header_facts(manifest, target, options, interface)), interface.metadata,
        exported_functions(interface, target), bool(interface.pool),
    )  # fmt: skip


Kind = Literal["embed", "external", "none"]


def _interface(
    manifest: Manifest, target: Target, options: LibraryOptions, weights: tuple[Kind, int, bytes], shared: bool
) -> Interface:
    """What the C interface is made from."""
    kind, size, digest = weights
    pool = POOL if shared and has_pool(target) else ""
    return Interface(
        options.name, ENTRY, PROFILED, _ports(manifest.inputs), _ports(manifest.outputs), manifest.batch is not None,
        manifest.workspace_bytes, manifest.thread_bytes if pool else 0, pool, kind, size, weights_header(size, digest),
        _metadata(manifest, target, options, kind, size, digest, bool(pool)),
    )  # fmt: skip


def _weights_kind(wanted: str | None, size: int, target: Target) -> Kind:
    if not size:
        return "none"
    elf = target.system == "linux" or (target.system == "none" and not target.architecture.startswith("wasm"))
    if wanted == "embed" and not elf:
        raise UnsupportedError(
            f"weights cannot be embedded in objects for {target.triple}; leave them in a file with weights='external'"
        )
    return "external" if wanted == "external" or not elf else "embed"


def _ports(specs: Sequence[TensorSpec]) -> tuple[Port, ...]:
    return tuple(
        Port(np.dtype(spec.dtype).itemsize, tuple(dim if isinstance(dim, int) else None for dim in spec.shape))
        for spec in specs
    )


def _joined(texts: Sequence[str]) -> str:
    """One module of several texts: a function that several declare is declared once."""
    declared: dict[str, None] = {}
    lines = []
    for text in texts:
        for line in text.split("\n"):
            if line.startswith("declare "):
                declared[line] = None
            else:
                lines.append(line)
    return "\n".join([*declared, *lines])


def _metadata(
    manifest: Manifest, target: Target, options: LibraryOptions, kind: str, size: int, digest: bytes, pool: bool
) -> str:
    """What NAME_metadata_json gives; `tilewright.runtime.native` reads it."""
    weights: dict[str, Any] = {"kind": kind, "bytes": size}
    if kind == "external":
        weights |= {"file": f"{options.name}.weights", "blake3": digest.hex()}
    content = {
        "abi": ABI_VERSION,
        "name": options.name,
        "model": {"name": manifest.name, "blake3": options.source_hash},
        "compiler": f"tilewright {version('tilewright')}",
        "target": {
            "name": target.name, "triple": target.triple, "cpu": target.cpu,
            "features": list(checked_features(target)),
        },
        "inputs": _tensors(manifest.inputs, "input"),
        "outputs": _tensors(manifest.outputs, "output"),
        "batch": manifest.batch.symbol if manifest.batch else None,
        "workspace": {
            "bytes": manifest.workspace_bytes, "bytes_per_further_thread": manifest.thread_bytes if pool else 0,
            "alignment": ALIGNMENT,
        },
        "threads": {"most": MOST_THREADS if pool else 1},
        "weights": weights,
        "kernels": [
            {"symbol": k.symbol, "source": k.source, "template": k.template, "flops": k.flops, "bytes": k.bytes}
            for k in manifest.kernels
        ],
    }  # fmt: skip
    return json.dumps(content, separators=(",", ":"))


def _tensors(specs: Sequence[TensorSpec], fallback: str) -> list[dict[str, Any]]:
    names = c_names((spec.name for spec in specs), fallback)
    return [
        {"name": spec.name, "c_name": name, "dtype": spec.dtype, "shape": list(spec.shape)}
        for spec, name in zip(specs, names, strict=True)
    ]


def _header_facts(manifest: Manifest, target: Target, options: LibraryOptions, interface: Interface) -> HeaderFacts:
    return HeaderFacts(
        options.name, manifest.inputs, manifest.outputs, manifest.batch.symbol if manifest.batch else "",
        interface.workspace_bytes, interface.thread_bytes, bool(interface.pool),
        f"{options.name}.weights" if interface.weights == "external" else "", len(manifest.kernels),
        has_libc(target), ABI_VERSION, ERRORS,
        (
            f"{options.name}: {manifest.name.rpartition('/')[2]}, compiled by Tilewright {version('tilewright')}",
            f"for {target.triple}, {target.cpu}.",
        ),
    )  # fmt: skip
