"""Ranked object proposals of an image, whoever makes them (paper: section 4).

Whatever makes proposals is a `ProposalMethod`, and whatever scores them sees only `Proposals`; on disk they are COCO
results (`results_file`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deepmask.masks import RLE, decode


class ProposalError(ValueError):
    """Proposals are malformed, or a file of proposals is; the message names the entry and the key."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """The N proposals of one image, best first.

    An empty mask keeps its slot with the box 0, 0, 0, 0.  Raises ProposalError if the parts disagree in length or the
    scores are not descending; `ranked` sorts.
    """

    image_id: int  # 0 where a method does not know it
    scores: np.ndarray  # (N,) float32, descending
    boxes: np.ndarray  # (N, 4) float32 x, y, width, height in pixels of the image
    masks: list[RLE] | None = None  # N masks of the size of the image, or None if there are only boxes

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, np.float32).reshape(-1)
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        lengths = {len(scores), len(boxes)} | (set() if self.masks is None else {len(self.masks)})
        if len(lengths) > 1:
            raise ProposalError(f"image {self.image_id}: scores, boxes and masks differ in length: {sorted(lengths)}")
        if not np.all(scores[1:] <= scores[:-1]):  # also false for NaN
            raise ProposalError(f"image {self.image_id}: the scores are not descending; use Proposals.ranked")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "boxes", boxes)

    @classmethod
    def ranked(cls, image_id: int, scores: Any, boxes: Any, masks: list[RLE] | None = None) -> Proposals:
        """Proposals from parts in any order, sorted by descending score; equal scores keep their order."""
        scores = np.asarray(scores, np.float64).reshape(-1)
        order = np.argsort(-scores, kind="stable")
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)[order]
        return cls(image_id, scores[order], boxes, None if masks is None else [masks[i] for i in order])

    def __len__(self) -> int:
        return len(self.scores)

    def top(self, count: int) -> Proposals:
        """The best `count` of them."""
        masks = None if self.masks is None else self.masks[:count]
        return Proposals(self.image_id, self.scores[:count], self.boxes[:count], masks)

    def tv_tensors(self, size: tuple[int, int]) -> dict[str, Any]:
        """The proposals as torchvision takes them, for an image of `size` (height, width).

        "boxes": BoundingBoxes (N, 4) float32 x1, y1, x2, y2; "scores": Tensor (N,) float32; and "masks": Mask
        (N, height, width) bool, if there are masks.
        """
        import torch  # here, because evaluation does without
        from torchvision import tv_tensors

        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)
        made = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(corners), format="XYXY", canvas_size=size),
            "scores": torch.from_numpy(self.scores.copy()),
        }
        if self.masks is not None:
            pixels = np.zeros((len(self), *size), bool)
            for mask, rle in zip(pixels, self.masks, strict=True):
                mask[:] = decode(rle)
            made["masks"] = tv_tensors.Mask(torch.from_numpy(pixels))
        return made

    def of(self, image_id: int) -> Proposals:
        """The same proposals under the id of their image."""
        return dataclasses.replace(self, image_id=int(image_id))


class ProposalMethod(Protocol):
    """Anything that proposes: DeepMask, its variants, other programs."""

    name: str

    def __call__(self, image: np.ndarray) -> Proposals:
        """Proposals (image_id 0) for an (H, W, 3) uint8 RGB image."""
