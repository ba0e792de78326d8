"""Models as libraries: from a loaded model file to code with the C interface, not yet in a file.

    loaded = load("net.onnx")                                         tilewright.frontends.formats
    library = library_of(loaded, LibraryOptions("net"), target=host())
    write_shared(library, Path("net.so"))                             tilewright.compiler.link
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tilewright.batches import Shape, symbol_of
from tilewright.compiler.batch import batch_graphs
from tilewright.compiler.ir.graph import Graph
from tilewright.compiler.library import LibraryOptions, build_library, library_name
from tilewright.compiler.link import Library, Tools, write_header, write_shared
from tilewright.compiler.pipeline import Convolutions, plan_batch, plan_graph
from tilewright.compiler.targets import Target
from tilewright.errors import TilewrightError
from tilewright.frontends.formats import Loaded, Source, load
from tilewright.reuse import digest_of

__all__ = ["Library", "LibraryOptions", "Tools", "library_of", "save_model"]


def library_of(
    loaded: Loaded,
    options: LibraryOptions,
    *,
    target: Target,
    outputs: Sequence[str | int] | None = None,
    shapes: Mapping[str, Shape] | None = None,
    conv: Convolutions = "auto",
) -> Library:
    """Compile a model for `target`; the other arguments are those of `tilewright.compile`.

    Raises TilewrightError: ShapeNeededError where `shapes` leaves a dimension open.
    """
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}

    def translated(shapes: Mapping[str, Any]) -> Graph:
        return loaded.translate(outputs=outputs, shapes=shapes)

    symbol = symbol_of(given)
    try:
        if symbol is None:
            planned = plan_graph(translated(given), target, conv=conv, library=True)
        else:
            planned = plan_batch(*batch_graphs(translated, given), symbol, target, conv=conv, library=True)
        return build_library(planned, target, options)
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
    chosen = library_name(path.stem) if name is None else name
    options = LibraryOptions(chosen, weights, digest_of(source, loaded.files))
    library = library_of(loaded, options, target=target, outputs=outputs, shapes=shapes, conv=conv)
    write_header(library, path.with_suffix(".h"))
    write_shared(library, path, tools)
