"""What translating a model into a graph has in common, whatever the format it is read from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import TypeVar

from tilewright.compiler.ir import BF16, F16, Shape, TensorType
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.compiler.ops.registry import MAX_ELEMENTS
from tilewright.errors import GraphError, ResourceError, ShapeNeededError, TilewrightError, UnsupportedError
from tilewright.frontends.ports import MAX_RANK, Dim, Port

T = TypeVar("T")


def once(pairs: Sequence[tuple[str, T]], model: str) -> dict[str, T]:
    """The outputs that are asked for by name; raises GraphError if there are none, or one is asked for twice."""
    if not pairs:
        raise GraphError("no output is asked for; name at least one", model=model)
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise GraphError(f"output '{name}' is asked for twice", model=model)
        seen.add(name)
    return dict(pairs)


def missing_message(missing: Mapping[str, Sequence[str]], otherwise: str) -> str:
    """What UnsupportedError says: each operator with the first of its nodes, and what else to do."""
    shown = []
    for op, nodes in missing.items():
        names = ", ".join(f"'{name}'" for name in nodes[:5]) + (
            f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
        )
        shown.append(f"{op} ({names})")
    count = "1 operator is" if len(missing) == 1 else f"{len(missing)} operators are"
    return (
        f"{count} not supported: {'; '.join(shown)}. Ask for outputs that do not need "
        f"{'it' if len(missing) == 1 else 'them'}, or {otherwise}"
    )


def input_types(
    declared: Iterable[Port], ports: Sequence[Port], shapes: Mapping[str, Shape]
) -> list[TensorType]:
    """The types of the needed inputs `ports`; symbols that one given shape settles hold for the others, too.

    `declared` are all inputs. Raises ShapeNeededError, UnsupportedError, GraphError or ResourceError.
    """
    symbols: dict[str, int] = {}
    for port in declared:
        for dim, size in zip(port.dims or (), shapes.get(port.name, ()), strict=False):
            if isinstance(dim, str):
                symbols.setdefault(dim, size)
    types, open_ports = [], {}
    for port in ports:
        if port.dtype is None or port.dtype in (F16, BF16):
            raise UnsupportedError(
                f"input '{port.name}' is of type {port.type_name}, which Tilewright lacks; convert the model "
                "to float32"
            )
        given = shapes.get(port.name)
        if given is not None:
            given = tuple(given)
            if port.dims is not None and len(given) != len(port.dims):
                raise GraphError(
                    f"shapes= gives input '{port.name}' the shape {given}; the model declares {port}"
                )
        dims: Sequence[Dim] | None = given if given is not None else port.dims
        if dims is not None:
            dims = tuple(symbols.get(dim, dim) if isinstance(dim, str) else dim for dim in dims)
        shape = tuple(dim for dim in dims or () if isinstance(dim, int))
        if dims is None or len(shape) < len(dims):
            open_ports[port.name] = dims
            continue
        if any(dim < 0 for dim in shape):
            raise GraphError(f"input '{port.name}' would have the shape {shape}; dimensions count from 0")
        if len(shape) > MAX_RANK or prod(max(dim, 1) for dim in shape) > MAX_ELEMENTS:
            raise ResourceError(
                f"input '{port.name}' would have {'x'.join(map(str, shape))} elements, more than 2**36; "
                "check the model's shapes or pass smaller ones with shapes="
            )
        types.append(TensorType(port.dtype, shape))
    if open_ports:
        raise ShapeNeededError(open_ports)
    return types


@contextmanager
def translating(g: GraphBuilder, node: str, operator: str) -> Iterator[None]:
    """What is built inside comes from this node of the model, and what goes wrong is its doing."""
    try:
        with g.at(node):
            yield
    except TilewrightError as error:
        # The primitive's own name says less to a user than the model's operator.
        error.operator = operator
        raise error.located(node=node) from error.__cause__
    except MemoryError:
        raise ResourceError("it is too large to compute", node=node, operator=operator) from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Translators check what they read; what is left comes from attributes that contradict the
        # specification.
        raise GraphError(
            f"its attributes and operands do not fit together ({error})", node=node, operator=operator
        ) from error
