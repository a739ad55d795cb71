"""Pictures of what the study works on: images with masks and boxes, patches, grids of thumbnails (paper: Figures 1, 2).

Helpers that several notebooks share.  They draw what they are given and compute nothing of the study.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from deepmask import files

POSITIVE, NEGATIVE = "#2a9d4a", "#d1352b"  # frames of patches with y = +1 and y = -1, as in Figure 1
GROUPS = {"seen": "#1f77b4", "unseen": "#ff8c1a", "novel": "#8a5cc2"}  # of categories
_GOLDEN = 0.618034  # steps around the colour circle that keep any number of hues apart
_DPI = 150


def colours(n: int) -> np.ndarray:
    """(n, 3) float RGB in [0, 1]: saturated colours, neighbours far apart; the first ones do not depend on n."""
    return np.array([colorsys.hsv_to_rgb((0.02 + i * _GOLDEN) % 1, 0.85, 1.0) for i in range(n)]).reshape(n, 3)


def overlay(image: np.ndarray, masks: Iterable[np.ndarray], tints: np.ndarray | None = None) -> np.ndarray:
    """The image (H, W, 3) uint8 with masks (H, W) bool in colour: a tint, and a contour one pixel wide.

    `tints`: (N, 3) RGB in [0, 1]; default `colours`.  Later masks lie over earlier ones.
    """
    masks = list(masks)
    tints = colours(len(masks)) if tints is None else np.asarray(tints, float)
    canvas = image.astype(np.float32)
    for mask, tint in zip(masks, tints, strict=True):
        canvas[mask] = 0.55 * canvas[mask] + 0.45 * 255 * tint
        canvas[contour(mask)] = 255 * tint
    return np.rint(canvas).astype(np.uint8)


def spotlight(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8, faded to light gray outside a mask (H, W) bool."""
    return np.where(mask[..., None], image, (image * 0.15 + 235 * 0.85).astype(np.uint8))


def contour(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels of a mask (H, W) bool that touch its outside or the edge of the image."""
    padded = np.pad(mask, 1)
    return mask & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def border_map(labels: np.ndarray, pairs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(H, W) float32: at pixels beside another region, the value of the border between the two; else 0.

    `labels`: (H, W) int regions; `pairs`: (E, 2) regions that touch, the lower first, ascending; `values`: (E,).
    """
    drawn = np.zeros(labels.shape, np.float32)
    size = int(labels.max()) + 1
    keys = pairs[:, 0].astype(np.int64) * size + pairs[:, 1]
    for here, beside in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        a, b = labels[here].astype(np.int64), labels[beside].astype(np.int64)
        differ = a != b
        border = values[np.searchsorted(keys, (np.minimum(a, b) * size + np.maximum(a, b))[differ])]
        for side in (here, beside):
            drawn[side][differ] = np.maximum(drawn[side][differ], border)
    return drawn


def show(axis: Axes, image: np.ndarray, title: str = "", frame: str | None = None) -> AxesImage:
    """An image (H, W, 3) or (H, W) uint8, or a mask bool, without ticks; `frame` is the colour of a border."""
    limits = {} if image.ndim == 3 else {"cmap": "gray", "vmin": 0, "vmax": 1 if image.dtype == bool else 255}
    shown = axis.imshow(image, interpolation="nearest", **limits)
    axis.set_title(title, fontsize=8, pad=3)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=2.5)
    return shown


def show_masks(
    axis: Axes, image: np.ndarray, masks: Iterable[np.ndarray], tints: np.ndarray | None = None, title: str = ""
) -> AxesImage:
    """An image (H, W, 3) uint8 with masks (H, W) bool over it; see `overlay`."""
    return show(axis, overlay(image, masks, tints), title)


def show_boxes(axis: Axes, boxes: np.ndarray, color: str | Sequence, **style: object) -> None:
    """Rectangles (N, 4) x, y, width, height in pixels, whose pixel k reaches from k to k + 1.

    `color`: one for all or one per box; `style` goes to matplotlib's Rectangle.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    each = [color] * len(boxes) if isinstance(color, str) else list(color)
    style = {"linewidth": 1.5, **style}
    for (x, y, w, h), edge in zip(boxes, each, strict=True):
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=edge, **style))


def show_scores(axis: Axes, image: np.ndarray, scores: np.ndarray, step: float, highest: float = 1.0) -> AxesImage:
    """A map (R, S) of scores over a gray image (H, W, 3) uint8: cell (r, c) is centred on x = step c, y = step r.

    Scores from 0, which is transparent, to `highest`.
    """
    height, width = image.shape[:2]
    axis.imshow(image.mean(axis=2), cmap="gray", vmin=-60, vmax=255)
    rows, cols = scores.shape
    extent = np.array([-0.5 * step, (cols - 0.5) * step, (rows - 0.5) * step, -0.5 * step]) - 0.5
    opacity = 0.85 * np.clip(scores / max(highest, 1e-6), 0, 1)
    shown = axis.imshow(
        scores, "YlOrRd", vmin=0, vmax=highest, alpha=opacity, extent=tuple(extent), interpolation="nearest"
    )
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    return shown


def grid(
    images: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    frames: Sequence[str] = (),
    columns: int = 8,
    size: float = 1.3,
) -> Figure:
    """A figure of images (H, W[, 3]) uint8 or bool in rows of `columns`, each `size` inches wide.

    `titles` and `frames` (colours): one per image, or none.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    height = size * (images[0].shape[0] / images[0].shape[1] if len(images) else 1) + (0.2 if titles else 0.06)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * (size + 0.06), rows * height), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    for k, axis in enumerate(axes.flat):
        if k < len(images):
            show(axis, images[k], titles[k] if titles else "", frames[k] if frames else None)
        else:
            axis.set_axis_off()
    return figure


