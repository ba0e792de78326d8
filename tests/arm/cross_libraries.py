"""Libraries compiled here for other processors, called from C under an emulator: values against PyTorch's."""

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from arm.emulated import FOLDER, REFERENCES

from tilewright.aot import Tools, save_model
from tilewright.compiler.targets import by_name

MODELS = {model[0]: model[1:] for model in REFERENCES["models"]}
NAMES = ("mnist", "resnet", "conv_winograd", "softmax", "gemm")


@dataclass(frozen=True)
class Machine:
    """A row of the targets, the emulator and the C library's folder and triple for it."""

    row: str
    emulator: str
    triple: str
    loader: str


MACHINES = {
    "aarch64": Machine("aarch64", "aarch64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
    "armv7": Machine("armv7", "arm", "arm-linux-gnueabihf", "ld-linux-armhf.so.3"),
    "riscv64": Machine("riscv64", "riscv64", "riscv64-linux-gnu", "ld-linux-riscv64-lp64d.so.1"),
}


@cache
def built(machine: str, model: str, linker: str | None = None) -> tuple[Path, Path]:
    """The library of a model for a machine, and the driver compiled with its header."""
    of = MACHINES[machine]
    folder = FOLDER / "libraries" / machine / f"{model}-{linker}"
    folder.mkdir(parents=True, exist_ok=True)
    onnx, conv, *_ = MODELS[model]
    library, program = folder / "net.so", folder / "driver"
    save_model(onnx, library, target=by_name(of.row), conv=conv, name="net", tools=Tools(linker=linker))
    c_library = FOLDER / "cross" / of.triple / "lib"
    zig = [sys.executable, "-m", "ziglang"]
    source = Path(__file__).with_name("driver.c")
    warnings = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [*zig, "cc", "-target", of.triple, "-O1", *warnings, f"-I{folder}", "-c", source, "-o", folder / "driver.o"],
        check=True,
    )
    parts = ["crt1.o", "crti.o", folder / "driver.o", "libc.so.6", "libc_nonshared.a", "crtn.o"]
    subprocess.run(
        [*zig, "ld.lld", "-dynamic-linker", f"/lib/{of.loader}", "-o", program, *(c_library / part for part in parts)],
        check=True,
    )
    return library, program


def call(
    machine: str, model: str, threads: int, cpu: str = "", linker: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The driver's run under the emulator, as the processor `cpu`."""
    library, program = built(machine, model, linker)
    of = MACHINES[machine]
    emulator = [FOLDER / "qemu" / of.emulator, "-L", FOLDER / "cross" / of.triple, *(["-cpu", cpu] if cpu else [])]
    x = MODELS[model][3]
    command = [*emulator, program, library, str(threads)]
    return subprocess.run(command, input=x.tobytes(), capture_output=True, timeout=120, check=False)


def check(model: str, done: subprocess.CompletedProcess[bytes]) -> None:
    expected = MODELS[model][4]
    assert done.returncode == 0, done.stderr.decode()
    y = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("machine", MACHINES)
def test_as_pytorch(machine: str, model: str) -> None:
    alone, shared = (call(machine, model, threads) for threads in (1, 2))
    check(model, alone)
    assert shared.returncode == 0, shared.stderr.decode()
    assert shared.stdout == alone.stdout


def test_built_in_linker() -> None:
    check("conv_winograd", call("aarch64", "conv_winograd", 2, linker="builtin"))


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a72", "neoverse-n1"])
def test_generic_code_runs_on_every_processor(cpu: str) -> None:
    """An instruction that they lack, such as one of SVE, would end the process."""
    check("resnet", call("aarch64", "resnet", 1, cpu))
    check("conv_winograd", call("aarch64", "conv_winograd", 2, cpu))


def test_a_processor_without_fused_multiply_add_is_refused() -> None:
    done = call("armv7", "mnist", 1, "cortex-a9")
    assert (done.returncode, done.stderr) == (2, b"missing: vfp4\n")
    check("mnist", call("armv7", "mnist", 1, "cortex-a7"))
