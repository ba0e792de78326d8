"""`tilewright hypercolumns`: the hypercolumns of a photograph as an array and as pictures."""

import os
import time
from pathlib import Path

import click
import numpy as np

from tilewright.cli.options import (
    Array,
    cache_option,
    console,
    conv_option,
    folder,
    names,
    parse_size,
    shown,
    table,
    threads_option,
    working,
)
from tilewright.columns import PREPROCESS, VGG_LAYERS, Hypercolumns
from tilewright.compiler.pipeline import Convolutions
from tilewright.errors import ImageError
from tilewright.pictures import write_pictures


@click.command(epilog="Example: tilewright hypercolumns cat.jpg -o out --layers conv1_2,conv2_2 --size image")
@click.argument("image", required=False)
@click.option("-o", "--output", default="out", show_default=True, metavar="DIR", help="Where to write.")
@click.option(
    "--model",
    metavar="MODEL",
    help="An ONNX file or a TensorFlow graph; by default a VGG-16 with ImageNet weights.",
)
@click.option(
    "--layers",
    default=",".join(VGG_LAYERS),
    show_default=True,
    metavar="A,B",
    help="Layers, tensors or nodes by name, or layer indices.",
)
@click.option(
    "--size",
    default="224x224",
    show_default=True,
    metavar="HxW",
    help="Resize the photograph to this; `image` keeps its own size.",
)
@click.option(
    "--clusters",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    metavar="K",
    help="Groups of pixels to find by k-means.",
)
@click.option(
    "--preprocess",
    type=click.Choice(list(PREPROCESS)),
    default="vgg16",
    show_default=True,
    help="What the network expects: Keras's VGG-16 way, torchvision's, or RGB from 0 to 255.",
)
@threads_option
@conv_option
@cache_option
def hypercolumns(
    image: str | None,
    output: str,
    model: str | None,
    layers: str,
    size: str,
    clusters: int,
    preprocess: str,
    threads: int,
    conv: Convolutions,
    cache: bool,
) -> None:
    """What a network sees in a photograph, pixel by pixel.

    The feature maps of the chosen layers, resized to the photograph and joined: DIR/hypercolumns.npy, a
    float32 array of channels x height x width, and pictures of it. Without IMAGE it takes a sample
    photograph.
    """
    times: list[tuple[str, float]] = []
    at = None if size == "image" else parse_size(size)
    extract = Hypercolumns(
        model, names(layers) or [], size=at, preprocess=preprocess, threads=threads, conv=conv, cache=cache
    )
    path = sample_photograph() if image is None else Path(image)
    photograph = extract.input_image(path)
    into = folder(output)

    with working(f"compiling {extract.name}"):
        started = time.perf_counter()
        extract.prepare((photograph.shape[0], photograph.shape[1]))
        times.append(("compile, once", time.perf_counter() - started))
    target = into / "hypercolumns.npy"
    with working("computing the hypercolumns"):
        started = time.perf_counter()
        columns = _extract_to(extract, photograph, target)
        times.append(("network, resizing, writing", time.perf_counter() - started))
    started = time.perf_counter()
    with working("drawing") as say:
        written = write_pictures(
            columns, extract.channels, photograph, into, clusters, lambda name: say(f"drawing {name}")
        )
    times.append(("pictures", time.perf_counter() - started))

    out = console()
    out.print(f"{path.name}: {shown(columns.shape)} hypercolumns of {', '.join(extract.layers)}")
    listing = table("step", ">seconds")
    for step, seconds in times:
        listing.add_row(step, f"{seconds:.3f}")
    out.print(listing)
    out.print(f"wrote {target} and {len(written)} pictures; see {into / 'overview.png'}")


def _extract_to(extract: Hypercolumns, photograph: Array, target: Path) -> Array:
    """Write the hypercolumns into an .npy file, which appears under its name only when it is complete."""
    height, width = photograph.shape[:2]
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        columns = np.lib.format.open_memmap(
            partial, mode="w+", dtype=np.float32, shape=(extract.channel_count, height, width)
        )
        extract(photograph, out=columns)
        columns.flush()
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return columns


def sample_photograph() -> Path:
    """The photograph that matplotlib ships: Grace Hopper, public domain, by the United States Navy."""
    try:
        import matplotlib
    except ImportError:
        raise ImageError(
            "the sample photograph comes with matplotlib: run `pip install matplotlib`, or name a photograph"
        ) from None
    path = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    if not path.is_file():
        raise ImageError(f"this matplotlib ships no sample photograph ({path}); name a photograph")
    return path
