"""Photographs in any form as RGB arrays.

    load_image("cat.jpg")                 (H, W, 3) uint8: path, PIL image or array
    load_image(array)                     (H, W, 3) float32 in [0, 1] from 16-bit and floating-point sources
    resize_image(image, (224, 224))       the same kind of array, (224, 224, 3)

EXIF orientation is applied, transparency shows white behind it, and of an animation or a file of several
pages the first picture counts. Pillow reads files and resizes; an array of the right size needs no Pillow.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]

MAX_PIXELS = 1 << 28
"""An image of more pixels is refused; Pillow itself refuses files of more than about 179 million."""


def load_image(source: Any) -> Array:
    """An image as RGB: (H, W, 3), uint8, or float32 in [0, 1] where the source has more than 8 bits.

    `source` is a path, a PIL image of any mode, or an array of shape (H, W), (H, W, 1), (H, W, 2: grey and
    alpha), (H, W, 3) or (H, W, 4: RGB and alpha), of uint8, uint16, bool, or floating point in [0, 1].
    Raises ImageError.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read(os.fspath(source))
    # Whoever made a PIL image has imported Pillow.
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(source, pillow.Image):
        return _from_pil(source, "the image")
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise ImageError("the image is given as bytes; pass a path, a PIL image or an array")
    return _from_array(source)


def resize_image(image: Array, size: tuple[int, int]) -> Array:
    """An (H, W, 3) image at another (height, width), of the same dtype; the proportions are not kept.

    Pillow's bilinear filter: where the image shrinks, each new pixel averages all that it covers
    (antialiasing).
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    from_array, bilinear = _pillow().fromarray, _pillow().Resampling.BILINEAR
    if image.dtype == np.uint8:
        return np.asarray(from_array(image).resize((width, height), bilinear))
    planes = [from_array(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize((width, height), bilinear)) for plane in planes], axis=-1)


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise ImageError(
            "reading and resizing images needs Pillow: run `pip install pillow`, or pass an array of the "
            "size that the network works at"
        ) from None
    return PIL.Image


def _read(path: str | bytes) -> Array:
    name = os.fsdecode(path)
    pillow = _pillow()
    if not os.path.exists(path):
        raise ImageError(f"there is no image {name}")
    if os.path.isdir(path):
        raise ImageError(f"{name} is a folder, not an image")
    if os.path.getsize(path) == 0:
        raise ImageError(f"{name} is empty, not an image")
    try:
        with pillow.open(path) as image:
            return _from_pil(image, name)
    except pillow.UnidentifiedImageError:
        raise ImageError(f"{name} is not an image in a format that Pillow reads") from None
    except pillow.DecompressionBombError:
        raise ImageError(f"{name} has too many pixels; reduce it first") from None
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def _from_pil(image: "Image", name: str) -> Array:
    """Any PIL image; `name` is what messages call it."""
    from PIL import ImageOps

    width, height = image.size
    _check_size(height, width, name)
    try:
        image.seek(0)
        image.load()
        image = ImageOps.exif_transpose(image)
    except (EOFError, OSError, SyntaxError, ValueError) as error:
        # Pillow's decoders raise these, by format, for truncated and damaged files.
        raise ImageError(f"{name} is truncated or damaged: {error}") from None
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image).astype(np.uint16), name)
    if image.mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise ImageError(f"{name} holds 32-bit integers beyond 16 bits; scale it to 8 or 16 bits first")
        return _from_array(wide.astype(np.uint16), name)
    if image.mode == "F":
        return _from_array(np.asarray(image), name)
    if image.has_transparency_data:
        return _from_array(np.asarray(image.convert("RGBA")), name)
    return _from_array(np.asarray(image.convert("RGB")), name)


def _from_array(source: Any, name: str = "the image") -> Array:
    """An array of any supported shape and dtype; `name` is what messages call it."""
    try:
        array = np.asarray(source)
    except (ValueError, TypeError) as error:
        raise ImageError(f"{name} is a {type(source).__name__}, which is not an array: {error}") from None
    if array.dtype == object or array.dtype.kind in "US":
        raise ImageError(f"{name} is a {type(source).__name__}; pass a path, a PIL image or an array")
    shape = "x".join(map(str, array.shape)) or "no dimensions"
    if array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4) and array.shape[0] in (1, 3, 4):
        raise ImageError(f"{name} has shape {shape}, channels first; pass numpy.moveaxis(image, 0, -1)")
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4)):
        raise ImageError(f"{name} has shape {shape}; expected HxW, HxWx3 or HxWx4")
    _check_size(array.shape[0], array.shape[1], name)
    array = _standard_range(array, name)
    array = array[..., None] if array.ndim == 2 else array
    channels = array.shape[2]
    colour = array[..., : 1 if channels <= 2 else 3]
    if channels in (2, 4):
        colour = _over_white(colour, array[..., -1:])
    return np.ascontiguousarray(np.broadcast_to(colour, (*array.shape[:2], 3)))


def _standard_range(array: Array, name: str) -> Array:
    """The same picture as uint8, or as float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return array.astype(np.float32) / np.float32(0xFFFF)
    if array.dtype.kind != "f":
        raise ImageError(
            f"{name} holds {array.dtype}; expected uint8, uint16, or floating point in [0, 1]: convert "
            "values from 0 to 255 with .astype(numpy.uint8)"
        )
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # NaN is refused too
        raise ImageError(
            f"{name} holds floating-point values from {low:.4g} to {high:.4g}; expected 0 to 1: divide by "
            "255 if they are meant to reach that"
        )
    return array.astype(np.float32)


def _over_white(colour: Array, alpha: Array) -> Array:
    """Blend with a white background."""
    if colour.dtype == np.uint8:
        # Rounded integer division by 255; the products need 16 bits.
        wide, cover = colour.astype(np.uint16), alpha.astype(np.uint16)
        return ((wide * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)
    return np.asarray(colour * alpha + (1 - alpha))


def _check_size(height: int, width: int, name: str) -> None:
    if height == 0 or width == 0:
        raise ImageError(f"{name} has no pixels ({height}x{width})")
    if height * width > MAX_PIXELS:
        raise ImageError(f"{name} has {height}x{width} pixels, more than 2**28; reduce it first")
