"""Drawn scenes that play PASCAL's part: the 20 PASCAL categories, few and large objects, before other backgrounds.

Objects come from the same code as those of the other scenes, but they stand on a ground, before landscapes, shores,
streets and rooms that no training scene has.  What is hidden, cut or small is flagged difficult, as in PASCAL VOC.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np

from deepmask.data import scene_files
from deepmask.data.backdrops import draw_backdrop, paint_sheets, palette
from deepmask.data.canvas import Canvas
from deepmask.data.categories import categories as catalogue
from deepmask.data.categories import styles
from deepmask.data.drawing import REFERENCE_HEIGHT, Scene, draw_sun, least_covering, photograph
from deepmask.data.objects import Figure

FURTHER_OBJECTS = 1.9  # mean number beyond the first; VOC 2007 has 3.0 an image in all
SIDES = (0.16, 0.85)  # of the square as large as an object's box, in image heights; log-uniform
SMALL = 0.14  # image heights; an object whose visible area is below this squared is difficult
CLEAR = 0.6  # of an object's box area must be in the image, and of its pixels be visible, or it is difficult
LEAST_VISIBLE = 0.15  # of its pixels; what is hidden further is not annotated
_STREAM = 2007  # keeps the random numbers apart from those of the other scenes


def categories() -> list[dict]:
    """The 20 PASCAL categories as the annotation files list them, with the ids they have in the other scenes."""
    return [dict(category) for category in catalogue() if category["pascal"]]


def write_pascal_scenes(
    folder: str | Path,
    *,
    trainval: int,
    test: int,
    width: int,
    height: int,
    seed: int,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write `trainval` + `test` scenes as a COCO-format folder; difficult objects are `iscrowd` 1 and `difficult` 1.

    The bytes depend on seed, width and height only; see `scene_files.write`, also for ValueError.
    """
    scene_files.write(
        folder,
        partial(draw_pascal_scene, seed),
        {"trainval": trainval, "test": test},
        width=width,
        height=height,
        description=f"drawn scenes in PASCAL's place, seed {seed}",
        categories=categories(),
        ignored="difficult",
        workers=workers,
        progress=progress,
    )


def draw_pascal_scene(seed: int, index: int, width: int = 320, height: int = 240) -> Scene:
    """Draw scene `index` of the data set `seed`; masks are disjoint, and the flag of an instance says difficult."""
    rng = np.random.default_rng([seed, index, _STREAM])
    canvas, unit = Canvas(height, width), height / REFERENCE_HEIGHT
    place, sun = draw_backdrop(rng, width / height), draw_sun(rng)
    paint_sheets(canvas, rng, place.behind)
    backdrop, painted = canvas.count, []
    count = 1 + rng.poisson(FURTHER_OBJECTS)
    depths = np.sort(rng.uniform(max(place.horizon, 0.4), 1.05, count))  # where objects stand, the far ones first
    for depth in depths:
        category = int(rng.choice(_ids()))
        figure = Figure(styles()[category], rng)
        side = height * np.exp(rng.uniform(*np.log(SIDES)))
        box = figure.size * side
        foot = min(depth * height, 1.05 * height)
        across = rng.uniform(0.1, 0.9, 3) * width
        tries = np.stack([across, np.full(3, max(foot - box[1] / 2, 0.35 * box[1]))], axis=1)
        centre = least_covering(canvas.labels, backdrop, tries, box)
        first = canvas.count
        figure.paint(canvas, rng, palette(place.behind), sun, centre, side)
        inside = np.prod(np.minimum(centre + box / 2, (width, height)) - np.maximum(centre - box / 2, 0)) / np.prod(box)
        painted.append((category, first, canvas.count, np.count_nonzero(canvas.labels >= first), inside))
    paint_sheets(canvas, rng, place.in_front)

    instances = []
    for category, first, end, area, inside in painted:
        mask = (canvas.labels >= first) & (canvas.labels < end)
        visible = np.count_nonzero(mask)
        if visible >= max(LEAST_VISIBLE * area, 1):
            difficult = visible < CLEAR * area or inside < CLEAR or visible < (SMALL * height) ** 2
            instances.append((category, mask, bool(difficult)))
    return Scene(photograph(canvas, rng, unit), instances)


@cache
def _ids() -> np.ndarray:
    return np.array([category["id"] for category in categories()])
