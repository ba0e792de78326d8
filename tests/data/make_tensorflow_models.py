"""Writes the models in this folder, and what TensorFlow computes with them: run it where TensorFlow 2.21 is installed.

    python tests/data/make_tensorflow_models.py

    saved_model_v2          variables, an embedding, a function that two others call
    saved_model_v1          reference variables and a conditional, as TensorFlow 1 wrote them
    tensorflow_models.npz   inputs and expected outputs
"""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
v1 = tf.compat.v1


def numbers(*shape: int) -> np.ndarray:
    """The same everywhere."""
    return np.sin(np.arange(np.prod(shape), dtype=np.float32) * 1.7).reshape(shape)


class Network(tf.Module):
    """Two convolutions by one function, with an embedding added."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(numbers(3, 3, 3, 4), name="kernel")
        self.layers = [{"bias": tf.Variable(np.float32([1, 2, 3, 4]), name="bias")}]
        self.table = tf.Variable(numbers(10, 4), name="table")

    @tf.function
    def convolution(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(tf.nn.conv2d(x, self.kernel, 1, "SAME") + self.layers[0]["bias"])

    @tf.function
    def both(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.convolution(x), self.convolution(x * 2)

    @tf.function(
        input_signature=[tf.TensorSpec((None, 6, 5, 3), tf.float32), tf.TensorSpec((None,), tf.int32)]
    )
    def serve(self, image: tf.Tensor, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        first, second = self.both(image)
        return {"sum": first + second, "second": second, "row": tf.nn.embedding_lookup(self.table, ids)}


def write_v2() -> dict[str, np.ndarray]:
    network, folder = Network(), HERE / "saved_model_v2"
    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(network, str(folder), signatures={"serving_default": network.serve})
    feeds = {"image": numbers(2, 6, 5, 3), "ids": np.array([7, 0], np.int32)}
    results = network.serve(**{name: tf.constant(array) for name, array in feeds.items()})
    return feeds | {name: value.numpy() for name, value in results.items()}


def write_v1() -> dict[str, np.ndarray]:
    folder = HERE / "saved_model_v1"
    shutil.rmtree(folder, ignore_errors=True)
    v1.disable_control_flow_v2()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 6, 5, 3), name="x")
        with v1.variable_scope("scope", use_resource=False):
            kernel = v1.get_variable("kernel", initializer=numbers(3, 3, 3, 4))
            bias = v1.get_variable("bias", initializer=np.float32([1, 2, 3, 4]))
        training = v1.placeholder_with_default(False, (), name="training")
        y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), bias)
        y = v1.cond(training, lambda: y * 0.5, lambda: y + tf.constant(1.0), name="cond")
        y = tf.nn.relu(y, name="out")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})
        feed = numbers(2, 6, 5, 3)
        return {"x": feed, "y": session.run(y, {x: feed})}


if __name__ == "__main__":
    found = {"v2": write_v2(), "v1": write_v1()}
    arrays = {f"{model}/{name}": array for model, part in found.items() for name, array in part.items()}
    np.savez_compressed(HERE / "tensorflow_models.npz", **arrays)
