"""Models that the cache does not have, compiled in this process.

    model = compile_model(request, threads=2, save=..., store=open_cache(), content=None)

While a file that was not met before is hashed, its model is planned; only then is it known whether the cache has
the code all the same.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tilewright.batches import Shape, symbol_of
from tilewright.compiler.batch import batch_graphs, batch_shapes
from tilewright.compiler.ir.graph import Graph
from tilewright.compiler.pipeline import Planned, compile_planned, plan_batch, plan_graph
from tilewright.errors import CallError, ShapeNeededError, TilewrightError
from tilewright.frontends.formats import Loaded, load
from tilewright.reuse import Content, Request, Source, Stamp, content_of, kept, stamps
from tilewright.runtime.artifact import Artifact, Room
from tilewright.runtime.cache import Cache
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import Model, Save


def compile_model(
    request: Request, threads: int, save: Save, store: Cache | None, content: Content | None
) -> Model:
    """The model that is asked for, its calls computed by `threads` threads; `content` if it is known already.

    Dimensions that stay open are taken from the arrays of a call. Raises TilewrightError.
    """
    before = stamps(request.source)
    loaded = load(request.source)
    hashed = _hashed(store, content, request.source, loaded, (*before, *stamps(*loaded.files)))
    ports = loaded.needed_inputs(request.outputs)
    symbol = symbol_of(request.shapes)
    graphs: dict[tuple[Shape, ...], tuple[Graph, Graph]] = {}  # translated, not planned yet, by the inputs' shapes

    def translated(given: Mapping[str, Any]) -> tuple[Graph, Graph]:
        """The graphs for 2 and 3 samples; the graph, twice, if it does not depend on that."""

        def one(shapes: Mapping[str, Any]) -> Graph:
            return loaded.translate(outputs=request.outputs, shapes=shapes)

        return batch_graphs(one, given) if symbol else (one(given),) * 2

    def plan(given: Mapping[str, Any], actual: tuple[Shape, ...]) -> Planned:
        try:
            two, three = graphs.pop(actual) if actual in graphs else translated(given)
            if symbol is None:
                return plan_graph(two, request.target, conv=request.conv)
            return plan_batch(two, three, symbol, request.target, conv=request.conv)
        except TilewrightError as error:
            raise error.located(model=loaded.name) from error.__cause__

    def specialise(actual: Sequence[Shape]) -> Executable:
        given = dict(request.shapes) | {port.name: shape for port, shape in zip(ports, actual, strict=True)}
        early = None if hashed.done() else plan(given, tuple(actual))

        def make(room: Room) -> Artifact:
            return compile_planned(early or plan(given, tuple(actual)), request.target, room)

        label = os.path.basename(loaded.name)
        return Executable(kept(store, hashed.result(), request.options(given), label, make), threads)

    try:
        first, other = translated(request.shapes)
    except ShapeNeededError:
        if symbol is not None:
            raise
        return _open_model(loaded, request, specialise, threads, save)
    dims = batch_shapes(first, other, symbol) if symbol else {value.name: value.type.shape for value in first.inputs}
    inputs = [(value.name, value.type.dtype.numpy.name, dims[value.name]) for value in first.inputs]
    outputs = first.output_names
    shapes = tuple(shape for _, _, shape in inputs)
    graphs[shapes] = first, other
    del first, other  # with what they hold of the weights
    model = Model(loaded.name, inputs, outputs, specialise, threads, symbol, save)
    model.executable(shapes)
    known = hashed.result()
    if store is not None and known is not None and known.current():
        key = store.key("request", known.digest, *request.options(request.shapes))
        store.put_note(key, {"inputs": inputs, "outputs": outputs})
    return model


def _open_model(
    loaded: Loaded, request: Request, specialise: Callable[[Sequence[Shape]], Executable], threads: int, save: Save
) -> Model:
    """A model some of whose dimensions are settled at a call."""
    inputs = []
    for port in loaded.needed_inputs(request.outputs):
        declared = request.shapes.get(port.name, port.dims)
        if port.dtype is None or declared is None:
            raise CallError(
                f"input '{port.name}' declares no rank; give its shape with shapes=", model=loaded.name
            ) from None
        named = tuple(f"{port.name}.{i}" if dim is None else dim for i, dim in enumerate(declared))
        inputs.append((port.name, port.dtype.numpy.name, named))
    names = list(loaded.outputs) if request.outputs is None else [str(name) for name in request.outputs]
    return Model(loaded.name, inputs, names, specialise, threads, save=save)


def _hashed(
    store: Cache | None, content: Content | None, source: Source, loaded: Loaded, read: Sequence[Stamp]
) -> "Future[Content | None]":
    """The model's content, which may still be computed beside; None without a cache. `read` as for `read_content`."""
    if store is None or content is not None:
        known: Future[Content | None] = Future()
        known.set_result(content)
        return known
    beside = ThreadPoolExecutor(1)
    future = beside.submit(content_of, store, source, loaded.files, read)
    beside.shutdown(wait=False)
    return future
