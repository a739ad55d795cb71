"""Rigor-style proposals: parametric minimum cuts over superpixels, from a grid of seeds.

After Humayun, Li and Rehg, "RIGOR: Reusing Inference in Graph Cuts for Generating Object Regions" (CVPR 2014).  A cut
separates a seed from a background at the least sum of borders, each the cheaper the stronger its edge; a reward of
lambda per pixel makes the foreground grow.  Every connected part of a foreground is a proposal.  The scales of the
rewards and the windows below are ours, and so is the ranking: the original has none but the number of its seeds.

It re-uses flows between seeds; here they are re-used between lambdas only (`cuts`), which is fast enough.  Measured on
four training photographs of 640 x 480 in 1000 superpixels, all of the models below, about 3200 cuts each, on one core
of a busy machine, as mean (and range) over models in ms per cut: .12 (.06 to .19); the same solver without re-use .21
(.09 to .46), OR-Tools' SimpleMaxFlow .55 (.25 to 1.5), scipy's maximum_flow 1.5 (.7 to 3.1), the graphs built included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from deepmask.baseline_config import RigorConfig
from deepmask.baselines import cuts
from deepmask.baselines import superpixels as sp
from deepmask.baselines.superpixels import Superpixels
from deepmask.proposals import Proposals


@dataclass(frozen=True, eq=False)
class Segments:
    """P different connected unions of superpixels, with the first sigma, then tier of seeds, that cut them out."""

    members: np.ndarray  # (P, S) bool superpixels
    sigmas: np.ndarray  # (P,) int64 index of the sigma
    tiers: np.ndarray  # (P,) int64 index of the tier


class Rigor:
    """The method; `count`: at most so many proposals."""

    name = "rigor"

    def __init__(self, config: RigorConfig, count: int = 1000) -> None:
        self.config, self.count = config, count

    def __call__(self, image: np.ndarray, edges: np.ndarray) -> Proposals:
        """Proposals (image_id 0) of an image (H, W, 3) uint8 RGB with edges (S, H, W) float16.

        The score only tells the place in the list: 1, 1/2, 1/3 and so on.
        """
        superpixels = sp.segment(edges.mean(axis=0, dtype=np.float32), self.config.superpixels)
        found = segments(image, superpixels, self.config)
        members = found.members[arrange(found, superpixels, self.config.overlaps)[0]]
        return sp.proposals(superpixels, members, 1 / np.arange(1, len(members) + 1), self.count)


def arrange(found: Segments, superpixels: Superpixels, overlaps: tuple[float, float]) -> tuple[np.ndarray, int]:
    """(K,) int64 indices of the segments in the order of the list, and how many of these come by their budget.

    A larger sigma comes first, then a smaller tier, inside a tier the stronger contrast.  Segments whose IoU with one
    before reaches the first of the `overlaps` follow behind all others, and those that reach the second are dropped.
    """
    low, high = overlaps
    order = np.lexsort((-contrasts(superpixels, found.members), found.tiers, found.sigmas))
    order = order[sp.distinct(found.members[order], superpixels.areas, high)]
    first = sp.distinct(found.members[order], superpixels.areas, low)
    return np.concatenate([order[first], np.delete(order, first)]), len(first)


def segments(image: np.ndarray, superpixels: Superpixels, config: RigorConfig) -> Segments:
    """The connected parts of all cuts whose area is within the limits, by sigma, then tier."""
    graph = cuts.arcs(superpixels.pairs, superpixels.count)
    seeds = grid_seeds(superpixels.labels, config.seeds[-1])
    models = list(unaries(image, superpixels, seeds, config))
    parts = []
    for number, sigma in enumerate(config.sigmas):
        weights = superpixels.lengths * (np.exp(-superpixels.strengths / sigma) + config.floor)
        for biases, lambdas in models:
            found = cuts.foregrounds(graph, weights, seeds, biases, superpixels.areas, lambdas)
            members, origins = cuts.components(graph.starts, graph.heads, found.reshape(-1, superpixels.count))
            areas = members @ superpixels.areas
            kept = (areas >= config.smallest) & (areas <= config.largest * superpixels.areas.sum())
            tiers = np.searchsorted(config.seeds, origins[kept] // len(lambdas), side="right")
            parts.append((members[kept], np.full(len(tiers), number), tiers))
    members, sigmas, tiers = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((tiers, sigmas))
    members, sigmas, tiers = members[order], sigmas[order], tiers[order]
    first = np.sort(np.unique(np.packbits(members, axis=1), axis=0, return_index=True)[1])
    return Segments(members[first], sigmas[first], tiers[first])


def grid_seeds(labels: np.ndarray, count: int) -> np.ndarray:
    """(K,) int64 different superpixels under the `count` points, rounded up to a square grid, of (H, W) `labels`.

    First the point nearest to the centre, then always the one farthest from all before.
    """
    height, width = labels.shape
    side = int(np.ceil(np.sqrt(count)))
    steps = (np.arange(side) + 0.5) / side
    points = np.stack(np.meshgrid((steps * width).astype(int), (steps * height).astype(int)), axis=-1).reshape(-1, 2)
    chosen = [int(np.hypot(*(points - [width / 2, height / 2]).T).argmin())]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.hypot(*(points - points[chosen[-1]]).T))
        nearest[chosen[-1]] = -1
        chosen.append(int(nearest.argmax()))
    seeds = labels[points[chosen, 1], points[chosen, 0]]
    return seeds[np.sort(np.unique(seeds, return_index=True)[1])].astype(np.int64)


def unaries(
    image: np.ndarray, superpixels: Superpixels, seeds: np.ndarray, config: RigorConfig
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per model (K, S) float64 rewards of the superpixels for each seed, -inf for background, and (L,) lambdas.

    Uniform rewards with the border of the image as background; colours, nearer to the seed's than to any at the
    border, without a background; uniform rewards with all outside of a window about the seed as background.
    """
    shape = (len(seeds), superpixels.count)
    own = np.arange(len(seeds)), seeds
    uniform = np.geomspace(*config.lambdas)
    either = np.geomspace(*config.colour_lambdas)
    border = superpixels.border_lengths > 0

    def barred(background: np.ndarray) -> np.ndarray:
        biases = np.where(np.broadcast_to(background, shape), -np.inf, 0.0)
        biases[own] = 0
        return biases

    yield barred(border), uniform

    colours = superpixels.means(cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float64) / 255)
    from_seeds = _distances(colours[seeds], colours)
    from_border = _distances(colours[border], colours).min(axis=0)
    yield (
        config.colour_weight * (from_border - from_seeds) * superpixels.areas,
        np.concatenate([-either[::-1], either]),
    )

    places = superpixels.means(np.moveaxis(np.indices(superpixels.labels.shape), 0, -1))
    reach = config.window * np.sqrt(superpixels.areas.mean())
    yield barred(np.abs(places[seeds][:, None] - places).max(axis=2) > reach), uniform


def contrasts(superpixels: Superpixels, members: np.ndarray) -> np.ndarray:
    """(P,) float64 mean edge strength along the outlines of (P, S) bool unions; 0 along the border of the image."""
    a, b = superpixels.pairs.T
    outline = members[:, a] != members[:, b]
    lengths = outline @ superpixels.lengths + members @ superpixels.border_lengths
    return outline @ (superpixels.lengths * superpixels.strengths) / np.maximum(lengths, 1)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) Euclidean distances between the rows of (A, C) and (B, C)."""
    return np.sqrt(((a[:, None] - b) ** 2).sum(axis=2))
