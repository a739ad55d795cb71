"""Mean average precision as PASCAL VOC 2007 defines it (paper: section 4, Detection; Figure 5).

Per class, detections of all images are taken by falling score.  Each belongs to the object of its class and image that
it overlaps most; if the IoU reaches .5 and no better detection has found that object, it is correct, and a false
positive otherwise, so that finding an object twice costs.  Detections of objects marked difficult, which COCO's format
holds as crowds, count neither way.  AP is the mean, over recalls of 0, .1, ..., 1, of the best precision at that
recall or above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepmask import masks
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
    scores, categories, found = _assigned(dataset, detections)
    rows = []
    for id, category in sorted(dataset.categories.items()):
        counted = int((~dataset.ann_crowd & (dataset.ann_category == id)).sum())
        of_class = categories == id
        ap = _average_precision(_judged(dataset, scores[of_class], found[of_class]), counted)
        rows.append({"category": id, "name": category.name, "objects": counted, "ap": ap})
    return pd.DataFrame(rows, columns=["category", "name", "objects", "ap"])


def mean_ap(precisions: pd.DataFrame) -> float:
    """mAP of what `average_precisions` returned: the mean over the categories that have objects, else nan."""
    return float(precisions.ap.mean())


def _assigned(
    dataset: InstanceDataset, detections: Mapping[int, Detections]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All detections, by image: (D,) scores, (D,) category ids, (D,) annotations that they belong to, or -1."""
    unknown = sorted(set(detections) - set(dataset.image_ids.tolist()))
    if unknown:
        raise DetectionError(f"image {unknown[0]} has detections but is not annotated in {dataset.source}")
    scores, categories, found = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
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
        scores.append(made.scores)
        categories.append(made.categories)
        found.append(best)
    categories = np.concatenate(categories)
    foreign = np.setdiff1d(categories, list(dataset.categories))
    if len(foreign):
        raise DetectionError(f"category {foreign[0]} is detected but is not one of {dataset.source}")
    return np.concatenate(scores), categories, np.concatenate(found)


def _judged(dataset: InstanceDataset, scores: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Whether each detection that counts is correct, by falling score; equal scores keep the order of the images."""
    found = found[np.argsort(-scores, kind="stable")]
    difficult = np.append(dataset.ann_crowd, False)  # the last one for those that belong to no object, -1
    found = found[~difficult[found]]
    correct = np.zeros(len(found), bool)
    objects, first = np.unique(found, return_index=True)
    correct[first[objects >= 0]] = True
    return correct


def _average_precision(correct: np.ndarray, objects: int) -> float:
    if not objects:
        return float("nan")
    hits = np.cumsum(correct)
    precision = hits / np.arange(1, len(correct) + 1)
    # in whole numbers, because .1 + .1 + .1 is more than .3
    return float(np.mean([precision[hits * POINTS >= k * objects].max(initial=0) for k in range(POINTS + 1)]))
