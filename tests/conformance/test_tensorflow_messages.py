"""Our messages are TensorFlow's: numbers, names and types of their fields; both may be loaded at once."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tilewright.frontends.tensorflow.messages as ours
from tilewright.frontends.tensorflow.messages import TYPE_NAMES, GraphDef, MetaGraphDef, SavedModel

SOURCE = Path(ours.__file__).parent / "protos" / "graph.proto"
ROOTS = (GraphDef, MetaGraphDef, SavedModel, ours.BundleHeaderProto, ours.BundleEntryProto)
OUR_FIELDS = {"payload"}


def descriptors(roots: Any) -> dict[str, Any]:
    """All messages that the roots lead to, by their names without the package."""
    found: dict[str, Any] = {}
    waiting = [root.DESCRIPTOR for root in roots]
    while waiting:
        descriptor = waiting.pop()
        name = descriptor.full_name.rpartition("tensorflow.")[2]
        if name not in found:
            found[name] = descriptor
            waiting += [field.message_type for field in descriptor.fields if field.message_type]
    return found


def test_the_compiled_messages_are_those_of_the_source() -> None:
    text = re.sub(r"//[^\n]*", "", SOURCE.read_text())
    written = set(re.findall(r"(\w+)\s*=\s*(\d+);", text))
    compiled = {(name.upper(), str(number)) for number, name in TYPE_NAMES.items()}
    compiled = {(f"DT_{name}", number) for name, number in compiled} | {("LITTLE", "0"), ("BIG", "1")}
    for descriptor in descriptors(ROOTS).values():
        if not descriptor.GetOptions().map_entry:
            compiled |= {(field.name, str(field.number)) for field in descriptor.fields}
    assert compiled == written, "run `make protos`"


def test_fields_are_those_of_tensorflow() -> None:
    pytest.importorskip("tensorflow", reason="tensorflow is not installed; its messages are not there to compare")
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2

    theirs = descriptors(
        (saved_model_pb2.SavedModel, tensor_bundle_pb2.BundleHeaderProto, tensor_bundle_pb2.BundleEntryProto)
    )
    for name, descriptor in descriptors(ROOTS).items():
        fields = {field.name: field for field in theirs[name].fields}
        for field in descriptor.fields:
            if field.name not in OUR_FIELDS:
                other = fields[field.name]
                assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
    for number, name in TYPE_NAMES.items():
        assert types_pb2.DataType.Name(number) == f"DT_{name.upper()}"


def test_operators_with_several_results_are_known_by_their_names() -> None:
    pytest.importorskip("tensorflow", reason="tensorflow is not installed; its operators are not there to compare")
    from tensorflow.python.framework import op_def_registry

    from tilewright.frontends.tensorflow.functions import RESULTS
    from tilewright.frontends.tensorflow.translate import OPERATORS

    for op in sorted(OPERATORS.keys() | RESULTS.keys()):
        definition = op_def_registry.get(op)
        names = [argument.name for argument in definition.output_arg] if definition is not None else []
        if len(names) > 1:
            assert list(RESULTS[op][: len(names)]) == names, op


@pytest.mark.parametrize("first", ["tensorflow", "tilewright"])
def test_both_in_one_process(first: str) -> None:
    pytest.importorskip("tensorflow", reason="tensorflow is not installed; there is nothing to clash with")
    code = """
from tensorflow.core.framework import graph_pb2
from tilewright.frontends.tensorflow.importer import read_model
graph = graph_pb2.GraphDef()
node = graph.node.add(name="x", op="Placeholder")
node.attr["dtype"].type = 1
graph.node.add(name="y", op="Relu", input=["x"])
assert list(read_model(graph).outputs) == ["y"]
assert list(read_model(graph.SerializeToString()).outputs) == ["y"]
"""
    lines = code.strip().split("\n")
    if first == "tilewright":
        lines[:2] = lines[1::-1]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)
