"""Models as users call them: how arrays are bound, refused, written into, and shared between threads."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tilewright as tw
from tilewright.errors import CallError


def model_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any] | None = None) -> bytes:
    """A small ONNX model, serialised."""
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants or [])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def tensor(name: str, dtype: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def add_model(shape: list[Any], dtype: int = TensorProto.FLOAT) -> bytes:
    nodes = [helper.make_node("Add", ["x", "y"], ["z"], name="sum"), helper.make_node("Mul", ["x", "y"], ["p"])]
    return model_of(
        nodes, [tensor("x", dtype, shape), tensor("y", dtype, shape)],
        [tensor("z", dtype, shape), tensor("p", dtype, shape)],
    )  # fmt: skip


def test_call_by_position_and_by_name() -> None:
    model = tw.compile(add_model([2, 3]))
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 2, np.float32)
    z, p = model(x, y)
    np.testing.assert_array_equal(z, x + y)
    np.testing.assert_array_equal(p, x * y)
    named = model.run({"y": y, "x": x})
    assert list(named) == ["z", "p"]
    np.testing.assert_array_equal(named["p"], x * y)
    assert [str(spec) for spec in (*model.inputs, *model.outputs)] == [
        "x: float32 2x3", "y: float32 2x3", "z: float32 2x3", "p: float32 2x3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        lambda x: x.astype(np.float16),
        lambda x: x.tolist(),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    ],
    ids=["fortran", "strided", "reversed", "big-endian", "half", "list", "misaligned"],
)
def test_odd_arrays_are_converted_not_misread(odd: Any) -> None:
    model = tw.compile(add_model([4, 5]))
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    np.testing.assert_array_equal(model(odd(x), odd(x))[0], x + x)


def relu_model(shape: list[Any]) -> bytes:
    """One input and one output, which is a shorter way through a call."""
    return model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [tensor("x", TensorProto.FLOAT, shape)],
        [tensor("y", TensorProto.FLOAT, shape)],
    )  # fmt: skip


def test_one_input_and_one_output() -> None:
    model = tw.compile(relu_model([4, 5]))
    x = np.arange(-10, 10, dtype=np.float32).reshape(4, 5)
    read_only = np.frombuffer(x.tobytes(), np.float32).reshape(4, 5)
    for given in (x, read_only, np.asfortranarray(x), x.astype(">f4"), x.astype(np.float16), x.tolist(), x[::1, ::1]):
        y = model(given)
        np.testing.assert_array_equal(y, np.maximum(x, 0))
        assert y.dtype == np.float32 and not np.may_share_memory(y, x)
    first, second = model(x), model(-x)
    np.testing.assert_array_equal(first, np.maximum(x, 0))
    np.testing.assert_array_equal(second, np.maximum(-x, 0))
    for out in (first, [first], (first,)):
        first[:] = -1
        assert model(x, out=out) is first
        np.testing.assert_array_equal(first, np.maximum(x, 0))
    shared = x.copy()
    assert model(shared, out=shared) is shared
    np.testing.assert_array_equal(shared, np.maximum(x, 0))
    rows = np.concatenate([-x, x])
    expected = np.maximum(rows[3:7], 0)
    model(rows[3:7], out=rows[2:6])
    np.testing.assert_array_equal(rows[2:6], expected)
    for wrong_out in (first.T, first[None], first.astype(np.float64), read_only, [first, first], [], [[1.0]]):
        with pytest.raises(CallError, match=r"out (for 'y'|has)"):
            model(x, out=wrong_out)
    for wrong in (x.T, x[None], x.astype(np.float64), x.view(np.int32), None, x.ravel()):
        with pytest.raises(CallError, match=r"input 'x' (is|has shape)"):
            model(wrong)
    with pytest.raises(CallError, match="2 inputs were given, the model takes 1: x"):
        model(x, x)
    with pytest.raises(CallError, match="0 inputs were given"):
        model()


def test_one_large_input_and_output() -> None:
    x = np.random.default_rng(0).standard_normal((300, 70)).astype(np.float32)
    y = tw.compile(relu_model([300, 70]))(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    assert y.ctypes.data % 64 == 0


def test_bound_calls_read_and_write_the_same_arrays() -> None:
    model = tw.compile(add_model([4, 5]))
    x, y, total, product = (np.full((4, 5), value, np.float32) for value in (1, 2, 0, 0))
    call = model.bind(x, y, out=[total, product])
    del model
    gc.collect()
    for value in (3, 7):
        x[...] = value
        assert call() is None
        np.testing.assert_array_equal(total, x + y)
        np.testing.assert_array_equal(product, x * y)


def test_what_cannot_be_bound(tmp_path: Path) -> None:
    model = tw.compile(relu_model([4, 5]))
    x, y = np.ones((4, 5), np.float32), np.empty((4, 5), np.float32)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4, 5))
    mapped[...] = -1
    model.bind(mapped, out=y)()
    assert y.max() == 0
    for wrong in (x.astype(np.float16), x.tolist(), np.asfortranarray(x), x[::1, ::-1], y, x.astype(">f4")):
        with pytest.raises(CallError, match="input 'x' cannot be bound: pass a C-contiguous, aligned array of float32"):
            model.bind(wrong, out=y)
    with pytest.raises(CallError, match="input 'x' has shape 5x4"):
        model.bind(x.reshape(5, 4), out=y)
    with pytest.raises(CallError, match="2 inputs were given"):
        model.bind(x, x, out=y)
    for out in (y.T, [y, y], y.astype(np.float64)):
        with pytest.raises(CallError, match=r"out (for 'y'|has)"):
            model.bind(x, out=out)


def test_a_bound_call_in_two_threads_is_refused_or_right() -> None:
    model = tw.compile(relu_model([300, 700]), threads=1)
    x = np.random.default_rng(0).standard_normal((300, 700)).astype(np.float32)
    y = np.empty_like(x)
    call, refused = model.bind(x, out=y), []

    def work(_: int) -> None:
        for _ in range(300):
            try:
                call()
            except CallError as error:
                refused.append(error.message)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    call()
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    assert all("bind again for another thread" in message for message in refused)


def test_bound_calls_of_open_and_symbolic_dimensions() -> None:
    for data, shapes in ((relu_model(["H", 5]), None), (relu_model(["N", 5]), {"x": ("N", 5)})):
        model = tw.compile(data, shapes=shapes)
        for rows in (3, 6):
            x, y = np.full((rows, 5), -2, np.float32), np.empty((rows, 5), np.float32)
            call = model.bind(x, out=y)
            x[1] = 4
            call()
            np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_many_threads_share_one_small_model() -> None:
    model = tw.compile(relu_model([3, 8]), threads=1)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(200):
            x = rng.standard_normal((3, 8)).astype(np.float32)
            np.testing.assert_array_equal(model(x), np.maximum(x, 0))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.zeros((2, 3), np.float64)] * 2, r"input 'x' is float64, the model takes float32; convert it with"),
        ([np.zeros((2, 3), np.int32)] * 2, r"input 'x' is int32, the model takes float32"),
        ([np.zeros((3, 2), np.float32)] * 2, r"input 'x' has shape 3x2, the model takes 2x3"),
        ([np.zeros(6, np.float32)] * 2, r"input 'x' has shape 6, the model takes 2x3"),
        ([np.zeros((2, 3), np.float32)], r"1 inputs were given, the model takes 2: x, y"),
        ([np.array([["a"] * 3] * 2)] * 2, r"input 'x' is <U1, the model takes float32"),
        ([np.zeros((2, 3), complex)] * 2, r"input 'x' is complex128"),
        ([None, None], r"input 'x' is object"),
    ],
)
def test_wrong_arguments_are_refused(arrays: list[Any], message: str) -> None:
    model = tw.compile(add_model([2, 3]))
    with pytest.raises(CallError, match=message):
        model(*arrays)


def test_wrong_names_are_refused() -> None:
    model = tw.compile(add_model([2, 3]))
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(CallError, match="there is no input 'w'; the inputs are x, y"):
        model.run({"w": x})
    with pytest.raises(CallError, match="input 'y' is missing"):
        model.run({"x": x})
    with pytest.raises(CallError, match="there is no output 'q'; the outputs are z, p"):
        model.run({"x": x, "y": x}, out={"q": x})


def test_out_is_written_in_place() -> None:
    model = tw.compile(add_model([2, 3]))
    x = np.ones((2, 3), np.float32)
    z, p = np.empty((2, 3), np.float32), np.empty((2, 3), np.float32)
    assert model(x, x, out=(z, p))[0] is z
    np.testing.assert_array_equal(z, 2)
    given = np.frombuffer(bytearray(4 * 6 + 4), np.float32)[1:].reshape(2, 3)
    assert model.run({"x": x, "y": x}, out={"p": given})["p"] is given
    np.testing.assert_array_equal(given, 1)
    shared = np.ones((2, 3), np.float32)
    model(shared, shared, out=(shared, p))
    np.testing.assert_array_equal(shared, 2)
    np.testing.assert_array_equal(p, 1)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda z: (z, z), "two arrays of out share memory"),
        (lambda z: (z,), "out has 1 arrays for 2 outputs"),
        (lambda z: (z.astype(np.float64), z), "is float64 2x3, the output is z: float32 2x3"),
        (lambda z: (z.T, z), "is float32 3x2, the output is z: float32 2x3"),
        (lambda z: (np.asfortranarray(z), z), "must be C-contiguous"),
        (lambda z: ([1, 2], z), "is a list, not a NumPy array"),
        (lambda z: (np.broadcast_to(np.float32(0), (2, 3)), z), "must be C-contiguous"),
        (lambda z: (np.frombuffer(bytes(24), np.float32).reshape(2, 3), z), "is read-only"),
    ],
)
def test_wrong_out_is_refused(out: Any, message: str) -> None:
    model = tw.compile(add_model([2, 3]))
    x = np.ones((2, 3), np.float32)
    with pytest.raises(CallError, match=message):
        model(x, x, out=out(np.zeros((2, 3), np.float32)))


def test_unknown_dimensions_are_taken_from_the_call() -> None:
    model = tw.compile(add_model(["n", 3]))
    assert model.inputs[0].shape == ("n", 3)
    with pytest.raises(CallError, match="the outputs' shapes follow from those of the inputs"):
        _ = model.outputs
    for n in (1, 4, 1):
        x = np.full((n, 3), n, np.float32)
        np.testing.assert_array_equal(model(x, x)[0], 2 * n)
    assert len(model._made) == 2
    with pytest.raises(CallError, match="has shape 2x4, the model takes nx3"):
        model(np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32))


def test_shapes_settle_unknown_dimensions() -> None:
    model = tw.compile(add_model(["n", 3]), shapes={"x": (2, 3), "y": (2, 3)})
    assert model.outputs[0].shape == (2, 3)
    with pytest.raises(CallError, match="has shape 1x3, the model takes 2x3"):
        model(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))


def test_empty_and_scalar_tensors() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert tw.compile(add_model([0, 3]))(empty, empty)[0].shape == (0, 3)
    z = tw.compile(add_model([]))(np.float32(2), np.float32(3))[0]
    assert z.shape == () and z == 5


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_element_types(dtype: str) -> None:
    model = tw.compile(add_model([33], helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
    x = np.arange(-16, 17).astype(dtype)
    z, p = model(x, x)
    assert z.dtype == dtype
    np.testing.assert_array_equal(z, x + x)
    np.testing.assert_array_equal(p, x * x)


def test_inputs_and_constants_can_be_outputs() -> None:
    constant = helper.make_tensor("c", TensorProto.FLOAT, [2], [1.0, 2.0])
    data = model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [tensor("x", TensorProto.FLOAT, [3])],
        [tensor("y", TensorProto.FLOAT, [3])], [constant],
    )  # fmt: skip
    model = tw.compile(data, outputs=["x", "y", "c"])
    x = np.array([-1, 0, 2], np.float32)
    same, y, c = model(x)
    np.testing.assert_array_equal(same, x)
    assert same is not x and not np.may_share_memory(same, x)
    np.testing.assert_array_equal(y, [0, 0, 2])
    np.testing.assert_array_equal(c, [1, 2])


def test_many_threads_share_one_model() -> None:
    model = tw.compile(add_model(["n", 64]))
    failures = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            x = rng.standard_normal((1 + seed % 3, 64)).astype(np.float32)
            z, p = model(x, x)
            if not (np.array_equal(z, x + x) and np.array_equal(p, x * x)):
                failures.append(seed)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert not failures
    assert len(model._made) == 3


def test_models_come_and_go() -> None:
    data = add_model([8])
    x = np.ones(8, np.float32)
    for _ in range(20):
        np.testing.assert_array_equal(tw.compile(data)(x, x)[0], 2)
    gc.collect()
    assert threading.active_count() < 20
