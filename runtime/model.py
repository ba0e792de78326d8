"""Models as users call them: checks and binds NumPy arrays, runs compiled code, gives NumPy arrays back.

    model = Model(name, inputs, outputs, specialise)
    y = model(x)                         positional arrays in the order of model.inputs
    outs = model.run({"x": x})           by name, a dict of results

A `Model` compiles once for each combination of input shapes it meets and keeps the results; with every dimension
known that is once. Several threads may call one model at the same time.
"""

import ctypes
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import CallError
from tilewright.runtime.artifact import Artifact, TensorSpec, aligned_empty
from tilewright.runtime.jit import Engine
from tilewright.runtime.threads import pool_address

Array = npt.NDArray[Any]
Shapes = tuple[tuple[int, ...], ...]
Specialise = Callable[[Shapes], Artifact]

LARGE = 1 << 14
"""Bytes from which alignment is worth its time."""

_SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int32, *(ctypes.c_void_p,) * 5, ctypes.c_int32)


class Executable:
    """An artifact loaded into this process: one combination of input shapes, computed by `threads` threads."""

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        self.manifest = artifact.manifest
        self.constants = artifact.constants
        self._engine = Engine(artifact.code)
        self._entry = _SIGNATURE(self._engine.address(artifact.manifest.entry))
        self._pool = pool_address(artifact.pool) if threads > 1 and artifact.pool else None
        self._threads = threads if self._pool else 1
        self._workspace_bytes = self.manifest.workspace_bytes + (self._threads - 1) * self.manifest.thread_bytes
        self._workspaces: list[Array] = []

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute `outputs` from `inputs`: dense arrays of exactly the manifest's types."""
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = aligned_empty(self._workspace_bytes)
        code = self._entry(
            _pointers(inputs), _pointers(outputs), self.constants.ctypes.data, workspace.ctypes.data, self._pool,
            self._threads,
        )  # fmt: skip
        self._workspaces.append(workspace)
        if code:
            raise CallError(f"the compiled code returned error {code}", model=self.manifest.name)

    def address(self, symbol: str) -> int:
        """Where a function of the code lies: the entry point, or a kernel of the manifest."""
        return self._engine.address(symbol)


def _pointers(arrays: Sequence[Array]) -> Any:
    # Twice as fast as array.ctypes.data, which small models notice.
    return (ctypes.c_void_p * len(arrays))(*[array.__array_interface__["data"][0] for array in arrays])


