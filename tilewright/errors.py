"""The errors Tilewright raises on purpose: one hierarchy under `TilewrightError`.

A message is one paragraph that names the model, the node and its operator where they are known, says what is
wrong, and ends with what to do. Code deep in the compiler knows only part of that: it raises with what it
knows, and outer layers add the rest with `located`.

    TilewrightError
        ModelError              the file cannot be read as a model
        UnsupportedError        the model asks for something Tilewright does not do yet
        GraphError              the graph contradicts itself (shapes, types, cycles, unknown names)
            UnknownNameError    a name that the model does not have; carries the closest ones
            ShapeNeededError    an input's shape is not known; carries the declared dimensions
        ResourceError           the request exceeds a limit (dimensions, memory)
        CallError               a call's arguments do not fit the compiled model
            ImageError          a photograph cannot be read, or is not one
        CompileError            code generation failed: a defect of Tilewright, with what to report
        LinkError               a linker is missing or failed
        OutputError             a file cannot be written
        LoadError               a shared object is not ours, is damaged, or is for another machine
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence


class TilewrightError(Exception):
    """Base of all errors raised on purpose.

    `model`, `node` and `operator` say where; `str()` puts them in front of the message.
    """

    def __init__(self, message: str, *, model: str = "", node: str = "", operator: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.model = model
        self.node = node
        self.operator = operator

    def __str__(self) -> str:
        where = []
        if self.model:
            where.append(self.model)
        if self.node or self.operator:
            name = f"node '{self.node}'" if self.node else "a node"
            where.append(f"{name} ({self.operator})" if self.operator else name)
        return ": ".join([*where, self.message])

    def located(self, *, model: str = "", node: str = "", operator: str = "") -> "TilewrightError":
        """Fill in the places that are still unknown; returns self, for `raise error.located(...)`."""
        self.model = self.model or model
        self.node = self.node or node
        self.operator = self.operator or operator
        return self


class ModelError(TilewrightError):
    """The file cannot be read as a model."""


class UnsupportedError(TilewrightError):
    """The model asks for something Tilewright does not do."""


class GraphError(TilewrightError):
    """The graph contradicts itself: shapes, types, cycles, names."""


class UnknownNameError(GraphError):
    """A name that is not there; lists the closest ones that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, model: str = "") -> None:
        known = list(known)
        lowered = {candidate.lower(): candidate for candidate in known}
        close = difflib.get_close_matches(name.lower(), list(lowered), n=5, cutoff=0.4)
        shown = [lowered[match] for match in close] or known[:5]
        hint = f"; the closest are {', '.join(shown)}" if shown else ""
        super().__init__(f"no {kind} is called '{name}'{hint}", model=model)
        self.closest = shown


class ShapeNeededError(GraphError):
    """Inputs have dimensions that only a call or `shapes=` can settle; `inputs` gives their declared dimensions.

    A dimension is a number, a symbol or None; the dimensions are None where not even their number is declared.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int | str | None] | None], *, model: str = "") -> None:
        shown, example = [], []
        for name, dims in inputs.items():
            if dims is None:
                shown.append(f"'{name}' (unknown rank)")
                example.append(f"'{name}': (...)")
            else:
                known = ["?" if dim is None else str(dim) for dim in dims]
                shown.append(f"'{name}' ({' x '.join(known)})")
                example.append(f"'{name}': {tuple(dim if isinstance(dim, int) else 1 for dim in dims)}")
        super().__init__(
            f"the shape of {'input' if len(shown) == 1 else 'inputs'} {', '.join(shown)} is not known; pass it, "
            f"for example shapes={{{', '.join(example)}}}",
            model=model,
        )
        self.inputs = dict(inputs)


class ResourceError(TilewrightError):
    """The request exceeds a limit."""


class CallError(TilewrightError):
    """A call's arguments do not fit the compiled model."""


class ImageError(CallError):
    """A photograph cannot be read, or is not one."""


class CompileError(TilewrightError):
    """Code generation failed: a defect of Tilewright."""


class LinkError(TilewrightError):
    """A linker is missing or failed."""


class OutputError(TilewrightError):
    """A file cannot be written."""


class LoadError(TilewrightError):
    """A shared object is not one of ours, is damaged, or is for another machine."""
