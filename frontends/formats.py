"""Reads a model of any format that Tilewright knows; which it is says its content.

    model = load("vgg16.onnx")              Loaded(format="ONNX", inputs=(Port("input", ...),), outputs=("y",), ...)
    model = load("saved_model_folder")      Loaded(format="TensorFlow", ...)
    model.translate(outputs=["conv1_2"])    a Graph

The formats' own packages are loaded when a file of theirs is met.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tilewright.compiler.ir import Graph
from tilewright.errors import ModelError, TilewrightError
from tilewright.frontends.files import open_file, refuse_strangers, view
from tilewright.frontends.layers import Layer
from tilewright.frontends.ports import Port

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Any
"""A path, bytes, or a protobuf message."""

Format = Literal["ONNX", "TensorFlow"]

MESSAGES: dict[str, Format] = {
    "ModelProto": "ONNX",
    "GraphDef": "TensorFlow",
    "MetaGraphDef": "TensorFlow",
    "SavedModel": "TensorFlow",
}
ENDINGS = (".pb", ".pbtxt", ".meta")
"""What TensorFlow calls its files; only consulted for files that look like nothing."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that was read, and what can be done with it.

    `files` are those it was read from besides the one that was named. `outputs` are the names of what it computes
    unless asked otherwise, `described` the same for people, `operators` those of its nodes. The functions are
    those of the format's `translate` and `names` modules, without their first parameter.
    """

    name: str
    format: Format
    files: tuple[Path, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    described: tuple[str, ...]
    operators: tuple[str, ...]
    translate: Callable[..., Graph]
    needed_inputs: Callable[..., tuple[Port, ...]]
    unsupported: Callable[..., dict[str, list[str]]]
    layers: Callable[[], tuple[Layer, ...]]


def load(source: Source) -> Loaded:
    """Read a model from a path, bytes or a protobuf message; raises TilewrightError."""
    try:
        format = recognise(source)
    except TilewrightError as error:
        name = str(Path(source)) if isinstance(source, str | os.PathLike) else "the model"
        raise error.located(model=name) from error.__cause__
    return _onnx(source) if format == "ONNX" else _tensorflow(source)


def recognise(source: Source) -> Format:
    """The format of a model; raises ModelError if it is none."""
    kind = str(getattr(getattr(source, "DESCRIPTOR", None), "name", ""))
    if kind in MESSAGES:
        return MESSAGES[kind]
    if isinstance(source, bytes | bytearray | memoryview):
        data = view(source)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            return "TensorFlow"
        data = open_file(path)
    else:
        raise ModelError(f"is of type {type(source).__name__}; pass a path, bytes, or a protobuf message")
    refuse_strangers(data, "a model")
    from tilewright.frontends.tensorflow import wire

    message = wire.recognise_text(data) or wire.recognise(data)
    if message is not None:
        return MESSAGES[message]
    if not isinstance(source, bytes | bytearray | memoryview) and Path(source).suffix in ENDINGS:
        return "TensorFlow"
    raise ModelError(
        "is neither an ONNX model nor a TensorFlow graph; pass a file that was exported to ONNX, a GraphDef, or a "
        "SavedModel's folder"
    )


def _onnx(source: Source) -> Loaded:
    from tilewright.frontends.onnx import names, translate
    from tilewright.frontends.onnx.model import read_model

    model = read_model(source)
    return Loaded(
        model.name,
        "ONNX",
        model.files,
        model.inputs,
        tuple(port.name for port in model.outputs),
        tuple(str(port) for port in model.outputs),
        tuple(node.full_op for node in model.nodes),
        partial(translate.translate, model),
        partial(translate.needed_inputs, model),
        partial(translate.unsupported, model),
        partial(names.layers, model),
    )


def _tensorflow(source: Source) -> Loaded:
    from tilewright.frontends.tensorflow import names, translate
    from tilewright.frontends.tensorflow.importer import read_model

    model = read_model(source)
    return Loaded(
        model.name,
        "TensorFlow",
        model.files,
        model.declared,
        tuple(model.outputs),
        tuple(model.outputs),
        translate.operators_of(model),
        partial(translate.translate, model),
        partial(translate.needed_inputs, model),
        partial(translate.unsupported, model),
        partial(names.layers, model),
    )
