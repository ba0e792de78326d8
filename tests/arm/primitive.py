"""One primitive compiled and run, without PyTorch in sight."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.compiler.ir import TensorType
from tilewright.compiler.ir.types import from_numpy
from tilewright.compiler.ops import GraphBuilder
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.targets import Target
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import empty

Array = NDArray[Any]
FIXED = {"resample"}
"""Primitives whose operands after the first are constants in every graph."""


def run_primitive(op: str, operands: tuple[Array, ...], attrs: dict[str, Any], target: Target) -> Array:
    """The result on these operands, as machine code for `target` gives it."""
    g = GraphBuilder("primitive")
    places: list[Any] = []
    inputs = []
    for position, array in enumerate(operands):
        if op in FIXED and position > 0:
            places.append(g.constant(array))
        else:
            places.append(g.input(f"x{position}", TensorType(from_numpy(array.dtype), array.shape)))
            inputs.append(np.ascontiguousarray(array))
    artifact = compile_graph(g.finish({"y": g.op(op, *places, **attrs)}), target)
    (spec,) = artifact.manifest.outputs
    result = empty(spec)
    result.reshape(-1).view(np.uint8)[:] = 0xFF  # NaN where the result is a float
    Executable(artifact).run(inputs, [result])
    return result
