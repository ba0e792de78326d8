"""Errors at the command line: one paragraph on stderr, exit code 2, no traceback."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import small_network

import tilewright.cli.inspect
from tilewright.cli import cli


def failing(*arguments: object) -> str:
    """What a command that fails writes to stderr."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network((1, 3, 16, 24)))
    return path


@pytest.mark.parametrize("command", ["run", "inspect", "bench"])
def test_no_model(command: str, tmp_path: Path) -> None:
    message = failing(command, tmp_path / "none.onnx")
    assert message.startswith("tilewright: ") and message.count("\n") == 1
    assert "none.onnx: there is no such file" in message


def test_missing_inputs(model: Path) -> None:
    assert "--input image=FILE.npy (float32 1x3x16x24); pass them, or --random SEED" in failing("run", model)


def test_unknown_dimensions(tmp_path: Path) -> None:
    (tmp_path / "open.onnx").write_bytes(small_network((1, 3, "H", "W")))
    for command in (["bench"], ["run", "--random", 1]):
        message = failing(command[0], tmp_path / "open.onnx", *command[1:])
        assert "unknown dimensions, 1x3xHxW; pass for example --shape image=1x3x224x224" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read from .*No such file"),
        (b"junk", "it is not an .npy file"),
        (b"", "not an .npy file"),
    ],
)
def test_arrays_that_cannot_be_read(content: bytes | None, message: str, model: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failing("run", model, "--input", f"image={tmp_path / 'x.npy'}"))


def test_pickles_are_not_loaded(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    assert "it is not an .npy file" in failing("run", model, "--input", f"image={tmp_path / 'x.npy'}")


def test_arrays_of_the_wrong_shape(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 16, 24), np.float32))
    assert "image" in failing("run", model, "--input", f"image={tmp_path / 'x.npy'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "m", "--input", "x.npy"], "'x.npy' is not an input; write it as x=x.npy"),
        (["run", "m", "--shape", "x=1xa"], "'x=1xa' is not a shape; write it as x=1x3x224x224"),
        (["run", "m", "--shape", "1x3"], "is not a shape"),
        (["hypercolumns", "--size", "224"], "'224' is not a size; write it as 224x224, height first"),
        (["hypercolumns", "--size", "0x5"], "is not a size"),
        (["hypercolumns", "--clusters", "0"], "0 is not in the range"),
        (["hypercolumns", "none.jpg"], "there is no image none.jpg"),
        (
            ["hypercolumns", "--layers", "conv9_9"],
            "no tensor, node or layer is called 'conv9_9'; the closest are",
        ),
        (["hypercolumns", "--layers", ""], "no output is asked for"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_arguments(arguments: list[str], message: str) -> None:
    assert message in failing(*arguments)


def test_a_folder_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = failing("run", model, "--random", 1, "--output", tmp_path / "file")
    assert message == f"tilewright: File exists: {tmp_path / 'file'}\n"


def test_nothing_is_left_of_an_interrupted_extraction(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tilewright.columns.Hypercolumns.__call__", interrupted)
    result = CliRunner().invoke(
        cli, ["hypercolumns", "-o", str(tmp_path / "out"), "--model", str(model), "--layers", "conv1_1"]
    )
    assert result.exit_code == 130 and result.stderr.endswith("tilewright: interrupted\n")
    assert not list((tmp_path / "out").iterdir())


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tilewright.cli.inspect, "load", exhausted)
    assert "out of memory; ask for less" in failing("inspect", "m")
