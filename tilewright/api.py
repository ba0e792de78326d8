"""The public interface: compile a model file or a model in memory into a callable `Model`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tilewright.batches import Shape, symbol_of
from tilewright.compiler.ir.graph import Graph
from tilewright.compiler.targets import Target, runnable
from tilewright.errors import CallError, ShapeNeededError, TilewrightError
from tilewright.reuse import Content, artifact_key, kept, known_content, read_content
from tilewright.runtime.artifact import Artifact
from tilewright.runtime.cache import Cache, open_cache
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import Model, Save
from tilewright.runtime.threads import count

Source = str | os.PathLike[str] | bytes | Any


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
    machine, workers = runnable(target), count(threads)
    fixed = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    symbol = symbol_of(fixed)
    asked = None if outputs is None else list(outputs)
    save = _saver(source, asked, fixed, conv, machine)
    store = open_cache() if cache else None
    content = None if store is None else known_content(store, source)
    if store is not None and content is not None:
        found = _warm(store, content, source_name(source), asked, fixed, (conv, machine), workers, save)
        if found is not None:
            return found

    # Loaded when something has to be compiled, which takes longer than all the rest of a warm start.
    from tilewright.compiler.batch import batch_graphs, batch_shapes
    from tilewright.compiler.pipeline import compile_batch, compile_graph
    from tilewright.frontends.formats import load

    loaded = load(source)
    if store is not None and content is None and isinstance(source, str | os.PathLike):
        content = read_content(store, source, loaded.files)
        if content is not None:
            found = _warm(store, content, loaded.name, asked, fixed, (conv, machine), workers, save)
            if found is not None:
                return found
    ports = loaded.needed_inputs(asked)

    def translated(given: Mapping[str, Any]) -> Graph:
        return loaded.translate(outputs=asked, shapes=given)

    def make(given: Mapping[str, Any]) -> Artifact:
        try:
            if symbol is not None:
                return compile_batch(*batch_graphs(translated, given), symbol, machine, conv=conv)
            return compile_graph(translated(given), machine, conv=conv)
        except TilewrightError as error:
            raise error.located(model=loaded.name) from error.__cause__

    def specialise(actual: Sequence[Shape]) -> Executable:
        given = fixed | {port.name: shape for port, shape in zip(ports, actual, strict=True)}
        options = _options(asked, given, conv, machine)
        artifact = kept(store, content, options, os.path.basename(loaded.name), lambda: make(given))
        return Executable(artifact, workers)

    try:
        if symbol is None:
            graph = translated(fixed)
            dims: Mapping[str, Shape] = {value.name: value.type.shape for value in graph.inputs}
        else:
            graph, other = batch_graphs(translated, fixed)
            dims = batch_shapes(graph, other, symbol)
    except ShapeNeededError:
        if symbol is not None:
            raise
        inputs = []
        for port in ports:
            declared = fixed.get(port.name, port.dims)
            if port.dtype is None or declared is None:
                raise CallError(
                    f"input '{port.name}' declares no rank; give its shape with shapes=", model=loaded.name
                ) from None
            named = tuple(f"{port.name}.{i}" if dim is None else dim for i, dim in enumerate(declared))
            inputs.append((port.name, port.dtype.numpy.name, named))
        names = list(loaded.outputs) if asked is None else [str(name) for name in asked]
        return Model(loaded.name, inputs, names, specialise, workers, save=save)
    known = [(value.name, value.type.dtype.numpy.name, dims[value.name]) for value in graph.inputs]
    model = Model(loaded.name, known, graph.output_names, specialise, workers, symbol, save)
    model.executable(tuple(shape for _, _, shape in known))
    if store is not None and content is not None and content.current():
        note = {"inputs": known, "outputs": graph.output_names}
        store.put_note(store.key("request", content.digest, *_options(asked, fixed, conv, machine)), note)
    return model


def source_name(source: Source) -> str:
    """What messages call a model."""
    return str(Path(source)) if isinstance(source, str | os.PathLike) else "the model"


def _warm(
    cache: Cache,
    content: Content,
    name: str,
    outputs: Sequence[str | int] | None,
    fixed: Mapping[str, Shape],
    how: tuple[str, Target],
    threads: int,
    save: Save,
) -> Model | None:
    """The model from the cache, if all shapes are known and it was compiled before."""
    note = cache.note(cache.key("request", content.digest, *_options(outputs, fixed, *how)))
    if note is None:
        return None
    inputs = [(port, dtype, tuple(shape)) for port, dtype, shape in note["inputs"]]
    given = dict(fixed) | {port: shape for port, _, shape in inputs}
    artifact = cache.get(artifact_key(cache, content, _options(outputs, given, *how)))
    if artifact is None:
        return None
    model = Model(
        name, inputs, note["outputs"], lambda shapes: Executable(artifact, threads), threads, symbol_of(fixed), save
    )
    model.executable(tuple(shape for _, _, shape in inputs))
    return model


def _saver(
    source: Source, outputs: Sequence[str | int] | None, fixed: Mapping[str, Shape],
    conv: Literal["auto", "direct"], machine: Target,
) -> Save:  # fmt: skip
    """What `Model.save` does: the model is read and compiled anew, since the code for this process has no header."""

    def save(
        path: Path, *, name: str | None, weights: Literal["embed", "external"], linker: str | None, cc: str | None,
        sysroot: str | None,
    ) -> None:  # fmt: skip
        from tilewright.aot import Tools, save_model

        save_model(
            source, path, target=machine, outputs=outputs, shapes=fixed, conv=conv, name=name, weights=weights,
            tools=Tools(linker, cc, sysroot),
        )  # fmt: skip

    return save


def _options(
    outputs: Sequence[str | int] | None, shapes: Mapping[str, Shape], conv: str, machine: Target
) -> tuple[object, ...]:
    """All that the code depends on besides the model's content."""
    dims = sorted((name, [str(dim) for dim in shape]) for name, shape in shapes.items())
    return outputs, dims, conv, repr(machine)