def triplets(
    patches: Sequence[np.ndarray], masks: Sequence[np.ndarray | None], columns: int = 8, size: float = 1.2
) -> Figure:
    """Training triplets as in Figure 1, bottom: patches framed by their label, positives above their masks.

    `patches`: (P, P, 3) uint8; `masks`: (P, P) bool of positives, None for negatives, which have none.
    """
    rows: list[list[tuple[np.ndarray, str]]] = []
    positive = [(patch, mask) for patch, mask in zip(patches, masks, strict=True) if mask is not None]
    negative = [patch for patch, mask in zip(patches, masks, strict=True) if mask is None]
    for start in range(0, len(positive), columns):
        part = positive[start : start + columns]
        rows.append([(patch, POSITIVE) for patch, _ in part])
        rows.append([(mask, POSITIVE) for _, mask in part])
    for start in range(0, len(negative), columns):
        rows.append([(patch, NEGATIVE) for patch in negative[start : start + columns]])
    shape = max(1, len(rows)), columns
    figure, axes = plt.subplots(*shape, figsize=(columns * size, shape[0] * size), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, line in zip(rows, axes, strict=False):
        for (picture, frame), axis in zip(row, line, strict=False):
            axis.set_axis_on()
            show(axis, picture, frame=frame)
    return figure


def shelves(
    rows: Mapping[str, Sequence[np.ndarray]], frames: Mapping[str, Sequence[str]], blocks: int = 2, size: float = 0.55
) -> Figure:
    """Thumbnails (h, h, 3) uint8 of one size, a labelled row per key, each framed in its colour of `frames`.

    The rows stand in `blocks` columns, one below the other.
    """
    columns = max((len(row) for row in rows.values()), default=1)
    side = max((len(image) for row in rows.values() for image in row), default=1)
    pitch, edge, label = side + 10, 3, 2 * side
    deep = max(1, -(-len(rows) // blocks))
    canvas = np.full((deep * pitch, blocks * (columns * pitch + label), 3), 255, np.uint8)
    figure, axis = plt.subplots(figsize=np.array(canvas.shape[1::-1]) / pitch * size, layout="constrained")
    for k, (key, row) in enumerate(rows.items()):
        top, left = k % deep * pitch, k // deep * (columns * pitch + label) + label
        for c, (image, frame) in enumerate(zip(row, frames[key], strict=True)):
            y, x = top + 5, left + c * pitch + 5
            canvas[y - edge : y + side + edge, x - edge : x + side + edge] = _rgb(frame)
            canvas[y : y + side, x : x + side] = image
        axis.text(left - 4, top + pitch / 2, key, ha="right", va="center", fontsize=8)
    show(axis, canvas)
    return figure


def thumbnail(image: np.ndarray, box: np.ndarray, size: int, margin: float = 0.1) -> np.ndarray:
    """(size, size, 3) uint8: the square around a box x, y, width, height of an image, gray outside the image."""
    x, y, w, h = (float(value) for value in box)
    side = max(w, h, 1.0) * (1 + 2 * margin)
    at = (np.arange(size) + 0.5) / size * side - side / 2  # nearest pixels: good enough to recognise an object
    cols, rows = np.floor(x + w / 2 + at).astype(int), np.floor(y + h / 2 + at).astype(int)
    height, width = image.shape[:2]
    inside = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))[None]
    picture = image[np.clip(rows, 0, height - 1)[:, None], np.clip(cols, 0, width - 1)[None]]
    return np.where(inside[..., None], picture, np.uint8(128))


def network(blocks: Sequence[tuple[str, int, int]], branches: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """A network as in Figure 1, top: feature maps from left to right, then branches one above the other.

    `blocks`: name, channels and side of each map; `branches`: the colour and the layers of each.
    """
    figure, axis = plt.subplots(figsize=(12, 3.2), layout="constrained")
    tallest, x = max(side for *_, side in blocks), 0.0
    for k, (name, channels, side) in enumerate(blocks):
        width, height = 0.12 * np.log2(channels), side / tallest
        axis.add_patch(Rectangle((x, -height / 2), width, height, facecolor="#c6d8ea" if k else "0.9", edgecolor="0.3"))
        axis.text(x + width / 2, height / 2 + 0.03, f"{channels}\n{side}²", ha="center", fontsize=8)
        axis.text(x + width / 2, -height / 2 - 0.03, name, ha="center", va="top", fontsize=8)
        x += width + 0.45
    for k, (colour, layers) in enumerate(branches):
        y = 0.6 * ((len(branches) - 1) / 2 - k)
        start = (x - 0.4, 0.0)
        for step, layer in enumerate(layers):
            place = (x + 1.1 + 2.3 * step, y)
            arrow = {"arrowstyle": "-" if step else "<|-", "color": "0.4", "shrinkA": 0 if step else 22}
            axis.annotate("", start, place, arrowprops=arrow, zorder=1)
            box = {"boxstyle": "round", "facecolor": colour, "edgecolor": "0.4"}
            axis.text(*place, layer, ha="center", va="center", fontsize=8, bbox=box, zorder=2)
            start = place
    axis.set(xlim=(-0.3, x + 2.3 * max(len(layers) for _, layers in branches)), ylim=(-0.65, 0.72))
    axis.set_axis_off()
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write PATH.png, for pictures that hold photographs, where a vector file would only wrap the same pixels.

    The bytes depend on the picture and the version of matplotlib only.
    """
    path = Path(path)
    with files.replacing(path.with_name(path.name + ".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
