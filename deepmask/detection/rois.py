"""Regions of interest of one training image: which are objects, which background, and what their boxes should become.

Fast R-CNN learns from a few RoIs of an image: up to a quarter are proposals that overlap an object by IoU .5, the
others overlap one by .1 to .5, which makes them hard (paper: section 4, Detection).  Boxes in this module are x1, y1,
x2, y2 in pixels of the image, as torchvision has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from deepmask.detection_config import DetectionConfig
from deepmask.proposals import Proposals

STD = (0.1, 0.1, 0.2, 0.2)  # of the targets dx, dy, dw, dh, as published; they are divided by it
LEAST_SIDE = 1.0  # px; a proposal with a smaller box has no RoI
_LARGEST_GROWTH = 4.0  # natural log of a box's predicted growth; a wild prediction must not become infinite


@dataclass(frozen=True, eq=False)
class RoIs:
    """The N RoIs of one training image."""

    boxes: Tensor  # (N, 4) float32
    labels: Tensor  # (N,) int64, 0 for background
    targets: Tensor  # (N, 4) float32 normalised regression targets; 0 for background

    def to(self, device: torch.device) -> RoIs:
        """The same RoIs on another device."""
        return RoIs(self.boxes.to(device), self.labels.to(device), self.targets.to(device))


def encode(boxes: Tensor, objects: Tensor) -> Tensor:
    """Normalised regression targets (N, 4) that take `boxes` (N, 4) to `objects` (N, 4).

    The shift of the centre relative to the sides of the box, and the log of the ratio of the sides.
    """
    (centres, sides), (to_centres, to_sides) = _centred(boxes), _centred(objects)
    targets = torch.cat([(to_centres - centres) / sides, torch.log(to_sides / sides)], dim=1)
    return targets / targets.new_tensor(STD)


def decode(boxes: Tensor, deltas: Tensor) -> Tensor:
    """The inverse of `encode`, K times for every box: (N, 4) and deltas (N, K, 4) -> (N, K, 4)."""
    (centres, sides), deltas = _centred(boxes), deltas * deltas.new_tensor(STD)
    centres = centres[:, None] + deltas[..., :2] * sides[:, None]
    sides = sides[:, None] * deltas[..., 2:].clamp(max=_LARGEST_GROWTH).exp()
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)


def corners(boxes: np.ndarray) -> Tensor:
    """(N, 4) float32 x1, y1, x2, y2 of boxes x, y, width, height."""
    boxes = torch.as_tensor(np.asarray(boxes, np.float32).reshape(-1, 4))
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def usable(proposals: Proposals) -> np.ndarray:
    """(n,) int64 places, from 0, of the proposals that have an RoI: the box of an empty mask is none."""
    return np.flatnonzero((proposals.boxes[:, 2:] >= LEAST_SIDE).all(axis=1))


def flip(boxes: Tensor, width: int) -> Tensor:
    """The boxes (N, 4) in the mirrored image."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def sample(
    proposals: Tensor, objects: Tensor, labels: Tensor, config: DetectionConfig, rng: np.random.Generator
) -> RoIs:
    """The RoIs that one image adds to a batch, foreground first; fewer than its share if there are too few.

    `proposals` (P, 4); `objects` (G, 4), which are taken for proposals too, with their `labels` (G,) from 1 on.
    Background is filled up with what overlaps objects less than `config.background_iou` where that leaves too few.
    """
    candidates = torch.cat([objects, proposals])
    overlaps = box_iou(candidates, objects) if len(objects) else torch.zeros(len(candidates), 1)
    best, nearest = overlaps.max(dim=1)
    best = best.numpy()
    share = config.rois // config.images
    low, high = config.background_iou
    foreground = rng.permutation(np.flatnonzero(best >= config.foreground_iou))[: round(config.foreground * share)]
    hard = rng.permutation(np.flatnonzero((best >= low) & (best < high)))
    easy = rng.permutation(np.flatnonzero(best < low))
    background = np.concatenate([hard, easy])[: share - len(foreground)]
    chosen = torch.from_numpy(np.concatenate([foreground, background]))
    boxes = candidates[chosen]
    classes, targets = torch.zeros(len(chosen), dtype=torch.int64), torch.zeros(len(chosen), 4)
    matched = nearest[chosen[: len(foreground)]]
    if len(foreground):
        classes[: len(foreground)] = labels[matched]
        targets[: len(foreground)] = encode(boxes[: len(foreground)], objects[matched])
    return RoIs(boxes, classes, targets)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + sides / 2, sides
