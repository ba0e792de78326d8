"""The command `tilewright`: one module a command.

    tilewright hypercolumns | run | inspect | bench

An error that Tilewright raises on purpose is one paragraph on stderr and exit code 2; Ctrl-C exits 130.
"""

import errno
import logging
import sys
from typing import Any

import click

from tilewright import __version__
from tilewright.cli.bench import bench as _bench
from tilewright.cli.hypercolumns import hypercolumns as _hypercolumns
from tilewright.cli.inspect import inspect as _inspect
from tilewright.cli.run import run as _run
from tilewright.errors import TilewrightError


class _Commands(click.Group):
    """Commands in the order they were added, and what their errors look like."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

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


# Under names of their own: `tilewright.cli.run` is the module.
for _command in (_hypercolumns, _run, _inspect, _bench):
    cli.add_command(_command)


def main() -> None:
    """The entry point of the `tilewright` command."""
    cli(prog_name="tilewright")
