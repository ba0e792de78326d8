"""Resizing against PyTorch's interpolate and the ONNX reference evaluator."""

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tilewright.compiler.ir import TensorType
from tilewright.compiler.ir.types import from_numpy
from tilewright.compiler.ops import GraphBuilder, evaluate, verify_types
from tilewright.compiler.ops.composites import ResizeMode, resize, resized_sizes, scaled_sizes
from tilewright.errors import GraphError, ResourceError, UnsupportedError

Array = NDArray[Any]
rng = np.random.default_rng(13)
IMAGE = rng.standard_normal((2, 3, 7, 10)).astype(np.float32)


def resized(x: Array, axes: Any, sizes: Any, how: ResizeMode, scales: Any = None, roi: Any = None) -> Array:
    g = GraphBuilder("resize")
    value = g.input("x", TensorType(from_numpy(x.dtype), x.shape))
    graph = g.finish({"y": resize(g, value, axes, sizes, how, scales, roi)})
    verify_types(graph)
    return evaluate(graph, [x])[0]


@pytest.mark.parametrize("sizes", [(14, 20), (3, 5), (11, 4), (7, 10), (1, 1), (21, 7)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolation_is_pytorchs(mode: str, align_corners: bool, sizes: tuple[int, int]) -> None:
    # PyTorch's half-pixel maps a single output position to the middle, as ONNX's half_pixel does.
    how = ResizeMode(mode, "align_corners" if align_corners else "half_pixel")
    expected = F.interpolate(
        torch.from_numpy(IMAGE), sizes, mode=f"bi{mode}", align_corners=align_corners
    ).numpy()
    np.testing.assert_allclose(resized(IMAGE, (2, 3), sizes, how), expected, atol=2e-5)


@pytest.mark.parametrize("sizes", [(14, 20), (3, 5), (4, 4), (1, 30)])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialias_is_pytorchs(mode: str, sizes: tuple[int, int]) -> None:
    how = ResizeMode(mode, antialias=True, exclude_outside=True, cubic_coeff=-0.5)
    expected = F.interpolate(torch.from_numpy(IMAGE), sizes, mode=f"bi{mode}", antialias=True).numpy()
    np.testing.assert_allclose(resized(IMAGE, (2, 3), sizes, how), expected, atol=2e-5)


@pytest.mark.parametrize("sizes", [(14, 20), (3, 5), (5, 6), (1, 31)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_nearest_is_pytorchs(sizes: tuple[int, int], dtype: Any) -> None:
    x = (IMAGE * 50).astype(dtype)
    tensor = torch.from_numpy(x.astype(np.float64))
    for name, how in {
        "nearest": ResizeMode("nearest", "asymmetric", "floor"),
        "nearest-exact": ResizeMode("nearest", "half_pixel", "round_prefer_ceil"),
    }.items():
        expected = F.interpolate(tensor, sizes, mode=name).numpy().astype(dtype)
        np.testing.assert_array_equal(resized(x, (2, 3), sizes, how), expected)


def test_trilinear() -> None:
    x = rng.standard_normal((1, 2, 4, 5, 6)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(x), (8, 3, 9), mode="trilinear").numpy()
    np.testing.assert_allclose(resized(x, (2, 3, 4), (8, 3, 9), ResizeMode("linear")), expected, atol=1e-5)


# The evaluator computes scales in float32, which moves cubic weights by some 1e-6.
TOLERANCE = 2e-5
TRANSFORMS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
SMALL = IMAGE[:1, :1, :4, :5].astype(np.float64)


def onnx_resized(x: Array, how: ResizeMode, sizes: Any = None, scales: Any = None, roi: Any = None,
                 policy: str = "stretch") -> Array:  # fmt: skip
    """What the ONNX reference evaluator makes of the same settings, on the last two axes."""
    attributes: dict[str, Any] = {
        "mode": how.mode, "coordinate_transformation_mode": how.transform, "nearest_mode": how.nearest,
        "cubic_coeff_a": how.cubic_coeff, "exclude_outside": int(how.exclude_outside),
        "antialias": int(how.antialias), "extrapolation_value": how.extrapolation, "axes": [2, 3],
        "keep_aspect_ratio_policy": policy,
    }  # fmt: skip
    feeds = {"x": x}
    if roi is not None:
        feeds["roi"] = np.array([pair[0] for pair in roi] + [pair[1] for pair in roi], np.float32)
    if scales is not None:
        feeds["scales"] = np.array(scales, np.float32)
    if sizes is not None:
        feeds["sizes"] = np.array(sizes, np.int64)
    names = [name if name in feeds else "" for name in ("x", "roi", "scales", "sizes")]
    node = onnx.helper.make_node("Resize", names, ["y"], **attributes)
    kind = onnx.helper.np_dtype_to_tensor_dtype
    inputs = [onnx.helper.make_tensor_value_info(n, kind(a.dtype), a.shape) for n, a in feeds.items()]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, None)
    graph = onnx.helper.make_graph([node], "resize", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    (result,) = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(result)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_onnx_settings(mode: str, transform: str) -> None:
    rounding = (
        ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil") if mode == "nearest" else ("floor",)
    )
    outside = (False, True) if mode == "cubic" else (False,)
    for nearest, exclude in product(rounding, outside):
        how = ResizeMode(mode, transform, nearest, -0.6, exclude)
        for sizes in ((8, 10), (2, 3), (3, 7)):
            expected = onnx_resized(SMALL, how, sizes=sizes)
            np.testing.assert_allclose(
                resized(SMALL, (2, 3), sizes, how), expected, atol=TOLERANCE, err_msg=str(how)
            )
        for rounded in ((2.0, 1.5), (0.6, 0.7), (1.3, 0.5)):
            scales = tuple(float(np.float32(scale)) for scale in rounded)
            down = scaled_sizes((4, 5), scales)
            expected = onnx_resized(SMALL, how, scales=scales)
            result = resized(SMALL, (2, 3), down, how, scales)
            np.testing.assert_allclose(result, expected, atol=TOLERANCE, err_msg=f"{how} {scales}")


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [False, True])
def test_onnx_antialias(mode: str, exclude: bool) -> None:
    how = ResizeMode(mode, "half_pixel", antialias=True, exclude_outside=exclude)
    for sizes in ((2, 3), (3, 2), (4, 9)):
        expected = onnx_resized(SMALL, how, sizes=sizes)
        np.testing.assert_allclose(resized(SMALL, (2, 3), sizes, how), expected, atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "roi", [((0.2, 0.7), (0.1, 0.9)), ((-0.5, 0.5), (0.4, 1.3)), ((0.9, 0.1), (0.0, 1.0))]
)
def test_crop_and_resize(mode: str, roi: Any) -> None:
    how = ResizeMode(mode, "tf_crop_and_resize", extrapolation=7.25)
    for sizes in ((3, 6), (8, 3), (1, 2)):
        expected = onnx_resized(SMALL, how, sizes=sizes, roi=roi)
        np.testing.assert_allclose(resized(SMALL, (2, 3), sizes, how, roi=roi), expected, atol=TOLERANCE)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_keep_aspect_ratio(policy: Any) -> None:
    how = ResizeMode("linear")
    for wanted in ((8, 6), (3, 9)):
        sizes, scales = resized_sizes((4, 5), wanted, policy)
        expected = onnx_resized(SMALL, how, sizes=wanted, policy=policy)
        assert expected.shape[2:] == sizes
        np.testing.assert_allclose(resized(SMALL, (2, 3), sizes, how, scales), expected, atol=TOLERANCE)


def test_a_rounded_scale_is_the_quotient_of_sizes() -> None:
    # Position 2 of 4 lies at 2.5 of 5 elements; 2 / float32(0.8) is a little less.
    how = ResizeMode("nearest", "asymmetric", "round_prefer_ceil")
    x = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(resized(x, (0,), (4,), how, (float(np.float32(0.8)),)), [0, 1, 3, 4])


def test_scales_multiply_in_float32() -> None:
    assert scaled_sizes((10, 3, 7), (0.7, 1 / 3, 2.5)) == (7, 1, 17)


def test_tf_half_pixel_for_nearest() -> None:
    how = ResizeMode("nearest", "tf_half_pixel_for_nn", "floor")
    x = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(resized(x, (0,), (8,), how), x.repeat(2))
    np.testing.assert_array_equal(resized(x, (0,), (2,), how), [1, 3])


def test_one_resample_an_axis_that_changes() -> None:
    g = GraphBuilder("resize")
    x = g.input("x", TensorType(from_numpy(np.float32), (1, 2, 6, 8)))
    graph = g.finish({"y": resize(g, x, (1, 2, 3), (2, 12, 4), ResizeMode("linear"))})
    assert [(node.op, node.attrs.axis) for node in graph.nodes] == [("resample", 3), ("resample", 2)]  # type: ignore[attr-defined]


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="resize mode 'area' is unknown"):
        resized(IMAGE, (2,), (3,), ResizeMode("area"))
    with pytest.raises(UnsupportedError, match="coordinate transformation 'centre'"):
        resized(IMAGE, (2,), (3,), ResizeMode("linear", "centre"))
    with pytest.raises(UnsupportedError, match="nearest mode 'up'"):
        resized(IMAGE, (2,), (3,), ResizeMode("nearest", nearest="up"))
    with pytest.raises(GraphError, match="axis 2 cannot be resized from 7 to 0 elements"):
        resized(IMAGE, (2,), (0,), ResizeMode())
    with pytest.raises(ResourceError, match=r"an axis resized to 5000000 positions is beyond 2\*\*22"):
        resized(IMAGE, (2,), (5_000_000,), ResizeMode())
    with pytest.raises(GraphError, match="keep_aspect_ratio_policy 'x' is unknown"):
        resized_sizes((2,), (3,), "x")  # type: ignore[arg-type]
