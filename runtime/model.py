"""Models as users call them: checks and binds NumPy arrays, runs compiled code, gives NumPy arrays back.

    model = Model(name, inputs, outputs, specialise)
    y = model(x)                         positional arrays in the order of model.inputs
    call = model.bind(x, out=y)          a function without arguments, for the same arrays again and again
    outs = model.run({"x": x})           by name, a dict of results

A `Model` asks `specialise` once for each combination of input shapes it meets and keeps what it gives: code compiled
in this process (`executable`) or a shared object (`native`). With every dimension known that is once. Several
threads may call one model at the same time.
"""

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tilewright.errors import CallError
from tilewright.runtime.artifact import Manifest, TensorSpec, aligned_empty

Array = npt.NDArray[Any]
Shapes = tuple[tuple[int | str, ...], ...]

LARGE = 1 << 14
"""Bytes from which alignment is worth its time."""


class Runnable(Protocol):
    """Code for one combination of input shapes, ready to run."""

    @property
    def manifest(self) -> Manifest:
        """What it takes and gives."""

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute `outputs` from `inputs`: dense arrays of exactly the manifest's types."""

    def bound(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """`run` with these arrays, again and again, one call at a time."""


Specialise = Callable[[Shapes], Runnable]


class Save(Protocol):
    """Writes the model as a shared object; the arguments are those of `Model.save`."""

    def __call__(
        self, path: Path, *, name: str | None, weights: Literal["embed", "external"], linker: str | None,
        cc: str | None, sysroot: str | None,
    ) -> None: ...  # fmt: skip


class Model:
    """A compiled model; see the module's docstring. `inputs` and `outputs` describe its tensors.

    A call is computed by `threads` threads, the caller one of them.

    A dimension that is not known before a call is given by its name, a string; outputs have their shapes only
    once all inputs have. Not so with a `batch`: that is the name of a leading dimension that may differ from call to
    call, with one compiled form for all of them.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[tuple[str, str, tuple[int | str, ...]]],
        output_names: Sequence[str],
        specialise: Specialise,
        threads: int = 1,
        batch: str | None = None,
        save: Save | None = None,
    ) -> None:
        self.name = name
        self.threads = threads
        self.batch = batch
        self._inputs = tuple(inputs)
        self._dtypes = tuple(np.dtype(dtype) for _, dtype, _ in inputs)
        self._skips = tuple(int(batch is not None and shape[:1] == (batch,)) for _, _, shape in inputs)
        self._output_names = tuple(output_names)
        self._specialise = specialise
        self._save = save
        self._made: dict[Shapes, Runnable] = {}
        self._single: Callable[[Any, Any], Array | None] | None = None
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
            if self.batch is None and any(isinstance(dim, str) for dim in spec.shape):
                raise CallError(
                    f"the outputs' shapes follow from those of the inputs, and {spec} has unknown dimensions; "
                    "give them with shapes= when compiling, or call the model",
                    model=self.name,
                )
        return self.executable(shapes).manifest.outputs

    def executable(self, shapes: Shapes) -> Runnable:
        """The code for these input shapes, made at the first request."""
        found = self._made.get(shapes)
        if found is None:
            with self._lock:
                found = self._made.get(shapes)
                if found is None:
                    found = self._specialise(shapes)
                    self._made[shapes] = found
                    if len(self._inputs) == len(self._output_names) == 1 and shapes == (self._inputs[0][2],):
                        self._single = _single(found) if self.batch is None else None
        return found

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        weights: Literal["embed", "external"] = "embed",
        linker: str | None = None,
        cc: str | None = None,
        sysroot: str | None = None,
    ) -> None:
        """Write the model as a shared object, and a C header of the same stem beside it; `tilewright.load` reads it.

        It runs on processors with the features of the target that the model was compiled for. `name` is what the
        functions' names begin with, by default the stem of `path`. With weights="external" they are a file of their
        own, NAME.weights, in the same folder. `linker` is a program that takes ld's arguments, or "builtin"; `cc` one
        that takes a C compiler's; `sysroot` the folder that it looks for libraries in. By default a linker is found.

        Raises CallError where dimensions are unknown, OutputError and LinkError.
        """
        if self._save is None:
            raise CallError("it is a shared object already; copy the file", model=self.name)
        if self.batch is None:
            for spec in self.inputs:
                if any(isinstance(dim, str) for dim in spec.shape):
                    raise CallError(f"{spec} has unknown dimensions; give shapes= when compiling", model=self.name)
        self._save(Path(path), name=name, weights=weights, linker=linker, cc=cc, sysroot=sysroot)

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Run on arrays in the order of `inputs`; returns the output, or a tuple of several.

        `out` is an array (or a sequence of arrays, one an output) to write into: C-contiguous, of the output's
        dtype and shape; it is returned.
        """
        if self._single is not None and len(arrays) == 1:
            result = self._single(arrays[0], out)
            if result is not None:
                return result
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

    def bind(self, *arrays: Array, out: Array | Sequence[Array]) -> Callable[[], None]:
        """A function without arguments that reads these arrays, in the order of `inputs`, and writes `out`.

        For small models in tight loops: all checks are made here, and a call computes from what the arrays hold then.
        They are used as they are: of the inputs' dtypes and shapes, C-contiguous and aligned, and without memory in
        common with `out`; raises CallError otherwise. One call at a time; bind again for another thread.
        """
        executable, used, targets = self._prepared(arrays, [out] if isinstance(out, np.ndarray) else list(out))
        for given, array, (name, dtype, _) in zip(arrays, used, self._inputs, strict=True):
            if not isinstance(given, np.ndarray) or given.__array_interface__ != array.__array_interface__:
                raise CallError(
                    f"input '{name}' cannot be bound: pass a C-contiguous, aligned array of {dtype} that shares no "
                    "memory with out",
                    model=self.name,
                )
        return executable.bound(used, targets)

    def _run(self, arrays: Sequence[Any], out: Sequence[Array | None] | None) -> list[Array]:
        executable, used, targets = self._prepared(arrays, out)
        executable.run(used, targets)
        return targets

    def _prepared(
        self, arrays: Sequence[Any], out: Sequence[Array | None] | None
    ) -> tuple[Runnable, list[Array], list[Array]]:
        """The code for these arguments, and the arrays that it reads and writes; raises CallError."""
        if len(arrays) != len(self._inputs):
            names = ", ".join(name for name, _, _ in self._inputs)
            raise CallError(
                f"{len(arrays)} inputs were given, the model takes {len(self._inputs)}: {names}", model=self.name
            )
        bound = [
            given
            if type(given) is np.ndarray
            and given.dtype is dtype
            and given.shape[skip:] == spec[2][skip:]
            and given.ndim >= skip
            and given.flags.carray
            else self._bind(given, *spec)
            for given, spec, dtype, skip in zip(arrays, self._inputs, self._dtypes, self._skips, strict=True)
        ]
        if self.batch is None:
            shapes = tuple([array.shape for array in bound])
            executable = self._made.get(shapes) or self.executable(shapes)
            specs = executable.manifest.outputs
        else:
            samples = self._samples(bound)
            executable = self.executable(tuple([shape for _, _, shape in self._inputs]))
            specs = tuple([sized(spec, samples) for spec in executable.manifest.outputs])
        if out is None:
            targets = [empty(spec) for spec in specs]
        else:
            targets = self._targets(list(out), specs)
            held = [array for array in out if array is not None]
            bound = [a.copy() if any(np.may_share_memory(a, o) for o in held) else a for a in bound]
        return executable, bound, targets

    def _samples(self, arrays: Sequence[Array]) -> int:
        """The size of the batch, in which all inputs that have one must agree."""
        found: dict[int, str] = {
            array.shape[0]: name
            for array, (name, _, _), skip in zip(arrays, self._inputs, self._skips, strict=True)
            if skip
        }
        if len(found) > 1:
            (first, name), (second, other) = list(found.items())[:2]
            raise CallError(
                f"input '{name}' has {first} samples along its leading dimension and input '{other}' has {second}; "
                "give as many to both",
                model=self.name,
            )
        return next(iter(found))

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


def _single(code: Runnable) -> Callable[[Any, Any], Array | None]:
    """A call of code that has one input and one output: what `Model.__call__` gives, or None if its arguments need a
    closer look.

    Small models take microseconds, and the loops of the general way half as many.
    """
    (input,), (output,) = code.manifest.inputs, code.manifest.outputs
    dtype, shape, run = np.dtype(input.dtype), input.shape, code.run
    out_shape, out_dtype, size = _extent(output)
    make = partial(np.empty, out_shape, out_dtype) if size < LARGE else partial(empty, output)

    def fits(given: Array, out: Any) -> bool:
        if type(out) is not np.ndarray or out.dtype is not out_dtype or out.shape != out_shape:
            return False
        flags = out.flags
        # Two arrays with memory of their own share none.
        apart = flags.owndata and given.flags.owndata and out is not given
        return flags.carray and (apart or not np.may_share_memory(given, out))

    def call(given: Any, out: Any) -> Array | None:
        if type(given) is np.ndarray and given.dtype is dtype and given.shape == shape and given.flags.carray:
            if out is None:
                result = make()
            else:
                result = out[0] if type(out) is list and len(out) == 1 else out
                if not fits(given, result):
                    return None
            run((given,), (result,))
            return result
        return None

    return call


def sized(spec: TensorSpec, samples: int) -> TensorSpec:
    """A tensor with the number of samples in place of the leading dimension's name, if it has one."""
    if not spec.shape or isinstance(spec.shape[0], int):
        return spec
    return TensorSpec(spec.name, spec.dtype, (samples, *spec.shape[1:]))


def empty(spec: TensorSpec) -> Array:
    """An uninitialised array for a tensor; large ones start at a multiple of 64 bytes, so that no vector straddles."""
    shape, dtype, size = _extent(spec)
    if size < LARGE:
        return np.empty(shape, dtype)
    return aligned_empty(size).view(dtype).reshape(shape)


@lru_cache(maxsize=1024)
def _extent(spec: TensorSpec) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """A tensor's shape, element type and bytes."""
    dtype, shape = np.dtype(spec.dtype), tuple(int(dim) for dim in spec.shape)
    return shape, dtype, math.prod(shape) * dtype.itemsize
