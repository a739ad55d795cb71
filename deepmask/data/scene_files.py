"""Drawn scenes as a COCO-format folder: images from parallel processes, then one annotation file per set.

Every image is a pure function of its index, so the files are the same for any number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from deepmask import failures, files, masks, processes
from deepmask.data.drawing import Scene

# Of the scenes of a set; an image's id is the index of its scene + 1.
FIRST_INDEX = {"train": 0, "val": 1_000_000, "test": 2_000_000, "trainval": 3_000_000}
MAX_IMAGES = 1_000_000  # of a set
MAX_ANNOTATIONS = 1000  # per image, so that annotation ids do not depend on other images
# 4:4:4: colour at full resolution too
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
CHUNK = 16  # scenes that a process draws at a time


def write(
    folder: str | Path,
    draw: Callable[[int, int, int], Scene],
    sets: Mapping[str, int],
    *,
    width: int,
    height: int,
    description: str,
    categories: list[dict],
    ignored: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write `sets`, numbers of images by name (keys of FIRST_INDEX), as a COCO-format folder.

    `draw(index, width, height)` is a function that other processes can be sent.  `folder/images/{set}_NNNNNN.jpg` and
    `folder/annotations/instances_{set}.json`.  Segmentations are compressed RLEs, those of crowds uncompressed ones,
    as in COCO; `ignored` is a second key that holds the value of `iscrowd`.  `workers` is by default the number of
    cores this process may use.  The annotation files come last, so that an interrupted run is not taken for a whole
    data set, and two at once take turns.  Raises ValueError for a size or a count that cannot be drawn, and
    MachineError.
    """
    if min(width, height) < 16:
        raise ValueError(f"scenes of {width} x {height} pixels are too small; make both sides at least 16")
    for name, count in sets.items():
        if not 0 <= count <= MAX_IMAGES:
            raise ValueError(f"{name}={count}: give a number of images from 0 to {MAX_IMAGES}")
    folder = Path(folder)
    annotation_files = {name: folder / "annotations" / f"instances_{name}.json" for name in sets}
    for below in ("images", "annotations"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    with processes.turn(folder, "draws scenes here"), failures.told():
        for file in annotation_files.values():
            file.unlink(missing_ok=True)
        tasks = [(name, number) for name, count in sets.items() for number in range(count)]
        write_one = partial(_write_scene, folder / "images", draw, width, height, ignored)
        records = list(in_order(write_one, tasks, workers, "scenes" if progress else None))
        for name, file in annotation_files.items():
            chosen = [record for (owner, _), record in zip(tasks, records, strict=True) if owner == name]
            content = {
                "info": {"description": f"{description}, {name}", "version": "1.0"},
                "licenses": [],
                "categories": categories,
                "images": [image for image, _ in chosen],
                "annotations": [annotation for _, annotations in chosen for annotation in annotations],
            }
            files.write_text(file, json.dumps(content, sort_keys=True, separators=(",", ":")))


def in_order(function: Callable, tasks: list | range, workers: int | None, label: str | None) -> Iterator:
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
    with ProcessPoolExecutor(workers, context, _begin, (os.getpid(),)) as pool:
        yield from bar(pool.map(function, tasks, chunksize=CHUNK))


def _begin(parent: int) -> None:
    """Of a process that draws."""
    processes.end_with(parent)
    cv2.setNumThreads(1)


def _write_scene(
    folder: Path, draw: Callable, width: int, height: int, ignored: str | None, task: tuple[str, int]
) -> tuple[dict, list[dict]]:
    """Draw and write one image; returns its record and those of its annotations."""
    name, number = task
    index = FIRST_INDEX[name] + number
    scene = draw(index, width, height)
    image = {"id": index + 1, "file_name": f"{name}_{number:06d}.jpg", "width": width, "height": height}
    _, code = cv2.imencode(".jpg", scene.image[:, :, ::-1], JPEG)
    with files.replacing(folder / image["file_name"]) as temporary:
        temporary.write_bytes(code.tobytes())
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
            | ({ignored: int(crowd)} if ignored else {})
        )
    return image, annotations


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE counts: lengths of the runs of 0 and 1 in turn, column by column, of 0 first."""
    columns = mask.T.ravel()
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [columns.size]])).tolist()
    return [0, *lengths] if columns[0] else lengths
