"""Classical methods on large photographs: they propose on a smaller copy, as DeepMask does (`inference.DensePass`).

Their regions are set for images of COCO's size, and their time grows faster than the pixels: selective search takes
four seconds for one megapixel and minutes for twelve.
"""

from __future__ import annotations

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from deepmask import masks
from deepmask.masks import RLE
from deepmask.proposals import ProposalMethod, Proposals


class Shrinking:
    """A proposal method on images of at most `longest` pixels a side: a larger one is shrunk, its proposals enlarged.

    On images within `longest` the proposals are those of `method`.
    """

    def __init__(self, method: ProposalMethod, longest: int) -> None:
        self.name, self.method, self.longest = method.name, method, longest

    def __call__(self, image: np.ndarray) -> Proposals:
        """Proposals of an image (H, W, 3) uint8 RGB, with `image_id` 0."""
        height, width = image.shape[:2]
        scale = self.longest / max(height, width)
        if scale >= 1:
            return self.method(image)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        found = self.method(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        if found.masks is None:
            return Proposals(0, found.scores, found.boxes * np.tile([width / size[0], height / size[1]], 2))
        rles = [enlarged(rle, height, width) for rle in found.masks]
        return Proposals(0, found.scores, masks.boxes(rles), rles)


def enlarged(rle: RLE, height: int, width: int) -> RLE:
    """A mask at a larger size: every pixel has the value of the nearest one of the smaller mask.

    Only where its columns turn into object and back is looked at, so that no mask of the larger size is ever made.
    """
    small = masks.decode(rle).T
    columns, rows = (_nearest(of, side) for of, side in zip(small.shape, (width, height), strict=True))
    inside = np.pad(small, ((0, 0), (1, 1)))
    column, row = np.nonzero(inside[:, 1:] != inside[:, :-1])
    first = np.searchsorted(column, np.arange(len(small) + 1))  # turn of each column
    number = np.diff(first)[columns]
    turn = np.arange(number.sum()) + np.repeat(first[columns] - np.cumsum(number) + number, number)
    pixel = np.repeat(np.arange(width), number) * height + np.searchsorted(rows, row)[turn]
    # two turns at one pixel are none: a run goes on from the end of one column at the start of the next
    pixel, times = np.unique(pixel, return_counts=True)
    pixel = pixel[times % 2 == 1]
    ends = pixel if len(pixel) and pixel[-1] == height * width else np.append(pixel, height * width)
    counts = np.diff(ends, prepend=0)
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _nearest(small: int, large: int) -> np.ndarray:
    """(large,) int64 the place in a row of `small` that is nearest to each place in one of `large`."""
    return ((np.arange(large) + 0.5) * small / large).astype(np.int64)
