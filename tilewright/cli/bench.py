"""`tilewright bench`: how long one call of a model takes, beside other engines and layer by layer."""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from tilewright.api import compile
from tilewright.benching import OURS, Layer, measure
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
from tilewright.engines import PACKAGES
from tilewright.peak import Peak, machine_peak
from tilewright.peers import check_peer
from tilewright.report import page


@click.command(
    epilog="Example: tilewright bench resnet50.onnx --shape data=8x3x224x224 --threads 1 --against onnxruntime,openvino"
)
@click.argument("model")
@shape_option
@click.option("--outputs", metavar="A,B", help="Compute these tensors, nodes or layers instead.")
@click.option(
    "--against",
    metavar="A,B",
    help=f"Engines to compare with, in turn: {', '.join(PACKAGES)}. Each must be installed.",
)
@click.option("--rounds", type=click.IntRange(1), help="Calls to time, of each engine.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Without --rounds: as many calls as fit into this time, for all engines together.",
)
@threads_option
@conv_option
@click.option(
    "--sort",
    type=click.Choice(["order", "time"]),
    default="order",
    show_default=True,
    help="Layers as they are run, or the slowest first.",
)
@click.option("--report", metavar="FILE", help="Write a page of charts, HTML, to FILE.")
@click.option("--json", "json_file", metavar="FILE", help="Write JSON to FILE, or to stdout for -, and no tables.")
def bench(
    model: str,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    outputs: str | None,
    against: str | None,
    rounds: int | None,
    seconds: float,
    threads: int,
    conv: Convolutions,
    sort: str,
    report: str | None,
    json_file: str | None,
) -> None:
    """Time MODEL, an ONNX file or a TensorFlow graph, on random inputs: calls, and each kernel on one thread.

    A kernel's limit is a roofline: the share it reaches of this machine's measured peak or memory bandwidth,
    whichever binds it. It passes 100% where data come from the caches. GFLOP/s count convolutions as if computed
    directly; the limit counts the operations carried out, which with Winograd are fewer.

    Other engines run ONNX files only, each in a process of its own, in turn with Tilewright, and stopped while others
    run. torch and ncnn run the model as pnnx converts it.
    """
    rivals = names(against) or []
    for name in rivals:
        check_peer(name)
    if rivals and outputs:
        raise click.UsageError("--against runs whole models; leave out --outputs")
    with working(f"compiling {model}"):
        started = time.perf_counter()
        compiled = compile(
            model, outputs=names(outputs), shapes=dict(shapes), threads=threads, conv=conv, cache=False
        )
        dims = {spec.name: known_shape(compiled, spec) for spec in compiled.inputs}
        compiled.executable(tuple(dims.values()))
        compiling = time.perf_counter() - started
    random = np.random.default_rng(0)
    inputs = {spec.name: random_array(spec.dtype, dims[spec.name], random) for spec in compiled.inputs}
    with working(f"running {model}") as tell, tempfile.TemporaryDirectory() as folder:
        facts = measure(model, compiled, inputs, rivals, Path(folder), rounds or 0, seconds, tell=tell)
    facts["compile_ms"] = compiling * 1e3
    found = [Layer(**row) for row in facts["layers"]]
    shown_layers = sorted(found, key=lambda layer: -layer.ms) if sort == "time" else found
    facts["layers"] = [asdict(layer) for layer in shown_layers]
    peak = machine_peak()
    if report is not None:
        Path(report).write_text(page(facts, found, peak), encoding="utf-8")
        click.echo(f"wrote {report}", err=json_file == "-")
    text = json.dumps(facts, indent=2)
    if json_file == "-":
        click.echo(text)
    elif json_file is not None:
        Path(json_file).write_text(text + "\n")
        click.echo(f"wrote {json_file}")
    else:
        _print(facts, shown_layers, peak)


def _print(facts: dict[str, Any], found: Sequence[Layer], peak: Peak) -> None:
    out = console()
    listing = table("", "")
    for name, shape in facts["inputs"].items():
        listing.add_row(f"input {name}", shown(shape))
    listing.add_row("compile", f"{facts['compile_ms'] / 1e3:.2f} s")
    listing.add_row("threads", str(facts["threads"]))
    listing.add_row("kernel calls", str(facts["kernels"]))
    listing.add_row("workspace", f"{facts['workspace_bytes'] / 2**20:.1f} MiB")
    listing.add_row(f"fastest of {facts['calls']} calls", f"{facts['min']:.3f} ms")
    listing.add_row("median", f"{facts['median']:.3f} ms ± {facts['spread']:.3f}")
    listing.add_row("at the median", f"{facts['gflops']:.1f} GFLOP/s")
    out.print(listing)
    if facts["peers"]:
        listing = table("engine", ">min ms", ">median ms", ">spread", ">times ours", ">difference")
        mine = {**facts, "name": OURS, "version": "", "note": "", "ratio": 1.0, "difference": None}
        for row in (mine, *(peer for peer in facts["peers"] if "error" not in peer)):
            listing.add_row(
                " ".join(filter(None, (row["name"], row["version"], row["note"]))),
                f"{row['min']:.3f}", f"{row['median']:.3f}", f"{row['spread']:.3f}",
                f"{row['ratio']:.2f}", "" if row["difference"] is None else f"{row['difference']:.1e}",
            )  # fmt: skip
        out.print()
        out.print(listing)
        for row in facts["peers"]:
            if "error" in row:
                out.print(row["error"])
    listing = table("layer", "template", "result", ">ms", ">share", ">GFLOP/s", ">of limit", "bound by")
    for layer in found:
        listing.add_row(
            layer.layer or "-", layer.template, shown(layer.shape), f"{layer.ms:.3f}", f"{layer.share:.1%}",
            "-" if layer.gflops is None else f"{layer.gflops:.1f}",
            "-" if layer.limit is None else f"{layer.limit:.0%}", layer.bound or "",
        )  # fmt: skip
    listing.add_row("total", "", "", f"{sum(layer.ms for layer in found):.3f}", style="bold")
    out.print()
    out.print(listing)
    paces = [layer.peak for layer in found] or [peak.flops / 1e9]
    out.print(
        f"one thread; the limits are {min(paces):.0f} to {max(paces):.0f} GFLOP/s, which the core reached in "
        f"multiply-adds beside each kernel ({peak.flops / 1e9:.0f} at its best), and {peak.bandwidth / 1e9:.1f} GB/s"
    )
