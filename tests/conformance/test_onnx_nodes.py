"""The onnx package's own tests of operators, for every operator in the table.

Its tests of an operator that is defined by others come twice: as they are, and expanded into those others. A
case is run if all its operators are in the table. REFUSED lists the cases that Tilewright does not do, each
with the reason; they must end in UnsupportedError, so nothing is skipped and the list stays true.
"""

import fnmatch
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tilewright as tw
from tilewright.errors import UnsupportedError
from tilewright.frontends.onnx.operators.table import OPERATORS

Array = np.ndarray[Any, Any]

REFUSED = {
    "*float16*": "16-bit floats",
    "*fp16*": "16-bit floats",
    "*FLOAT16*": "16-bit floats",
    "*bf16*": "16-bit floats",
    "*_softmax_precision_expanded": "16-bit floats",
    "*FLOAT8*": "8-bit floats",
    "*FLOAT4*": "4-bit floats",
    "*INT4*": "4-bit integers",
    "*INT2*": "2-bit integers",
    "*_string*": "strings",
    "test_identity_sequence": "sequences",
    "test_identity_opt": "optional values",
    "test_batchnorm_*_training_mode": "training",
    "test_training_dropout": "training",
    "test_training_dropout_mask": "training",
    "test_training_dropout_default*": "training",
    "test_maxpool_with_argmax_*": "the positions of maxima",
}

# No case of their own.
WITHOUT_CASES = {"GlobalLpPool"}


def execute(model: onnx.ModelProto, inputs: Sequence[Array]) -> list[Array]:
    """The model's outputs for these inputs, compiled."""
    known = {port.name: array for port, array in zip(model.graph.input, inputs, strict=True)}
    compiled = tw.compile(model, shapes={name: np.shape(array) for name, array in known.items()})
    found = compiled.run({port.name: known[port.name] for port in compiled.inputs})
    return [found[port.name] for port in model.graph.output]


@cache
def cases() -> dict[str, Any]:
    """The cases whose operators are all in the table, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # computing the expected values overflows here and there
        from onnx.backend.test.loader import load_model_tests

        every = load_model_tests(kind="node")
    return {
        case.name: case
        for case in every
        if all(node.op_type in OPERATORS and not node.domain for node in case.model.graph.node)
    }


def arrays(values: Sequence[Any]) -> list[Array]:
    """A data set's values; some are tensors' messages, some NumPy scalars."""
    return [
        numpy_helper.to_array(value)
        if isinstance(value, onnx.TensorProto)
        else value
        if isinstance(value, list) or value is None
        else np.asarray(value)
        for value in values
    ]


def frozen(
    model: onnx.ModelProto, inputs: Sequence[Array], chosen: set[str]
) -> tuple[onnx.ModelProto, list[Array]]:
    """The model with some of its inputs as initialisers."""
    fixed, rest = onnx.ModelProto(), []
    fixed.CopyFrom(model)
    del fixed.graph.input[:]
    for port, array in zip(model.graph.input, inputs, strict=True):
        if port.name in chosen:
            fixed.graph.initializer.append(numpy_helper.from_array(array, port.name))
        else:
            fixed.graph.input.append(port)
            rest.append(array)
    return fixed, rest


def outputs_of(case: Any, inputs: Sequence[Array]) -> list[Array]:
    """Run a case. Cases pass shapes as inputs, which must be known while compiling: then inputs become
    constant, first the integers, then all but the first, then all.
    """
    ports = [port.name for port in case.model.graph.input]
    integers = {name for name, array in zip(ports, inputs, strict=True) if array.dtype.kind in "iub"}
    attempts: list[set[str]] = [set(), integers, set(ports[1:]), set(ports)]
    while True:
        try:
            return execute(*frozen(case.model, inputs, attempts.pop(0)))
        except UnsupportedError as error:
            if "at run time" not in str(error) or not attempts:
                raise


def check(case: Any) -> str:
    """What is wrong with a case's result; nothing if it is right."""
    reasons = [reason for pattern, reason in REFUSED.items() if fnmatch.fnmatchcase(case.name, pattern)]
    for raw_inputs, raw_expected in case.data_sets:
        inputs, expected = arrays(raw_inputs), arrays(raw_expected)
        try:
            results = execute(case.model, inputs) if reasons else outputs_of(case, inputs)
        except UnsupportedError as error:
            return "" if reasons else str(error)
        if reasons:
            return f"REFUSED says '{reasons[0]}', but it is computed"
        for result, value in zip(results, expected, strict=True):
            if (result.dtype, result.shape) != (value.dtype, value.shape):
                return f"{result.dtype} {result.shape} instead of {value.dtype} {value.shape}"
            if not np.allclose(result, value, rtol=case.rtol, atol=case.atol, equal_nan=True):
                return "values differ"
    return ""


def failures(chosen: Sequence[Any]) -> dict[str, str]:
    found = {case.name: check(case) for case in chosen}
    return {name: what for name, what in found.items() if what}


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_operator(operator: str) -> None:
    """The cases that consist of this operator alone."""
    chosen = [
        case for case in cases().values() if {node.op_type for node in case.model.graph.node} == {operator}
    ]
    assert bool(chosen) != (operator in WITHOUT_CASES)
    assert not failures(chosen)


@pytest.mark.parametrize("initial", "abcdefghijklmnopqrstuvwxyz")
def test_expanded(initial: str) -> None:
    """The cases that consist of several operators, by initial."""
    chosen = [
        case
        for name, case in cases().items()
        if name.startswith(f"test_{initial}") and len({node.op_type for node in case.model.graph.node}) > 1
    ]
    assert not failures(chosen)


def test_patterns_match() -> None:
    """Each pattern of refused cases names some, and most cases are not refused."""
    unused = [pattern for pattern in REFUSED if not fnmatch.filter(cases(), pattern)]
    assert not unused
    refused = {name for pattern in REFUSED for name in fnmatch.filter(cases(), pattern)}
    assert len(cases()) - len(refused) > 1000
