"""Every primitive compiles: each row of the table as a one-node graph, against the primitive's own reference."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from primitive_rows import ROWS, Row

from tilewright.compiler.ir import ROW_MAJOR, TensorType
from tilewright.compiler.ir.types import from_numpy
from tilewright.compiler.lower.context import LOWERINGS
from tilewright.compiler.ops import PRIMITIVES, GraphBuilder, compute
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.targets import host, narrowed
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import empty

WITH_TEMPLATES = {"conv", "winograd_conv", "matmul", "max_pool", "sum_pool", "channel_squares"}
INTERNAL = {"relayout"}
"""Its operands and results have layouts, which a graph's inputs and outputs cannot have; other tests compile it."""


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_every_primitive_has_a_lowering(name: str) -> None:
    assert name in LOWERINGS or name in WITH_TEMPLATES, f"{name} has no lowering"


@pytest.mark.parametrize("bits", [512, 128])
@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.op not in INTERNAL], ids=str
)
def test_compiled_is_as_the_reference(row: Row, bits: int) -> None:
    target = host()
    if bits > target.vector_bits:
        pytest.skip(f"this machine has no {bits}-bit vectors")
    g = GraphBuilder("row")
    # Tap tables are constants in every graph; other operands arrive at run time.
    fixed = row.op == "resample"
    operands: list[Any] = []
    inputs = []
    for position, array in enumerate(row.operands):
        if fixed and position > 0:
            operands.append(g.constant(array))
        else:
            operands.append(g.input(f"x{position}", TensorType(from_numpy(array.dtype), array.shape)))
            inputs.append(np.ascontiguousarray(array))
    graph = g.finish({"y": g.op(row.op, *operands, **row.attrs)})
    assert all(value.type.layout == ROW_MAJOR for value in graph.outputs)
    # Narrow vectors come with a machine that lacks what those of 128 bits lack on x86.
    machine = target if bits == 512 else replace(narrowed(target, bits), fma=False, rounding=False, halves=False)
    artifact = compile_graph(graph, machine)
    executable = Executable(artifact)
    (expected,) = compute(row.op, PRIMITIVES[row.op].attrs(**row.attrs), row.operands)
    (spec,) = artifact.manifest.outputs
    for fill in (0xFF, 0x00):
        result = empty(spec)
        result.reshape(-1).view(np.uint8)[:] = fill  # NaN where the result is a float
        executable.run(inputs, [result])
        tolerance = {"float32": 2e-5, "float64": 1e-12}.get(result.dtype.name)
        if tolerance is None:
            np.testing.assert_array_equal(result, expected)
        else:
            np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
