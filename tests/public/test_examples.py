"""The programs in docs/examples name a digit as PyTorch does, each where its compiler is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import build, export

import tilewright as tw

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
COMMANDS = {
    "c": ["cc", "-std=c99", "-pedantic", "-Wall", "-Werror", "digit.c", "mnist.so", "-Wl,-rpath,.", "-o", "digit"],
    "cpp": ["c++", "-std=c++11", "-Wall", "-Werror", "digit.cpp", "mnist.so", "-Wl,-rpath,.", "-o", "digit"],
    "rs": ["rustc", "--edition", "2021", "-Dwarnings", "digit.rs", "-Clink-arg=mnist.so", "-Clink-arg=-Wl,-rpath,."],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples")
    tw.compile(export(*build("mnist"))).save(path / "mnist.so")
    picture = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    picture.numpy().tofile(path / "picture.f32")
    return path


@pytest.fixture(scope="module")
def expected() -> str:
    picture = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        scores = build("mnist")[0](picture)[0]
    return f"{int(scores.argmax())} with {scores.max():.3f}\n"


@pytest.mark.parametrize("language", list(COMMANDS))
def test_compiled_example(language: str, folder: Path, expected: str) -> None:
    command = COMMANDS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    shutil.copy(EXAMPLES / f"digit.{language}", folder)
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run(["./digit", "picture.f32"], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    done = subprocess.run(["./digit", "missing"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr


def test_ctypes_example(folder: Path, expected: str) -> None:
    command = [sys.executable, str(EXAMPLES / "digit.py"), "picture.f32"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
