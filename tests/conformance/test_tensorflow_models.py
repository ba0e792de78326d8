"""Models that TensorFlow 2.21 wrote, and what it computes with them: see data/make_tensorflow_models.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

import tilewright as tw
from tilewright.frontends.formats import load
from tilewright.frontends.tensorflow.messages import SavedModel

DATA = Path(__file__).parents[1] / "data"
STORED = np.load(DATA / "tensorflow_models.npz")

MODELS = {
    "v2": ("saved_model_v2", ("image", "ids"), ("row", "second", "sum")),
    "v1": ("saved_model_v1", ("x",), ("y",)),
}


def check(model: str, source: Any) -> None:
    _, inputs, outputs = MODELS[model]
    feeds: dict[str, NDArray[Any]] = {name: STORED[f"{model}/{name}"] for name in inputs}
    compiled = tw.compile(source, shapes={name: array.shape for name, array in feeds.items()}, cache=False)
    found = compiled.run(feeds)
    assert tuple(found) == outputs
    for name in outputs:
        np.testing.assert_allclose(found[name], STORED[f"{model}/{name}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_models(model: str) -> None:
    check(model, DATA / MODELS[model][0])


def test_a_saved_model_as_text(tmp_path: Path) -> None:
    (tmp_path / "variables").symlink_to(DATA / "saved_model_v2" / "variables")
    message = SavedModel.FromString((DATA / "saved_model_v2" / "saved_model.pb").read_bytes())
    (tmp_path / "saved_model.pbtxt").write_text(text_format.MessageToString(message))
    check("v2", tmp_path)


def test_what_is_said_about_them() -> None:
    model = load(DATA / "saved_model_v2")
    assert [str(port) for port in model.inputs] == ["ids: int32 ?", "image: float ?x6x5x3"]
    assert [layer.name for layer in model.layers()] == ["conv1_1", "conv1_2"]
    assert load(DATA / "saved_model_v1").outputs == ("y",)
