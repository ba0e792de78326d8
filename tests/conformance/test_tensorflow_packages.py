"""The package basic-pitch 0.4.0 ships one network twice: as a SavedModel (variables, nested functions) and as ONNX.

`make test` installs it without its dependencies; nothing of it is imported. TensorFlow is not installed by it: what it
computes is compared where it is there.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.frontends.formats import load


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
