"""Hypercolumns against PyTorch: features, bilinear interpolation, concatenation."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import reference, small_network

import tilewright as tw
from tilewright.cli.hypercolumns import sample_photograph
from tilewright.columns import SIZES_KEPT, VGG_LAYERS, default_model
from tilewright.frontends.onnx.model import read_model
from tilewright.images import load_image, resize_image

RANDOM = np.random.default_rng(5)
IMAGE = RANDOM.integers(0, 256, (16, 24, 3), dtype=np.uint8)


def joined(maps: list[Any], size: tuple[int, int]) -> Any:
    """Feature maps (1, C, h, w) or vectors (1, C) as hypercolumns."""
    tensors = [torch.from_numpy(m.reshape(*m.shape, 1, 1) if m.ndim == 2 else m) for m in maps]
    resized = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in tensors]
    return torch.cat(resized, dim=1)[0].numpy()


def planar(image: Any) -> Any:
    return np.moveaxis(image.astype(np.float32), -1, 0)[None].copy()


@pytest.fixture(scope="module")
def photograph() -> Any:
    return resize_image(load_image(sample_photograph()), (224, 224))


@pytest.fixture(scope="module")
def vgg() -> tw.Hypercolumns:
    return tw.Hypercolumns()


@pytest.fixture(scope="module")
def columns(vgg: tw.Hypercolumns, photograph: Any) -> Any:
    return vgg(photograph)


def test_five_layers_of_the_real_model(vgg: tw.Hypercolumns, columns: Any, photograph: Any) -> None:
    """The weights are loaded into PyTorch; preprocessing is Keras's for VGG-16."""
    model = read_model(default_model())
    mean = np.array([103.939, 116.779, 123.68], np.float32)
    x = torch.from_numpy(planar(photograph[..., ::-1] - mean))
    maps = []
    for node in model.nodes:
        if node.op == "Conv":
            weights = [torch.from_numpy(np.array(model.initializers[name].array)) for name in node.inputs[1:]]
            x = F.relu(F.conv2d(x, *weights, padding=1))
        elif node.op == "MaxPool":
            maps.append(x)
            x = F.max_pool2d(x, 2)
    expected = joined([m.numpy() for m in maps], (224, 224))
    assert columns.shape == (1472, 224, 224) and columns.dtype == np.float32
    assert list(vgg.channels) == list(VGG_LAYERS)
    for layer, part in vgg.channels.items():
        error = np.abs(columns[part] - expected[part]).max() / np.ptp(expected[part])
        assert error <= 1e-5, layer


def test_chosen_pixels_of_the_real_model(vgg: tw.Hypercolumns, columns: Any, photograph: Any) -> None:
    pixels = RANDOM.integers(0, 224, (300, 2))
    pixels[:4] = [(0, 0), (0, 223), (223, 0), (223, 223)]
    found = vgg(photograph, pixels=pixels)
    assert found.shape == (300, 1472) and found.dtype == np.float32
    expected = columns[:, pixels[:, 0], pixels[:, 1]].T
    for part in vgg.channels.values():
        np.testing.assert_allclose(found[:, part], expected[:, part], atol=1e-6 * np.ptp(columns[part]))


