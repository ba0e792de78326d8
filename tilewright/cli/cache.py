"""`tilewright cache`: what is kept of models compiled before."""

import os
import time

import click

from tilewright.cli.options import console, table
from tilewright.runtime.cache import BYTES, FOLDER, Cache, folder_and_limit


@click.command(
    epilog=f"Example: tilewright cache --clear. {FOLDER} names another folder (empty: no cache), {BYTES} bounds it."
)
@click.option("--clear", is_flag=True, help="Remove everything.")
def cache(clear: bool) -> None:
    """Show what is kept of models compiled before, the last used first."""
    out, place = console(), folder_and_limit()
    if place is None:
        out.print(f"the cache is switched off; see {FOLDER} and {BYTES}")
        return
    folder, limit = place
    found = Cache(folder, limit)
    if clear:
        out.print(f"removed {size(found.clear())} from {folder}")
        return
    entries, now = found.entries(), time.time()
    listing = table("model", "inputs", "target", ">size", ">compiled", ">used")
    for entry in entries:
        if entry.about:
            about = [os.path.basename(entry.about["model"]), entry.about["inputs"], entry.about["target"]]
            listing.add_row(*about, size(entry.size), ago(now - entry.made), ago(now - entry.used))
    if listing.row_count:
        out.print(listing)
    total = sum(entry.size for entry in entries)
    out.print(f"{listing.row_count} compiled, {size(total)} of at most {size(limit)} in {folder}")


def size(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def ago(seconds: float) -> str:
    """A time that has passed, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
