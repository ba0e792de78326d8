"""Models from shared objects, through ctypes: nothing of the compiler is loaded, nor LLVM.

    model = load("net.so")          a Model, as compile() gives
    y = model(x)

A file is looked at before it is loaded: whether it is one of ours, whole, for this machine's processor. Then it is
asked which features it needs, by code that runs everywhere, and what its inputs and outputs are.
"""

import ctypes
import json
import math
import mmap
import os
import platform
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tilewright.errors import CallError, LoadError
from tilewright.runtime import elf
from tilewright.runtime.abi import ABI_VERSION, WEIGHTS_PAGE, weights_header
from tilewright.runtime.addresses import address, point
from tilewright.runtime.artifact import Batch, KernelSpec, Manifest, TensorSpec, aligned_empty
from tilewright.runtime.model import Array, Model
from tilewright.runtime.seal import broken
from tilewright.runtime.threads import count

_METADATA = "_metadata_json"
_FAMILIES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64", "riscv64": "riscv", "i686": "x86"}


class _Tensor(ctypes.Structure):
    """tw_tensor."""

    _fields_ = (("data", ctypes.c_void_p), ("dims", ctypes.c_void_p), ("capacity", ctypes.c_int64))


class _Context(ctypes.Structure):
    """tw_context."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t), ("workspace", ctypes.c_void_p), ("workspace_bytes", ctypes.c_size_t),
        ("threads", ctypes.c_int32), ("weights", ctypes.c_void_p), ("alloc", ctypes.c_void_p),
        ("profile", ctypes.c_void_p), ("user", ctypes.c_void_p),
    )  # fmt: skip


def load(
    path: str | os.PathLike[str], *, threads: int = 0, weights: str | os.PathLike[str] | None = None
) -> Model:
    """The model in a shared object that Tilewright wrote.

    `threads` as for `compile`. `weights` is the file of weights of a model that has one, by default the one of its
    name in the same folder. Raises LoadError for a file that is not a model's, is damaged, for another kind of
    processor, or for one with features that this one lacks.
    """
    workers = count(threads)
    file = Path(path)
    name = _checked(file)
    library = _opened(file)
    functions = _Functions(library, name, str(file))
    metadata = functions.metadata()
    blob = _weights(file, metadata, weights)
    manifest = _manifest(metadata, str(file))
    executable = NativeExecutable(functions, manifest, blob, workers)
    inputs = [(spec.name, spec.dtype, spec.shape) for spec in manifest.inputs]
    outputs = [spec.name for spec in manifest.outputs]
    batch = manifest.batch.symbol if manifest.batch else None
    return Model(str(file), inputs, outputs, lambda shapes: executable, workers, batch)


class _Frame(NamedTuple):
    """What one call at a time needs: its arguments, and the tensors and dims that they point to; `held` is where all
    of that lies. `dims` are those of the first input that has samples.
    """

    arguments: tuple[ctypes.c_void_p, ...]
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    dims: Any
    held: tuple[Any, ...]


class NativeExecutable:
    """A loaded shared object, computed by `threads` threads."""

    def __init__(self, functions: "_Functions", manifest: Manifest, weights: mmap.mmap | None, threads: int) -> None:
        self.manifest = manifest
        self._functions = functions
        self._call = functions.call
        self._threads = threads
        self._weights = None if weights is None else np.frombuffer(weights, np.uint8)
        self._workspace_bytes = int(functions.workspace_bytes(None, threads))
        self._batched = next((i for i, spec in enumerate(manifest.inputs) if isinstance((*spec.shape, 0)[0], str)), -1)
        self._idle: list[_Frame] = []

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute `outputs` from `inputs`: dense arrays of exactly the manifest's types, of equally many samples."""
        try:
            frame = self._idle.pop()
        except IndexError:
            frame = self._frame()
        arguments, given, taken, _, _ = frame
        point(given, inputs)
        point(taken, outputs)
        if self._batched >= 0:
            self._resize(frame, inputs, outputs)
        code = self._call(*arguments)
        self._idle.append(frame)
        if code:
            raise CallError(self._functions.explain(code), model=self.manifest.name)

    def bound(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """`run` with these arrays, again and again, one call at a time."""
        bound = self._frame()
        point(bound.inputs, inputs)
        point(bound.outputs, outputs)
        if self._batched >= 0:
            self._resize(bound, inputs, outputs)
        idle = [(bound.arguments, bound, inputs, outputs)]  # what the arguments point to
        functions, name = self._functions, self.manifest.name

        def call() -> None:
            try:
                frame = idle.pop()
            except IndexError:
                raise CallError("a bound call is still running; bind again for another thread", model=name) from None
            code = functions.call(*frame[0])
            idle.append(frame)
            if code:
                raise CallError(functions.explain(code), model=name)

        return call

    def _resize(self, frame: _Frame, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Give a frame's tensors the sizes of these arrays."""
        frame.dims[0] = len(inputs[self._batched])
        for tensor, array in zip((*frame.inputs, *frame.outputs), (*inputs, *outputs), strict=True):
            tensor.capacity = array.nbytes

    def _frame(self) -> _Frame:
        """Arguments, among them a context with a workspace, whose tensors lack arrays."""
        workspace = aligned_empty(self._workspace_bytes)
        context = _Context(ctypes.sizeof(_Context), address(workspace), workspace.nbytes, self._threads)
        if self._weights is not None:
            context.weights = address(self._weights)
        inputs, outputs = _tensors(self.manifest.inputs), _tensors(self.manifest.outputs)
        dims = None
        if self._batched >= 0:
            shape = self.manifest.inputs[self._batched].shape
            dims = (ctypes.c_int64 * len(shape))(0, *map(int, shape[1:]))
            inputs[self._batched].dims = ctypes.addressof(dims)
        arguments = tuple(ctypes.c_void_p(ctypes.addressof(part)) for part in (inputs, outputs, context))
        return _Frame(arguments, tuple(inputs), tuple(outputs), dims, (inputs, outputs, context, workspace))


def _tensors(specs: Sequence[TensorSpec]) -> Any:
    """An array of tw_tensor that lack their data, and their sizes where those are not known beforehand."""
    tensors = (_Tensor * len(specs))()
    for tensor, spec in zip(tensors, specs, strict=True):
        if not any(isinstance(dim, str) for dim in spec.shape):
            tensor.capacity = math.prod(map(int, spec.shape)) * np.dtype(spec.dtype).itemsize
    return tensors


class _Functions:
    """The functions of a loaded library."""

    def __init__(self, library: ctypes.CDLL, name: str, file: str) -> None:
        self.file = file
        try:
            self.call = library[f"{name}_call"]
            self.workspace_bytes = library[f"{name}_workspace_bytes"]
            self._missing = library[f"{name}_missing_feature"]
            self._text = library[f"{name}_error_text"]
            self._metadata = library[f"{name}{_METADATA}"]
            self._version = library[f"{name}_abi_version"]
        except AttributeError as error:
            raise LoadError(f"a function is missing: {error}", model=file) from None
        # Arguments that have their C types already are passed faster than those that are yet to get them.
        self.call.restype = ctypes.c_int32
        self.workspace_bytes.argtypes = (ctypes.c_void_p, ctypes.c_int32)
        self.workspace_bytes.restype = ctypes.c_size_t
        self._text.argtypes = (ctypes.c_int32,)
        for function in (self._missing, self._text, self._metadata):
            function.restype = ctypes.c_char_p
        self._version.restype = ctypes.c_uint32

    def metadata(self) -> dict[str, Any]:
        """What the model is; raises LoadError if it cannot run here."""
        version = self._version()
        if version != ABI_VERSION:
            raise LoadError(
                f"it was made for version {version} of the interface, this Tilewright knows {ABI_VERSION}; compile "
                "the model anew",
                model=self.file,
            )
        missing = self._missing()
        metadata: dict[str, Any] = json.loads(self._metadata())
        if missing is not None:
            needs = ", ".join(metadata["target"]["features"])
            raise LoadError(
                f"it needs a processor with {needs}; this one, or its system, lacks {missing.decode()}. Compile the "
                "model for this machine, or for a lower level such as x86-64-v3",
                model=self.file,
            )
        return metadata

    def explain(self, code: int) -> str:
        """What an error code says."""
        text = self._text(code)
        return f"the compiled code returned error {code}" + (f": {text.decode()}" if text else "")


def _checked(path: Path) -> str:
    """The name that the file's functions begin with; raises LoadError if the file should not be loaded."""
    file = str(path)
    try:
        with open(path, "rb") as opened:
            if not os.fstat(opened.fileno()).st_size:
                raise LoadError("it is empty", model=file)
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise LoadError(f"it cannot be read: {error.strerror or error}", model=file) from None
    with data:
        try:
            parsed = elf.read(data)
            if parsed.type != elf.SHARED:
                raise LoadError("it is an ELF file, but no shared object", model=file)
            if elf.end(parsed) > len(data):
                raise LoadError("it is cut off: copy it again, or compile the model anew", model=file)
            _check_machine(parsed, file)
            problem = broken(data, parsed)
            if problem:
                raise LoadError(f"it is damaged: {problem}; copy it again, or compile the model anew", model=file)
            names = [entry.name for entry in elf.symbols(parsed, elf.DYNSYM) if entry.section != elf.UNDEFINED]
        except elf.ElfError as error:
            raise LoadError(f"it is not a shared object of Tilewright: {error}", model=file) from None
    for name in names:
        if name.endswith(_METADATA) and f"{name.removesuffix(_METADATA)}_call" in names:
            return name.removesuffix(_METADATA)
    raise LoadError("it is a shared object, but not one that Tilewright wrote", model=file)


def _check_machine(parsed: elf.File, file: str) -> None:
    here = platform.machine().lower()
    family = _FAMILIES.get(here, "arm" if here.startswith("arm") else here)
    there = elf.MACHINES.get(parsed.machine, f"machine {parsed.machine}")
    if there != family or parsed.bits != struct.calcsize("P") * 8 or not sys.platform.startswith("linux"):
        raise LoadError(
            f"it is for Linux on {there} ({parsed.bits} bits), this Python runs on {sys.platform} on {here}; compile "
            "the model for this machine",
            model=file,
        )


_lock = threading.Lock()
_known: dict[str, tuple[int, int]] = {}


def _opened(path: Path) -> ctypes.CDLL:
    """The library, loaded into the process.

    The loader takes a path that it has loaded before for the same library, also when the file was replaced since. Then
    it gets another path to the new file.
    """
    real = os.path.realpath(path)
    try:
        stat = os.stat(real)
        identity = (stat.st_dev, stat.st_ino)
        with _lock:
            if _known.setdefault(real, identity) == identity:
                return ctypes.CDLL(real)
        with tempfile.TemporaryDirectory() as folder:
            link = os.path.join(folder, os.path.basename(real))
            os.symlink(real, link)
            return ctypes.CDLL(link)
    except OSError as error:
        raise LoadError(f"the system cannot load it: {error}", model=str(path)) from None


def _weights(path: Path, metadata: dict[str, Any], given: str | os.PathLike[str] | None) -> mmap.mmap | None:
    """The mapped file of weights, if the model has one."""
    described = metadata["weights"]
    if described["kind"] != "external":
        if given is not None:
            raise LoadError("its weights are inside; do not pass weights=", model=str(path))
        return None
    file = Path(given) if given is not None else path.with_name(described["file"])
    try:
        with open(file, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size != WEIGHTS_PAGE + described["bytes"]:
                raise LoadError(
                    f"its weights {file} have {size} bytes instead of {WEIGHTS_PAGE + described['bytes']}: they are "
                    "cut off or another model's",
                    model=str(path),
                )
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise LoadError(
            f"its weights {file} are missing; they belong into the same folder, or say where they are with weights=",
            model=str(path),
        ) from None
    except OSError as error:
        raise LoadError(f"its weights {file} cannot be read: {error.strerror}", model=str(path)) from None
    if data[:64] != weights_header(described["bytes"], bytes.fromhex(described["blake3"])):
        raise LoadError(f"{file} holds the weights of another model", model=str(path))
    return data


def _manifest(metadata: dict[str, Any], file: str) -> Manifest:
    """What the metadata says, as the manifest of an artifact; kernels without their buffers."""
    kernels = tuple(
        KernelSpec(k["symbol"], k["source"], k["template"], k["flops"], 0, (), k["bytes"], ())
        for k in metadata["kernels"]
    )
    workspace = metadata["workspace"]
    batch = None if metadata["batch"] is None else Batch(metadata["batch"], 1)
    return Manifest(
        file, f"{metadata['name']}_call", _specs(metadata["inputs"]), _specs(metadata["outputs"]), workspace["bytes"],
        workspace["bytes"], workspace["bytes_per_further_thread"], kernels, metadata["target"]["name"],
        metadata["compiler"].removeprefix("tilewright "), batch,
    )  # fmt: skip


def _specs(tensors: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in tensors)
