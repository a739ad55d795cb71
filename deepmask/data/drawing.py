"""Drawing one scene: what lies where, from back to front, and the picture taken of it.

Textured objects of 80 categories lie over cluttered backgrounds and occlude each other.  Every picture is a pure
function of (seed, index).  All lengths scale with the image height: a scene of 640 x 480 is composed like one of
320 x 240.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import cv2
import numpy as np

from deepmask.data.canvas import Canvas
from deepmask.data.categories import categories, pretraining_styles, styles
from deepmask.data.objects import Figure, draw_palette, paint_background, paint_clutter

REFERENCE_HEIGHT = 240  # pixels; the sizes below hold at this height
SIZES = ((0.46, 4.5, 17), (0.30, 17, 54), (0.24, 54, 125))  # share, and range of the square root of an object's area
FILL = 0.5  # share of its bounding box that an object covers, about
OBJECTS = 7.5  # mean number of objects drawn
SEEN_SHARE = 0.4  # of the objects are of PASCAL categories
CLUTTER, CLUTTER_SIZE = (4, 22), (9.0, 80.0)  # fewest and most fragments; pixels
CLUTTER_IN_FRONT = 0.3  # share that may hide objects
MIN_VISIBLE = 0.3  # of an object's area; what is hidden further is not annotated
CROWD_CHANCE = 0.09  # of an image to have a group annotated as one
CROWD_MEMBERS, CROWD_SIZE = (8, 20), (9, 22)
BLUR, NOISE = (0.4, 0.9), (3.0, 9.0)  # ranges of the standard deviations: pixels, and grey levels of 255
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)  # quantiles: fast noise


@dataclass(frozen=True)
class Scene:
    """A picture and its annotated objects."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    instances: list[tuple[int, np.ndarray, bool]]  # category id, visible mask (H, W) bool, to be ignored: a crowd


def draw_scene(seed: int, index: int, width: int = 320, height: int = 240) -> Scene:
    """Draw scene `index` of the data set `seed`.

    Masks are disjoint and nonempty.  A crowd is one instance whose mask covers all its members.
    """
    rng = np.random.default_rng([seed, index])
    palette, sun = draw_palette(rng), draw_sun(rng)
    canvas, unit = Canvas(height, width), height / REFERENCE_HEIGHT
    paint_background(canvas, rng, palette, sun, unit)
    backdrop = canvas.count
    ranges = []  # category id, first and last + 1 label, area before anything covered it, crowd
    for kind, side in _plan(rng):
        if kind == "clutter":
            paint_clutter(canvas, rng, palette, sun, rng.uniform(0, 1, (len(side), 2)) * (width, height), side * unit)
            continue
        category = _category(rng)
        first = canvas.count
        if kind == "crowd":
            _paint_crowd(canvas, rng, category, palette, sun, side * unit)
        else:
            figure = Figure(styles()[category], rng)
            centre = _place(rng, canvas.labels, backdrop, figure.size * side * unit)
            figure.paint(canvas, rng, palette, sun, centre, side * unit)
        ranges.append((category, first, canvas.count, np.count_nonzero(canvas.labels >= first), kind == "crowd"))

    instances = []
    for category, first, end, area, crowd in ranges:
        mask = (canvas.labels >= first) & (canvas.labels < end)
        if np.count_nonzero(mask) >= max(MIN_VISIBLE * area, 1):
            instances.append((category, mask, crowd))
    return Scene(photograph(canvas, rng, unit), instances)


def draw_patch(seed: int, classes: int, size: int, index: int) -> np.ndarray:
    """One object of class index % classes over a background: (size, size, 3) uint8 RGB."""
    rng = np.random.default_rng([seed, index, classes])
    palette, sun = draw_palette(rng), draw_sun(rng)
    canvas = Canvas(size, size)
    paint_background(canvas, rng, palette, sun, 1.0)
    count = rng.integers(1, 5)
    paint_clutter(canvas, rng, palette, sun, rng.uniform(0, size, (count, 2)), rng.uniform(0.15, 0.5, count) * size)
    figure = Figure(pretraining_styles(classes)[index % classes], rng)
    side = rng.uniform(0.6, 0.95) * size / figure.size.max()
    figure.paint(canvas, rng, palette, sun, size * rng.uniform(0.42, 0.58, 2), side)
    return photograph(canvas, rng, 1.0)


