"""`tilewright inspect`: the layers of a model, and what Tilewright lacks for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod

import click

from tilewright.cli.options import console, shape_option, shown, table
from tilewright.frontends.formats import Loaded, load
from tilewright.frontends.ports import Port

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A layer; `shape` and `flops` (a multiply-add is two) are None while the input shapes are unknown."""

    index: int
    name: str
    node: str
    operator: str
    shape: Shape | None
    parameters: int
    flops: int | None


@dataclass(frozen=True)
class Report:
    """All that the command says; `shapes` are those of the inputs that the layers' shapes follow from."""

    model: str
    inputs: list[str]
    outputs: list[str]
    shapes: dict[str, Shape]
    layers: list[Row]
    parameters: int
    flops: int | None
    operators: dict[str, int]
    unsupported: dict[str, list[str]]


def report(model: Loaded, given: Mapping[str, Shape]) -> Report:
    """Look at a model; unknown first dimensions count as 1. Raises TilewrightError for a broken model."""
    shapes = _shapes(model.inputs, given)
    missing = model.unsupported()
    found = model.layers()
    known: dict[str, Shape] = {}
    if not missing and len(shapes) == len(model.inputs) and found:
        tensors = list(dict.fromkeys(layer.raw for layer in found))
        graph = model.translate(outputs=tensors, shapes=shapes)
        known = dict(zip(tensors, (value.type.shape for value in graph.outputs), strict=True))
    rows = []
    for layer in found:
        shape = known.get(layer.raw)
        flops = None if shape is None else 2 * layer.taps * prod(shape)
        rows.append(Row(layer.index, layer.name, layer.node, layer.op, shape, layer.parameters, flops))
    operators: dict[str, int] = {}
    for operator in model.operators:
        operators[operator] = operators.get(operator, 0) + 1
    return Report(
        model.name, [str(port) for port in model.inputs], list(model.described), shapes, rows,
        sum(row.parameters for row in rows), sum(row.flops or 0 for row in rows) if known else None,
        dict(sorted(operators.items())), missing,
    )  # fmt: skip


def _shapes(ports: Sequence[Port], given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The inputs' shapes as far as they are known, an unknown first dimension taken for 1."""
    shapes = dict(given)
    for port in ports:
        dims = [1 if i == 0 and not isinstance(dim, int) else dim for i, dim in enumerate(port.dims or ())]
        if port.name not in shapes and port.dims is not None and all(isinstance(dim, int) for dim in dims):
            shapes[port.name] = tuple(dim for dim in dims if isinstance(dim, int))
    return shapes


@click.command(epilog="Example: tilewright inspect vgg16.onnx --shape input=1x224x224x3")
@click.argument("model")
@shape_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(model: str, shapes: tuple[tuple[str, Shape], ...], as_json: bool) -> None:
    """List MODEL's layers: names, operators, shapes, parameters, FLOPs; and what is not supported."""
    found = report(load(model), dict(shapes))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        _print(found)


def _print(found: Report) -> None:
    out = console()
    out.print(found.model)
    for title, ports in (("inputs", found.inputs), ("outputs", found.outputs)):
        out.print(f"{title:8}  {', '.join(ports)}")
    if found.shapes:
        shapes = ", ".join(f"{name} {shown(shape)}" for name, shape in found.shapes.items())
        out.print(f"shown for {shapes}")
    if found.layers:
        listing = table(">#", "layer", "operator", "output", ">parameters", ">MFLOPs", "node")
        for row in found.layers:
            listing.add_row(
                str(row.index), row.name, row.operator, "?" if row.shape is None else shown(row.shape),
                f"{row.parameters:,}" if row.parameters else "",
                "?" if row.flops is None else f"{row.flops / 1e6:,.1f}" if row.flops else "", row.node,
            )  # fmt: skip
        flops = "?" if found.flops is None else f"{found.flops / 1e6:,.1f}"
        listing.add_row("", "total", "", "", f"{found.parameters:,}", flops, "", style="bold")
        out.print(listing)
    out.print(f"operators {', '.join(f'{op} {n}' for op, n in found.operators.items())}")
    if not found.unsupported:
        out.print("all operators are supported")
    for op, nodes in found.unsupported.items():
        out.print(f"not supported: {op} in {', '.join(nodes)}")
