"""Edge strength by a structured forest, at several scales (paper: section 4, the baselines' common input).

After Dollar and Zitnick, "Fast Edge Detection Using Structured Forests" (TPAMI 2015): OpenCV evaluates the forest
(`cv2.ximgproc`), `deepmask.baselines.forest` trains one in its format, and OpenCV's own "model.yml.gz" works as well.
OpenCV has neither the publication's sharpening nor its mean over scales (section 4.3); the scales are done here.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import cv2
import numpy as np

from deepmask.baseline_config import BaselineError
from deepmask.baselines import forest_file

_GZIP = b"\x1f\x8b"
_LARGEST = 1 << 28  # bytes of a forest, unpacked; OpenCV's model.yml.gz has an eighth
_LEAST_SIDE = 32  # px; the forest looks at patches of this side


class EdgeDetector:
    """A structured forest as an edge detector.

    `path`: forest in OpenCV's format, plain or gzipped YAML; `scales`: factors by which the image is resized before
    detection (published: 1/2, 1 and 2).  Raises BaselineError if the file is missing or no forest.
    """

    def __init__(self, path: str | Path, scales: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
        self.path, self.scales = Path(path), tuple(scales)
        if not self.scales or min(self.scales) <= 0:
            raise BaselineError(f"edge scales {self.scales} are not positive numbers")
        self._forest = _read(self.path)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(S, H, W) float16 edge strength in [0, 1], one map per scale, of an image (H, W, 3) uint8 RGB.

        The edge map that users of a single one take is `edges.mean(axis=0, dtype=np.float32)`.
        """
        height, width = image.shape[:2]
        maps = np.empty((len(self.scales), height, width), np.float16)
        for index, scale in enumerate(self.scales):
            size = max(1, round(width * scale)), max(1, round(height * scale))
            maps[index] = _resized(self._detect(_resized(image, size)), (width, height)).clip(0, 1)
        return maps

    def _detect(self, image: np.ndarray) -> np.ndarray:
        """(h, w) float32 edge strength of an image (h, w, 3) uint8; one smaller than a patch is extended first."""
        height, width = image.shape[:2]
        below, right = max(0, _LEAST_SIDE - height), max(0, _LEAST_SIDE - width)
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
        return self._forest.detectEdges(image.astype(np.float32) / 255)[:height, :width]


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image at `size` (width, height): area averages when it shrinks, linear interpolation when it grows."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _read(path: Path) -> cv2.ximgproc.StructuredEdgeDetection:
    remedy = "train one (`deepmask.baselines.forest`) or use OpenCV's model.yml.gz"
    if not path.is_file():
        raise BaselineError(f"{path}: no such edge forest; {remedy}")
    try:
        with open(path, "rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
        with gzip.open(path) if packed else open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BaselineError(f"{path}: not readable ({error}); {remedy}") from None
    if len(text) > _LARGEST:
        raise BaselineError(f"{path}: more than {_LARGEST:,} bytes, too many for an edge forest; {remedy}")
    try:
        forest_file.check(text)
    except ValueError as error:
        raise BaselineError(f"{path}: not a structured forest in OpenCV's format: {error}; {remedy}") from None
    try:
        return cv2.ximgproc.createStructuredEdgeDetection(str(path))
    except cv2.error as error:
        raise BaselineError(f"{path}: OpenCV finds this forest damaged ({error.err}); {remedy}") from None
