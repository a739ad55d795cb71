"""Drawn scenes as a data set in COCO's format (section 4 of the paper uses COCO's photographs)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from deepmask.data import scene_files
from deepmask.data.categories import categories as catalogue
from deepmask.data.drawing import Scene, draw_patch, draw_scene
from deepmask.data.scene_files import FIRST_INDEX

__all__ = ["FIRST_INDEX", "Scene", "categories", "draw_scene", "object_patches", "write_scenes"]


def categories() -> list[dict]:
    """The 80 categories as the annotation files list them: id, name, supercategory and `pascal`."""
    return [dict(category) for category in catalogue()]


def write_scenes(
    folder: str | Path,
    *,
    train: int,
    val: int,
    width: int,
    height: int,
    seed: int,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write `train` + `val` scenes of width x height pixels as a COCO-format folder.

    The bytes depend on seed, width and height only, not on `workers`; see `scene_files.write` for the files, and for
    ValueError, which is raised for a size or a count that cannot be drawn.
    """
    scene_files.write(
        folder,
        partial(draw_scene, seed),
        {"train": train, "val": val},
        width=width,
        height=height,
        description=f"drawn scenes, seed {seed}",
        categories=categories(),
        workers=workers,
        progress=progress,
    )


def object_patches(
    classes: int, count: int, size: int, seed: int, *, workers: int | None = None, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Patches to pretrain the trunk on: images (count, size, size, 3) uint8 RGB and labels (count,) int64.

    One object each of `classes` classes in turn, none of them a category of the scenes; patch i is a pure function of
    (seed, i) and of classes and size.
    """
    draw, label = partial(draw_patch, seed, classes, size), "objects" if progress else None
    images, labels = np.empty((count, size, size, 3), np.uint8), np.arange(count, dtype=np.int64) % classes
    for i, image in enumerate(scene_files.in_order(draw, range(count), workers, label)):
        images[i] = image
    return images, labels
