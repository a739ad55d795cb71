"""Which proposal claims which object, at every IoU threshold in one pass (paper: section 4; the rule is COCO's)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepmask import masks
from deepmask.data.coco import InstanceDataset
from deepmask.proposals import Proposals

NEVER = np.iinfo(np.int32).max  # rank of an object that no proposal claims


class EvaluationError(ValueError):
    """Proposals and annotations do not fit together; the message names the image and what to do."""


def check_images(dataset: InstanceDataset, proposals: Mapping[int, Proposals]) -> None:
    """Raises EvaluationError if there are proposals of images that are not in the data set."""
    unknown = sorted(set(proposals) - set(dataset.image_ids.tolist()))
    if unknown:
        raise EvaluationError(
            f"image {unknown[0]} ({len(unknown)} in all) has proposals but is not annotated; "
            "check that proposals and annotations belong together"
        )


def overlap(
    dataset: InstanceDataset, image: int, annotations: np.ndarray, proposals: Proposals, kind: str
) -> np.ndarray:
    """(proposals, annotations) float64 IoU."""
    if kind == "bbox":
        return masks.box_iou(proposals.boxes, dataset.ann_boxes[annotations])
    if proposals.masks is None:
        raise EvaluationError(f"image {dataset.image_ids[image]}: the proposals have no masks; use kind 'bbox'")
    size = dataset.image_sizes[image].tolist()
    other = next((rle["size"] for rle in proposals.masks if list(rle["size"]) != size), None)
    if other is not None:
        raise EvaluationError(
            f"image {dataset.image_ids[image]}: a mask is {other[0]} x {other[1]} (height x width) but the image is "
            f"{size[0]} x {size[1]}; masks must have the size of their image"
        )
    return masks.iou(proposals.masks, [dataset.rle(a) for a in annotations])


def match(
    images: np.ndarray,
    categories: np.ndarray,
    thresholds: np.ndarray,
    objects: np.ndarray,
    ranks: np.ndarray,
    overlaps: np.ndarray,
) -> np.ndarray:
    """(T, G) int32 ranks at which objects are claimed, from the pairs of an object and a proposal that overlap.

    Each proposal claims the free object that it overlaps most, so walking through its pairs by falling IoU, the first
    one still free is the match; of equal IoUs pycocotools takes the last by category, then by annotation.  Thresholds
    do not interact: each is one bit of an integer, and a pair is judged for all of them at once.
    """
    order = np.lexsort((-objects, -categories[objects], -overlaps, ranks, images[objects]))
    objects, ranks = objects[order], ranks[order]
    reached = np.searchsorted(np.minimum(thresholds, 1 - 1e-10), overlaps[order], side="right")
    reached_bits = (np.int64(1) << reached) - 1
    is_next = np.ones(len(order), bool)  # whether a pair is the first of its proposal
    is_next[1:] = (np.diff(ranks) != 0) | (np.diff(images[objects]) != 0)

    claimed = [0] * len(images)
    claims, spent = [], 0
    pairs = zip(objects.tolist(), reached_bits.tolist(), is_next.tolist(), strict=True)
    for index, (target, bits, first) in enumerate(pairs):
        if first:
            spent = 0
        new = bits & ~spent & ~claimed[target]
        if new:
            spent |= new
            claimed[target] |= new
            claims.append((index, new))

    table = np.full((len(thresholds), len(images)), NEVER, np.int32)
    index, bits = np.array(claims, np.int64).reshape(-1, 2).T
    for t, row in enumerate(table):
        at = index[(bits >> t) & 1 == 1]
        row[objects[at]] = ranks[at]
    return table
