"""Full scene inference: the network applied densely at several scales (paper: sections 3.3 and 3.4).

Each scaled image gets a gray border of half a patch, so that the patches of the first and last cells are centred on
the image's edges.  Scores of all cells of all scales are ranked together; no non-maximum suppression.  A mask depends
on nothing but the features of its own cell, so masks are computed only for the cells that survive the ranking: the
same proposals as computing all masks first, at a fraction of the cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepmask import device as devices
from deepmask import masks
from deepmask.model import GRAY, DeepMask
from deepmask.proposals import Proposals

_LEAST_SIDE = 1  # a scaled image never shrinks below one pixel


@dataclass(frozen=True)
class Cells:
    """Ranked cells, best first: scale index, row and column (N,) int64, and score probability (N,) float32."""

    scale: np.ndarray
    row: np.ndarray
    col: np.ndarray
    score: np.ndarray


class DensePass:
    """The trunk's features and the scores of one image at several scales.

    `image`: (H, W, 3) uint8 RGB; `octaves`: log2 scales.  Score maps are computed when first asked for, so a network
    of which only the masks are used never runs its score head.
    """

    @torch.inference_mode()
    def __init__(self, model: DeepMask, image: np.ndarray, octaves: Sequence[float], precision: str = "auto") -> None:
        self.model, self.octaves, self.size = model, tuple(octaves), image.shape[:2]
        self._device = next(model.parameters()).device
        self._dtype = devices.precision(precision, self._device)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        with devices.autocast(self._dtype, self._device):
            self.features = [model.features(self._scaled(pixels, octave)) for octave in self.octaves]

    def _scaled(self, pixels: Tensor, octave: float) -> Tensor:
        """The image at one scale, anti-aliased bilinear, with its gray border: (1, 3, h, w) uint8."""
        size = [max(_LEAST_SIDE, math.floor(side * 2.0**octave + 0.5)) for side in self.size]
        scaled = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return F.pad(scaled.to(self._device), [self.model.geometry.border] * 4, value=GRAY)

    @torch.inference_mode()
    def scores(self) -> list[np.ndarray]:
        """Per scale the score logits (rows, cols) float32 of all cells."""
        with devices.autocast(self._dtype, self._device):
            return [self.model.score_head.dense(x).float().cpu().numpy() for x in self.features]

    @torch.inference_mode()
    def mask_logits(self, cells: Cells) -> Tensor:
        """Mask logits (N, mask, mask) float32 of the given cells."""
        size = self.model.geometry.mask
        logits = torch.empty(len(cells.score), size, size, device=self._device)
        with devices.autocast(self._dtype, self._device):
            for index, x in enumerate(self.features):
                here = np.flatnonzero(cells.scale == index)
                if len(here):
                    rows, cols = (torch.from_numpy(a[here]).to(self._device) for a in (cells.row, cells.col))
                    logits[torch.from_numpy(here).to(self._device)] = self.model.mask_head.at(x, rows, cols).float()
        return logits


def best_cells(scores: Sequence[np.ndarray], count: int) -> Cells:
    """The `count` best cells of all scales (paper: section 3.3); equal scores keep the order scale, row, column."""
    flat = np.concatenate([s.ravel() for s in scores])
    order = np.argsort(-flat, kind="stable")[:count]
    starts = np.cumsum([0, *(s.size for s in scores)])
    scale = np.searchsorted(starts, order, side="right") - 1
    within = order - starts[scale]
    width = np.array([s.shape[1] for s in scores])[scale]
    score = 1 / (1 + np.exp(-flat[order].astype(np.float64)))
    return Cells(scale, within // width, within % width, score.astype(np.float32))


class Paster:
    """Turns mask logits of cells into binary masks of the whole image.

    Logits are interpolated to the size of the patch in the image (aligned corners, as in training), shifted to its
    place and thresholded, at a probability p: logit > log(p / (1 - p)) (paper: section 3.4, "threshold").
    """

    def __init__(self, dense: DensePass, cells: Cells) -> None:
        self.size, self.cells, self.geometry = dense.size, cells, dense.model.geometry
        self.scales = 2.0 ** np.asarray(dense.octaves)[cells.scale]
        self.logits = dense.mask_logits(cells).cpu()

    def proposals(self, threshold: float) -> Proposals:
        """The cells' masks and tight boxes as proposals of image 0, best first."""
        rles = self.masks(threshold)
        return Proposals(0, self.cells.score, masks.boxes(rles), rles)

    def masks(self, threshold: float) -> list[masks.RLE]:
        """One RLE of the image's size per cell, in the order of the cells."""
        height, width = self.size
        cut = math.log(threshold / (1 - threshold))
        boxes = self.geometry.cell_boxes(self.cells.row, self.cells.col, self.scales)
        rles: list[masks.RLE | None] = [None] * len(self.logits)
        for scale in np.unique(self.scales):
            here = np.flatnonzero(self.scales == scale)
            side = max(1, int(self.geometry.patch / scale))
            for chunk in np.array_split(here, math.ceil(len(here) * side * side / 2**24)):
                logits = F.interpolate(self.logits[chunk, None], (side, side), mode="bilinear", align_corners=True)
                patches = (logits[:, 0] > cut).numpy()
                corners = np.floor(boxes[chunk, :2] + 0.5).astype(int)
                for index, rle in zip(chunk, masks.encode_at(patches, corners, height, width), strict=True):
                    rles[index] = rle
        return rles


class DeepMaskProposer:
    """DeepMask as a proposal method: image -> ranked proposals.

    `masker`: network of the masks; `scorer`: network of the scores, the same one unless given (DeepMask20* uses the
    scores of DeepMask, section 4); `octaves`: log2 scales; `threshold`: probability at which masks are cut.
    """

    def __init__(
        self,
        masker: DeepMask,
        octaves: Sequence[float],
        *,
        scorer: DeepMask | None = None,
        count: int = 1000,
        threshold: float = 0.2,
        precision: str = "auto",
        name: str = "DeepMask",
    ) -> None:
        self.masker, self.scorer = masker.eval(), (scorer or masker).eval()
        self.octaves, self.count, self.threshold = tuple(octaves), count, threshold
        self.precision, self.name = precision, name

    def __call__(self, image: np.ndarray) -> Proposals:
        """Proposals of an image (H, W, 3) uint8 RGB, with `image_id` 0."""
        scorer = DensePass(self.scorer, image, self.octaves, self.precision)
        masker = scorer if self.masker is self.scorer else DensePass(self.masker, image, self.octaves, self.precision)
        return Paster(masker, best_cells(scorer.scores(), self.count)).proposals(self.threshold)
