"""Mean average precision as PASCAL VOC 2007 defines it (paper: section 4, Detection; Figure 5).

Per class, detections of all images are taken by falling score.  Each belongs to the object of its class and image that
it overlaps most; if the IoU reaches .5 and no better detection has found that object, it is correct, and a false
positive otherwise, so that finding an object twice costs.  Detections of objects marked difficult, which COCO's format
holds as crowds, count neither way.  AP is the mean, over recalls of 0, .1, ..., 1, of the best precision at that
recall or above.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepmask import masks
from deepmask.bootstrap import resampled
from deepmask.data.coco import InstanceDataset
from deepmask.detection_config import DetectionError

IOU = 0.5
POINTS = 10  # steps of recall


@dataclass(frozen=True, eq=False)
class Detections:
    """The N detections of one image, in any order.  Raises DetectionError if the parts disagree in length."""

    boxes: np.ndarray  # (N, 4) float32 x, y, width, height in pixels
    scores: np.ndarray  # (N,) float32
    categories: np.ndarray  # (N,) int64 category ids

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32).reshape(-1))
        object.__setattr__(self, "categories", np.asarray(self.categories, np.int64).reshape(-1))
        lengths = {len(self.boxes), len(self.scores), len(self.categories)}
        if len(lengths) > 1:
            raise DetectionError(f"detections: boxes, scores and categories differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.scores)


def average_precisions(dataset: InstanceDataset, detections: Mapping[int, Detections]) -> pd.DataFrame:
    """One row per category of `dataset` by id: category, name, objects, ap.

    `detections`: by image id; an image may be missing.  `ap` is nan where there are no objects but difficult ones.
    Raises DetectionError on detections of an image or a category that the data set does not have.
    """
    _, scores, categories, found = _assigned(dataset, detections)
    rows = []
    for id, category in sorted(dataset.categories.items()):
        counted = int((~dataset.ann_crowd & (dataset.ann_category == id)).sum())
        of_class = categories == id
        _, correct = _judged(dataset, scores[of_class], found[of_class])
        ap = _average_precision(correct, counted)
        rows.append({"category": id, "name": category.name, "objects": counted, "ap": ap})
    return pd.DataFrame(rows, columns=["category", "name", "objects", "ap"])


def mean_ap(precisions: pd.DataFrame) -> float:
    """mAP of what `average_precisions` returned: the mean over the categories that have objects, else nan."""
    return float(precisions.ap.mean())


def resampled_map(
    dataset: InstanceDataset, detections: Mapping[int, Detections], resamples: int, seed: int = 0
) -> np.ndarray:
    """(resamples,) float64 mAP when as many images are drawn with replacement, the same ones for the same seed.

    An image that is drawn twice counts its objects and its detections twice.
    """
    images, scores, categories, found = _assigned(dataset, detections)
    drawn = resampled(len(dataset), resamples, seed)
    real = ~dataset.ann_crowd
    precisions = []
    for id in sorted(dataset.categories):
        of_class = np.flatnonzero(categories == id)
        order, correct = _judged(dataset, scores[of_class], found[of_class])
        objects = np.bincount(dataset.ann_image[real & (dataset.ann_category == id)], minlength=len(dataset))
        weights = drawn[:, images[of_class[order]]]
        precisions.append(_resampled_precision(weights, correct, drawn @ objects))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any object has no mAP
        return np.nanmean(precisions, axis=0)


def _assigned(
    dataset: InstanceDataset, detections: Mapping[int, Detections]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All detections, by image: (D,) images, scores, category ids, and annotations that they belong to, or -1."""
    unknown = sorted(set(detections) - set(dataset.image_ids.tolist()))
    if unknown:
        raise DetectionError(f"image {unknown[0]} has detections but is not annotated in {dataset.source}")
    images, categories, found = ([np.zeros(0, np.int64)] for _ in range(3))
    scores = [np.zeros(0)]
    for i, image_id in enumerate(dataset.image_ids.tolist()):
        made = detections.get(image_id)
        if made is None or not len(made):
            continue
        annotations = dataset.annotations(i)
        best = np.full(len(made), -1)
        if len(annotations):
            ious = masks.box_iou(made.boxes, dataset.ann_boxes[annotations])
            ious[made.categories[:, None] != dataset.ann_category[annotations]] = -1
            nearest = ious.argmax(axis=1)
            reached = ious[np.arange(len(made)), nearest] >= IOU
            best[reached] = annotations[nearest[reached]]
        images.append(np.full(len(made), i))
        scores.append(made.scores)
        categories.append(made.categories)
        found.append(best)
    categories = np.concatenate(categories)
    foreign = np.setdiff1d(categories, list(dataset.categories))
    if len(foreign):
        raise DetectionError(f"category {foreign[0]} is detected but is not one of {dataset.source}")
    return np.concatenate(images), np.concatenate(scores), categories, np.concatenate(found)


def _judged(dataset: InstanceDataset, scores: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The detections that count, by falling score (equal ones keep the order of the images), and which are correct."""
    order = np.argsort(-scores, kind="stable")
    difficult = np.append(dataset.ann_crowd, False)  # the last one for those that belong to no object, -1
    order = order[~difficult[found[order]]]
    correct = np.zeros(len(order), bool)
    objects, first = np.unique(found[order], return_index=True)
    correct[first[objects >= 0]] = True
    return order, correct


def _average_precision(correct: np.ndarray, objects: int) -> float:
    if not objects:
        return float("nan")
    hits = np.cumsum(correct)
    precision = hits / np.arange(1, len(correct) + 1)
    # in whole numbers, because .1 + .1 + .1 is more than .3
    return float(np.mean([precision[hits * POINTS >= k * objects].max(initial=0) for k in range(POINTS + 1)]))


def _resampled_precision(weights: np.ndarray, correct: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(R,) AP where detections, by falling score, count `weights` (R, D) times; nan without `objects` (R,)."""
    hits, made = np.cumsum(weights * correct, axis=1), np.cumsum(weights, axis=1)
    precision = np.divide(hits, made, out=np.zeros_like(hits), where=made > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or above
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    points = [(hits * POINTS < k * objects[:, None]).sum(axis=1) for k in range(POINTS + 1)]
    values = np.mean([best[np.arange(len(best)), point] for point in points], axis=0)
    return np.where(objects > 0, values, np.nan)