def test_into_a_memory_map(vgg: tw.Hypercolumns, columns: Any, photograph: Any, tmp_path: Path) -> None:
    path = tmp_path / "columns.npy"
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=columns.shape)
    tracemalloc.start()
    result = vgg(photograph, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result is out
    assert peak < out.nbytes / 4  # nothing of the result's size is made beside it
    out.flush()
    np.testing.assert_array_equal(np.load(path), columns)


@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("preprocess", "formula"),
    [
        ("vgg16", lambda rgb: rgb[..., ::-1] - np.array([103.939, 116.779, 123.68])),
        ("torchvision", lambda rgb: (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("none", lambda rgb: rgb),
        (lambda rgb: rgb / np.float32(127.5) - 1, lambda rgb: rgb / 127.5 - 1),
    ],
    ids=["vgg16", "torchvision", "none", "function"],
)
def test_layouts_and_preprocessing(channels_last: bool, preprocess: Any, formula: Any) -> None:
    model = small_network((1, 16, 24, 3) if channels_last else (1, 3, 16, 24), channels_last)
    expected = reference(planar(formula(IMAGE.astype(np.float64))))
    found = tw.hypercolumns(model, IMAGE, ["conv1_1", "conv2_1"], size=(16, 24), preprocess=preprocess)
    whole = joined([expected["conv1_1"], expected["conv2_1"]], (16, 24))
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize(
    ("layer", "means"),
    [
        ("conv2_1", "conv2_1"),
        ("relu2_1", "conv2_1"),
        ("second_relu", "conv2_1"),
        ("r2", "conv2_1"),
        (2, "conv2_1"),
        ("scores", "scores"),
        ("dense", "scores"),
    ],
)
def test_names_of_layers(layer: str | int, means: str) -> None:
    """Friendly names, node names, tensor names and indices; fully connected layers are maps of one pixel."""
    extract = tw.Hypercolumns(small_network(), [layer], size=(16, 24), preprocess="none")
    expected = joined([reference(planar(IMAGE))[means]], (16, 24))
    assert extract.channels == {str(layer): slice(0, len(expected))}
    np.testing.assert_allclose(extract(IMAGE), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_images_of_their_own_size() -> None:
    """size=None: one specialisation a size, of which a number is kept."""
    extract = tw.Hypercolumns(
        small_network(("N", 3, "H", "W")), ["conv1_1", "conv2_1", "scores"], size=None, preprocess="none"
    )
    assert extract.channel_count == 15
    for height in range(8, 8 + SIZES_KEPT + 2):
        image = RANDOM.integers(0, 256, (height, 13, 3), dtype=np.uint8)
        expected = joined(list(reference(planar(image)).values()), (height, 13))
        found = extract(image)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert len(extract._whole) == SIZES_KEPT
    some = extract(image, pixels=[(height - 1, 12), (3, 5)])
    np.testing.assert_allclose(some, found[:, [height - 1, 3], [12, 5]].T, rtol=1e-5, atol=1e-3)


def test_any_number_of_pixels() -> None:
    extract = tw.Hypercolumns(small_network(), ["conv1_1", "conv2_1", "scores"], size=(40, 30), preprocess="none")
    whole = extract(IMAGE)
    for count in (0, 1, 255, 256, 257, 600):
        pixels = np.stack([RANDOM.integers(0, 40, count), RANDOM.integers(0, 30, count)], axis=1)
        out = np.full((count, 15), np.nan, np.float32)
        assert extract(IMAGE, pixels=pixels, out=out) is out
        expected = whole[:, pixels[:, 0], pixels[:, 1]].T
        np.testing.assert_allclose(out, expected, atol=1e-6 * np.abs(whole).max())


def test_sixteen_bits_are_not_rounded_to_eight() -> None:
    extract = tw.Hypercolumns(small_network(), ["conv1_1"], size=(16, 24), preprocess="none")
    fine = IMAGE.astype(np.uint16) * 256 + 100
    expected = joined([reference(planar(fine / 257))["conv1_1"]], (16, 24))
    np.testing.assert_allclose(extract(fine), expected, rtol=1e-4, atol=1e-3)


def test_one_object_in_many_threads() -> None:
    extract = tw.Hypercolumns(small_network(), ["conv1_1", "conv2_1"], size=(16, 24), preprocess="none")
    images = RANDOM.integers(0, 256, (24, 16, 24, 3), dtype=np.uint8)

    def both(image: Any) -> tuple[Any, Any]:
        return extract(image), extract(image, pixels=[(2, 3), (15, 23)])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(both, images))
    for image, (whole, some) in zip(images, found, strict=True):
        maps = reference(planar(image))
        expected = joined([maps["conv1_1"], maps["conv2_1"]], (16, 24))
        np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(some, expected[:, [2, 15], [3, 23]].T, rtol=1e-4, atol=1e-2)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    one, three = (
        tw.hypercolumns(small_network(), IMAGE, ["conv1_1", "conv2_1"], size=(50, 60), threads=threads)
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one, three)
