"""Pictures of hypercolumns, as PNG files.

    columns                     (C, H, W) float32, may be a memory map
    parts                       {"conv1_2": slice(0, 64), ...}: which channels each layer gave
    write_pictures(columns, parts, photograph, folder, clusters=2)
        mean_conv1_2.png ...    the mean activation of each layer
        group_shallow.png       of the first two layers together; group_deep.png: of the last two
        feature_maps.png        chosen feature maps of each layer
        clusters.png            pixels grouped by k-means
        overview.png            all of it on one sheet

matplotlib draws (without pyplot, so no display and no global state), scikit-learn clusters; both come with
the extra "demo" and are imported when needed.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import CallError, TilewrightError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Parts = Mapping[str, slice]

COLORMAP = "viridis"
MAPS_A_LAYER = 8
SAMPLE = 2048
"""Pixels that the principal components are found on."""
COMPONENTS = 24
"""Principal components that the clustering works on."""


def write_pictures(
    columns: Array,
    parts: Parts,
    photograph: Array,
    folder: Path,
    clusters: int = 2,
    progress: Callable[[str], object] = str,
) -> list[Path]:
    """Write all pictures into `folder`; returns their paths. `photograph` is RGB (H, W, 3).

    `progress` is called with the name of each picture before it is made. Raises TilewrightError without
    matplotlib or scikit-learn, CallError if there cannot be so many clusters.
    """
    means = {layer: mean_map(columns, [part]) for layer, part in parts.items()}
    pictures: dict[str, Callable[[], Figure]] = {
        f"mean_{file_name(layer)}": partial(_single, f"{layer}, mean activation", image)
        for layer, image in means.items()
    }
    grouped = {}
    for group, members in groups(list(parts)).items():
        grouped[group] = mean_map(columns, [parts[layer] for layer in members])
        pictures[f"group_{group}"] = partial(_single, f"{group}: {' + '.join(members)}", grouped[group])
    chosen = {layer: choose_maps(columns, part, MAPS_A_LAYER) for layer, part in parts.items()}
    pictures["feature_maps"] = partial(_montage, columns, parts, chosen)
    progress("clusters")
    labels = cluster(columns, clusters)
    pictures["clusters"] = partial(_clusters, labels, photograph)
    pictures["overview"] = partial(_overview, photograph, means, grouped, labels)
    written = []
    for name, draw in pictures.items():
        progress(name)
        written.append(folder / f"{name}.png")
        draw().savefig(written[-1], dpi=100, facecolor="white")
    return written


def groups(layers: Sequence[str]) -> dict[str, Sequence[str]]:
    """The first two layers and the last two, where there are at least four."""
    return {"shallow": layers[:2], "deep": layers[-2:]} if len(layers) >= 4 else {}


def mean_map(columns: Array, parts: Sequence[slice]) -> Array:
    """The mean over channels, (H, W); several layers count alike, each divided by its own spread."""
    maps = [columns[part].mean(axis=0) for part in parts]
    if len(maps) == 1:
        return np.asarray(maps[0])
    return np.asarray(np.mean([(m - m.mean()) / (m.std() or 1) for m in maps], axis=0))


def choose_maps(columns: Array, part: slice, count: int) -> list[int]:
    """The channels of a layer that vary most over the image, without near copies of one another, in order.

    Going down from the largest standard deviation, a channel that correlates by more than 0.8 with one chosen
    before is passed over, unless too few are left.
    """
    height, width = columns.shape[1:]
    step = max(1, round((height * width / SAMPLE) ** 0.5))
    thin = np.asarray(columns[part, ::step, ::step]).reshape(part.stop - part.start, -1)
    spread = thin.std(axis=1)
    standard = (thin - thin.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)[:, None]
    order = np.argsort(-spread, kind="stable")
    chosen: list[int] = []
    passed: list[int] = []
    for channel in order:
        alike = standard[chosen] @ standard[channel] / thin.shape[1] if chosen else np.zeros(1)
        (passed if np.abs(alike).max() > 0.8 else chosen).append(int(channel))
        if len(chosen) == count:
            break
    chosen += passed[: count - len(chosen)]
    return [part.start + channel for channel in sorted(chosen)]


def cluster(columns: Array, count: int) -> Array:
    """k-means over pixels: (H, W) labels from 0, the most frequent first; the same labels every time.

    Channels are standardised, then reduced to their principal components, which are found on a sample of
    pixels. Raises CallError unless count is between 1 and the number of pixels.
    """
    with _drawing():
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
        from sklearn.exceptions import ConvergenceWarning

    channels, height, width = columns.shape
    pixels = columns.reshape(channels, -1)
    if not 1 <= count <= pixels.shape[1]:
        raise CallError(f"{count} clusters of {pixels.shape[1]} pixels are asked for; ask for fewer, at least 1")
    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(pixels.shape[1])[:SAMPLE])
    sample = np.asarray(pixels[:, chosen]).T
    mean, spread = sample.mean(axis=0), sample.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    standard = (sample - mean) / spread
    if not standard.any():
        return np.zeros((height, width), np.int64)
    pca = PCA(min(COMPONENTS, *standard.shape), svd_solver="randomized", iterated_power=2, random_state=0).fit(standard)
    # (x - mean) / spread projected, without a copy of all pixels.
    directions = (pca.components_ / spread).astype(np.float32)
    reduced = (directions @ pixels - (directions @ mean.astype(np.float32))[:, None]).T
    with warnings.catch_warnings():
        # Of fewer different pixels than clusters it makes fewer clusters, and warns.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(count, n_init=4, random_state=0).fit_predict(np.ascontiguousarray(reduced))
    rank = np.argsort(np.argsort(-np.bincount(found, minlength=count), kind="stable"), kind="stable")
    return np.asarray(rank[found].reshape(height, width))


def file_name(name: str) -> str:
    """A layer's or tensor's name as part of a file's name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or "_"


