"""Photographs of all kinds become RGB arrays, or are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tilewright.errors import ImageError
from tilewright.images import load_image, resize_image

GREY = np.array([[0, 100, 255], [7, 50, 200]], np.uint8)
COLOUR = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 13
ALPHA = np.array([[0, 128, 255], [255, 0, 64]], np.uint8)


def over_white(colour: Any, alpha: Any) -> Any:
    cover = alpha[..., None] / 255
    return np.rint(colour * cover + 255 * (1 - cover)).astype(np.uint8)


def three(grey: Any) -> Any:
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(GREY, three(GREY), id="grey"),
        pytest.param(GREY[..., None], three(GREY), id="grey-channel"),
        pytest.param(COLOUR, COLOUR, id="rgb"),
        pytest.param(COLOUR[::-1, ::-1], COLOUR[::-1, ::-1], id="strided"),
        pytest.param(np.dstack([COLOUR, ALPHA]), over_white(COLOUR, ALPHA), id="rgba"),
        pytest.param(np.dstack([GREY, ALPHA]), over_white(three(GREY), ALPHA), id="grey-alpha"),
        pytest.param(GREY > 60, three(np.where(GREY > 60, 255, 0).astype(np.uint8)), id="bool"),
        pytest.param(GREY.astype(np.uint16) * 257, three(GREY / np.float32(255)), id="uint16"),
        pytest.param(GREY.astype(">u2") * 257, three(GREY / np.float32(255)), id="big-endian"),
        pytest.param(COLOUR / 255, (COLOUR / 255).astype(np.float32), id="float64"),
        pytest.param(GREY.tolist(), None, id="list-of-int64"),
    ],
)
def test_arrays(source: Any, expected: Any) -> None:
    if expected is None:
        with pytest.raises(ImageError, match="holds int64"):
            load_image(source)
        return
    found = load_image(source)
    assert found.flags.c_contiguous and found.shape == (2, 3, 3)
    assert found.dtype == (np.uint8 if expected.dtype == np.uint8 else np.float32)
    if found.dtype == np.uint8:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def palette(transparent: bool) -> Image.Image:
    image = Image.fromarray((GREY // 100).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    if transparent:
        image.info["transparency"] = 0
    return image


PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[GREY // 100]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "suffix", "expected"),
    [
        pytest.param(lambda: Image.fromarray(GREY), "png", three(GREY), id="L"),
        pytest.param(lambda: Image.fromarray(GREY > 60), "png", three((GREY > 60) * np.uint8(255)), id="1"),
        pytest.param(lambda: Image.fromarray(COLOUR), "png", COLOUR, id="RGB"),
        pytest.param(lambda: Image.fromarray(np.dstack([COLOUR, ALPHA])), "png", over_white(COLOUR, ALPHA), id="RGBA"),
        pytest.param(
            lambda: Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]),
            "png",
            over_white(three(GREY), ALPHA),
            id="LA",
        ),
        pytest.param(lambda: palette(False), "png", PALETTE, id="P"),
        pytest.param(
            lambda: palette(True),
            "png",
            np.where(three(GREY) < 100, np.uint8(255), PALETTE),
            id="P-transparent",
        ),
        pytest.param(
            lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
            "png",
            three(GREY / np.float32(255)),
            id="I;16",
        ),
        pytest.param(
            lambda: Image.fromarray((GREY / 255).astype(np.float32)),
            "tiff",
            three(GREY / np.float32(255)),
            id="F",
        ),
        pytest.param(
            lambda: Image.fromarray(GREY.astype(np.int32) * 257),
            "tiff",
            three(GREY / np.float32(255)),
            id="I",
        ),
        pytest.param(
            lambda: Image.merge("CMYK", [Image.fromarray(channel) for channel in (GREY, GREY, GREY, 0 * GREY)]),
            "tiff",
            three(255 - GREY),
            id="CMYK",
        ),
    ],
)
def test_modes_of_files(make: Any, suffix: str, expected: Any, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    make().save(path)
    for source in (path, str(path), make()):
        found = load_image(source)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png"), np.rot90(COLOUR, -1))


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp"])
def test_of_several_frames_the_first_counts(suffix: str, tmp_path: Path) -> None:
    black, white = (Image.new("RGB", (8, 8), colour) for colour in ("black", "white"))
    extra = {"lossless": True} if suffix == "webp" else {}
    black.save(tmp_path / f"frames.{suffix}", save_all=True, append_images=[white], **extra)
    assert load_image(tmp_path / f"frames.{suffix}").max() == 0


def test_resizing_averages_what_a_pixel_covers() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 254
    small = resize_image(stripes, (8, 16))
    assert small.shape == (8, 16, 3) and small.dtype == np.uint8
    assert np.abs(small[1:-1].astype(int) - 127).max() <= 2
    exact = resize_image(stripes / np.float32(254), (8, 16))
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact[1:-1], 0.5, atol=0.01)
    assert resize_image(stripes, (64, 64)) is stripes
