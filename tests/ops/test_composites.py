"""Composites against PyTorch, evaluated through the primitives' references."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tilewright.compiler.ir import TensorType, Value
from tilewright.compiler.ir.types import from_numpy
from tilewright.compiler.ops import GraphBuilder, evaluate, verify_types
from tilewright.compiler.ops import composites as c
from tilewright.errors import GraphError

Array = NDArray[Any]
Build = Callable[..., Value]
rng = np.random.default_rng(11)


def floats(*shape: int, dtype: Any = np.float32) -> Array:
    return np.asarray(rng.standard_normal(shape), dtype=dtype)


def computed(build: Build, *arrays: Array, constants: tuple[int, ...] = ()) -> Array:
    """build(g, *values) on inputs (or constants, at the positions named) that hold `arrays`."""
    g = GraphBuilder("test")
    values, inputs = [], []
    for position, array in enumerate(arrays):
        if position in constants:
            values.append(g.constant(array))
        else:
            values.append(g.input(f"x{position}", TensorType(from_numpy(array.dtype), array.shape)))
            inputs.append(array)
    graph = g.finish({"y": build(g, *values)})
    verify_types(graph)
    (result,) = evaluate(graph, inputs)
    return result


def check(
    build: Build, oracle: Callable[..., Any], *arrays: Array, tolerance: float = 2e-6, constants: Any = ()
) -> None:
    result = computed(build, *arrays, constants=constants)
    expected = oracle(*map(torch.from_numpy, arrays)).numpy()
    assert result.shape == expected.shape and result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


# Also where exponentials overflow and underflow, and NaN.
WIDE = np.concatenate(
    [np.linspace(-8, 8, 161), [0.0, -0.0, 1e-7, -1e-7, 30, -30, 100, -100, 1e4, -1e4, np.nan]]
).astype(np.float32)

ACTIVATIONS: dict[str, tuple[Build, Callable[..., Any]]] = {
    "leaky_relu": (lambda g, x: c.leaky_relu(g, x, 0.1), lambda x: F.leaky_relu(x, 0.1)),
    "thresholded_relu": (lambda g, x: c.thresholded_relu(g, x, 1.5), lambda x: F.threshold(x, 1.5, 0)),
    "elu": (lambda g, x: c.elu(g, x, 1.3), lambda x: F.elu(x, 1.3)),
    "selu": (c.selu, F.selu),
    "celu": (lambda g, x: c.celu(g, x, 1.7), lambda x: F.celu(x, 1.7)),
    "softplus": (c.softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "softsign": (c.softsign, F.softsign),
    "hard_sigmoid": (lambda g, x: c.hard_sigmoid(g, x, 1 / 6), F.hardsigmoid),
    "hard_swish": (c.hard_swish, F.hardswish),
    "swish": (c.swish, F.silu),
    "mish": (c.mish, F.mish),
    "gelu": (c.gelu, F.gelu),
    "gelu_tanh": (lambda g, x: c.gelu(g, x, approximate=True), lambda x: F.gelu(x, approximate="tanh")),
    "shrink_soft": (lambda g, x: c.shrink(g, x, 0.7, 0.7), lambda x: F.softshrink(x, 0.7)),
    "shrink_hard": (lambda g, x: c.shrink(g, x, 0.7), lambda x: F.hardshrink(x, 0.7)),
    "clip": (lambda g, x: c.clip(g, x, -1.0, 2.0), lambda x: x.clip(-1, 2)),
    "clip_low": (lambda g, x: c.clip(g, x, g.scalar(-1, x)), lambda x: x.clip(-1)),
    "cube": (lambda g, x: c.power(g, x, g.scalar(3, x)), lambda x: x**3),
    "rsqrt": (c.rsqrt, torch.rsqrt),
    "tan": (lambda g, x: c.tan(g, c.clip(g, x, -1.0, 1.0)), lambda x: torch.tan(x.clip(-1, 1))),
    "is_inf": (lambda g, x: c.is_inf(g, g.op("div", x, g.scalar(0, x))), lambda x: (x / 0).isinf()),
    "is_inf_negative": (
        lambda g, x: c.is_inf(g, g.op("div", x, g.scalar(0, x)), positive=False),
        lambda x: (x / 0).isneginf(),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations(name: str, dtype: Any) -> None:
    build, oracle = ACTIVATIONS[name]
    check(build, oracle, WIDE.astype(dtype), tolerance=2e-6 if dtype == np.float32 else 1e-12)


def test_prelu_and_comparisons() -> None:
    x, slope = floats(2, 3, 4), floats(3, 1)
    check(c.prelu, lambda x, s: torch.where(x < 0, x * s, x), x, slope)
    y = floats(2, 3, 4)
    y[0] = x[0]
    check(c.greater, torch.gt, x, y)
    check(c.greater_equal, torch.ge, x, y)
    check(c.not_equal, torch.ne, x, y)


def test_floor_div() -> None:
    a, b = rng.integers(-20, 20, 64), rng.integers(1, 7, 64) * rng.choice([-1, 1], 64)
    check(c.floor_div, lambda a, b: torch.div(a, b, rounding_mode="floor"), a, b)
    check(c.floor_div, lambda a, b: torch.div(a, b, rounding_mode="floor"), a / 4, b / 4)


@pytest.mark.parametrize("axes", [(-1,), (0, 2), (1,), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(axes: Any, keepdims: bool) -> None:
    x = floats(3, 4, 5)
    dims = tuple(range(3)) if axes is None else axes
    oracles: dict[str, Callable[..., Any]] = {
        "mean": lambda x: x.mean(dims, keepdim=keepdims),
        "variance": lambda x: x.var(dims, correction=0, keepdim=keepdims),
        "reduce_l1": lambda x: x.abs().sum(dims, keepdim=keepdims),
        "reduce_l2": lambda x: x.square().sum(dims, keepdim=keepdims).sqrt(),
        "reduce_sum_square": lambda x: x.square().sum(dims, keepdim=keepdims),
        "reduce_log_sum_exp": lambda x: x.logsumexp(dims, keepdim=keepdims),
        "reduce_max": lambda x: x.amax(dims, keepdim=keepdims),
    }
    for name, oracle in oracles.items():
        reduce = getattr(c, name)
        check(lambda g, x, f=reduce: f(g, x, axes, keepdims), oracle, x, tolerance=1e-5)
    check(
        lambda g, x: c.variance(g, x, axes, keepdims, 1),
        lambda x: x.var(dims, keepdim=keepdims),
        x,
        tolerance=1e-5,
    )


def test_log_sum_exp_of_infinities() -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 1], [1000, 1000], [-1000, np.nan]], np.float32)
    check(lambda g, x: c.reduce_log_sum_exp(g, x, (1,)), lambda x: x.logsumexp(1), x)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_is_stable(axis: int) -> None:
    x = floats(4, 5, 6) * np.float32(300)
    check(lambda g, x: c.softmax(g, x, (axis,)), lambda x: x.softmax(axis), x)
    check(lambda g, x: c.log_softmax(g, x, (axis,)), lambda x: x.log_softmax(axis), x)


def test_softmax_over_several_axes() -> None:
    x = floats(2, 3, 4)
    check(lambda g, x: c.softmax(g, x, (1, 2)), lambda x: x.flatten(1).softmax(1).reshape(2, 3, 4), x)


@pytest.mark.parametrize("constant", [True, False])
def test_batch_norm(constant: bool) -> None:
    x, scale, bias, mean = floats(2, 5, 3, 4), floats(5), floats(5), floats(5)
    variance = np.abs(floats(5))
    check(
        c.batch_norm, lambda x, s, b, m, v: F.batch_norm(x, m, v, s, b), x, scale, bias, mean, variance,
        tolerance=1e-5, constants=range(1, 5) if constant else (),
    )  # fmt: skip


def test_batch_norm_of_constants_is_one_mul_and_one_add() -> None:
    g = GraphBuilder("bn")
    x = g.input("x", TensorType(from_numpy(np.float32), (2, 5, 3, 4)))
    scale, bias, mean, variance = (g.constant(np.abs(floats(5))) for _ in range(4))
    graph = g.finish({"y": c.batch_norm(g, x, scale, bias, mean, variance)})
    assert [node.op for node in graph.nodes] == ["mul", "add"]
    assert [array.shape for array in graph.constants.values()] == [(1, 5, 1, 1)] * 2


def test_normalisations() -> None:
    x, scale, bias = floats(3, 6, 4, 5), floats(6), floats(6)
    wide, offset = floats(4, 5), floats(4, 5)
    check(
        lambda g, x, s, b: c.layer_norm(g, x, s, b, (2, 3)),
        lambda x, s, b: F.layer_norm(x, (4, 5), s, b), x, wide, offset, tolerance=1e-5,
    )  # fmt: skip
    check(
        c.instance_norm, lambda x, s, b: F.instance_norm(x, None, None, s, b), x, scale, bias, tolerance=1e-5
    )
    check(
        lambda g, x, s, b: c.group_norm(g, x, 3, s, b),
        lambda x, s, b: F.group_norm(x, 3, s, b), x, scale, bias, tolerance=1e-5,
    )  # fmt: skip
    last = floats(5)
    check(c.rms_norm, lambda x, s: F.rms_norm(x, (5,), s, eps=1e-5), x, last, tolerance=1e-5)
    for p in (1, 2):
        check(
            lambda g, x, p=p: c.lp_normalise(g, x, 1, p),
            lambda x, p=p: F.normalize(x, p, 1),
            x,
            tolerance=1e-5,
        )
    assert not computed(lambda g, x: c.lp_normalise(g, x), np.zeros((2, 3), np.float32)).any()


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_lrn(size: int) -> None:
    x = floats(2, 7, 3, 4)
    if size % 2:
        check(
            lambda g, x: c.lrn(g, x, size, 0.3, 0.6, 1.5),
            lambda x: F.local_response_norm(x, size, 0.3, 0.6, 1.5), x, tolerance=1e-5,
        )  # fmt: skip
    else:  # PyTorch puts the longer half of an even window before the channel, ONNX after it
        check(
            lambda g, x: c.lrn(g, x, size, 0.3, 0.6, 1.5),
            lambda x: F.local_response_norm(x.flip(1), size, 0.3, 0.6, 1.5).flip(1), x, tolerance=1e-5,
        )  # fmt: skip


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize(("kernel", "strides", "pad"), [((3, 2), (2, 2), (1, 1)), ((2, 3), (3, 2), (0, 1))])
def test_pools(ceil_mode: bool, count_include_pad: bool, kernel: Any, strides: Any, pad: Any) -> None:
    x = floats(2, 3, 8, 9)
    pads = tuple((p, p) for p in pad)
    check(
        lambda g, x: c.avg_pool(g, x, kernel, strides, pads, None, ceil_mode, count_include_pad),
        lambda x: F.avg_pool2d(x, kernel, strides, pad, ceil_mode, count_include_pad), x, tolerance=1e-5,
    )  # fmt: skip
    check(
        lambda g, x: c.max_pool(g, x, kernel, strides, pads, (1, 1), ceil_mode),
        lambda x: F.max_pool2d(x, kernel, strides, pad, 1, ceil_mode), x,
    )  # fmt: skip


def test_average_over_whole_windows_divides_by_a_scalar() -> None:
    g = GraphBuilder("pool")
    x = g.input("x", TensorType(from_numpy(np.float32), (1, 2, 6, 6)))
    graph = g.finish({"y": c.avg_pool(g, x, (2, 2), (2, 2), ((0, 0), (0, 0)))})
    assert [array.shape for array in graph.constants.values()] == [()]


def test_global_and_lp_pools() -> None:
    x = floats(2, 3, 6, 8)
    check(c.global_average_pool, lambda x: F.adaptive_avg_pool2d(x, 1), x)
    check(c.global_max_pool, lambda x: F.adaptive_max_pool2d(x, 1), x)
    for p in (1, 2, 3):
        check(
            lambda g, x, p=p: c.lp_pool(g, x, (2, 2), (2, 2), ((0, 0), (0, 0)), p=p),
            lambda x, p=p: F.lp_pool2d(x.abs(), p, 2, 2), x, tolerance=1e-5,
        )  # fmt: skip
    check(
        lambda g, x: c.adaptive_average(g, x, (2, 3), (4, 5)), lambda x: F.adaptive_avg_pool2d(x, (4, 5)), x
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("strides", "pads", "dilations", "extra"),
    [
        ((1, 1), (0, 0), (1, 1), (0, 0)),
        ((2, 3), (1, 0), (1, 2), (1, 2)),
        ((2, 1), (4, 3), (1, 1), (0, 0)),
        ((1, 1), (1, 1), (1, 1), (0, 0)),
    ],
)
def test_conv_transpose(groups: int, strides: Any, pads: Any, dilations: Any, extra: Any) -> None:
    x, w, bias = (
        floats(2, 4, 5, 6, dtype=np.float64),
        floats(4, 3, 3, 2, dtype=np.float64),
        floats(3 * groups),
    )
    bias = bias.astype(np.float64)
    check(
        lambda g, x, w, b: c.conv_transpose(
            g, x, w, b, strides=strides, pads=tuple((p, p) for p in pads), dilations=dilations, groups=groups,
            output_padding=extra,
        ),
        lambda x, w, b: F.conv_transpose2d(x, w, b, strides, pads, extra, groups, dilations),
        x, w, bias, tolerance=1e-12, constants=(1,),
    )  # fmt: skip


def test_conv_transpose_1d_and_sizes() -> None:
    x, w = floats(1, 3, 7, dtype=np.float64), floats(3, 2, 4, dtype=np.float64)
    pads = c.conv_transpose_pads((7,), (4,), (2,), (1,), (0,), (15,), True)
    assert pads == ((0, 1),)
    check(
        lambda g, x, w: c.conv_transpose(g, x, w, strides=(2,), pads=pads),
        lambda x, w: F.conv_transpose1d(x, w, stride=2)[:, :, :15], x, w, tolerance=1e-12,
    )  # fmt: skip


def test_conv_with_same_pads() -> None:
    x, w, bias = floats(1, 3, 7, 8, dtype=np.float64), floats(4, 3, 3, 2, dtype=np.float64), floats(4)
    pads = c.same_pads((7, 8), (3, 2), (1, 1), (1, 2))
    assert pads == ((1, 1), (1, 1))
    check(
        lambda g, x, w, b: c.conv(g, x, w, b, pads=pads, dilations=(1, 2)),
        lambda x, w, b: F.conv2d(x, w, b, padding=(1, 1), dilation=(1, 2)), x, w, bias.astype(np.float64),
        tolerance=1e-12,
    )  # fmt: skip
    assert c.same_pads((7,), (4,), (2,), (1,)) == ((1, 2),)
    assert c.same_pads((7,), (4,), (2,), (1,), upper=False) == ((2, 1),)


def test_shapes() -> None:
    x = floats(1, 4, 1, 6)
    check(c.squeeze, torch.squeeze, x)
    check(lambda g, x: c.squeeze(g, x, (-2,)), lambda x: x.squeeze(2), x)
    check(lambda g, x: c.unsqueeze(g, x, (0, -1)), lambda x: x[None, ..., None], x)
    check(lambda g, x: c.flatten(g, x, 2), lambda x: x.reshape(4, 6), x)
    check(lambda g, x: c.split(g, x, (1, 2, 1), 1)[1], lambda x: x.split((1, 2, 1), 1)[1], x)
    check(lambda g, x, y: c.stack(g, [x, y], -1), lambda x, y: torch.stack([x, y], -1), x, floats(1, 4, 1, 6))
    check(lambda g, x: c.tile(g, x, (2, 1, 3, 2)), lambda x: x.tile(2, 1, 3, 2), x)
    check(lambda g, x: c.flip(g, x, (1, -1)), lambda x: x.flip(1, 3), x)
    image = floats(2, 12, 4, 6)
    check(lambda g, x: c.depth_to_space(g, x, 2, False), lambda x: F.pixel_shuffle(x, 2), image)
    check(lambda g, x: c.space_to_depth(g, c.depth_to_space(g, x, 2), 2), lambda x: x, image)


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [
        (1, 5, 1),
        (-3, 100, 1),
        (5, -100, -1),
        (-1, -6, -2),
        (4, 1, 1),
        (0, 2**62, 3),
        (2**62, -(2**62), -2),
        (3, 1, -1),
    ],
)
def test_slices_are_pythons(start: int, end: int, step: int) -> None:
    x = np.arange(14, dtype=np.int64).reshape(2, 7)
    stop = None if step < 0 and end < -7 else end
    result = computed(lambda g, x: c.slice_axes(g, x, [start], [end], [-1], [step]), x)
    np.testing.assert_array_equal(result, x[:, start:stop:step])


def test_products() -> None:
    for a, b in (((4,), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)), ((2, 3, 4), (4, 5))):
        check(c.matmul, torch.matmul, floats(*a), floats(*b), tolerance=1e-5)
    check(
        lambda g, a, b, c_: c.gemm(
            g, a, b, c_, alpha=0.5, beta=2.0, transpose_a=True, transpose_b=True
        ),
        lambda a, b, c_: torch.addmm(c_, a.T, b.T, alpha=0.5, beta=2.0),
        floats(4, 3), floats(5, 4), floats(5), tolerance=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda g, x: c.squeeze(g, x, (0,)), "axis 0 of (2, 6, 4) has 2 elements; expected 1"),
        (lambda g, x: c.split(g, x, (2, 2), 1), "sizes (2, 2) do not add up to axis 1's 6"),
        (lambda g, x: c.softmax(g, x, (3,)), "axis 3 is out of range for 3 dimensions"),
        (lambda g, x: c.group_norm(g, x, 4, None, None), "4 groups do not divide 6 channels"),
        (lambda g, x: c.unsqueeze(g, x, (0, 0)), "axes (0, 0) name an axis twice"),
    ],
)
def test_errors_name_what_is_wrong(build: Build, message: str) -> None:
    with pytest.raises(GraphError) as error:
        computed(build, floats(2, 6, 4))
    assert message in str(error.value)
