"""Kernels timed one by one: they compute what a normal run does, and their times add up to it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_models import small_network

import tilewright as tw
from tilewright.runtime.artifact import KernelSpec
from tilewright.runtime.executable import Executable
from tilewright.runtime.profile import profile

SHAPE = (1, 3, 160, 240)


@pytest.fixture(scope="module")
def executable() -> Executable:
    return tw.compile(small_network(SHAPE), threads=1).executable((SHAPE,))


@pytest.fixture(scope="module")
def x() -> NDArray[Any]:
    return np.random.default_rng(0).random(SHAPE, np.float32)


def test_every_kernel_has_a_time(executable: Executable, x: NDArray[Any]) -> None:
    times = profile(executable, [x], 5)
    assert [entry.kernel for entry in times] == list(executable.manifest.kernels)
    assert all(0 < entry.least <= entry.median for entry in times)
    outputs = [np.empty((1, 5), np.float32)]
    whole = []
    for _ in range(20):
        began = time.perf_counter()
        executable.run([x], outputs)
        whole.append(time.perf_counter() - began)
    assert min(whole) / 4 < sum(entry.least for entry in times) < 4 * min(whole)


def test_a_call_is_timed_around_every_kernel(executable: Executable, x: NDArray[Any]) -> None:
    kernels, count = len(executable.manifest.kernels), 0

    def beside() -> None:
        nonlocal count
        count += 1
        time.sleep(0.003 if count % (kernels + 1) == 1 else 0.001)  # longer before each round's first kernel

    first, *rest = profile(executable, [x], 2, beside)
    assert count == 3 * (kernels + 1)
    assert first.beside > 0.002 and all(0.001 <= entry.beside for entry in rest)
    assert all(entry.beside == 0 for entry in profile(executable, [x], 1))


def test_the_kernels_one_by_one_compute_the_outputs(
    executable: Executable, x: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def spy(spec: object) -> NDArray[Any]:
        made.append(np.full((1, 5), np.nan, np.float32))
        return made[-1]

    monkeypatch.setattr("tilewright.runtime.profile.empty", spy)
    profile(executable, [x], 1)
    expected = np.empty((1, 5), np.float32)
    executable.run([x], [expected])
    np.testing.assert_array_equal(made[0], expected)


def test_kernels_of_a_model_from_the_cache(x: NDArray[Any], executable: Executable, tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(small_network(SHAPE))
    for _ in range(2):  # the first puts it there
        cached = tw.compile(tmp_path / "small.onnx", threads=1).executable((SHAPE,))
        assert cached.manifest.kernels == executable.manifest.kernels
        assert len(profile(cached, [x], 1)) == len(executable.manifest.kernels)


def test_what_the_manifest_says_of_kernels(executable: Executable) -> None:
    kernels = {kernel.source: kernel for kernel in executable.manifest.kernels if kernel.flops}
    first: KernelSpec = kernels["first"]
    # Its 2 x 2 maxima are computed with it.
    assert first.shape == (1, 4, 80, 120) and first.flops == 2 * 27 * 4 * 160 * 240
    assert first.bytes >= 4 * (3 * 160 * 240 + 4 * 80 * 120)
    assert kernels["dense"].buffers[-1].space == "outputs"
    assert max(kernel.live for kernel in executable.manifest.kernels) == executable.manifest.workspace_bound
    limits = {"constants": executable.constants.nbytes, "workspace": executable.manifest.workspace_bytes}
    for kernel in executable.manifest.kernels:
        assert executable.address(kernel.symbol)
        for at in kernel.buffers:
            assert at.space in ("inputs", "outputs") or at.offset + at.bytes <= limits[at.space]
