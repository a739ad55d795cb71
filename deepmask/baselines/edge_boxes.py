"""EdgeBoxes: boxes scored by the edge groups that lie wholly inside them.

After Zitnick and Dollar, "Edge Boxes: Locating Object Proposals from Edges" (ECCV 2014), as OpenCV implements it
(`cv2.ximgproc`), on the edges of a structured forest thinned to lines.  It proposes boxes without masks.
"""

from __future__ import annotations

import cv2
import numpy as np

from deepmask.baseline_config import EdgeBoxesConfig
from deepmask.proposals import Proposals

_ORIENTATION_RADIUS = 4  # px of the smoothing before second derivatives are taken; published: 4
_THINNING_RADIUS = 2  # px across an edge within which the strongest pixel remains; published: 2


class EdgeBoxes:
    """EdgeBoxes as a proposal method: at most `count` boxes per image, without masks."""

    name = "edgeboxes"

    def __init__(self, config: EdgeBoxesConfig = EdgeBoxesConfig(), count: int = 1000) -> None:
        self.config, self.count = config, count

    def __call__(self, image: np.ndarray, edges: np.ndarray) -> Proposals:
        """Boxes of an image (H, W, 3) uint8 with edge maps (S, H, W) float16, in the order of their scores."""
        strength = edges.mean(axis=0, dtype=np.float32)
        angles = orientation(strength)
        config = self.config
        # OpenCV's object appends to its tables with every image: each needs a new one
        search = cv2.ximgproc.createEdgeBoxes(
            alpha=config.alpha,
            beta=config.beta,
            eta=config.eta,
            minScore=config.min_score,
            maxBoxes=self.count,
            edgeMinMag=config.min_edge,
            edgeMergeThr=config.merge,
            clusterMinMag=config.min_group,
            maxAspectRatio=config.max_aspect,
            minBoxArea=config.min_area,
            gamma=config.gamma,
            kappa=config.kappa,
        )
        boxes, scores = search.getBoundingBoxes(thinned(strength, angles), angles)
        scores = np.zeros(0) if scores is None else scores.ravel()
        corners = np.asarray(boxes, np.float64).reshape(-1, 4)
        corners[:, :2] -= 1  # OpenCV counts pixels from 1
        corners[:, 2:] += corners[:, :2]
        height, width = strength.shape
        corners = corners.clip(0, [width, height, width, height])
        corners[:, 2:] -= corners[:, :2]
        sound = np.isfinite(scores) & (corners[:, 2:] > 0).all(axis=1)  # OpenCV divides by a size that may round to 0
        return Proposals.ranked(0, scores[sound], corners[sound])


def orientation(strength: np.ndarray) -> np.ndarray:
    """(H, W) float32 angles across the edges of a map (H, W) float32, in radians from 0 to pi, from its curvature."""
    box = np.full(_ORIENTATION_RADIUS + 1, 1 / (_ORIENTATION_RADIUS + 1))
    triangle = np.convolve(box, box).astype(np.float32)
    smooth = cv2.sepFilter2D(strength, -1, triangle, triangle)
    xx, xy, yy = (cv2.Sobel(smooth, -1, *order) for order in ((2, 0), (1, 1), (0, 2)))
    return np.mod(np.arctan2(yy * np.sign(-xy), xx + np.float32(1e-5)), np.float32(np.pi))


def thinned(strength: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(H, W) float32: the map where it is strongest across the edge, 0 elsewhere."""
    y, x = np.indices(strength.shape, np.float32)
    across_x, across_y = np.cos(angles), np.sin(angles)
    strongest = np.ones(strength.shape, bool)
    for step in range(-_THINNING_RADIUS, _THINNING_RADIUS + 1):
        if step:
            places = x + step * across_x, y + step * across_y
            strongest &= strength >= cv2.remap(strength, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(strongest, strength, np.float32(0))