@contextmanager
def _drawing() -> Iterator[None]:
    """Missing libraries as a TilewrightError."""
    try:
        yield
    except ImportError as error:
        raise TilewrightError(f"pictures need {error.name}; run `pip install matplotlib scikit-learn pillow`") from None


# ---- drawing


def _figure(width: float, height: float) -> "Figure":
    with _drawing():
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def _show(axes: Any, image: Array, title: str, size: float = 11, **how: Any) -> Any:
    """An image without axes; maps are stretched to the 1st and 99.5th percentile."""
    if image.ndim == 2 and not how:
        low, high = _limits(image)
        how = {"cmap": COLORMAP, "vmin": low, "vmax": high}
    axes.set_axis_off()
    axes.set(xticks=[], yticks=[])  # matplotlib spends time on ticks that it does not draw
    if title:
        axes.set_title(title, fontsize=size)
    return axes.imshow(image, interpolation="nearest", **how)


def _limits(image: Array) -> tuple[float, float]:
    """What the ends of the colour map stand for."""
    low, high = np.percentile(image, (1, 99.5))
    return float(low), float(high) if high > low else float(low) + 1


def _proportions(image: Array, width: float) -> tuple[float, float]:
    return width, width * image.shape[0] / image.shape[1]


def _single(title: str, image: Array) -> "Figure":
    width, height = _proportions(image, 4.5)
    figure = _figure(width + 0.8, height + 0.4)
    axes = figure.subplots()
    shown = _show(axes, image, title)
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    return figure


def _montage(columns: Array, parts: Parts, chosen: Mapping[str, Sequence[int]]) -> "Figure":
    """One row a layer, one feature map a cell, titled by its channel in the layer.

    All maps are one image: forty separate axes take matplotlib seconds.
    """
    height, width = columns.shape[1:]
    gap = max(1, width // 40)
    title = max(1, height // 8)
    across = max(map(len, chosen.values()))
    sheet = np.full((len(chosen) * (height + title), across * (width + gap) - gap), np.nan, np.float32)
    figure = _figure(1.5 * across, 1.5 * across * sheet.shape[0] / sheet.shape[1])
    axes = figure.subplots()
    for row, (layer, channels) in enumerate(chosen.items()):
        top = row * (height + title) + title
        for column, channel in enumerate(channels):
            left = column * (width + gap)
            low, high = _limits(columns[channel])
            sheet[top : top + height, left : left + width] = (columns[channel] - low) / (high - low)
            number = str(channel - parts[layer].start)
            axes.text(left + width / 2, top - title / 5, number, ha="center", va="bottom", fontsize=8)
        axes.text(-gap, top + height / 2, layer, rotation=90, ha="right", va="center", fontsize=11)
    _show(axes, sheet, "", cmap=COLORMAP, vmin=0, vmax=1)
    return figure


def _label_how(labels: Array) -> dict[str, Any]:
    return {"cmap": COLORMAP, "vmin": 0, "vmax": max(int(labels.max()), 1)}


def _outlined(labels: Array, photograph: Array) -> Array:
    """The photograph with every cluster tinted in its colour."""
    from matplotlib import colormaps

    how = _label_how(labels)
    colour = colormaps[COLORMAP](labels / how["vmax"])[..., :3]
    grey = (photograph / (255 if photograph.dtype == np.uint8 else 1)).mean(axis=2, keepdims=True)
    return np.asarray(0.5 * colour + 0.5 * grey)


def _clusters(labels: Array, photograph: Array) -> "Figure":
    width, height = _proportions(labels, 4)
    figure = _figure(2 * width + 0.3, height + 0.4)
    left, right = figure.subplots(1, 2)
    _show(left, labels, f"{labels.max() + 1} clusters of pixels", **_label_how(labels))
    _show(right, _outlined(labels, photograph), "over the photograph")
    return figure


def _overview(photograph: Array, means: Mapping[str, Array], grouped: Mapping[str, Array], labels: Array) -> "Figure":
    """Above the photograph, the groups and the clusters; below the mean activation of each layer."""
    above = [("photograph", photograph), *grouped.items()]
    tall = _proportions(labels, 2.6)
    across = 2.6 * (len(above) + 1)
    below = _proportions(labels, across / len(means))
    figure = _figure(across, tall[1] + below[1] + 0.6)
    sheets: Any = figure.subfigures(2, 1, height_ratios=[tall[1] + 0.3, below[1] + 0.3])
    upper, lower = sheets
    cells = upper.subplots(1, len(above) + 1)
    for axes, (title, image) in zip(cells, above, strict=False):
        _show(axes, image, title)
    _show(cells[-1], labels, "k-means clusters", **_label_how(labels))
    for axes, (layer, image) in zip(np.ravel(lower.subplots(1, len(means))), means.items(), strict=True):
        _show(axes, image, layer)
    return figure
