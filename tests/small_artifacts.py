"""Made-up artifacts, for the tests of what stores them: artifact(1000) has so many bytes of constants."""

import numpy as np

from tilewright.runtime.artifact import Artifact, BufferSpec, KernelSpec, Manifest, TensorSpec


def artifact(size: int = 1000, name: str = "net") -> Artifact:
    kernel = KernelSpec("k", "conv1", "gemm", 7, 3, (1, 2), 90, (BufferSpec("inputs", 0, 1, 8),))
    specs = (TensorSpec("x", "float32", (1, 3)), TensorSpec("y", "int64", ()))
    manifest = Manifest(name, "tw_run", specs, specs[:1], 10, 9, 8, (kernel, kernel), "host", "0.1")
    return Artifact(b"code" * 9, np.arange(size, dtype=np.uint8), manifest, b"pool")


def equal(left: Artifact | None, right: Artifact) -> bool:
    return (
        left is not None
        and (left.code, left.pool, left.manifest) == (right.code, right.pool, right.manifest)
        and np.array_equal(left.constants, right.constants)
    )