def draw_sun(rng: np.random.Generator) -> np.ndarray:
    """Direction and strength of the light."""
    angle = rng.uniform(-np.pi, 0)
    return rng.uniform(0.05, 0.25) * np.array([np.cos(angle), np.sin(angle)])


def _plan(rng: np.random.Generator) -> list[tuple[str, float | np.ndarray]]:
    """What is drawn, from back to front: kinds, and sides of the square as large as the bounding box, in pixels."""
    things = []
    share, low, high = np.array(SIZES).T
    for size in rng.choice(len(SIZES), max(1, rng.poisson(OBJECTS)), p=share):
        side = np.exp(rng.uniform(np.log(low[size]), np.log(high[size]))) / np.sqrt(FILL)
        things.append((side * np.exp(rng.normal(0, 0.5)), "object", side))  # roughly large ones first
    if rng.uniform() < CROWD_CHANCE:
        things.append((rng.uniform(20, 60), "crowd", rng.uniform(*CROWD_SIZE)))
    sides = np.exp(rng.uniform(*np.log(CLUTTER_SIZE), rng.integers(CLUTTER[0], CLUTTER[1] + 1)))
    in_front = round(len(sides) * CLUTTER_IN_FRONT)
    things.append((np.inf, "clutter", sides[in_front:]))
    things.append((rng.uniform(10, 80), "clutter", np.minimum(sides[:in_front], 40)))
    return [(kind, side) for _, kind, side in sorted(things, key=lambda thing: -thing[0])]


def _category(rng: np.random.Generator) -> int:
    """A category id, a PASCAL one with chance SEEN_SHARE."""
    pascal = rng.uniform() < SEEN_SHARE
    return int(rng.choice(_ids(pascal)))


@cache
def _ids(pascal: bool) -> np.ndarray:
    return np.array([category["id"] for category in categories() if category["pascal"] == pascal])


def _place(rng: np.random.Generator, labels: np.ndarray, backdrop: int, size: np.ndarray) -> np.ndarray:
    """A centre (2,) x, y: of three random ones, that whose box of the given size covers the fewest objects."""
    height, width = labels.shape
    margin = np.minimum(size * 0.35, (width / 2, height / 2))  # at most a small part lies outside the image
    tries = rng.uniform(margin, (width, height) - margin, (3, 2))
    return least_covering(labels, backdrop, tries, size)


def least_covering(labels: np.ndarray, backdrop: int, tries: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Of the centres `tries` (n, 2), that whose box of the given size covers the fewest labels from `backdrop` on."""
    boxes = np.concatenate([tries - size / 2, tries + size / 2], axis=1).astype(int).clip(0).tolist()
    step = 1 + int(size.min()) // 8
    covered = [(labels[y0 : y1 + 1 : step, x0 : x1 + 1 : step] >= backdrop).sum() for x0, y0, x1, y1 in boxes]
    return tries[np.argmin(covered)]


def _paint_crowd(
    canvas: Canvas, rng: np.random.Generator, category: int, palette: np.ndarray, sun: np.ndarray, side: float
) -> None:
    """A group of small objects of one category, in loose rows."""
    height, width = canvas.labels.shape
    count = rng.integers(CROWD_MEMBERS[0], CROWD_MEMBERS[1] + 1)
    columns = rng.integers(3, 7)
    origin = rng.uniform(0.05, 0.6, 2) * (width, height)
    for i in range(count):
        cell = np.array([i % columns + rng.normal(0, 0.2), i // columns + rng.normal(0, 0.2)])
        figure = Figure(styles()[category], rng)
        figure.paint(canvas, rng, palette, sun, origin + cell * side * 1.15, side * rng.uniform(0.85, 1.15))


def photograph(canvas: Canvas, rng: np.random.Generator, unit: float) -> np.ndarray:
    """The canvas blurred and with noise: (H, W, 3) uint8."""
    picture = cv2.GaussianBlur(canvas.colours(), (0, 0), rng.uniform(*BLUR) * unit)
    picture += np.take(_NORMAL * np.float32(rng.uniform(*NOISE)), rng.integers(0, 256, picture.shape, np.uint8))
    return np.clip(picture, 0, 255, out=picture).astype(np.uint8)
