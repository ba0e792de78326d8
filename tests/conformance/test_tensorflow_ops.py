"""Every case of `tensorflow_cases`, compiled, against what TensorFlow makes of it.

TensorFlow's results are stored; where it is installed, it computes them again.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tensorflow_cases import CASES, Case

import tilewright as tw
from tilewright.frontends.tensorflow.operators.table import OPERATORS

STORED = np.load(Path(__file__).parents[1] / "data" / "tensorflow_ops.npz")

ALIASES = {
    "AccumulateNV2", "Assert", "BatchToSpace", "BiasAddV1", "BroadcastArgs", "CheckNumerics", "Const", "EnsureShape",
    "FusedConv2D", "FusedDepthwiseConv2dNative", "NoOp", "PlaceholderWithDefault", "Prelu", "PreventGradient",
    "Snapshot", "SpaceToBatch",
}  # fmt: skip
"""Operators that share another's translator, or have no result."""


def check(case: Case, results: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    for got, want in zip(results, expected, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind == "f":
            tolerance = case.tolerance or (1e-5 if want.dtype == np.float32 else 1e-12)
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(got, want)


def compiled(case: Case) -> list[NDArray[Any]]:
    results = tw.compile(case.graph(), outputs=case.outputs(), threads=1, cache=False).run(case.inputs())
    return [results[name] for name in case.outputs()]


def stored(case: Case) -> list[NDArray[Any]]:
    return [STORED[f"{case.title}:{index}"] for index in range(case.results)]


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_operator(op: str) -> None:
    for case in CASES:
        if case.op == op:
            try:
                check(case, compiled(case), stored(case))
            except (AssertionError, tw.TilewrightError) as error:
                error.add_note(case.title)
                raise


def test_stored_results_are_tensorflows() -> None:
    """Where TensorFlow is installed, it agrees with the stored file, so neither is out of date."""
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed; the stored results are used")
    for case in CASES:
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(tf.compat.v1.GraphDef.FromString(case.graph()), name="")
            with tf.compat.v1.Session() as session:
                names = [name if ":" in name else f"{name}:0" for name in case.outputs()]
                live = session.run(names, {f"{name}:0": array for name, array in case.inputs().items()})
        check(case, [np.asarray(array) for array in live], stored(case))


def test_every_operator_has_a_case() -> None:
    assert set(OPERATORS) - {case.op for case in CASES} == ALIASES
