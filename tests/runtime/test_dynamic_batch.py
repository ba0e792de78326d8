"""Models with a named leading dimension: one compiled form for every number of samples, against PyTorch."""

import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
from batch_networks import MODULES, exported, numbers
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import export
from onnx import TensorProto, helper, numpy_helper
from test_batch import accepted, graph_of, recipe
from torch import Tensor, nn

import tilewright as tw
import tilewright.compiler.batch as batch
from tilewright.cli import cli
from tilewright.compiler.pipeline import compile_batch
from tilewright.compiler.targets import host
from tilewright.errors import CallError, UnsupportedError
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import Model
from tilewright.runtime.profile import profile

COUNTS = (1, 2, 3, 7, 8, 9, 33)


@pytest.mark.parametrize("name", MODULES)
def test_against_pytorch(name: str) -> None:
    """For every number of samples the results are PyTorch's, and of a sample always the same to the last bit."""
    module, data, sample = exported(name)
    model = tw.compile(data, shapes={"x": ("N", *sample)}, threads=1)
    assert model.inputs[0].shape == ("N", *sample)
    x = numbers(max(COUNTS), *sample)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    assert [spec.shape for spec in model.outputs] == [("N", *expected.shape[1:])]
    everything = model(x)
    np.testing.assert_allclose(everything, expected, rtol=1e-4, atol=1e-4)
    shared = tw.compile(data, shapes={"x": ("N", *sample)}, threads=3)
    for count in COUNTS:
        np.testing.assert_array_equal(model(x[:count]), everything[:count])
        np.testing.assert_array_equal(model(x[-count:]), everything[-count:])
        np.testing.assert_array_equal(shared(x[:count]), everything[:count])


def artifact_of(data: bytes, sample: tuple[int, ...]) -> Any:
    model = tw.compile(data, shapes={"x": ("N", *sample)})
    executable = model.executable((("N", *sample),))
    assert isinstance(executable, Executable)
    return executable


def test_small_networks_compute_samples_together_and_large_ones_do_not() -> None:
    for name, tile in (("mnist", batch.PIECES[0]), ("large", 1)):
        _, data, sample = exported(name)
        executable = artifact_of(data, sample)
        assert executable.manifest.batch.tile == tile
        assert executable.manifest.batch.symbol == "N"


def test_weights_are_stored_once() -> None:
    for name in ("mnist", "resnet", "large"):
        _, data, sample = exported(name)
        executable = artifact_of(data, sample)
        tile = executable.manifest.batch.tile
        fixed = tw.compile(data, shapes={"x": (tile, *sample)}).executable(((tile, *sample),))
        assert isinstance(fixed, Executable)
        assert executable.constants.nbytes <= 1.01 * fixed.constants.nbytes


def test_no_samples_at_all() -> None:
    _, data, sample = exported("mnist")
    model = tw.compile(data, shapes={"x": ("N", *sample)})
    y = model(np.empty((0, *sample), np.float32))
    assert y.shape == (0, 10) and y.dtype == np.float32
    assert model.run({"x": np.empty((0, *sample), np.float32)})["y"].shape == (0, 10)


