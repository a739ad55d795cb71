"""Drawn scenes as a data set in COCO's format (section 4 of the paper uses COCO's photographs).

Every image is a pure function of (seed, index), so the files are the same for any number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from deepmask import masks
from deepmask.data.categories import categories as catalogue
from deepmask.data.drawing import Scene, draw_patch, draw_scene

__all__ = ["FIRST_INDEX", "Scene", "categories", "draw_scene", "object_patches", "write_scenes"]

FIRST_INDEX = {"train": 0, "val": 1_000_000}  # of the scenes of a set; an image's id is the index of its scene + 1
MAX_ANNOTATIONS = 1000  # per image, so that annotation ids do not depend on other images
# 4:4:4: colour at full resolution too
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
CHUNK = 16  # scenes that a process draws at a time


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

    `folder/images/{train,val}_NNNNNN.jpg` and `folder/annotations/instances_{train,val}.json`.  Segmentations are
    compressed RLEs, those of crowds uncompressed ones, as in COCO.  The bytes depend on seed, width and height only,
    not on `workers` (default: the cores this process may use).  The annotation files come last, so that an interrupted
    run is not taken for a whole data set.  Raises ValueError for a size or a count that cannot be drawn.
    """
    if min(width, height) < 16:
        raise ValueError(f"scenes of {width} x {height} pixels are too small; make both sides at least 16")
    if min(train, val) < 0 or max(train, val) > FIRST_INDEX["val"]:
        raise ValueError(f"train={train}, val={val}: give each a number of images from 0 to {FIRST_INDEX['val']}")
    folder = Path(folder)
    files = {name: folder / "annotations" / f"instances_{name}.json" for name in FIRST_INDEX}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    files["train"].parent.mkdir(exist_ok=True)
    for file in files.values():
        file.unlink(missing_ok=True)
    tasks = [(name, number) for name, count in (("train", train), ("val", val)) for number in range(count)]
    write = partial(_write_scene, folder / "images", seed, width, height)
    records = list(_in_order(write, tasks, workers, "scenes" if progress else None))
    for name, file in files.items():
        chosen = [record for (owner, _), record in zip(tasks, records, strict=True) if owner == name]
        content = {
            "info": {"description": f"drawn scenes, seed {seed}, {name}", "version": "1.0"},
            "licenses": [],
            "categories": categories(),
            "images": [image for image, _ in chosen],
            "annotations": [annotation for _, annotations in chosen for annotation in annotations],
        }
        partial_file = file.with_suffix(".partial")
        partial_file.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))
        os.replace(partial_file, file)


def object_patches(
    classes: int, count: int, size: int, seed: int, *, workers: int | None = None, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Patches to pretrain the trunk on: images (count, size, size, 3) uint8 RGB and labels (count,) int64.

    One object each of `classes` classes in turn, none of them a category of the scenes; patch i is a pure function of
    (seed, i) and of classes and size.
    """
    drawn = _in_order(partial(draw_patch, seed, classes, size), range(count), workers, "objects" if progress else None)
    images, labels = np.empty((count, size, size, 3), np.uint8), np.arange(count, dtype=np.int64) % classes
    for i, image in enumerate(drawn):
        images[i] = image
    return images, labels


def _in_order(function: Callable, tasks: list | range, workers: int | None, label: str | None) -> Iterator:
    """function(task) of all tasks in their order, in parallel processes; progress is shown under `label`."""
    if workers is None:  # systems without affinity do not say which cores we may use
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    workers = min(workers, -(-len(tasks) // (2 * CHUNK)))  # a process takes a second to start
    bar = partial(tqdm, total=len(tasks), desc=label, unit="image", disable=True if label is None else None)
    if workers <= 1:
        yield from bar(map(function, tasks))
        return
    # Fresh processes: a fork of one that runs threads (torch) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        yield from bar(pool.map(function, tasks, chunksize=CHUNK))


def _write_scene(folder: Path, seed: int, width: int, height: int, task: tuple[str, int]) -> tuple[dict, list[dict]]:
    """Draw and write one image; returns its record and those of its annotations."""
    name, number = task
    index = FIRST_INDEX[name] + number
    scene = draw_scene(seed, index, width, height)
    image = {"id": index + 1, "file_name": f"{name}_{number:06d}.jpg", "width": width, "height": height}
    _, code = cv2.imencode(".jpg", scene.image[:, :, ::-1], JPEG)
    (folder / image["file_name"]).write_bytes(code.tobytes())
    annotations = []
    for k, (category, mask, crowd) in enumerate(scene.instances):
        rle = masks.encode(mask[None])
        counts = _run_lengths(mask) if crowd else rle[0]["counts"].decode("ascii")
        annotations.append(
            {
                "id": (index + 1) * MAX_ANNOTATIONS + k,
                "image_id": index + 1,
                "category_id": category,
                "iscrowd": int(crowd),
                "area": int(np.count_nonzero(mask)),
                "bbox": masks.boxes(rle)[0].tolist(),
                "segmentation": {"size": [height, width], "counts": counts},
            }
        )
    return image, annotations


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE counts: lengths of the runs of 0 and 1 in turn, column by column, of 0 first."""
    columns = mask.T.ravel()
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [columns.size]])).tolist()
    return [0, *lengths] if columns[0] else lengths
