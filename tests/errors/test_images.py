"""What is no photograph is refused with a message that says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tilewright.images
from tilewright.errors import ImageError
from tilewright.images import load_image


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "the image has shape 3x8x8, channels first; pass numpy.moveaxis"),
        (np.zeros((8, 8, 7), np.uint8), "the image has shape 8x8x7; expected HxW, HxWx3 or HxWx4"),
        (np.zeros(8, np.uint8), "the image has shape 8; expected"),
        (np.zeros((0, 8, 3), np.uint8), r"the image has no pixels \(0x8\)"),
        (np.full((4, 4), 200.0), "values from 200 to 200; expected 0 to 1"),
        (np.full((4, 4), np.nan), "values from nan to nan"),
        (np.zeros((4, 4), np.int64), r"holds int64; expected uint8.*\.astype\(numpy\.uint8\)"),
        (np.zeros((4, 4), np.complex64), "holds complex64"),
        (np.broadcast_to(np.uint8(0), (1 << 20, 1 << 20)), r"has 1048576x1048576 pixels, more than 2\*\*28"),
        (object(), "the image is a object; pass a path, a PIL image or an array"),
        (b"\x89PNG", "is given as bytes"),
        (None, "is a NoneType"),
    ],
)
def test_arrays(source: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(source)


def test_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(random).save(tmp_path / "whole.jpg")
    Image.fromarray(random).save(tmp_path / "whole.png")
    for suffix in ("jpg", "png"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ImageError, match=rf"cut\.{suffix} is truncated or damaged"):
            load_image(tmp_path / f"cut.{suffix}")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match="is empty, not an image"):
        load_image(tmp_path / "empty.jpg")
    (tmp_path / "words.jpg").write_text("not a picture")
    with pytest.raises(ImageError, match="is not an image in a format that Pillow reads"):
        load_image(tmp_path / "words.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="there is no image"):
        load_image(tmp_path / "none.jpg")


def test_too_many_pixels_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "large.png")
    monkeypatch.setattr(tilewright.images, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="has 300x300 pixels"):
        load_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="has too many pixels; reduce it first"):
        load_image(tmp_path / "large.png")


def test_integers_beyond_16_bits() -> None:
    with pytest.raises(ImageError, match="32-bit integers beyond 16 bits"):
        load_image(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)))


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(ImageError, match="run `pip install pillow`"):
        load_image("photograph.jpg")
