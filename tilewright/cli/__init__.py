"""The command `tilewright`: one module a command.

    tilewright hypercolumns | compile | run | inspect | bench | targets | cache

An error that Tilewright raises on purpose is one paragraph on stderr and exit code 2; Ctrl-C exits 130, SIGTERM 143,
both after half-written files are removed.
"""

import errno
import importlib
import logging
import signal
import sys
from typing import Any

import click

from tilewright import __version__
from tilewright.errors import TilewrightError

COMMANDS = ("hypercolumns", "compile", "run", "inspect", "bench", "targets", "cache")
"""In this order; each is a function in a module of the same name."""


class _Commands(click.Group):
    """Commands, each imported when it is called, and what their errors look like."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"tilewright.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TilewrightError as error:
            _fail(ctx, str(error))
        except MemoryError:
            _fail(ctx, "out of memory; ask for less at once (smaller shapes, fewer layers)")
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly
            _fail(ctx, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        except KeyboardInterrupt:
            click.echo("tilewright: interrupted", err=True)
            ctx.exit(130)


def _fail(ctx: click.Context, message: str) -> None:
    click.echo(f"tilewright: {' '.join(message.split())}", err=True)
    ctx.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", count=True, help="Say what the compiler does (twice: in detail).")
def cli(verbose: int) -> None:
    """Compile neural networks into native code, run them, and look inside them.

    \b
    Example: tilewright hypercolumns photograph.jpg -o out
    """
    if verbose:
        level = logging.DEBUG if verbose > 1 else logging.INFO
        logging.basicConfig(level=level, format="%(name)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """The entry point of the `tilewright` command."""
    signal.signal(signal.SIGTERM, _end)
    try:
        cli(prog_name="tilewright")
    except KeyboardInterrupt:
        sys.exit(130)


def _end(number: int, _: object) -> None:
    """End as after an error, not at once: what is half-written is removed on the way. Meant for SIGTERM."""
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt that
    sys.exit(128 + number)
