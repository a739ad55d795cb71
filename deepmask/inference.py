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
from deepmask import runs
from deepmask.masks import RLE
from deepmask.model import GRAY, DeepMask
from deepmask.proposals import Proposals
from deepmask.weights import WeightsError

CHUNK = {"cpu": 1 << 22, "cuda": 1 << 25}  # interpolated logits that pasting holds at a time; each costs 10 bytes
_LEAST_SIDE = 1  # a scaled image never shrinks below one pixel


@dataclass(frozen=True)
class Cells:
    """Ranked cells, best first: scale index, row and column (N,) int64, and score probability (N,) float32."""

    scale: np.ndarray
    row: np.ndarray
    col: np.ndarray
    score: np.ndarray


class DensePass:
    """The trunk's features and the scores of one image at several scales, on the device of the network.

    `image`: (H, W, 3) uint8 RGB; `octaves`: log2 scales; `longest`: an image with a longer side, in pixels, is first
    shrunk to that (None: never), so that its scales are those of the shrunk image.  Score maps are computed when first
    asked for, so a network of which only the masks are used never runs its score head.
    """

    @torch.no_grad()  # unlike inference_mode, it lets autocast keep the weights that it has cast
    def __init__(
        self,
        model: DeepMask,
        image: np.ndarray,
        octaves: Sequence[float],
        precision: str = "auto",
        longest: int | None = None,
    ) -> None:
        self.model, self.octaves, self.size = model, tuple(octaves), image.shape[:2]
        self._device = next(model.parameters()).device
        self._dtype = devices.precision(precision, self._device)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self._device).permute(2, 0, 1)[None]
        self.shrunk = min(1.0, (longest or math.inf) / max(self.size))
        if self.shrunk < 1:
            pixels = resized(pixels, self.shrunk)
        border = [model.geometry.border] * 4
        with devices.autocast(self._dtype, self._device):
            scaled = (resized(pixels, 2.0**octave) for octave in self.octaves)
            self.features = [model.features(F.pad(x, border, value=GRAY)) for x in scaled]

    @property
    def scales(self) -> np.ndarray:
        """(S,) float64 scales of the image that the network saw, one per octave."""
        return self.shrunk * 2.0 ** np.asarray(self.octaves)

    @torch.no_grad()
    def scores(self) -> list[np.ndarray]:
        """Per scale the score logits (rows, cols) float32 of all cells; raises WeightsError if one is not finite."""
        with devices.autocast(self._dtype, self._device):
            maps = [self.model.score_head.dense(x).float() for x in self.features]
        flat = _finite(torch.cat([x.flatten() for x in maps]).cpu())  # in one piece: a GPU is waited for once
        return [part.view(x.shape).numpy() for part, x in zip(flat.split([x.numel() for x in maps]), maps, strict=True)]

    @torch.no_grad()
    def mask_logits(self, cells: Cells) -> Tensor:
        """Mask logits (N, mask, mask) float32 of the given cells; raises WeightsError if one is not finite."""
        index = torch.from_numpy(np.stack([cells.scale, cells.row, cells.col])).to(self._device)
        with devices.autocast(self._dtype, self._device):
            return _finite(self.model.mask_head.at(self.features, *index).float())


def _finite(logits: Tensor) -> Tensor:
    """The same logits; raises WeightsError if one is not finite, which ranks no cell and cuts no mask."""
    if not torch.isfinite(logits).all():
        raise WeightsError("the network's scores or masks are not finite: its weights are damaged; load them anew")
    return logits


def resized(pixels: Tensor, scale: float) -> Tensor:
    """(1, 3, H, W) uint8 pixels at another scale, anti-aliased bilinear, at least one pixel by one."""
    size = [max(_LEAST_SIDE, math.floor(side * scale + 0.5)) for side in pixels.shape[-2:]]
    if size == [1, 1]:  # of separate planes PyTorch makes no single pixel
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    if pixels.device.type == "cpu":
        return F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return _resized_float(pixels, size)


def _resized_float(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """The same where PyTorch does not interpolate uint8: along the rows, then the columns, rounded after each."""
    for shape in ((pixels.shape[-2], size[1]), size):
        pixels = (F.interpolate(pixels.float(), shape, mode="bilinear", antialias=True) + 0.5).to(torch.uint8)
    return pixels


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
        self.size, self.cells = dense.size, cells
        self.logits = dense.mask_logits(cells)
        scales = dense.scales[cells.scale]
        boxes = dense.model.geometry.cell_boxes(cells.row, cells.col, scales)
        self._corners = np.floor(boxes[:, :2] + 0.5).astype(np.int64)
        self._sides = np.maximum(1, boxes[:, 2].astype(np.int64))

    def proposals(self, threshold: float) -> Proposals:
        """The cells' masks and tight boxes as proposals of image 0, best first."""
        rles, boxes = self._paste(threshold)
        return Proposals(0, self.cells.score, boxes, rles)

    def masks(self, threshold: float) -> list[RLE]:
        """One RLE of the image's size per cell, in the order of the cells."""
        return self._paste(threshold)[0]

    @torch.no_grad()
    def _paste(self, threshold: float) -> tuple[list[RLE], np.ndarray]:
        logits = self.logits - math.log(threshold / (1 - threshold))
        places = torch.from_numpy(np.column_stack([self._corners, self._sides])).to(logits.device)
        held = np.minimum(self._sides, self.size[1]).cumsum() * logits.shape[-1]
        bounds = np.flatnonzero(np.diff(held // CHUNK[logits.device.type], prepend=-1, append=-1))
        rles: list[RLE] = []
        boxes = [np.zeros((0, 4), np.int64)]
        for start, stop in zip(bounds.tolist(), bounds[1:].tolist(), strict=False):
            turns = runs.of_logits(logits[start:stop], places[start:stop, :2], places[start:stop, 2], *self.size)
            rles += turns.rles()
            boxes.append(turns.boxes())
        return rles, np.concatenate(boxes)


class DeepMaskProposer:
    """DeepMask as a proposal method: image -> ranked proposals.

    `masker`: network of the masks; `scorer`: network of the scores, the same one unless given (DeepMask20* uses the
    scores of DeepMask, section 4); `octaves`, `precision`, `longest`: see `DensePass`; `threshold`: probability at
    which masks are cut.
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
        longest: int | None = None,
        name: str = "DeepMask",
    ) -> None:
        self.masker, self.scorer = masker.eval(), (scorer or masker).eval()
        self.octaves, self.count, self.threshold = tuple(octaves), count, threshold
        self.precision, self.longest, self.name = precision, longest, name

    def __call__(self, image: np.ndarray) -> Proposals:
        """Proposals of an image (H, W, 3) uint8 RGB, with `image_id` 0."""
        settings = image, self.octaves, self.precision, self.longest
        scorer = DensePass(self.scorer, *settings)
        masker = scorer if self.masker is self.scorer else DensePass(self.masker, *settings)
        return Paster(masker, best_cells(scorer.scores(), self.count)).proposals(self.threshold)
