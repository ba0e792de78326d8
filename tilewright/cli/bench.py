"""`tilewright bench`: how long one call of a model takes."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np

from tilewright.api import compile
from tilewright.cli.options import (
    console,
    conv_option,
    names,
    random_array,
    shape_option,
    shown,
    table,
    threads_option,
    working,
)
from tilewright.cli.run import known_shape
from tilewright.compiler.pipeline import Convolutions
from tilewright.runtime.model import Model, empty


@dataclass(frozen=True)
class Timing:
    """Times of single calls in milliseconds; `spread` is half the distance between the quartiles."""

    rounds: int
    min: float
    median: float
    spread: float
    gflops: float
    """Billions of operations a second at the median, a multiply-add counted as two."""


def measure(model: Model, shapes: Sequence[tuple[int, ...]], rounds: int, seconds: float) -> Timing:
    """Time calls on random inputs: `rounds` of them, or if that is 0 as many as fit into `seconds`."""
    random = np.random.default_rng(0)
    inputs = [random_array(spec.dtype, shape, random) for spec, shape in zip(model.inputs, shapes, strict=True)]
    manifest = model.executable(tuple(shapes)).manifest
    outputs = [empty(spec) for spec in manifest.outputs]
    flops = sum(kernel.flops for kernel in manifest.kernels)
    times: list[float] = []
    model(*inputs, out=outputs)
    began = time.perf_counter()
    while len(times) < rounds if rounds else len(times) < 5 or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        model(*inputs, out=outputs)
        times.append((time.perf_counter() - started) * 1e3)
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return Timing(len(times), min(times), median, (high - low) / 2, flops / median / 1e6)


@click.command(epilog="Example: tilewright bench resnet50.onnx --shape data=1x3x224x224 --rounds 50")
@click.argument("model")
@shape_option
@click.option("--outputs", metavar="A,B", help="Compute these tensors, nodes or layers instead.")
@click.option("--rounds", type=click.IntRange(1), help="Calls to time; by default as many as fit into 3 seconds.")
@threads_option
@conv_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    model: str,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    outputs: str | None,
    rounds: int | None,
    threads: int,
    conv: Convolutions,
    as_json: bool,
) -> None:
    """Time MODEL, an ONNX file, on random inputs."""
    with working(f"compiling {model}"):
        started = time.perf_counter()
        compiled = compile(model, outputs=names(outputs), shapes=dict(shapes), threads=threads, conv=conv)
        inputs = {spec.name: known_shape(compiled, spec) for spec in compiled.inputs}
        manifest = compiled.executable(tuple(inputs.values())).manifest
        compiling = time.perf_counter() - started
    with working(f"running {model}"):
        timing = measure(compiled, tuple(inputs.values()), rounds or 0, 3.0)
    facts: dict[str, Any] = {
        "model": model,
        "inputs": inputs,
        "threads": compiled.threads,
        "compile_ms": compiling * 1e3,
        "workspace_bytes": manifest.workspace_bytes,
        "kernels": len(manifest.kernels),
        **asdict(timing),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    listing = table("", "")
    for name, shape in inputs.items():
        listing.add_row(f"input {name}", shown(shape))
    listing.add_row("compile", f"{compiling:.2f} s")
    listing.add_row("threads", str(compiled.threads))
    listing.add_row("kernel calls", str(facts["kernels"]))
    listing.add_row("workspace", f"{manifest.workspace_bytes / 2**20:.1f} MiB")
    listing.add_row(f"fastest of {timing.rounds} calls", f"{timing.min:.3f} ms")
    listing.add_row("median", f"{timing.median:.3f} ms ± {timing.spread:.3f}")
    listing.add_row("at the median", f"{timing.gflops:.1f} GFLOP/s")
    console().print(listing)
