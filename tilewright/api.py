"""The public interface: compile a model file or a model in memory into a callable `Model`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from tilewright.batches import Shape, symbol_of
from tilewright.compiler.targets import runnable
from tilewright.errors import CallError
from tilewright.reuse import Content, Request, Source, artifact_key, known_content
from tilewright.runtime.cache import Cache, open_cache
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import Model, Save
from tilewright.runtime.threads import count


def compile(
    source: Source,
    *,
    outputs: Sequence[str | int] | None = None,
    shapes: Mapping[str, Shape] | None = None,
    target: str = "host",
    threads: int = 0,
    conv: Literal["auto", "direct"] = "auto",
    cache: bool = True,
) -> Model:
    """Compile a model into native code.

    `source` is the path of an ONNX file, a TensorFlow GraphDef (binary or text) or a SavedModel's folder; or the bytes
    of such a file; or a message: `onnx.ModelProto`, or TensorFlow's `GraphDef`, `MetaGraphDef` or `SavedModel`. Its
    content says which it is. `outputs` names the tensors to compute
    instead of the model's own outputs: tensor names, node names, friendly layer names (`conv1_2`, the activation
    after its ReLU) or layer indices; what they do not need is left out. `shapes` gives input shapes by input
    name, in place of the declared ones. Dimensions that stay unknown are taken from the arrays of a call; each new
    combination of shapes is compiled once and kept.

    A name in place of an input's leading dimension, `shapes={"x": ("N", 3, 224, 224)}`, asks for one compiled form for
    every number of samples, from 0. The model must compute each sample alone; one that mixes them is refused. What
    comes out for a sample does not depend on how many there are.

    `target` is "host", or a narrower instruction set that the host runs too, such as "x86-64-v3".

    `threads` is how many threads compute a call, the caller one of them; 0 means TILEWRIGHT_NUM_THREADS if that is
    set, else all cores that this process may use. Results do not depend on it.

    `conv` is "auto" or "direct". With "auto", 3x3 and 5x5 convolutions may be computed by Winograd's minimal filtering,
    which takes up to four times fewer multiplications. Its rounding errors are a few times those of the direct
    method, and where an input is infinite or NaN, so become all outputs of the tiles that read it (up to 4x4 pixels)
    rather than only those whose window holds it. "direct" never does this.

    What was compiled is kept on disk and found again by the model's content, the outputs, shapes, options and the
    machine, unless `cache` is false; see `tilewright.runtime.cache` for where it lies. Models from there map their
    constants. Nothing is reported if the disk cannot be used; a warning is logged.

    Raises TilewrightError; its subclasses say what kind of problem it is (see `tilewright.errors`).
    """
    if conv not in ("auto", "direct"):
        raise CallError(f"conv is {conv!r}; it can be 'auto' or 'direct'")
    fixed = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    symbol_of(fixed)  # refuses names where there can be none
    request = Request(source, None if outputs is None else list(outputs), fixed, conv, runnable(target))
    workers, save = count(threads), _saver(request)
    store = open_cache() if cache else None
    content = None if store is None else known_content(store, source)
    if store is not None and content is not None:
        found = _warm(store, content, request, workers, save)
        if found is not None:
            return found
    # Loaded when something has to be compiled, which takes longer than all the rest of a warm start.
    from tilewright.jit import compile_model

    return compile_model(request, workers, save, store, content)


def _warm(cache: Cache, content: Content, request: Request, threads: int, save: Save) -> Model | None:
    """The model from the cache, if all shapes are known and it was compiled before."""
    note = cache.note(cache.key("request", content.digest, *request.options(request.shapes)))
    if note is None:
        return None
    inputs = [(port, dtype, tuple(shape)) for port, dtype, shape in note["inputs"]]
    given = dict(request.shapes) | {port: shape for port, _, shape in inputs}
    artifact = cache.get(artifact_key(cache, content, request.options(given)))
    if artifact is None:
        return None
    source, symbol = request.source, symbol_of(request.shapes)
    name = str(Path(source)) if isinstance(source, str | os.PathLike) else "the model"
    model = Model(
        name, inputs, note["outputs"], lambda shapes: Executable(artifact, threads), threads, symbol, save
    )
    model.executable(tuple(shape for _, _, shape in inputs))
    return model


def _saver(request: Request) -> Save:
    """What `Model.save` does: the model is read and compiled anew, since the code for this process has no header."""

    def save(
        path: Path, *, name: str | None, weights: Literal["embed", "external"], linker: str | None, cc: str | None,
        sysroot: str | None,
    ) -> None:  # fmt: skip
        from tilewright.aot import Tools, save_model

        save_model(
            request.source, path, target=request.target, outputs=request.outputs, shapes=request.shapes,
            conv=request.conv, name=name, weights=weights, tools=Tools(linker, cc, sysroot),
        )  # fmt: skip

    return save
