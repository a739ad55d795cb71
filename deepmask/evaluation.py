"""Average recall of proposals: at every count, IoU threshold and object size from one pass (paper: section 4).

The protocol is COCO's without categories.  Proposals are taken by rank; each claims, of the objects that are still
free, the one it overlaps most, if the IoU reaches the threshold.  Crowd regions are left out.  Because the matching
is greedy in rank order, the rank at which an object is claimed tells its recall at all counts at once.  AR is the mean
recall over the ten IoU thresholds .50, .55, ..., .95, pooled over objects; AUC is the mean of AR over log-spaced
counts from 1 to 1000.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmask.data.coco import InstanceDataset
from deepmask.matching import NEVER, check_images, match, overlap
from deepmask.proposals import Proposals

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's; linspace, because arange drifts
COUNTS = (10, 100, 1000)  # columns of Table 1
AUC_COUNTS = tuple(int(n) for n in np.round(10 ** np.arange(0, 3.5, 0.5)))  # 1, 3, 10, 32, 100, 316, 1000
CURVE_COUNTS = tuple(int(n) for n in np.unique(np.round(10 ** np.linspace(0, 3, 31))))  # abscissae of Figure 4
# AUC is linear in AR: count -> weight, from the trapezoids of each unit vector
AUC_WEIGHTS = dict(zip(AUC_COUNTS, (np.trapezoid(np.eye(7), np.log10(AUC_COUNTS)) / 3).tolist(), strict=True))
SMALL, LARGE = 32.0, 96.0  # px; bounds of S and L objects in COCO photographs
METRICS = ("AR@10", "AR@100", "AR@1000", "AUC", "AUC_S", "AUC_M", "AUC_L")


@dataclass(frozen=True, eq=False)
class Recall:
    """At which rank each of G objects is found, for each of T IoU thresholds; everything else is a view of it.

    `select`, where a method takes it, is a (G,) bool array: the recall of these objects while all others are ignored,
    as COCO does for its size ranges.  Every mean over no objects is nan.
    """

    kind: str  # "segm": IoU of masks; "bbox": IoU of boxes
    image_ids: np.ndarray  # (I,) int64, all evaluated images
    images: np.ndarray  # (G,) int32 index into image_ids
    areas: np.ndarray  # (G,) float64 px^2, the annotation's area for boxes too
    categories: np.ndarray  # (G,) int64 category id
    thresholds: np.ndarray  # (T,) float64 ascending
    ranks: np.ndarray  # (T, G) int32, 1 for the first proposal of an image; NEVER
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]  # object, rank, IoU of all overlaps of at least .5

    def recall(self, count: int) -> np.ndarray:
        """(T,) recall of the first `count` proposals of each image, per IoU threshold."""
        if not len(self.images):
            return np.full(len(self.thresholds), np.nan)
        return (self.ranks <= count).mean(axis=1)

    def ar(self, count: int, select: np.ndarray | None = None) -> float:
        """Average recall of the first `count` proposals of each image."""
        return float(self.only(select).recall(count).mean())

    def auc(self, select: np.ndarray | None = None) -> float:
        """AR averaged over log-spaced counts from 1 to 1000 (trapezoid over log10 n on AUC_COUNTS)."""
        chosen = self.only(select)
        return sum(weight * chosen.ar(count) for count, weight in AUC_WEIGHTS.items())

    def curve(self, counts: Iterable[int] = CURVE_COUNTS, select: np.ndarray | None = None) -> np.ndarray:
        """AR at each of `counts`."""
        chosen = self.only(select)
        return np.array([chosen.ar(count) for count in counts])

    def only(self, select: np.ndarray | None) -> Recall:
        """The recall of the selected objects, all others ignored; None selects all."""
        if select is None:
            return self
        select = np.asarray(select)
        if select.shape != self.images.shape or select.dtype != bool:
            raise ValueError(f"select must be {len(self.images)} booleans, one per object")
        objects, ranks, overlaps = self.pairs
        kept = select[objects]
        pairs = ((np.cumsum(select) - 1)[objects[kept]], ranks[kept], overlaps[kept])
        parts = {name: getattr(self, name)[select] for name in ("images", "areas", "categories")}
        return dataclasses.replace(self, **parts, pairs=pairs)._matched()

    def at(self, thresholds: np.ndarray) -> Recall:
        """The recall at other IoU thresholds, ascending and at least .5 (recall versus IoU, Figure 4 g-i)."""
        thresholds = np.asarray(thresholds, np.float64)
        if thresholds.min() < THRESHOLDS[0] or np.any(np.diff(thresholds) <= 0) or len(thresholds) > 63:
            raise ValueError("thresholds must ascend from .5 or above, and be 63 at most")
        return dataclasses.replace(self, thresholds=thresholds)._matched()

    def best(self, count: int = NEVER) -> tuple[np.ndarray, np.ndarray]:
        """(G,) largest IoU of each object with the first `count` proposals, and (G,) the rank of that proposal.

        0 and NEVER for objects that no proposal overlaps by .5, the missed objects of Figure 3.
        """
        best, rank = np.zeros(len(self.images)), np.full(len(self.images), NEVER)
        objects, ranks, overlaps = (part[self.pairs[1] <= count] for part in self.pairs)
        order = np.lexsort((-ranks, overlaps))  # of assignments to one place numpy keeps the last
        best[objects[order]], rank[objects[order]] = overlaps[order], ranks[order]
        return best, rank

    def sizes(self, small: float = SMALL, large: float = LARGE) -> dict[str, np.ndarray]:
        """Selections "small" (area < small^2), "medium" and "large" (area > large^2); bounds in px."""
        is_small, is_large = self.areas < small**2, self.areas > large**2
        return {"small": is_small, "medium": ~is_small & ~is_large, "large": is_large}

    def of_categories(self, ids: Iterable[int]) -> np.ndarray:
        """The selection of objects of these categories."""
        return np.isin(self.categories, list(ids))

    def found(self, weights: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
        """(I,) float64 sum over counts n of `weights[n]` * objects found, averaged over thresholds, and (I,) objects.

        Per image; the ratio of the sums over images is the metric: {100: 1.0} for AR@100, AUC_WEIGHTS for AUC.
        """
        found = sum(weight * (self.ranks <= count).mean(axis=0) for count, weight in weights.items())
        size = len(self.image_ids)
        return np.bincount(self.images, found, size), np.bincount(self.images, minlength=size).astype(np.float64)

    def _matched(self) -> Recall:
        return dataclasses.replace(self, ranks=match(self.images, self.categories, self.thresholds, *self.pairs))


def evaluate(
    dataset: InstanceDataset, proposals: Mapping[int, Proposals], kind: str = "segm", max_count: int = 1000
) -> Recall:
    """Match the best `max_count` proposals of each image with its objects; `proposals` is by image id.

    An image without proposals finds nothing.  Raises EvaluationError on proposals of an unknown image, without masks
    for kind "segm", or with masks of another size than the image.
    """
    if kind not in ("segm", "bbox"):
        raise ValueError(f"kind must be 'segm' or 'bbox', not {kind!r}")
    check_images(dataset, proposals)
    annotations = np.flatnonzero(~dataset.ann_crowd)
    images = dataset.ann_image[annotations].astype(np.int32)
    bounds = np.searchsorted(images, np.arange(len(dataset) + 1))
    pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0))]
    for i, image_id in enumerate(dataset.image_ids.tolist()):
        objects, of_image = np.arange(bounds[i], bounds[i + 1]), proposals.get(image_id)
        if of_image is None or not len(of_image) or not len(objects):
            continue
        ious = overlap(dataset, i, annotations[objects], of_image.top(max_count), kind)
        rank, column = np.nonzero(ious >= THRESHOLDS[0])
        pairs.append((objects[column], (rank + 1).astype(np.int32), ious[rank, column]))
    return Recall(
        kind=kind,
        image_ids=dataset.image_ids,
        images=images,
        areas=dataset.ann_areas[annotations],
        categories=dataset.ann_category[annotations],
        thresholds=THRESHOLDS,
        ranks=np.zeros((len(THRESHOLDS), 0), np.int32),
        pairs=tuple(np.concatenate(part) for part in zip(*pairs, strict=True)),
    )._matched()


def summary(recall: Recall, small: float = SMALL, large: float = LARGE) -> dict[str, float]:
    """METRICS of one kind of proposals: AR at 10, 100, 1000, AUC, and AUC by size; nan where there are no objects."""
    sizes = recall.sizes(small, large)
    values = {f"AR@{count}": recall.ar(count) for count in COUNTS} | {"AUC": recall.auc()}
    return values | {f"AUC_{size[0].upper()}": recall.auc(select) for size, select in sizes.items()}


def curve_rows(
    recall: Recall, groups: Mapping[str, np.ndarray | None], counts: Iterable[int] = CURVE_COUNTS
) -> list[dict[str, Any]]:
    """Rows (kind, group, count, ar) of the curves in Figure 4 b-f; `groups` names selections, None being all."""
    counts = tuple(counts)
    return [
        {"kind": recall.kind, "group": group, "count": count, "ar": ar}
        for group, select in groups.items()
        for count, ar in zip(counts, recall.curve(counts, select).tolist(), strict=True)
    ]


def recall_rows(recall: Recall, counts: Iterable[int] = COUNTS, select: np.ndarray | None = None) -> list[dict]:
    """Rows (kind, count, iou, recall) of the curves in Figure 4 g-i, for IoU .50, .52, ..., 1."""
    fine = recall.only(select).at(np.linspace(0.5, 1.0, 26))
    return [
        {"kind": recall.kind, "count": count, "iou": iou, "recall": value}
        for count in counts
        for iou, value in zip(fine.thresholds.round(2).tolist(), fine.recall(count).tolist(), strict=True)
    ]
