"""The commands, run in this process on small models; their numbers are checked."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import helper
from PIL import Image
from small_models import model_of, reference, small_network

import tilewright as tw
from tilewright.cli import cli

RANDOM = np.random.default_rng(7)


def run(*arguments: object, code: int = 0) -> Result:
    """The outcome of `tilewright ARGUMENTS`."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network(("N", 3, 16, 24)))
    return path


@pytest.mark.parametrize("command", ["hypercolumns", "run", "inspect", "bench"])
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: tilewright {command} " in run(command, "--help").output
    assert command in run("--help").output


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    """They are no markup, in the names of files, of tensors and of nodes."""
    path = tmp_path / "[" / "b].onnx"
    path.parent.mkdir()
    node = helper.make_node("GlobalAveragePool", ["[red]x"], ["y[/b]"], name="[/pool]")
    ports = [helper.make_tensor_value_info(name, 1, (1, 3, 4, 4)) for name in ("[red]x", "y[/b]")]
    ports[1].type.tensor_type.ClearField("shape")
    path.write_bytes(helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:])).SerializeToString())
    shown = run("inspect", path).stdout
    assert "[/b].onnx" in shown and "[red]x: float 1x3x4x4" in shown and "[/pool]" in shown
    assert "y[/b]" in run("run", path, "--random", 1).stdout
    shown = run("bench", path, "--rounds", 1).stdout
    assert "input [red]x" in shown and "[/pool]" in shown
    assert "[/b].so" in run("compile", path, "-o", path.with_suffix(".so")).stdout


def test_version() -> None:
    assert tw.__version__ in run("--version").output


def test_hypercolumns(model: Path, tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    folder = tmp_path / "deep" / "out"
    output = run(
        "hypercolumns", tmp_path / "photograph.png", "-o", folder, "--model", model, "--size", "16x24",
        "--layers", "conv1_1,pool1,conv2_1,scores", "--clusters", 3, "--preprocess", "none",
    ).output  # fmt: skip
    assert "photograph.png: 19x16x24 hypercolumns of conv1_1, pool1, conv2_1, scores" in output
    columns = np.load(folder / "hypercolumns.npy")
    layers = ["conv1_1", "pool1", "conv2_1", "scores"]
    extract = tw.Hypercolumns(model, layers, size=(16, 24), preprocess="none")
    np.testing.assert_array_equal(columns, extract(pixels))
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {f"mean_{layer}.png" for layer in layers} | {
        "group_shallow.png", "group_deep.png", "feature_maps.png", "clusters.png", "overview.png",
    }  # fmt: skip
    for name in pictures:
        image = np.asarray(Image.open(folder / name))
        assert min(image.shape[:2]) > 100 and image[..., :3].std() > 10, name
    assert [path.name for path in folder.iterdir() if path.suffix != ".png"] == ["hypercolumns.npy"]


def test_hypercolumns_at_the_size_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(small_network(("N", 3, "H", "W")))
    Image.fromarray(RANDOM.integers(0, 256, (20, 31), dtype=np.uint8)).save(tmp_path / "grey.png")
    run(
        "hypercolumns", tmp_path / "grey.png", "-o", tmp_path, "--model", tmp_path / "small.onnx",
        "--layers", "1,conv1_1", "--size", "image",
    )  # fmt: skip
    assert np.load(tmp_path / "hypercolumns.npy").shape == (8, 20, 31)
    assert not (tmp_path / "group_deep.png").exists()


def test_run_writes_what_the_model_computes(model: Path, tmp_path: Path) -> None:
    x = RANDOM.standard_normal((2, 3, 16, 24)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    output = run("run", model, "--input", f"image={tmp_path / 'x.npy'}", "--output", tmp_path / "out").output
    expected = reference(x)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "scores.npy"), expected["scores"], rtol=1e-4)
    assert "scores  float32  2x5" in output and f"{np.load(tmp_path / 'out' / 'scores.npy').max():.6g}" in output
    run("run", model, "--input", f"image={tmp_path / 'x.npy'}", "--outputs", "conv1_1", "--output", tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "conv1_1.npy"), expected["conv1_1"], rtol=1e-4, atol=1e-5)


def test_run_on_random_numbers(model: Path, tmp_path: Path) -> None:
    outputs = []
    for seed in (1, 1, 2):
        run("run", model, "--random", seed, "--output", tmp_path, "--shape", "image=1x3x16x24")
        outputs.append(np.load(tmp_path / "scores.npy"))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3


def test_run_keeps_outputs_with_odd_names_apart(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a/b"]), helper.make_node("Neg", ["x"], ["a:b"])]
    shape = [2]
    (tmp_path / "odd.onnx").write_bytes(model_of(nodes, {"x": shape}, {"a/b": shape, "a:b": shape}, {}))
    np.save(tmp_path / "x.npy", np.array([-1, 2], np.float32))
    run("run", tmp_path / "odd.onnx", "--input", f"x={tmp_path / 'x.npy'}", "--output", tmp_path / "out")
    assert np.load(tmp_path / "out" / "a_b.npy").tolist() == [0, 2]
    assert np.load(tmp_path / "out" / "a_b_2.npy").tolist() == [1, -2]


def test_inspect(model: Path) -> None:
    found = json.loads(run("inspect", model, "--json").output)
    assert found["shapes"] == {"image": [1, 3, 16, 24]}
    rows = {row["name"]: row for row in found["layers"]}
    assert list(rows) == ["conv1_1", "pool1", "conv2_1", "pool2", "fc3"]
    assert rows["conv1_1"]["shape"] == [1, 4, 16, 24] and rows["conv1_1"]["operator"] == "Conv"
    assert rows["conv1_1"]["parameters"] == 4 * 27 + 4 and rows["conv2_1"]["parameters"] == 6 * 36 + 6
    assert rows["conv1_1"]["flops"] == 2 * 27 * 4 * 16 * 24 and rows["conv2_1"]["flops"] == 2 * 36 * 6 * 8 * 12
    assert rows["fc3"]["flops"] == 2 * 6 * 5 and rows["fc3"]["parameters"] == 35
    assert found["parameters"] == 112 + 222 + 35 and found["unsupported"] == {}
    assert found["flops"] == sum(row["flops"] for row in rows.values())
    text = run("inspect", model, "--shape", "image=2x3x16x24").output
    assert "conv2_1  Conv" in text and "2x6x8x12" in text and "all operators are supported" in text


def test_inspect_lists_all_that_is_not_supported(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["y"], name="first"),
        node("Strange", ["y"], ["z"], name="odd_1", domain="com.example"),
        node("Strange", ["z"], ["u"], name="odd_2", domain="com.example"),
        node("StringNormalizer", ["u"], ["v"], name="text"),
    ]
    ports = [[helper.make_tensor_value_info(name, 1, [1, 1, 4, 4])] for name in ("x", "v")]
    weights = [helper.make_tensor("w", 1, [1, 1, 1, 1], [1.0])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    proto = helper.make_model(helper.make_graph(nodes, "g", *ports, weights), opset_imports=opsets)
    (tmp_path / "odd.onnx").write_bytes(proto.SerializeToString())
    found = json.loads(run("inspect", tmp_path / "odd.onnx", "--json").output)
    assert sorted(found["unsupported"].values()) == [["odd_1", "odd_2"], ["text"]]
    assert found["layers"][0]["shape"] is None
    text = run("inspect", tmp_path / "odd.onnx").output
    assert "in odd_1, odd_2" in text and "in text" in text


def test_a_closed_pipe_is_quiet(model: Path) -> None:
    command = [sys.executable, "-m", "tilewright", "inspect", str(model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()
