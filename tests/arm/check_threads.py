"""Models on several threads of the emulated processor: the same bits, from many callers, after a fork."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from arm.emulated import REFERENCES

import tilewright as tw
from tilewright.runtime.model import Model

MODELS = {model[0]: model[1:] for model in REFERENCES["models"]}
Case = tuple[dict[int, Model], np.ndarray, np.ndarray]


def threads_of() -> int:
    """Threads of this process; the emulator has one or two of its own."""
    return len(os.listdir("/proc/self/task"))


@pytest.fixture(scope="module")
def case() -> Case:
    """A model that is worth sharing, by its number of threads, input, and its result on one thread."""
    onnx, conv, _, x, _ = MODELS["conv_winograd"]
    models = {threads: tw.compile(onnx, conv=conv, threads=threads) for threads in (1, 2, 5)}
    return models, x, models[1](x)


@pytest.mark.parametrize("threads", [2, 5])
def test_same_bits_every_time(case: Case, threads: int) -> None:
    models, x, expected = case
    for _ in range(6):
        np.testing.assert_array_equal(models[threads](x), expected)


def test_many_callers(case: Case) -> None:
    models, x, expected = case
    model = models[2]
    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(lambda _: np.array_equal(model(x), expected), range(8)))
    assert all(results)


def test_workers_of_a_forked_child(case: Case) -> None:
    """A child has no workers of its parent's, and starts its own at the first call."""
    models, x, expected = case
    model = models[2]
    model(x)
    for _ in range(3):
        child = os.fork()
        if not child:
            signal.alarm(60)
            before = threads_of()
            same = all(np.array_equal(model(x), expected) for _ in range(3))
            os._exit(0 if same and threads_of() > before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        np.testing.assert_array_equal(model(x), expected)
