"""Binary masks as COCO run-length encodings (RLE): coding, areas, boxes and overlaps (paper: section 4, mask IoU).

An RLE is the dict {"size": [height, width], "counts": bytes} that pycocotools uses in memory: the compressed lengths
of alternating background and object runs, column by column.  pycocotools does the arithmetic; this module fixes
axis order and types and refuses what pycocotools would read out of bounds.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

RLE = dict[str, Any]

MOST_PIXELS = 2**31 - 1  # of a mask: pycocotools counts in 32 bits
FAR_OUTSIDE = 10  # a polygon reaching this many image sides beyond the image is an error, not an object
LONGEST = 4_000_000  # px of a segmentation's outlines: pycocotools walks along them in fifths of a pixel
_CHUNK = 1 << 22  # pixels that `encode` turns to column order at a time


class MaskError(ValueError):
    """A segmentation is not a mask of its image; the message says why."""


def encode(masks: np.ndarray) -> list[RLE]:
    """The N RLEs of (N, H, W) bool or uint8 masks, where every non-zero pixel is object."""
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise MaskError(f"masks of shape {masks.shape} are not (N, H, W)")
    n, height, width = masks.shape
    step = max(1, _CHUNK // max(1, height * width))
    rles = []
    for start in range(0, n, step):
        chunk = masks[start : start + step]
        columns = np.ascontiguousarray((chunk if chunk.dtype == bool else chunk != 0).transpose(0, 2, 1)).view(np.uint8)
        rles += coco_mask.encode(columns.transpose(2, 1, 0))
    return rles


def encode_regions(labels: np.ndarray, members: np.ndarray) -> list[RLE]:
    """The P RLEs of unions of regions: (H, W) int `labels` from 0 to S - 1, and (P, S) bool `members`.

    The same as `encode` of members[:, labels], but the label map is cut into runs once for all.
    """
    height, width = labels.shape
    columns = labels.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(columns[1:] != columns[:-1]) + 1])
    regions = columns[starts]
    rles = []
    for member in np.asarray(members, bool):
        inside = member[regions]
        turns = starts[1:][inside[1:] != inside[:-1]]
        rles.append(_from_turns(np.concatenate([[0], turns]) if inside[0] else turns, height, width))
    return rles


def decode(rle: RLE) -> np.ndarray:
    """The (H, W) bool mask of an RLE, in C order."""
    return np.ascontiguousarray(coco_mask.decode(rle), dtype=bool)


def from_segmentation(segmentation: Any, height: int, width: int) -> RLE:
    """The RLE of the "segmentation" of a COCO annotation in an image of `height` x `width` pixels.

    A list of polygons [x1, y1, x2, y2, ...] in pixels is their union; a dict is an RLE whose counts are a list of run
    lengths or a compressed string.  Raises MaskError.
    """
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise MaskError(f"an image of {reprlib.repr(width)} x {reprlib.repr(height)} pixels is not possible")
    if isinstance(segmentation, Mapping):
        return _from_rle(segmentation, height, width)
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, (str, bytes)):
        return _from_polygons(segmentation, height, width)
    raise MaskError(f"a segmentation is a list of polygons or an RLE, not {reprlib.repr(segmentation)}")


def turns(rle: RLE) -> np.ndarray:
    """(K,) int64 where an object starts, ends, starts again and so on, K even; pixels are counted column by column."""
    ends = np.cumsum(_runs(rle["counts"]))
    return ends[: len(ends) // 2 * 2]


def areas(rles: Sequence[RLE]) -> np.ndarray:
    """(N,) float64 pixels of each mask."""
    # pycocotools counts the masks in eight bits
    chunks = [coco_mask.area(list(rles[i : i + 255])) for i in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0), *chunks]).astype(np.float64)


def boxes(rles: Sequence[RLE]) -> np.ndarray:
    """(N, 4) float64 x, y, width, height of the tight box of each mask in pixels; zeros for an empty mask."""
    return np.asarray(coco_mask.toBbox(list(rles)), np.float64).reshape(len(rles), 4)


def iou(a: Sequence[RLE], b: Sequence[RLE], crowd: np.ndarray | None = None) -> np.ndarray:
    """(len(a), len(b)) float64 intersection over union of masks.

    Where `crowd` (len(b),) is true the intersection is divided by the area of the mask of `a`, as COCO does.
    """
    return _iou(list(a), list(b), crowd)


def box_iou(a: np.ndarray, b: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """The same as `iou` for boxes (N, 4) x, y, width, height."""
    return _iou(*(np.ascontiguousarray(boxes, np.float64).reshape(-1, 4) for boxes in (a, b)), crowd)


def cover(counts: list[bytes], pixels: int) -> bool:
    """Whether each of these compressed counts is that many pixels in runs of at least one, the first of at least none.

    All at once, because there are thousands; the code is that of `_runs`.
    """
    digits = np.frombuffer(b"".join(counts), np.uint8) - np.uint8(48)
    sizes = np.array([len(c) for c in counts])
    if not sizes.all() or digits.max() > 63 or (digits[np.cumsum(sizes) - 1] & 32).any():
        return False
    ends = np.flatnonzero((digits & 32) == 0)
    lengths = np.diff(ends, prepend=-1)
    starts, longest = ends - lengths + 1, lengths.max()
    if longest > 7:  # more than 35 bits: no image is that large
        return False
    numbers = np.zeros(len(ends), np.int64)
    for place in range(longest):
        longer = np.flatnonzero(lengths > place)
        numbers[longer] |= (digits[starts[longer] + place] & 31).astype(np.int64) << (5 * place)
    numbers -= ((digits[ends] & 16) > 0) * (np.int64(1) << (5 * lengths))
    lengths = np.diff(np.searchsorted(ends, np.cumsum(sizes) - 1), prepend=-1)  # numbers of each code
    first = np.cumsum(lengths) - lengths
    place = np.arange(len(ends)) - np.repeat(first, lengths)
    for start in (1, 2):  # every other number is the difference to the one before
        chosen = np.flatnonzero((place >= start) & ((place - start) % 2 == 0))
        total = np.cumsum(numbers[chosen])
        before = np.concatenate([[0], total])[np.searchsorted(chosen, first)]  # of the codes before
        numbers[chosen] = total - np.repeat(before, np.maximum(0, lengths - start + 1) // 2)
    return bool((numbers >= (place > 0)).all() and (np.add.reduceat(numbers, first) == pixels).all())


def _from_turns(turns: np.ndarray, height: int, width: int) -> RLE:
    """The RLE whose background and object take turns at these pixels, counted column by column."""
    if not turns.size or turns[-1] < height * width:
        turns = np.append(turns, height * width)
    return coco_mask.frPyObjects({"size": [height, width], "counts": np.diff(turns, prepend=0)}, height, width)


def _iou(a: Any, b: Any, crowd: np.ndarray | None) -> np.ndarray:
    if len(a) == 0 or len(b) == 0:
        return np.zeros((len(a), len(b)))
    crowd = np.zeros(len(b), np.uint8) if crowd is None else np.asarray(crowd).astype(np.uint8)
    return np.asarray(coco_mask.iou(a, b, crowd), np.float64)


def _from_polygons(polygons: Sequence[Any], height: int, width: int) -> RLE:
    if not polygons:
        raise MaskError("the segmentation has no polygon")
    limit = min((FAR_OUTSIDE + 1) * max(height, width), MOST_PIXELS // 10)
    outlines, bound = [], 0.0
    for number, polygon in enumerate(polygons, 1):
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError, OverflowError):  # the last from an integer that no float holds
            points = None
        if points is None or points.ndim != 1:
            raise MaskError(f"polygon {number} is not a flat list of numbers x1, y1, x2, y2, ...")
        if points.size % 2:
            raise MaskError(f"polygon {number} has an odd number of coordinates ({points.size})")
        if points.size < 6:
            raise MaskError(f"polygon {number} has {points.size // 2} points, fewer than three")
        reach = np.abs(points).max()
        if not reach <= limit:  # also false for NaN
            raise MaskError(f"polygon {number} has a coordinate that is not finite or far outside the image")
        bound += points.size * reach
        outlines.append(points)
    if bound > LONGEST and sum(map(_length, outlines)) > LONGEST:
        raise MaskError(f"the outlines of the polygons are more than {LONGEST} px long")
    rles = coco_mask.frPyObjects(outlines, height, width)
    return rles[0] if len(rles) == 1 else coco_mask.merge(rles)


def _length(points: np.ndarray) -> float:
    """Length of a closed outline as pycocotools walks along it, diagonals as long as sides."""
    corners = points.reshape(-1, 2)
    return np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum()


def _from_rle(segmentation: Mapping[str, Any], height: int, width: int) -> RLE:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise MaskError(f"the RLE's size {reprlib.repr(size)} differs from the image's [{height}, {width}]")
    if isinstance(counts, (str, bytes)):
        counts = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
        runs = _runs(counts)
    else:
        runs = _integers(counts)
    if runs is None or runs.min(initial=0) < 0:
        raise MaskError("the RLE's counts are malformed")
    if runs.max(initial=0) > height * width or runs.sum() != height * width:
        raise MaskError(f"the RLE's counts sum to {sum(runs.tolist())}, not to the image's {height} x {width} pixels")
    if not runs[1:].all():  # pycocotools takes runs of no pixel for some at their place
        ends, times = np.unique(np.cumsum(runs)[:-1], return_counts=True)
        return _from_turns(ends[times % 2 == 1], height, width)
    if isinstance(counts, bytes):
        return {"size": [height, width], "counts": counts}
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)


def _integers(counts: Any) -> np.ndarray | None:
    try:
        runs = np.asarray(counts)
    except ValueError:
        return None
    if runs.ndim != 1 or runs.size == 0 or runs.dtype.kind not in "iu":
        return None
    return runs.astype(np.int64)


def _runs(counts: bytes) -> np.ndarray | None:
    """Run lengths of compressed counts, None if they are no code.

    A number is a little-endian series of 5-bit digits, each in a character from 48 on whose bit 5 says that another
    follows; bit 4 of the last is the sign; from the fourth number on it is the difference to the one two before.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if digits.size == 0 or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:  # more than 35 bits: no image is that large
        return None
    places = 5 * (np.arange(digits.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((digits & 31) << places, starts)
    runs -= ((digits[ends] & 16) > 0) * (1 << 5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
