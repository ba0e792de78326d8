"""A symbolic leading dimension, as users ask for it: one compiled form for every number of samples.

symbol_of({"x": ("N", 3, 224, 224)})     "N"
"""

from collections.abc import Mapping

from tilewright.errors import CallError

Shape = tuple[int | str, ...]


def symbol_of(shapes: Mapping[str, Shape]) -> str | None:
    """The name that stands for the number of samples, None where all dimensions are numbers.

    Raises CallError for a name in another place than the leading one, for two names, or for what is no name.
    """
    found: dict[str, str] = {}
    for name, shape in shapes.items():
        for axis, dim in enumerate(shape):
            if not isinstance(dim, str):
                continue
            if axis:
                raise CallError(
                    f"shapes= names dimension {axis} of input '{name}' '{dim}'; only the leading one, the number of "
                    "samples, can have a name. Give a number"
                )
            if not dim.isidentifier():
                raise CallError(
                    f"shapes= calls the leading dimension of input '{name}' '{dim}'; call it N, for example"
                )
            found.setdefault(dim, name)
    if len(found) > 1:
        first, second = list(found)[:2]
        raise CallError(
            f"shapes= names the leading dimensions of '{found[first]}' and '{found[second]}' '{first}' and '{second}'; "
            "only one number of samples can be left open"
        )
    return next(iter(found), None)
