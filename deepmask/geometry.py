"""The canonical patch, its tolerances, and the map between score cells and the image (paper: sections 3.3 and 3.4).

This is the only place that knows 224 / 128 / 16.  Everything is expressed in *patch pixels*: pixels of the image
after it was scaled by `scale`, so that one patch pixel is `1 / scale` image pixels.  A patch of side P at scale s
covers P / s image pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from deepmask.bounds import Count, NotNegative, Octave, Whole, Within

_LEAST_SIDE = 1e-3  # pixels; an empty box has a canonical position too


@dataclass(frozen=True)
class Geometry:
    """The sizes of the study; the defaults are the paper's.

    >>> Geometry().features, Geometry().pools
    (14, 4)
    """

    patch: Count = 224  # side of the network's input; paper: 224
    canonical: Count = 128  # larger side of a centred object in its canonical patch; paper: 128
    stride: Count = 16  # patch pixels between neighbouring cells, two to the number of pools; paper: 16
    mask: Count = 56  # side of the predicted mask before upsampling; paper: 56
    jitter: NotNegative = 16.0  # largest shift of a positive, patch pixels; paper: 16
    jitter_octaves: Annotated[Octave, Within(0)] = 0.25  # largest scale jitter of a positive, log2; paper: 1/4
    negative: NotNegative = 32.0  # least shift of a negative from every positive, patch pixels; paper: 32
    negative_octaves: NotNegative = 1.0  # or least difference of scale, log2; paper: 1
    context: Whole = 0  # patch pixels of image around a training patch that only the trunk sees; paper: none said

    def __post_init__(self) -> None:
        if self.patch % self.stride or self.context % self.stride:
            raise ValueError(f"geometry: patch {self.patch} and context {self.context} must be multiples of stride")
        if 2**self.pools != self.stride:
            raise ValueError(f"geometry: stride {self.stride} is not a power of two")
        if self.canonical * 2**self.jitter_octaves / 2 + self.jitter > self.patch / 2:
            raise ValueError("geometry: a jittered object would leave the patch; lower canonical or jitter")

    @property
    def features(self) -> int:
        """Side of the feature map of one patch (paper: 14)."""
        return self.patch // self.stride

    @property
    def pools(self) -> int:
        """Number of 2x2 max-pools in the trunk (paper: 4 of VGG-A's 5)."""
        return round(math.log2(self.stride))

    @property
    def border(self) -> int:
        """Gray pixels around a scaled image, so that the first and last cells are centred on its edges."""
        return self.patch // 2

    @property
    def window(self) -> int:
        """Side of a training crop: the patch and its context on both sides."""
        return self.patch + 2 * self.context

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells on a scaled image of that size after padding with `border`."""
        return tuple((side + 2 * self.border) // self.stride - self.features + 1 for side in (height, width))

    def cell_boxes(self, rows: np.ndarray, cols: np.ndarray, scale: float | np.ndarray) -> np.ndarray:
        """(N, 4) float64 x, y, width, height of the patches of cells, in pixels of the unscaled image.

        `rows`, `cols`: (N,) zero-based cells; `scale`: the scale of the image they were found on.  Cell (r, c) is
        centred on (stride * c, stride * r) of the scaled image.
        """
        x = (self.stride * np.asarray(cols, float) - self.border) / scale
        y = (self.stride * np.asarray(rows, float) - self.border) / scale
        side = np.broadcast_to(self.patch / np.asarray(scale, float), x.shape)
        return np.stack([x, y, side, side], axis=-1)

    def canonical_positions(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 3) float64 centre x, centre y (image pixels) and log2 scale of the canonical patches of objects.

        `boxes`: (N, 4) x, y, width, height in image pixels.  The scale brings the larger side to `canonical`.
        """
        boxes = np.asarray(boxes, float).reshape(-1, 4)
        larger = np.maximum(boxes[:, 2:].max(axis=1, initial=0), _LEAST_SIDE)
        return np.stack(
            [boxes[:, 0] + boxes[:, 2] / 2, boxes[:, 1] + boxes[:, 3] / 2, np.log2(self.canonical / larger)], axis=1
        )

    def is_negative(self, x: float, y: float, octave: float, positives: np.ndarray) -> bool:
        """Whether the patch centred on (x, y) at scale 2**octave is far enough from every canonical positive.

        Far is at least `negative` patch pixels along an axis, or at least `negative_octaves` of scale (paper: section
        3.4).  Shifts are measured in pixels of the candidate patch.  `positives`: see `canonical_positions`.
        """
        shift = np.abs(positives[:, :2] - (x, y)).max(axis=1, initial=0) * 2.0**octave
        far = (shift >= self.negative) | (np.abs(positives[:, 2] - octave) >= self.negative_octaves)
        return bool(far.all())
