"""Writes tensorflow_ops.npz: what TensorFlow makes of every case in tests/tensorflow_cases.py.

    python tests/data/make_tensorflow_ops.py        in an environment with tensorflow-cpu 2.21 and Tilewright
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))

from tensorflow_cases import CASES, Case


def run(case: Case) -> list[np.ndarray]:
    """TensorFlow's results."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(case.graph()), name="")
        with tf.compat.v1.Session() as session:
            feeds = {f"{name}:0": array for name, array in case.inputs().items()}
            names = [name if ":" in name else f"{name}:0" for name in case.outputs()]
            return [np.asarray(array) for array in session.run(names, feeds)]


def main() -> None:
    """Run every case, and store each result under the case's name and its index."""
    arrays, failed = {}, []
    for case in CASES:
        try:
            results = run(case)
        except (tf.errors.OpError, ValueError) as error:  # all that it refuses are told at the end
            failed.append(f"{case.title}: {error}"[:400])
            continue
        arrays |= {f"{case.title}:{index}": array for index, array in enumerate(results)}
    path = Path(__file__).with_name("tensorflow_ops.npz")
    np.savez_compressed(path, **arrays)
    print(f"{len(CASES)} cases, {path.stat().st_size} bytes, TensorFlow {tf.__version__}")
    sys.exit("\n".join(failed) if failed else 0)


if __name__ == "__main__":
    main()
