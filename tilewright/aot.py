"""Models as libraries: from a loaded model file to code with the C interface, not yet in a file.

    loaded = load("net.onnx")                                         tilewright.frontends.formats
    with drafted(path, target.triple, tools) as draft:                tilewright.compiler.link
        library = library_of(loaded, LibraryOptions("net"), target=target, room=draft.room)
        write_shared(library, path, tools, draft)
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tilewright.batches import Shape, symbol_of
from tilewright.compiler.batch import batch_graphs
from tilewright.compiler.ir.graph import Graph
from tilewright.compiler.library import LibraryOptions, build_library, library_name
from tilewright.compiler.link import Library, Tools, drafted, write_header, write_shared
from tilewright.compiler.pipeline import Convolutions, plan_batch, plan_graph
from tilewright.compiler.targets import Target
from tilewright.errors import TilewrightError
from tilewright.frontends.formats import Loaded, Source, load
from tilewright.reuse import digest_of
from tilewright.runtime.artifact import Room, aligned_empty

__all__ = ["Library", "LibraryOptions", "Tools", "library_of", "save_model"]


def library_of(
    loaded: Loaded,
    options: LibraryOptions,
    *,
    target: Target,
    outputs: Sequence[str | int] | None = None,
    shapes: Mapping[str, Shape] | None = None,
    conv: Convolutions = "auto",
    source: Source | None = None,
    room: Room = aligned_empty,
) -> Library:
    """Compile a model for `target`; `outputs`, `shapes` and `conv` are those of `tilewright.compile`.

    `source` is what `loaded` was loaded from, for its hash to be found in the library. The weights come to lie in
    what `room` gives. Raises TilewrightError: ShapeNeededError where `shapes` leaves a dimension open.
    """
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}

    def translated(shapes: Mapping[str, Any]) -> Graph:
        return loaded.translate(outputs=outputs, shapes=shapes)

    symbol = symbol_of(given)
    try:
        with ThreadPoolExecutor(1) as beside:  # hashing lets go of the interpreter lock
            hashed = None if source is None else beside.submit(digest_of, source, loaded.files)
            if symbol is None:
                planned = plan_graph(translated(given), target, conv=conv, library=True)
            else:
                planned = plan_batch(*batch_graphs(translated, given), symbol, target, conv=conv, library=True)
            options = options if hashed is None else replace(options, source_hash=hashed.result())
        return build_library(planned, target, options, room)
    except TilewrightError as error:
        raise error.located(model=loaded.name) from error.__cause__


def save_model(
    source: Source,
    path: Path,
    *,
    target: Target,
    outputs: Sequence[str | int] | None = None,
    shapes: Mapping[str, Shape] | None = None,
    conv: Convolutions = "auto",
    name: str | None = None,
    weights: Literal["embed", "external"] | None = None,
    tools: Tools | None = None,
) -> None:
    """Compile a model and write the shared object `path` and, beside it, its header.

    `name` is what its functions' names begin with, by default the stem of `path`.
    """
    loaded = load(source)
    options = LibraryOptions(library_name(path.stem) if name is None else name, weights)
    with drafted(path, target.triple, tools or Tools(), weights == "external") as draft:
        library = library_of(
            loaded, options, target=target, outputs=outputs, shapes=shapes, conv=conv, source=source, room=draft.room
        )
        write_header(library, path.with_suffix(".h"))
        write_shared(library, path, tools, draft)
