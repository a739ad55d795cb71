"""Superpixels of an edge map, and proposals that are unions of them (shared by Geodesic, Rigor and MCG).

A proposal stays a row of booleans over the superpixels until it is written: areas, overlaps and boxes of unions are
sums, matrix products and extrema over the superpixels, exact to the pixel, and only what is kept is run-length encoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import higra
import numpy as np

from deepmask import masks
from deepmask.proposals import Proposals

_BLOCK = 256  # proposals that `distinct` compares at a time
_EXACT = 1 << 24  # integers below it are exact in float32


@dataclass(frozen=True, eq=False)
class Superpixels:
    """S connected regions that tile an image, and the graph of which ones touch.

    Lengths count pairs of 4-adjacent pixels; the strength of a border is the mean edge strength along it.
    """

    labels: np.ndarray  # (H, W) int32, 0 to S - 1
    areas: np.ndarray  # (S,) float64 pixels
    pairs: np.ndarray  # (E, 2) int32 superpixels that touch, the lower first, in ascending order
    lengths: np.ndarray  # (E,) float64 length of their common border
    strengths: np.ndarray  # (E,) float64 mean edge strength along it
    border_lengths: np.ndarray  # (S,) float64 length on the border of the image
    corners: np.ndarray  # (S, 4) int64 first column, first row, last column + 1, last row + 1

    @property
    def count(self) -> int:
        """S."""
        return len(self.areas)

    def means(self, values: np.ndarray) -> np.ndarray:
        """(S, C) float64 means over each superpixel of (H, W, C) or (H, W) values."""
        flat, columns = self.labels.ravel(), values.reshape(self.labels.size, -1)
        sums = [np.bincount(flat, column, self.count) for column in columns.T]
        return np.stack(sums, axis=1) / self.areas[:, None]


def segment(edges: np.ndarray, count: int) -> Superpixels:
    """At most about `count` superpixels of an (H, W) map of edge strength.

    Watersheds, merged along the weakest mean border (Arbelaez et al., "Contour Detection and Hierarchical Image
    Segmentation", 2011) until so many are left.
    """
    height, width = edges.shape
    if min(height, width) < 2:
        return graph(np.zeros((height, width), np.int32), edges)
    pixels = higra.get_4_adjacency_graph((height, width))
    weights = higra.weight_graph(pixels, edges.astype(np.float64), higra.WeightFunction.mean)
    tree, altitudes = higra.mean_pb_hierarchy(pixels, weights, (height, width))
    return graph(higra.labelisation_horizontal_cut_from_num_regions(tree, altitudes, count), edges)


def graph(labels: np.ndarray, edges: np.ndarray) -> Superpixels:
    """The superpixels of any (H, W) label map of integers; labels are renumbered from 0 without gaps."""
    height, width = labels.shape
    _, labels = np.unique(labels, return_inverse=True)
    labels = labels.reshape(height, width).astype(np.int32)
    areas = np.bincount(labels.ravel()).astype(np.float64)
    count = len(areas)
    edges = edges.astype(np.float64)
    keys, strengths = [], []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        a, b = labels[first], labels[second]
        differ = a != b
        a, b = a[differ].astype(np.int64), b[differ].astype(np.int64)
        keys.append(np.minimum(a, b) * count + np.maximum(a, b))
        strengths.append((edges[first][differ] + edges[second][differ]) / 2)
    unique, inverse, lengths = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, np.concatenate(strengths), len(unique))
    outline = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return Superpixels(
        labels=labels,
        areas=areas,
        pairs=np.stack([unique // count, unique % count], axis=1).astype(np.int32),
        lengths=lengths.astype(np.float64),
        strengths=sums / lengths,
        border_lengths=np.bincount(outline, minlength=count).astype(np.float64),
        corners=_corners(labels, count),
    )


def intersections(a: np.ndarray, b: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(P, Q) pixels that the unions (P, S) and (Q, S) bool have in common."""
    kind = np.float32 if areas.sum() < _EXACT else np.float64
    return (a * areas.astype(kind)) @ b.T.astype(kind)


def iou(a: np.ndarray, b: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(P, Q) float64 intersection over union of the unions (P, S) and (Q, S) bool of superpixels; 0 if both are empty.

    `areas`: (S,) pixels.  The same as the IoU of the masks.
    """
    common = intersections(a, b, areas).astype(np.float64)
    union = (a @ areas)[:, None] + (b @ areas)[None] - common
    return common / np.maximum(union, 1)


def distinct(members: np.ndarray, areas: np.ndarray, threshold: float, limit: int | None = None) -> np.ndarray:
    """(K,) int64 rows of (P, S) bool `members` to keep, ascending.

    Greedy in the given order: a union is dropped if its IoU with one kept before reaches `threshold`, or if it is
    empty.  At most `limit` are kept.
    """
    kept: list[int] = []
    for start in range(0, len(members), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(members)))
        block = block[members[block].any(axis=1)]
        if kept and len(block):
            block = block[(iou(members[block], members[kept], areas) < threshold).all(axis=1)]
        similar = iou(members[block], members[block], areas) >= threshold
        free = np.ones(len(block), bool)
        for i, row in enumerate(block.tolist()):
            if free[i]:
                kept.append(row)
                free &= ~similar[i]
                if len(kept) == limit:
                    return np.array(kept, np.int64)
    return np.array(kept, np.int64)


def boxes(superpixels: Superpixels, members: np.ndarray) -> np.ndarray:
    """(P, 4) float64 x, y, width, height in pixels of the tight boxes of (P, S) bool unions; zeros if empty."""
    low, high = superpixels.corners[:, :2], superpixels.corners[:, 2:]
    far = np.iinfo(np.int64).max
    first = np.stack([np.where(members, side, far).min(axis=1, initial=far) for side in low.T], axis=1)
    last = np.stack([np.where(members, side, 0).max(axis=1, initial=0) for side in high.T], axis=1)
    filled = members.any(axis=1, keepdims=True)
    return np.where(filled, np.concatenate([first, last - first], axis=1), 0).astype(np.float64)


def proposals(superpixels: Superpixels, members: np.ndarray, scores: np.ndarray, limit: int = 1000) -> Proposals:
    """The `limit` best of (P, S) bool unions by descending score (P,), with their boxes and masks; image_id 0."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")[:limit]
    kept = members[order]
    rles = masks.encode_regions(superpixels.labels, kept)
    return Proposals(0, np.asarray(scores)[order], boxes(superpixels, kept), rles)


def _corners(labels: np.ndarray, count: int) -> np.ndarray:
    height, width = labels.shape
    rows, columns = np.divmod(np.arange(height * width), width)
    corners = np.empty((count, 4), np.int64)
    for side, places in enumerate((columns, rows)):
        corners[:, side], corners[:, side + 2] = max(height, width), 0
        np.minimum.at(corners[:, side], labels.ravel(), places)
        np.maximum.at(corners[:, side + 2], labels.ravel(), places + 1)
    return corners
