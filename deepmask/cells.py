"""Single cells of one image, found by a pixel: the patch, the score and the mask (paper: sections 3.3 and 3.4).

The proposals of an image are its best cells; this module looks at any cell, also at those that are ranked out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deepmask import masks
from deepmask.geometry import Geometry
from deepmask.inference import Cells, DeepMaskProposer, DensePass, Paster, best_cells
from deepmask.proposals import Proposals


@dataclass(frozen=True, eq=False)
class Cell:
    """What the networks say about one cell."""

    scale: int  # index of its scale
    row: int
    col: int
    score: float  # probability that a whole object of the canonical size is centred on it
    box: np.ndarray  # (4,) float64 x, y, width, height of its patch in pixels of the image, which it may leave
    mask: np.ndarray  # (H, W) bool


def nearest(geometry: Geometry, x: float, y: float, scale: float, shape: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell whose centre is nearest to the middle of the pixel (x, y) of an image.

    `scale`: of the image that the network saw; `shape`: rows and columns of cells there.  A pixel outside the image has
    a nearest cell too.
    """
    step = scale / geometry.stride  # cells per pixel
    places = (math.floor((pixel + 0.5) * step + 0.5) for pixel in (y, x))
    row, col = (min(max(place, 0), count - 1) for place, count in zip(places, shape, strict=True))
    return row, col


class ImageCells:
    """All cells of one image (H, W, 3) uint8 RGB under the networks of a proposer.

    The passes over the image are made once; every look at a cell then costs one mask.
    """

    def __init__(self, proposer: DeepMaskProposer, image: np.ndarray) -> None:
        settings = image, proposer.octaves, proposer.precision, proposer.longest
        scorer = DensePass(proposer.scorer, *settings)
        self._masker = scorer if proposer.masker is proposer.scorer else DensePass(proposer.masker, *settings)
        self._logits = scorer.scores()
        self.geometry, self.octaves, self.threshold = proposer.masker.geometry, proposer.octaves, proposer.threshold
        self.scales = scorer.scales  # (S,) float64, of the image

    def scores(self, scale: int) -> np.ndarray:
        """(rows, cols) float32 score probabilities of all cells of a scale, by its index; raises ValueError."""
        self._check(scale)
        return _probability(self._logits[scale])

    def scores_at(self, x: float, y: float) -> np.ndarray:
        """(S,) float32 score probability of the cell nearest to the pixel (x, y), at each scale."""
        found = (self._logits[scale][self._nearest(x, y, scale)] for scale in range(len(self.scales)))
        return _probability(np.array(list(found)))

    def at(self, x: float, y: float, scale: int | None = None, threshold: float | None = None) -> Cell:
        """The cell nearest to the pixel (x, y).

        `scale`: its index; None is the scale at which that cell has the highest score.  `threshold`: the probability at
        which the mask is cut; None is the proposer's.  Raises ValueError if there is no such scale.
        """
        if scale is None:
            scale = int(np.argmax(self.scores_at(x, y)))
        self._check(scale)
        row, col = self._nearest(x, y, scale)
        score = float(_probability(self._logits[scale][row, col]))
        cells = Cells(*(np.array([place]) for place in (scale, row, col)), np.array([score], np.float32))
        box = self.geometry.cell_boxes(cells.row, cells.col, self.scales[scale])[0]
        (rle,) = Paster(self._masker, cells).masks(threshold or self.threshold)
        return Cell(scale, row, col, score, box, masks.decode(rle))

    def proposals(self, count: int = 1000, threshold: float | None = None) -> Proposals:
        """The best `count` cells as proposals of image 0, the same as the proposer's."""
        return Paster(self._masker, best_cells(self._logits, count)).proposals(threshold or self.threshold)

    def _nearest(self, x: float, y: float, scale: int) -> tuple[int, int]:
        return nearest(self.geometry, x, y, self.scales[scale], self._logits[scale].shape)

    def _check(self, scale: int) -> None:
        if not 0 <= scale < len(self.scales):
            raise ValueError(
                f"scale: {scale} is none of the {len(self.scales)} scales; give 0 to {len(self.scales) - 1}"
            )


def _probability(logits: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-np.asarray(logits, np.float64)))).astype(np.float32)
