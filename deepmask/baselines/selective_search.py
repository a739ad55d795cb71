"""Selective search: superpixels merged greedily, the most similar neighbours first, in several diversified ways.

After Uijlings et al., "Selective Search for Object Recognition" (IJCV 2013).  Every colour space and scale gives a
segmentation, every similarity a tree of merges over it; the nodes of all trees are the proposals.  Nothing is learned
and no edge map is used.  The texture filters are this module's own, with the publication's bins.

A region stays a node of its tree until it is written; only what is kept is run-length encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numba
import numpy as np

from deepmask import masks
from deepmask.baseline_config import BaselineError, SelectiveSearchConfig
from deepmask.baselines import superpixels
from deepmask.baselines.superpixels import Superpixels
from deepmask.proposals import Proposals

COLOURS = {  # every channel from 0 to 255
    "rgb": None,
    "hsv": cv2.COLOR_RGB2HSV_FULL,
    "lab": cv2.COLOR_RGB2LAB,
}
TERMS = "CTSF"  # of a similarity: colour, texture, size, fill
_COLOUR_BINS, _TEXTURE_BINS = 25, 10  # per channel; texture: per direction too
_DIRECTIONS = 8
_STEEPEST = 255 / np.sqrt(2 * np.pi)  # a full step's derivative under a Gaussian of sigma 1


@dataclass(frozen=True, eq=False)
class Tree:
    """Merges of S superpixels, two by two, into one: nodes 0 to S - 1 are the superpixels, the last is the image."""

    superpixels: Superpixels
    children: np.ndarray  # (S - 1, 2) int64 nodes that node S + i merges
    corners: np.ndarray  # (2 S - 1, 4) int64 first column, first row, last column + 1, last row + 1 of the nodes

    def members(self) -> np.ndarray:
        """(2 S - 1, S) bool: the superpixels of every node."""
        leaves = self.superpixels.count
        members = np.eye(2 * leaves - 1, leaves, dtype=bool)
        for node, (a, b) in enumerate(self.children.tolist(), leaves):
            members[node] = members[a] | members[b]
        return members


class SelectiveSearch:
    """Selective search as a proposal method; at most `count` proposals per image."""

    name = "selectivesearch"

    def __init__(self, config: SelectiveSearchConfig = SelectiveSearchConfig(), count: int = 1000) -> None:
        for colour in config.colours:
            if colour not in COLOURS:
                raise BaselineError(f"colour space {colour!r} is none of {', '.join(COLOURS)}")
        for similarity in config.similarities:
            if not similarity or set(similarity) - set(TERMS):
                raise BaselineError(f"similarity {similarity!r} is no choice of the letters {TERMS}")
        if not (config.colours and config.scales and config.similarities):
            raise BaselineError("selective search needs at least one colour space, one scale and one similarity")
        self.config, self.count = config, count

    def __call__(self, image: np.ndarray, edges: np.ndarray | None = None) -> Proposals:
        """Proposals with masks of an (H, W, 3) uint8 RGB image; `edges` is not used.

        Ranked as in section 3.3 of the publication: a node's position, from the top of its tree, times a random
        number; of equal boxes only the first is kept.
        """
        trees = list(self.trees(image))
        sizes = [len(tree.corners) for tree in trees]
        positions = np.concatenate([np.arange(size, 0, -1) for size in sizes])
        priorities = positions * np.random.default_rng(self.config.seed).random(len(positions))
        corners = np.concatenate([tree.corners for tree in trees])
        order = np.argsort(priorities, kind="stable")
        order = order[(corners[order, 2:] - corners[order, :2] >= self.config.minimum_side).all(axis=1)]
        _, first = np.unique(corners[order], axis=0, return_index=True)
        kept = order[np.sort(first)][: self.count]
        boxes = np.concatenate([corners[kept, :2], corners[kept, 2:] - corners[kept, :2]], axis=1)
        return Proposals(0, 1 / (1 + priorities[kept]), boxes, _encode(trees, kept))

    def trees(self, image: np.ndarray) -> Iterator[Tree]:
        """The trees of an image, one per colour space, scale and similarity, the last fastest."""
        for colour in self.config.colours:
            channels = np.ascontiguousarray(image) if colour == "rgb" else cv2.cvtColor(image, COLOURS[colour])
            shades, textures = _shades(channels), _textures(channels)
            for scale in self.config.scales:
                regions = segment(channels, scale, self.config.minimum_area, self.config.smoothing)
                features = histograms(regions, shades, _COLOUR_BINS), histograms(regions, textures, _TEXTURE_BINS)
                for similarity in self.config.similarities:
                    yield grow(regions, *features, similarity)


def segment(channels: np.ndarray, scale: float, minimum_area: int, smoothing: float) -> Superpixels:
    """Superpixels of an (H, W, 3) uint8 image after Felzenszwalb and Huttenlocher (IJCV 2004); strengths are zero."""
    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(smoothing, scale, minimum_area)
    labels = segmentation.processImage(channels)
    return superpixels.graph(labels, np.zeros(labels.shape, np.float32))


def histograms(regions: Superpixels, bins: np.ndarray, size: int) -> np.ndarray:
    """(S, C * size) float64 histograms of the superpixels, each of sum 1, of (H, W, C) uint8 bins below `size`."""
    flat = bins.reshape(regions.labels.size, -1)
    return _counts(regions.labels.ravel(), flat, regions.count, size) / (regions.areas[:, None] * flat.shape[1])


def grow(regions: Superpixels, colours: np.ndarray, textures: np.ndarray, similarity: str) -> Tree:
    """The tree of merging the two most similar neighbours until one region is left (section 3.1).

    `colours` and `textures`: histograms of the superpixels; `similarity`: letters of TERMS, whose measures (section
    3.2) are added.
    A tie goes to the pair that comes first in `regions.pairs`, where a new node takes the places of its children.
    """
    terms = np.array([term in similarity for term in TERMS])
    children, corners = _merge(regions.pairs, regions.areas, regions.corners, colours, textures, terms)
    return Tree(regions, children, corners)


def _encode(trees: list[Tree], kept: np.ndarray) -> list[masks.RLE]:
    """The RLEs of nodes, numbered through all trees."""
    starts = np.cumsum([0] + [len(tree.corners) for tree in trees])
    rles: dict[int, masks.RLE] = {}
    for tree, start, end in zip(trees, starts, starts[1:], strict=False):
        nodes = kept[(kept >= start) & (kept < end)]
        encoded = masks.encode_regions(tree.superpixels.labels, tree.members()[nodes - start])
        rles.update(zip(nodes.tolist(), encoded, strict=True))
    return [rles[node] for node in kept.tolist()]


def _shades(channels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 bins of the channels."""
    return (channels.astype(np.uint16) * _COLOUR_BINS >> 8).astype(np.uint8)