class Model:
    """A compiled model; see the module's docstring. `inputs` and `outputs` describe its tensors.

    A call is computed by `threads` threads, the caller one of them.

    A dimension that is not known before a call is given by its name, a string; outputs have their shapes only
    once all inputs have.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[tuple[str, str, tuple[int | str, ...]]],
        output_names: Sequence[str],
        specialise: Specialise,
        threads: int = 1,
    ) -> None:
        self.name = name
        self.threads = threads
        self._inputs = tuple(inputs)
        self._dtypes = tuple(np.dtype(dtype) for _, dtype, _ in inputs)
        self._output_names = tuple(output_names)
        self._specialise = specialise
        self._made: dict[Shapes, Executable] = {}
        self._lock = threading.Lock()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each input; unknown dimensions are strings."""
        return tuple(TensorSpec(name, dtype, shape) for name, dtype, shape in self._inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each output; raises CallError while input dimensions are unknown."""
        shapes = tuple(shape for _, _, shape in self._inputs)
        for spec in self.inputs:
            if any(isinstance(dim, str) for dim in spec.shape):
                raise CallError(
                    f"the outputs' shapes follow from those of the inputs, and {spec} has unknown dimensions; "
                    "give them with shapes= when compiling, or call the model",
                    model=self.name,
                )
        return self.executable(shapes).manifest.outputs  # type: ignore[arg-type]

    def executable(self, shapes: Shapes) -> Executable:
        """The code for these input shapes, compiled at the first request."""
        found = self._made.get(shapes)
        if found is None:
            with self._lock:
                found = self._made.get(shapes)
                if found is None:
                    found = Executable(self._specialise(shapes), self.threads)
                    self._made[shapes] = found
        return found

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Run on arrays in the order of `inputs`; returns the output, or a tuple of several.

        `out` is an array (or a sequence of arrays, one an output) to write into: C-contiguous, of the output's
        dtype and shape; it is returned.
        """
        if len(arrays) != len(self._inputs):
            names = ", ".join(name for name, _, _ in self._inputs)
            raise CallError(
                f"{len(arrays)} inputs were given, the model takes {len(self._inputs)}: {names}", model=self.name
            )
        given = None if out is None else [out] if isinstance(out, np.ndarray) else list(out)
        results = self._run(arrays, given)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Run on arrays by input name; returns the outputs by name. `out` may name arrays to write into."""
        names = [name for name, _, _ in self._inputs]
        for name in inputs:
            if name not in names:
                raise CallError(f"there is no input '{name}'; the inputs are {', '.join(names)}", model=self.name)
        for name in names:
            if name not in inputs:
                raise CallError(f"input '{name}' is missing", model=self.name)
        for name in out or {}:
            if name not in self._output_names:
                raise CallError(
                    f"there is no output '{name}'; the outputs are {', '.join(self._output_names)}", model=self.name
                )
        given = None if out is None else [out.get(name) for name in self._output_names]
        results = self._run([inputs[name] for name in names], given)
        return dict(zip(self._output_names, results, strict=True))

    def _run(self, arrays: Sequence[Any], out: Sequence[Array | None] | None) -> list[Array]:
        bound = [
            given
            if type(given) is np.ndarray and given.dtype is dtype and given.shape == spec[2] and given.flags.carray
            else self._bind(given, *spec)
            for given, spec, dtype in zip(arrays, self._inputs, self._dtypes, strict=True)
        ]
        executable = self.executable(tuple([array.shape for array in bound]))
        specs = executable.manifest.outputs
        if out is None:
            targets = [empty(spec) for spec in specs]
        else:
            targets = self._targets(list(out), specs)
            held = [array for array in out if array is not None]
            bound = [a.copy() if any(np.may_share_memory(a, o) for o in held) else a for a in bound]
        executable.run(bound, targets)
        return targets

    def _targets(self, given: list[Array | None], specs: Sequence[TensorSpec]) -> list[Array]:
        """The arrays to write into: those given, checked, and new ones for the others."""
        if len(given) != len(specs):
            raise CallError(f"out has {len(given)} arrays for {len(specs)} outputs", model=self.name)
        for array, spec in zip(given, specs, strict=True):
            if array is not None:
                self._check_out(array, spec)
        for position, array in enumerate(given):
            others = given[:position]
            if array is not None and any(o is not None and np.may_share_memory(array, o) for o in others):
                raise CallError("two arrays of out share memory", model=self.name)
        return [empty(spec) if array is None else array for array, spec in zip(given, specs, strict=True)]

    def _bind(self, given: Any, name: str, dtype: str, shape: tuple[int | str, ...]) -> Array:
        """The argument as a dense array of exactly the input's dtype, or CallError."""
        wanted = np.dtype(dtype)
        array = np.asarray(given)
        if array.dtype.newbyteorder("=") != wanted:
            widens = np.can_cast(array.dtype, wanted, "safe") and array.dtype.kind == wanted.kind
            literal = not isinstance(given, np.ndarray | np.generic) and np.can_cast(array.dtype, wanted, "same_kind")
            if not widens and not literal:
                raise CallError(
                    f"input '{name}' is {array.dtype}, the model takes {wanted}; convert it with "
                    f".astype(numpy.{wanted})",
                    model=self.name,
                )
        fits = len(array.shape) == len(shape) and all(
            isinstance(dim, str) or dim == actual for dim, actual in zip(shape, array.shape, strict=True)
        )
        if not fits:
            expected = "x".join(map(str, shape)) or "scalar"
            actual = "x".join(map(str, array.shape)) or "scalar"
            raise CallError(f"input '{name}' has shape {actual}, the model takes {expected}", model=self.name)
        return np.require(array, wanted, ["C", "A"])

    def _check_out(self, array: Any, spec: TensorSpec) -> None:
        if not isinstance(array, np.ndarray):
            raise CallError(f"out for '{spec.name}' is a {type(array).__name__}, not a NumPy array", model=self.name)
        problem = ""
        if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
            shown = "x".join(map(str, array.shape)) or "scalar"
            problem = f"is {array.dtype} {shown}, the output is {spec}"
        elif not array.flags.c_contiguous or not array.flags.aligned:
            problem = "must be C-contiguous and aligned"
        elif not array.flags.writeable:
            problem = "is read-only"
        if problem:
            raise CallError(f"out for '{spec.name}' {problem}", model=self.name)


def empty(spec: TensorSpec) -> Array:
    """An uninitialised array for a tensor; large ones start at a multiple of 64 bytes, so that no vector straddles."""
    dtype, shape = np.dtype(spec.dtype), [int(dim) for dim in spec.shape]
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    return aligned_empty(size).view(dtype).reshape(shape)
