"""Pictures of what a method finds and what it misses (paper: Figures 3 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from deepmask import masks, pictures
from deepmask.masks import RLE
from deepmask.proposals import Proposals

FOUND = 0.5  # IoU from which an object counts as found
MISSED = "#e01b24"  # red, as in Figure 3


def best_matches(
    axis: Axes, image: np.ndarray, proposals: Proposals, objects: Sequence[RLE], title: str = ""
) -> np.ndarray:
    """Show the proposal that fits each object best, and outline missed objects in red; (G,) IoU of the best ones.

    `image`: (H, W, 3) uint8 RGB; `objects`: G masks.  Proposals without masks are compared, and drawn, as boxes.
    """
    boxes = masks.boxes(objects)
    if proposals.masks is None:
        overlaps = masks.box_iou(proposals.boxes, boxes)
    else:
        overlaps = masks.iou(proposals.masks, objects)
    best = overlaps.max(axis=0, initial=0.0)
    found = best >= FOUND
    rows = overlaps.argmax(axis=0)[found] if len(overlaps) else np.zeros(0, int)
    tints = pictures.colours(len(objects))[found]  # an object has the same colour whoever finds it
    if proposals.masks is None:
        pictures.show(axis, image, title)
        pictures.show_boxes(axis, proposals.boxes[rows], tints)
        pictures.show_boxes(axis, boxes[~found], MISSED, linestyle=(0, (2, 2)))
        return best
    pictures.show_masks(axis, image, [masks.decode(proposals.masks[row]) for row in rows], tints, title)
    for index in np.flatnonzero(~found):
        axis.contour(masks.decode(objects[index]), [0.5], colors=MISSED, linewidths=1.2)
    return best
