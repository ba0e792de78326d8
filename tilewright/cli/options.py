"""What the commands share: options, parsed shapes and arrays, the console.

    parse_shape("x=1x3x224x224")          ("x", (1, 3, 224, 224))
    parse_batch_shape("x=Nx3x224x224")    ("x", ("N", 3, 224, 224))
    parse_size("240x320")                 (240, 320)

Results go to stdout; what is said while work is going on goes to a terminal's stderr.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tilewright.errors import CallError

Array = npt.NDArray[Any]


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """An input's name and shape; raises click.BadParameter."""
    name, separator, dims = text.rpartition("=")
    parts = dims.split("x") if dims else []
    if not (name and separator) or not all(part.isascii() and part.isdecimal() for part in parts):
        raise click.BadParameter(f"'{text}' is not a shape; write it as x=1x3x224x224")
    return name, tuple(map(int, parts))


def parse_batch_shape(text: str) -> tuple[str, tuple[int | str, ...]]:
    """An input's name and shape, whose leading dimension may have a name; raises click.BadParameter."""
    name, separator, dims = text.rpartition("=")
    symbol, *rest = dims.split("x")
    if not symbol.isidentifier():
        return parse_shape(text)
    if not (name and separator) or not all(part.isascii() and part.isdecimal() for part in rest):
        raise click.BadParameter(f"'{text}' is not a shape; write it as x=1x3x224x224, or x=Nx3x224x224 for any batch")
    return name, (symbol, *map(int, rest))


def parse_size(text: str) -> tuple[int, int]:
    """A height and width; raises click.BadParameter."""
    height, _, width = text.partition("x")
    if not all(part.isascii() and part.isdecimal() and int(part) for part in (height, width)):
        raise click.BadParameter(f"'{text}' is not a size; write it as 224x224, height first")
    return int(height), int(width)


def names(value: str | None) -> list[str] | None:
    """Comma-separated names."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


shape_option = click.option(
    "--shape",
    "shapes",
    type=parse_shape,
    multiple=True,
    metavar="NAME=DIMS",
    help="The shape of an input, such as x=1x3x224x224; may be repeated.",
)


batch_shape_option = click.option(
    "--shape",
    "shapes",
    type=parse_batch_shape,
    multiple=True,
    metavar="NAME=DIMS",
    help="The shape of an input, such as x=1x3x224x224, or x=Nx3x224x224 for any number of samples; may be repeated.",
)


threads_option = click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Threads a call is computed by; by default TILEWRIGHT_NUM_THREADS, or all cores.",
)


conv_option = click.option(
    "--conv",
    type=click.Choice(["auto", "direct"]),
    default="auto",
    show_default=True,
    help="How convolutions are computed: as is fastest, or never by Winograd's method.",
)


cache_option = click.option(
    "--cache/--no-cache", default=True, help="Whether compiled code is kept on disk and found again; by default it is."
)


def read_array(name: str, path: str) -> Array:
    """An array from an .npy file; raises CallError."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it is not an .npy file, or it is damaged"
        raise CallError(f"input '{name}' cannot be read from {path}: {reason}") from None
    if not isinstance(array, np.ndarray):
        raise CallError(f"input '{name}': {path} holds several arrays (.npz); save the one as .npy")
    return array


def random_array(dtype: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Standard normal numbers, small whole numbers, or coin tosses, by dtype."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2 if kind == "b" else 10, shape).astype(dtype)


def shown(shape: tuple[int | str, ...]) -> str:
    """A shape as people read it."""
    return "x".join(map(str, shape)) or "scalar"


def console() -> Console:
    """Where results go; as wide as they are when that is no terminal, so that nothing is cut.

    Brackets are what they are, no markup: names in models and of files may have them.
    """
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False, highlight=False, markup=False)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table; a column named with a leading '>' is aligned to the right."""
    result = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        result.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
        )
    return result


@contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """Say on a terminal's stderr what is being done while it lasts; the function it gives changes the message."""
    with Console(stderr=True).status(Text(message)) as status:
        yield lambda text: status.update(Text(text))


def folder(path: str) -> Path:
    """A folder, made if it is missing."""
    made = Path(path)
    made.mkdir(parents=True, exist_ok=True)
    return made
