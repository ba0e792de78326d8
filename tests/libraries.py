"""Small models as libraries, for the tests of linking and loading, and C programs around them.

    library = small_library()                 two convolutions and a dense layer, for this machine
    run_c(folder, source, "net.so")           compiles a C program against the library and runs it
"""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from small_models import small_network

from tilewright.aot import library_of
from tilewright.compiler.library import LibraryOptions
from tilewright.compiler.link import Library
from tilewright.compiler.targets import by_name
from tilewright.frontends.formats import load

SHAPE = (1, 3, 16, 24)

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
needs_cxx = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
needs_nm = pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")


@cache
def small_library(
    name: str = "net", target: str = "host", weights: str = "embed", batched: bool = False, large: bool = False
) -> Library:
    """The network of `small_models`; `large` enough to be worth threads."""
    shape = (1, 3, 160, 240) if large else SHAPE
    options = LibraryOptions(name, weights, "0" * 64)  # type: ignore[arg-type]
    shapes = {"image": ("N" if batched else 1, *shape[1:])}
    return library_of(load(small_network(shape)), options, target=by_name(target), shapes=shapes)


def compile_c(folder: Path, source: str, *more: str, language: str = "c", std: str = "c99") -> Path:
    """A program, compiled with every warning an error; `more` are libraries, objects and options."""
    file, program = folder / f"main.{'c' if language == 'c' else 'cpp'}", folder / "program"
    file.write_text(source)
    compiler = "cc" if language == "c" else "c++"
    warnings = ["-pedantic", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, f"-std={std}", *warnings, "-O1", str(file), *more, f"-Wl,-rpath,{folder}", "-o", str(program)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run_c(folder: Path, source: str, *more: str, std: str = "c99") -> str:
    """What a C program prints."""
    program = compile_c(folder, source, *more, std=std)
    done = subprocess.run([program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout
