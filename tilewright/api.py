"""The public interface: compile a model file or a model in memory into a callable `Model`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.targets import by_name
from tilewright.errors import CallError, ShapeNeededError, TilewrightError
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import needed_inputs, translate
from tilewright.runtime.artifact import Artifact
from tilewright.runtime.model import Model
from tilewright.runtime.threads import count

Source = str | os.PathLike[str] | bytes | Any
Shape = tuple[int, ...]


def compile(
    source: Source,
    *,
    outputs: Sequence[str | int] | None = None,
    shapes: Mapping[str, Shape] | None = None,
    target: str = "host",
    threads: int = 0,
    conv: Literal["auto", "direct"] = "auto",
) -> Model:
    """Compile a model into native code.

    `source` is the path of an ONNX file, its bytes, or an `onnx.ModelProto`. `outputs` names the tensors to compute
    instead of the model's own outputs: tensor names, node names, friendly layer names (`conv1_2`, the activation
    after its ReLU) or layer indices; what they do not need is left out. `shapes` gives input shapes by input
    name, in place of the declared ones. Dimensions that stay unknown are taken from the arrays of a call; each new
    combination of shapes is compiled once and kept.

    `target` is "host", or a narrower instruction set that the host runs too, such as "x86-64-v3".

    `threads` is how many threads compute a call, the caller one of them; 0 means TILEWRIGHT_NUM_THREADS if that is
    set, else all cores that this process may use. Results do not depend on it.

    `conv` is "auto" or "direct". With "auto", 3x3 and 5x5 convolutions may be computed by Winograd's minimal filtering,
    which takes up to four times fewer multiplications. Its rounding errors are a few times those of the direct
    method, and where an input is infinite or NaN, so become all outputs of the tiles that read it (up to 4x4 pixels)
    rather than only those whose window holds it. "direct" never does this.

    Raises TilewrightError; its subclasses say what kind of problem it is (see `tilewright.errors`).
    """
    if conv not in ("auto", "direct"):
        raise CallError(f"conv is {conv!r}; it can be 'auto' or 'direct'")
    machine, workers = by_name(target), count(threads)
    loaded = read_model(source)
    fixed = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    ports = needed_inputs(loaded, outputs)

    def specialise(actual: tuple[Shape, ...]) -> Artifact:
        given = fixed | {port.name: shape for port, shape in zip(ports, actual, strict=True)}
        try:
            return compile_graph(translate(loaded, outputs=outputs, shapes=given), machine, conv=conv)
        except TilewrightError as error:
            raise error.located(model=loaded.name) from error.__cause__

    try:
        graph = translate(loaded, outputs=outputs, shapes=fixed)
    except ShapeNeededError:
        inputs = []
        for port in ports:
            dims = fixed.get(port.name, port.dims)
            if port.dtype is None or dims is None:
                raise CallError(
                    f"input '{port.name}' declares no rank; give its shape with shapes=", model=loaded.name
                ) from None
            named = tuple(f"{port.name}.{i}" if dim is None else dim for i, dim in enumerate(dims))
            inputs.append((port.name, port.dtype.numpy.name, named))
        names = [port.name for port in loaded.outputs] if outputs is None else [str(name) for name in outputs]
        return Model(loaded.name, inputs, names, specialise, workers)
    known = [(value.name, value.type.dtype.numpy.name, value.type.shape) for value in graph.inputs]
    model = Model(loaded.name, known, graph.output_names, specialise, workers)
    model.executable(tuple(value.type.shape for value in graph.inputs))
    return model