def _textures(channels: np.ndarray) -> np.ndarray:
    """(H, W, 3 * 8) uint8 bins of the positive parts of Gaussian derivatives of sigma 1 in eight directions."""
    offsets = np.arange(-4, 5)
    smooth = np.exp(-(offsets**2) / 2)
    smooth /= smooth.sum()
    slope = offsets * smooth
    values = channels.astype(np.float32)
    across = cv2.sepFilter2D(values, -1, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(values, -1, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    bins = np.empty((_DIRECTIONS, *values.shape), np.uint8)
    for k, angle in enumerate(np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)):
        x, y = np.array([np.cos(angle), np.sin(angle)], np.float32) * np.float32(_TEXTURE_BINS / _STEEPEST)
        bins[k] = np.clip(x * across + y * down, 0, _TEXTURE_BINS - 1)
    return np.ascontiguousarray(np.moveaxis(bins, 0, 2)).reshape(*channels.shape[:2], -1)


@numba.njit(cache=True)
def _counts(labels, bins, regions, size):
    counts = np.zeros((regions, bins.shape[1] * size))
    for pixel in range(len(labels)):
        for channel in range(bins.shape[1]):
            counts[labels[pixel], channel * size + bins[pixel, channel]] += 1
    return counts


@numba.njit(cache=True)
def _similarity(i, j, terms, areas, corners, colours, textures):
    """Of nodes i and j: the sum of the chosen terms, each from 0 to 1."""
    pixels, both, total = areas[-1], areas[i] + areas[j], 0.0
    if terms[0]:
        total += np.minimum(colours[i], colours[j]).sum()
    if terms[1]:
        total += np.minimum(textures[i], textures[j]).sum()
    if terms[2]:
        total += 1 - both / pixels
    if terms[3]:
        width = max(corners[i, 2], corners[j, 2]) - min(corners[i, 0], corners[j, 0])
        height = max(corners[i, 3], corners[j, 3]) - min(corners[i, 1], corners[j, 1])
        total += 1 - (width * height - both) / pixels
    return total


@numba.njit(cache=True)
def _merge(pairs, leaf_areas, leaf_corners, leaf_colours, leaf_textures, terms):
    """The children (S - 1, 2) and the corners (2 S - 1, 4) of the tree; see `grow`."""
    leaves, nodes = len(leaf_areas), 2 * len(leaf_areas) - 1
    areas, corners = np.zeros(nodes), np.zeros((nodes, 4), np.int64)
    colours, textures = np.zeros((nodes, leaf_colours.shape[1])), np.zeros((nodes, leaf_textures.shape[1]))
    areas[:leaves], corners[:leaves] = leaf_areas, leaf_corners
    colours[:leaves], textures[:leaves] = leaf_colours, leaf_textures
    areas[-1] = leaf_areas.sum()  # the root is the image
    children = np.zeros((leaves - 1, 2), np.int64)
    ends, values = pairs.astype(np.int64), np.zeros(len(pairs))
    for edge in range(len(ends)):
        values[edge] = _similarity(ends[edge, 0], ends[edge, 1], terms, areas, corners, colours, textures)
    count = len(ends)  # of the edges that are left, at the front of both arrays
    met = np.zeros(nodes, np.int64)  # the last new node that each node was found to touch
    for node in range(leaves, nodes):
        a, b = ends[np.argmax(values[:count])]
        children[node - leaves] = a, b
        areas[node] = areas[a] + areas[b]
        share = areas[a] / areas[node]
        colours[node] = share * colours[a] + (1 - share) * colours[b]
        textures[node] = share * textures[a] + (1 - share) * textures[b]
        corners[node, :2] = np.minimum(corners[a, :2], corners[b, :2])
        corners[node, 2:] = np.maximum(corners[a, 2:], corners[b, 2:])
        left = 0
        for edge in range(count):
            i, j = ends[edge]
            value = values[edge]
            if i == a or i == b or j == a or j == b:
                other = j if i == a or i == b else i
                if other == a or other == b or met[other] == node:
                    continue
                met[other] = node
                i, j, value = other, node, _similarity(other, node, terms, areas, corners, colours, textures)
            ends[left] = i, j
            values[left] = value
            left += 1
        count = left
    return children, corners
