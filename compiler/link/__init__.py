"""From compiled code to files: shared objects, objects, static archives, headers, and weights of their own.

    library = Library(name="net", triple=..., code=..., constants=..., weights="embed", ...)   the pipeline makes it

    write_shared(library, Path("net.so"), Tools(linker=None, cc=None, sysroot=None, report=print))
    write_object(library, Path("net.o"))
    write_archive(library, Path("libnet.a"))
    write_header(library, Path("net.h"))

Each writes one file, whole or not at all: under another name, flushed, then renamed. Where the weights are a file of
their own, all but the header write it too, as `library.weights_file` in the same folder, and before the rest.
`report` hears each command before it runs. Errors: OutputError (disk), LinkError (linkers), UnsupportedError.

`linkers` finds and runs linkers, `builtin` is the one that is always there; `objects` joins code and weights, `header`
and `archive` are what they say. The same library always makes the same bytes.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from tilewright.compiler.link import builtin
from tilewright.compiler.link.archive import archive
from tilewright.compiler.link.drafts import LARGE, Draft, drafted
from tilewright.compiler.link.files import new_file, new_name, write_all
from tilewright.compiler.link.linkers import BUILTIN, Candidate, Tools, Wanted, candidates, run
from tilewright.compiler.link.objects import Chunk, with_weights
from tilewright.errors import LinkError, UnsupportedError
from tilewright.runtime.abi import WEIGHTS_PAGE
from tilewright.runtime.seal import seal

__all__ = ["Library", "Tools", "drafted", "write_archive", "write_header", "write_object", "write_shared"]


@dataclass(frozen=True, eq=False)
class Library:
    """A model as code with the C interface, before it is in a file.

    `code` is one object with everything but the weights; `text` the LLVM IR it was compiled from, and
    `plain_text` the same without the check of the processor, which only code for that processor can make.
    `exports` are the functions that others call. Where the weights are embedded, the code uses the undefined symbol
    NAME_weights; where they are external, `weights_header` begins their file. `pool` says that it starts threads.
    """

    name: str
    triple: str
    code: bytes
    text: str
    plain_text: str
    constants: npt.NDArray[np.uint8]
    weights: Literal["embed", "external", "none"]
    weights_header: bytes
    header: str
    metadata: str
    exports: tuple[str, ...]
    pool: bool

    @property
    def symbol(self) -> str:
        """What the code calls its embedded weights."""
        return f"{self.name}_weights"

    @property
    def weights_file(self) -> str:
        """The name of the file of weights, if there is one."""
        return f"{self.name}.weights"


def write_object(library: Library, path: Path) -> None:
    """Write one object file, with the weights if they are embedded."""
    chunks = _object(library)
    _write_weights(library, path)
    _write(path, chunks)


def write_archive(library: Library, path: Path) -> None:
    """Write a static archive that holds the object."""
    if "apple" in library.triple:
        raise UnsupportedError("Apple's linker wants archives of its own kind; write an object and use its libtool")
    chunks = archive(f"{library.name}.o", library.exports, _object(library))
    _write_weights(library, path)
    _write(path, chunks)


def write_header(library: Library, path: Path) -> None:
    """Write the C header."""
    _write(path, [library.header.encode()])


def write_shared(library: Library, path: Path, tools: Tools | None = None, draft: Draft | None = None) -> None:
    """Write a shared object: a library that programs link with or load. The weights may lie in a draft of it."""
    tools = tools or Tools()
    wanted = Wanted(library.triple, path.name, library.pool, library.exports)
    own = builtin.can_link(library.code) and "linux" in library.triple
    _write_weights(library, path)
    failures = []
    large = library.weights == "embed" and library.constants.nbytes >= LARGE
    for candidate in candidates(wanted, tools, own, large):
        try:
            return _link(library, path, candidate, tools, draft)
        except LinkError as error:
            if candidate.asked:
                raise
            failures.append(error.message)
    tried = f"; these failed: {'; '.join(failures)}" if failures else ""
    raise LinkError(
        f"no linker for {library.triple} was found{tried}. Install lld, or `pip install ziglang`, or name one with "
        "linker= or cc= (--linker, --cc); an object file (--emit obj) needs no linker"
    )


def _link(library: Library, path: Path, candidate: Candidate, tools: Tools, draft: Draft | None) -> None:
    """Link with one linker."""
    begun = draft.take(library.constants) if draft is not None and candidate.name == BUILTIN else None
    with new_name(path, begun) as out:
        if candidate.name == BUILTIN:
            if tools.report is not None:
                tools.report(f"built-in linker: {path}")
            weights = library.constants if library.weights == "embed" else None
            with open(out, "r+b") as file:
                builtin.link(file, library.code, path.name, library.symbol, weights, library.pool, begun is not None)
        else:
            with tempfile.TemporaryDirectory(".partial", f".{path.name}.", path.parent) as folder:
                object_ = Path(folder) / f"{library.name}.o"
                with open(object_, "wb") as file:
                    _write_chunks(file, _object(library))
                # What linkers write besides, such as a Windows program's debug information, goes with the folder.
                linked = Path(folder) / path.name
                run(candidate, [object_], linked, tools.report)
                os.replace(linked, out)
        if "linux" in library.triple:
            seal(out, library.symbol)


def _object(library: Library) -> list[Chunk]:
    """The object file's content."""
    if library.weights != "embed":
        return [library.code]
    return with_weights(library.code, library.symbol, library.constants)


def _write_weights(library: Library, beside: Path) -> None:
    """Write the file of weights, if there is to be one."""
    if library.weights == "external":
        head = library.weights_header.ljust(WEIGHTS_PAGE, b"\0")
        _write(beside.with_name(library.weights_file), [head, library.constants])


def _write(path: Path, chunks: list[Chunk]) -> None:
    with new_file(path) as file:
        _write_chunks(file, chunks)


def _write_chunks(file: BinaryIO, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        write_all(file, chunk if isinstance(chunk, bytes) else chunk.data)