def test_out_and_conversions() -> None:
    _, data, sample = exported("mnist")
    model = tw.compile(data, shapes={"x": ("N", *sample)})
    x = numbers(5, *sample)
    expected, out = model(x), np.zeros((5, 10), np.float32)
    assert model(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(model(x.astype(np.float16).astype(np.float32)), model(x.astype(np.float16)))
    np.testing.assert_array_equal(model(x[::-1]), expected[::-1])
    with pytest.raises(CallError, match="out for 'y' is float32 4x10, the output is y: float32 5x10"):
        model(x, out=np.zeros((4, 10), np.float32))
    with pytest.raises(CallError, match="input 'x' has shape 1x28x28, the model takes Nx1x28x28"):
        model(x[0])
    with pytest.raises(CallError, match="input 'x' has shape 5x1x28x27, the model takes Nx1x28x28"):
        model(x[..., :27])
    with pytest.raises(CallError, match="input 'x' has shape scalar, the model takes Nx1x28x28"):
        model(np.float32(1))


def test_many_threads_call_one_model() -> None:
    _, data, sample = exported("mnist")
    model = tw.compile(data, shapes={"x": ("N", *sample)}, threads=2)
    x = numbers(20, *sample)
    expected, wrong = model(x), []

    def work(seed: int) -> None:
        for count in random.Random(seed).sample(range(1, 21), 12):
            if not np.array_equal(model(x[:count]), expected[:count]):
                wrong.append(count)

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_kernels_are_timed_for_a_tile() -> None:
    _, data, sample = exported("mnist")
    executable = artifact_of(data, sample)
    times = profile(executable, [numbers(3, *sample)], 1)
    assert len(times) == len(executable.manifest.kernels)
    assert times[0].kernel.shape[0] == executable.manifest.batch.tile


def test_it_is_found_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data, sample = exported("resnet")
    x = numbers(9, *sample)
    first = tw.compile(data, shapes={"x": ("N", *sample)})(x)
    fixed = tw.compile(data, shapes={"x": (9, *sample)})(x)

    def fail(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("tilewright.compiler.pipeline.compile_module", fail)
    again = tw.compile(data, shapes={"x": ("N", *sample)})
    assert again.inputs[0].shape == ("N", *sample) and again.outputs[0].shape == ("N", 10)
    np.testing.assert_array_equal(again(x), first)
    np.testing.assert_array_equal(again(x[:2]), first[:2])
    np.testing.assert_allclose(fixed, first, rtol=1e-4, atol=1e-4)


# ---- several inputs, refusals


def pair_model(x: list[Any], y: list[Any], z: list[Any], op: str = "Mul") -> bytes:
    """z = op(x, y)."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), ("y", y), ("z", z))]
    graph = helper.make_graph([helper.make_node(op, ["x", "y"], ["z"], name="pair")], "pair", ports[:2], ports[2:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(proto.SerializeToString())


def test_an_input_may_be_the_same_for_all_samples() -> None:
    data = pair_model(["N", 4], [4], ["N", 4])
    model = tw.compile(data, shapes={"x": ("N", 4)})
    assert [spec.shape for spec in model.inputs] == [("N", 4), (4,)]
    x, y = numbers(11, 4), numbers(4)
    np.testing.assert_array_equal(model(x, y), x * y)


def test_all_inputs_must_agree() -> None:
    model = tw.compile(pair_model(["N", 4], ["N", 4], ["N", 4]), shapes={"x": ("B", 4)})
    assert [spec.shape for spec in model.inputs] == [("B", 4), ("B", 4)]
    x = numbers(3, 4)
    np.testing.assert_array_equal(model(x, x), x * x)
    with pytest.raises(CallError, match="input 'x' has 3 samples along its leading dimension and input 'y' has 2"):
        model(x, x[:2])


def test_a_declared_dimension_is_left_open_only_on_request() -> None:
    """Without the request, each number of samples is compiled by itself."""
    data = pair_model(["N", 4], [4], ["N", 4])
    model = tw.compile(data)
    x, y = numbers(3, 4), numbers(4)
    np.testing.assert_array_equal(model(x, y), x * y)
    assert model.batch is None
    with pytest.raises(CallError, match="the outputs' shapes follow from those of the inputs"):
        _ = model.outputs


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (4, "N")}, "names dimension 1 of input 'x' 'N'; only the leading one"),
        ({"x": ("N", 4), "y": ("M", 4)}, "leading dimensions of 'x' and 'y' 'N' and 'M'; only one number of samples"),
        ({"x": ("any one", 4)}, "calls the leading dimension of input 'x' 'any one'; call it N"),
    ],
)
def test_names_that_are_refused(shapes: dict[str, Any], message: str) -> None:
    with pytest.raises(CallError, match=message):
        tw.compile(pair_model(["N", 4], [4], ["N", 4]), shapes=shapes)


def test_samples_that_are_mixed() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0, keepdim=True)

    with pytest.raises(UnsupportedError, match=r"node '/ReduceMean' \(.*\): it reduces the axis of the samples to one"):
        tw.compile(export(Centred(), (2, 5), batch="N"), shapes={"x": ("N", 5)})


def test_a_batch_that_is_written_into_the_model() -> None:
    class Viewed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x).reshape(1, 20)

    data = export(Viewed(), (1, 4, 5))
    assert tw.compile(data)(numbers(1, 4, 5)).shape == (1, 20)
    with pytest.raises(UnsupportedError, match=r"node '/Reshape' \(Reshape\): the model takes one sample, not several"):
        tw.compile(data, shapes={"x": ("N", 4, 5)})


def test_the_other_dimensions_must_be_known() -> None:
    data = pair_model(["N", 4], ["M"], ["N", 4])
    with pytest.raises(tw.TilewrightError, match=r"the shape of input 'y' .* is not known"):
        tw.compile(data, shapes={"x": ("N", 4)})


def test_on_the_command_line(tmp_path: Any) -> None:
    weight = numpy_helper.from_array(numbers(4, 3), "w")
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 4]), ("y", ["N", 3]))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "m", ports[:1], ports[1:], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    np.save(tmp_path / "x.npy", numbers(6, 4))
    arguments = ["run", str(tmp_path / "m.onnx"), "--shape", "x=Nx4", "--input", f"x={tmp_path / 'x.npy'}"]
    result = CliRunner().invoke(cli, [*arguments, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), numbers(6, 4) @ numbers(4, 3), rtol=1e-5)
    refused = CliRunner().invoke(cli, ["run", str(tmp_path / "m.onnx"), "--shape", "x=4xN"])
    assert refused.exit_code == 2 and "is not a shape" in refused.output


# ---- random graphs, compiled


@settings(max_examples=8)
@given(st.integers(0, 2**32))
def test_random_graphs_compiled(seed: int) -> None:
    """The batch's results are those of its samples, computed alone."""
    build = next(build for build in (recipe(seed + i, 1 + i % 7) for i in range(1000)) if accepted(build))
    artifact = compile_batch(graph_of(build, 2, (2, 4)), graph_of(build, 3, (2, 4)), "N", host())
    specs = [(spec.name, spec.dtype, spec.shape) for spec in artifact.manifest.inputs]
    model = Model("random", specs, ["y"], lambda shapes: Executable(artifact), batch="N")
    x = numbers(11, 2, 4)
    arrays = {"x": x, "s": numbers(2, 4)}
    arrays = {name: arrays[name] for name, _, _ in specs}
    together = model.run(arrays)["y"]
    for sample in range(11):
        alone = model.run(arrays | {"x": x[sample : sample + 1]})["y"]
        np.testing.assert_array_equal(alone, together[sample : sample + 1])
