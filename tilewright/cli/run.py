"""`tilewright run`: one call of a model on arrays from files."""

from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from tilewright.api import compile
from tilewright.cli.options import (
    batch_shape_option,
    cache_option,
    console,
    conv_option,
    folder,
    names,
    random_array,
    read_array,
    shown,
    table,
    threads_option,
    working,
)
from tilewright.errors import CallError
from tilewright.pictures import file_name
from tilewright.runtime.artifact import TensorSpec
from tilewright.runtime.model import Model


def parse_input(text: str) -> tuple[str, str]:
    """x=x.npy: an input's name and the file that holds it; raises click.BadParameter."""
    name, _, path = text.partition("=")
    if not (name and path):
        raise click.BadParameter(f"'{text}' is not an input; write it as x=x.npy")
    return name, path


@click.command(epilog="Example: tilewright run vgg16.onnx --input input=photograph.npy --output out")
@click.argument("model")
@click.option(
    "--input",
    "inputs",
    type=parse_input,
    multiple=True,
    metavar="NAME=FILE",
    help="An input's name and its .npy file; may be repeated.",
)
@batch_shape_option
@click.option("--outputs", metavar="A,B", help="Compute these tensors, nodes or layers instead.")
@click.option("--output", metavar="DIR", help="Write each output to DIR/NAME.npy.")
@click.option("--random", type=int, metavar="SEED", help="Fill the inputs that are not given with random numbers.")
@threads_option
@conv_option
@cache_option
def run(
    model: str,
    inputs: tuple[tuple[str, str], ...],
    shapes: tuple[tuple[str, tuple[int | str, ...]], ...],
    outputs: str | None,
    output: str | None,
    random: int | None,
    threads: int,
    conv: Literal["auto", "direct"],
    cache: bool,
) -> None:
    """Run MODEL, an ONNX file or a TensorFlow graph, on arrays and print what comes out."""
    into = None if output is None else folder(output)
    given = {name: read_array(name, path) for name, path in inputs}
    wanted = {name: array.shape for name, array in given.items()} | dict(shapes)
    with working(f"compiling {model}"):
        wished = names(outputs)
        compiled = compile(model, outputs=wished, shapes=wanted, threads=threads, conv=conv, cache=cache)
    given |= _missing(compiled, given, random)
    results = compiled.run(given)
    listing = table("output", "dtype", "shape", ">min", ">mean", ">max")
    for name, array in results.items():
        numbers = [f"{f(array):.6g}" for f in (np.min, np.mean, np.max)] if array.size else ["", "", ""]
        listing.add_row(name, str(array.dtype), shown(array.shape), *numbers)
    console().print(listing)
    if into is not None:
        for path, array in zip(_paths(into, results), results.values(), strict=True):
            np.save(path, array)
            console().print(f"wrote {path}")


def _missing(model: Model, given: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """Random arrays for the inputs that are not given, if asked for; else CallError names them."""
    lacking = [spec for spec in model.inputs if spec.name not in given]
    if not lacking:
        return {}
    shape = ", ".join(f"--input {spec.name}=FILE.npy ({spec.dtype} {shown(spec.shape)})" for spec in lacking)
    if seed is None:
        raise CallError(f"inputs are missing: {shape}; pass them, or --random SEED", model=model.name)
    random = np.random.default_rng(seed)
    return {spec.name: random_array(spec.dtype, known_shape(model, spec), random) for spec in lacking}


def known_shape(model: Model, spec: TensorSpec) -> tuple[int, ...]:
    """The shape of an input, an unknown first dimension (the batch) taken for 1.

    Raises CallError if another dimension is not known.
    """
    dims = [1 if i == 0 and isinstance(dim, str) else dim for i, dim in enumerate(spec.shape)]
    if any(isinstance(dim, str) for dim in dims):
        example = "x".join("224" if isinstance(dim, str) else str(dim) for dim in dims)
        raise CallError(
            f"input '{spec.name}' has unknown dimensions, {shown(spec.shape)}; pass for example --shape "
            f"{spec.name}={example}",
            model=model.name,
        )
    return tuple(int(dim) for dim in dims)


def _paths(into: Path, results: dict[str, Any]) -> list[Path]:
    """A file for each output; names that differ only in odd characters get a number."""
    paths: list[Path] = []
    for name in results:
        path, number = into / f"{file_name(name)}.npy", 1
        while path in paths:
            number += 1
            path = into / f"{file_name(name)}_{number}.npy"
        paths.append(path)
    return paths
