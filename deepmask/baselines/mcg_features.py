"""What MCG's ranking knows about a candidate: size, shape, contours, colour and place in its hierarchy (section 5).

Arbelaez et al., "Multiscale Combinatorial Grouping", CVPR 2014.  Everything is a sum over superpixels or over borders
between them, so that thousands of candidates are described by a few products.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numba
import numpy as np

from deepmask.baselines.mcg_hierarchies import Hierarchy
from deepmask.baselines.superpixels import Superpixels, boxes, graph

_WEAK, _STRONG = 0.1, 0.3  # saliencies of borders that are counted apart
_LITTLE = 1e-6


def features(
    image: np.ndarray,
    edges: np.ndarray,
    superpixels: Superpixels,
    trees: Sequence[Hierarchy],
    members: np.ndarray,
    source: np.ndarray,
    regions: np.ndarray,
) -> np.ndarray:
    """(P, F) float32 of the candidates `members` (P, S) bool: unions of `regions` (P, 4) of trees[source].

    `image`: (H, W, 3) uint8 RGB; `edges`: (K, H, W).
    """
    shape = _shape(superpixels, members)
    borders = _borders(image, edges, superpixels, trees, members)
    places = _places(superpixels, trees, members, source, regions)
    every = shape | borders | places
    return np.stack([np.asarray(values, np.float32) for values in every.values()], axis=1)


def _shape(superpixels: Superpixels, members: np.ndarray) -> dict[str, np.ndarray]:
    """Size, box, moments."""
    height, width = superpixels.labels.shape
    y, x = np.mgrid[:height, :width] + 0.5
    moments = superpixels.means(np.stack([x, y, x * x, y * y, x * y], axis=2)) * superpixels.areas[:, None]
    chosen = members.astype(np.float64)
    area = np.maximum(chosen @ superpixels.areas, 1)
    mx, my, xx, yy, xy = (chosen @ moments / area[:, None]).T
    cxx, cyy, cxy = xx - mx**2 + 1 / 12, yy - my**2 + 1 / 12, xy - mx * my
    determinant = np.maximum(cxx * cyy - cxy**2, 1 / 144)
    half = np.sqrt(np.maximum((cxx + cyy) ** 2 / 4 - determinant, 0))
    left, top, box_width, box_height = boxes(superpixels, members).T
    return {
        "share of the image": np.log(area / (height * width)),
        "area": np.log(area),
        "width": box_width / width,
        "height": box_height / height,
        "aspect": np.log(np.maximum(box_width, 1) / np.maximum(box_height, 1)),
        "extent": area / np.maximum(box_width * box_height, 1),
        "off centre": np.abs(mx / width - 0.5),
        "centre, vertical": my / height,
        "top": top / height,
        "bottom": (top + box_height) / height,
        "nearest side": np.minimum(left, width - left - box_width) / width,
        "elongation": np.sqrt(determinant) / ((cxx + cyy) / 2 + half),
        "ellipse": area / (4 * np.pi * np.sqrt(determinant)),
    }


def _borders(
    image: np.ndarray, edges: np.ndarray, superpixels: Superpixels, trees: Sequence[Hierarchy], members: np.ndarray
) -> dict[str, np.ndarray]:
    """Contours around and inside, colour against what surrounds."""
    lab_image = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32) / 255
    lab, square = superpixels.means(lab_image), superpixels.means(lab_image**2)
    first, second = superpixels.pairs.T
    saliency = trees[0].saliency
    measures = {f"edges {k}": graph(superpixels.labels, scale).strengths for k, scale in enumerate(edges)}
    measures |= {f"saliency {k}": tree.saliency for k, tree in enumerate(trees)}
    measures |= {
        "affinity": np.exp(-saliency / 0.1),
        "affinity, finest": np.exp(-trees[-1].saliency / 0.05),
        "root of saliency": np.sqrt(saliency),
        "above weak": saliency > _WEAK,
        "above strong": saliency > _STRONG,
        "colour": np.linalg.norm(lab[first] - lab[second], axis=1),
    }
    columns = superpixels.lengths[:, None] * np.stack([np.ones(len(first)), *measures.values()], axis=1)
    sides = superpixels.lengths[:, None] * np.stack([lab[first], lab[second]])
    outer, inner, ring, strongest, weakest = _sums(members, first, second, columns, *sides, saliency)

    chosen = members.astype(np.float64)
    area = np.maximum(chosen @ superpixels.areas, 1)
    frame = chosen @ superpixels.border_lengths
    outline, inside = np.maximum(outer[:, 0], 1), np.maximum(inner[:, 0], 1)
    around, within = outer[:, 1:] / outline[:, None], inner[:, 1:] / inside[:, None]
    at = {name: column for column, name in enumerate(measures)}
    mean = chosen @ (lab * superpixels.areas[:, None]) / area[:, None]
    variance = chosen @ (square * superpixels.areas[:, None]) / area[:, None] - mean**2
    edginess = chosen @ (superpixels.means(edges[-1].astype(np.float64))[:, 0] * superpixels.areas)
    contrast = np.linalg.norm(mean - ring / outline[:, None], axis=1)
    spread = np.sqrt(np.maximum(variance, 0).sum(axis=1))
    affine = outer[:, 1 + at["affinity"]]
    cut = outer[:, 1 + at["saliency 0"]]
    finest = at[f"edges {len(edges) - 1}"]
    return {
        **{f"around: {name}": around[:, column] for name, column in at.items()},
        **{f"within: {name}": within[:, column] for name, column in at.items()},
        "on the frame": frame / np.maximum(outer[:, 0] + frame, 1),
        "compactness": np.sqrt(area) / np.maximum(outer[:, 0] + frame, 1),
        "inner length": inner[:, 0] / area,
        "cut": cut / np.sqrt(superpixels.areas.sum()),
        "cut by side": cut / np.sqrt(area),
        "normalised cut": affine / np.maximum(affine + inner[:, 1 + at["affinity"]], _LITTLE),
        "cut by area": affine / area,
        "around by within": around[:, at["saliency 0"]] / (within[:, at["saliency 0"]] + 0.01),
        "around by within, finest": around[:, finest] / (within[:, finest] + 0.01),
        "strongest within": strongest,
        "weakest around": weakest,
        "around less strongest within": around[:, at["saliency 0"]] - strongest,
        "edges within": edginess / area,
        "contrast": contrast,
        "spread of colour": spread,
        "contrast by spread": contrast / (spread + 0.02),
    }


def _places(
    superpixels: Superpixels, trees: Sequence[Hierarchy], members: np.ndarray, source: np.ndarray, regions: np.ndarray
) -> dict[str, np.ndarray]:
    """When the regions of a candidate appear in their hierarchy, when they vanish, and when they join."""
    names = (
        "appears last", "appears first", "vanishes last", "vanishes first", "joins", "balance", "rank",
        "share of joined", "rank of parent", "rank of joined", "appears by vanishes",
    )  # fmt: skip
    values = np.zeros((len(members), len(names)))
    nodes = 2 * superpixels.count
    far = np.iinfo(np.int32).max
    for index, tree in enumerate(trees):
        here = np.flatnonzero(source == index)
        chosen = regions[here]
        real = chosen >= 0
        sizes = (tree.members @ superpixels.areas)[chosen]
        appears, vanishes = tree.heights[chosen], tree.heights[tree.parents[chosen]]
        joined = common(tree.parents, chosen)
        values[here] = np.stack(
            [
                np.where(real, appears, -np.inf).max(axis=1),
                np.where(real, appears, np.inf).min(axis=1),
                np.where(real, vanishes, -np.inf).max(axis=1),
                np.where(real, vanishes, np.inf).min(axis=1),
                tree.heights[joined],
                np.where(real, sizes, np.inf).min(axis=1) / np.where(real, sizes, 0).max(axis=1),
                np.log(nodes - np.where(real, chosen, far).min(axis=1)),
                members[here] @ superpixels.areas / (tree.members[joined] @ superpixels.areas),
                np.log(nodes - np.where(real, tree.parents[chosen], far).min(axis=1)),
                np.log(nodes - joined),
                np.where(real, appears / (vanishes + 1e-3), 0).max(axis=1),
            ],
            axis=1,
        )
    found = dict(zip(names, values.T, strict=True))
    lasting = found["vanishes first"] - found["appears last"]
    return found | {"lasts": lasting, "regions": (regions >= 0).sum(axis=1), "hierarchy": source}


@numba.njit(cache=True)
def _sums(members, first, second, columns, left, right, saliency):
    """Sums of `columns` (E, C) over the borders around and inside each row of `members`, and of the colours beyond."""
    count, width = len(members), columns.shape[1]
    outer, inner, ring = np.zeros((count, width)), np.zeros((count, width)), np.zeros((count, 3))
    strongest, weakest = np.zeros(count), np.ones(count)
    for p in range(count):
        row = members[p]
        for e in range(len(first)):
            a, b = row[first[e]], row[second[e]]
            if a and b:
                for c in range(width):
                    inner[p, c] += columns[e, c]
                strongest[p] = max(strongest[p], saliency[e])
            elif a or b:
                for c in range(width):
                    outer[p, c] += columns[e, c]
                weakest[p] = min(weakest[p], saliency[e])
                for c in range(3):
                    ring[p, c] += right[e, c] if a else left[e, c]
    return outer, inner, ring, strongest, weakest


@numba.njit(cache=True)
def common(parents: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """(P,) int64 the smallest region that holds all those of a row of `regions` (P, 4), where -1 is none."""
    joined = np.empty(len(regions), np.int64)
    for i, row in enumerate(regions):
        a = np.int64(row[0])
        for b in row[1:]:
            b = np.int64(b)
            while b >= 0 and a != b:
                if a < b:
                    a = parents[a]
                else:
                    b = parents[b]
        joined[i] = a
    return joined
