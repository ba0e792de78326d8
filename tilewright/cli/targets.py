"""`tilewright targets`: the machines that code can be made for."""

import json

import click

from tilewright.cli.options import console, table
from tilewright.compiler.probe import processors
from tilewright.compiler.targets import ROWS, Target, by_name, host, normalised

_PROOF = {
    "host": "tuned, run",
    "x86-64-v4": "tuned, run",
    "x86-64-v3": "tuned, run",
    "x86-64-v2": "run",
    "aarch64": "run (emulated)",
    "armv7": "run (emulated)",
    "riscv64": "run (emulated)",
    "wasm32": "run (wasmtime)",
    "wasm32-simd": "run (wasmtime)",
}
"""How far a target's code is tested; what is not here is compiled, and its symbols looked at."""


@click.command(
    epilog="Example: tilewright targets --cpus aarch64-unknown-linux-gnu"
)
@click.option("--cpus", metavar="TRIPLE", help="List the processors of this triple, or of a target's name, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def targets(cpus: str | None, as_json: bool) -> None:
    """List what `tilewright compile --target` takes by name. Any other triple of these architectures works too."""
    if cpus is not None:
        named = {row.name: row.triple for row in (*ROWS, host())}
        found = processors(normalised(named.get(cpus, cpus)))
        click.echo(json.dumps(found, indent=2) if as_json else "\n".join(found))
        return
    rows = [host(), *ROWS]
    if as_json:
        click.echo(json.dumps([_facts(row) for row in rows], indent=2))
        return
    listing = table("target", "triple", "cpu", "features", ">vector bits", ">registers", "fma", "tested")
    for row in rows:
        facts = _facts(row)
        features = "its own" if row.name == "host" else row.features
        listing.add_row(
            row.name, row.triple, row.cpu, features, str(row.vector_bits) if row.vector_bits > 32 else "none",
            str(row.registers), "yes" if row.fma else "no", str(facts["tested"]),
        )  # fmt: skip
    console().print(listing)


def _facts(row: Target) -> dict[str, object]:
    assert row == by_name(row.name)
    return {
        "name": row.name, "triple": row.triple, "cpu": row.cpu, "features": row.features,
        "vector_bits": row.vector_bits, "registers": row.registers, "fma": row.fma,
        "tested": _PROOF.get(row.name, "compiled"),
    }  # fmt: skip
