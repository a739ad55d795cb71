"""Geodesic-style proposals: level sets of signed geodesic distances over superpixels.

After Kraehenbuehl and Koltun, "Geodesic Object Proposals" (ECCV 2014), in the variant without learned parts: a
heuristic places the seeds instead of a classifier, and the foreground is a seed's own superpixel instead of a learned
mask.  A path pays for every border it crosses, the more the stronger the border; an object ends where the distance
from a seed, less that from the background, jumps.

The original has no useful ranking; it is run anew for every budget of proposals, with as many seeds and levels as the
budget takes.  Here seeds and levels both come in a fixed order, so one list serves all budgets: what a smaller budget
proposes comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from deepmask.baseline_config import GeodesicConfig
from deepmask.baselines import superpixels as sp
from deepmask.baselines.superpixels import Superpixels
from deepmask.proposals import Proposals

_ROUNDING = 1e-9  # distances that differ by less are the same


@dataclass(frozen=True, eq=False)
class Maps:
    """M signed geodesic distances: low inside, high outside."""

    distances: np.ndarray  # (M, S) float64 from the foreground, less that from the background
    seeds: np.ndarray  # (M,) int64 rank of the seed; 0 if there is none
    inner: np.ndarray  # (M,) bool, there is no seed: foreground is what is far from the background


@dataclass(frozen=True, eq=False)
class Levels:
    """P regions, each what lies below a level of one of the maps."""

    maps: np.ndarray  # (P,) int64
    ranks: np.ndarray  # (P,) int64 place among the levels of the map
    gaps: np.ndarray  # (P,) float64 jump of the distance at the level
    members: np.ndarray  # (P, S) bool superpixels


class Geodesic:
    """The method; `count`: at most so many proposals.  A smaller count gives the beginning of the same list."""

    name = "geodesic"

    def __init__(self, config: GeodesicConfig, count: int = 1000) -> None:
        self.config, self.count = config, count

    def __call__(self, image: np.ndarray, edges: np.ndarray) -> Proposals:
        """Proposals (image_id 0) of an image (H, W, 3) uint8 RGB with edges (S, H, W) float16.

        The score only tells the place in the list: 1, 1/2, 1/3 and so on.
        """
        config = self.config
        superpixels = sp.segment(edges.mean(axis=0, dtype=np.float32), config.superpixels)
        costs = (config.gain * superpixels.strengths) ** config.power + config.step
        apart = distances(superpixels, costs)
        maps = signed_maps(superpixels, apart, seeds(apart, superpixels.areas**config.seed_area, config.tiers[-1][0]))
        total = superpixels.areas.sum()
        found = levels(
            maps.distances,
            superpixels.areas,
            config.tiers[-1][1],
            smallest=np.where(maps.inner, config.smallest_inner * total, 0),
            largest=config.largest * total,
            ratio=config.level_ratio,
        )
        members = found.members[arrange(found, maps.seeds[found.maps], superpixels.areas, config.tiers, self.count)]
        return sp.proposals(superpixels, members, 1 / np.arange(1, len(members) + 1), self.count)


def distances(superpixels: Superpixels, costs: np.ndarray) -> np.ndarray:
    """(S, S) float64 geodesic distances: the least sum of the costs (E,) of the borders on a path."""
    size = (superpixels.count, superpixels.count)
    return dijkstra(coo_array((costs, tuple(superpixels.pairs.T)), size).tocsr(), directed=False)


def seeds(apart: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """(K,) int64 at most `count` superpixels that cover the image: a beginning of the list covers it more coarsely.

    First the geodesic centre, then always the one with the largest product of weight (S,) and distance to the seeds
    so far; `apart`: (S, S) distances.
    """
    chosen = [int(apart.max(axis=1).argmin())]
    nearest = apart[chosen[0]]
    while len(chosen) < min(count, len(apart)):
        chosen.append(int((nearest * weights).argmax()))
        nearest = np.minimum(nearest, apart[chosen[-1]])
    return np.array(chosen)


def signed_maps(superpixels: Superpixels, apart: np.ndarray, centres: np.ndarray) -> Maps:
    """Distance from each seed; the same less the distance from the image's border; and the negative distances from
    each of the 15 sets of its four sides, which have no seed."""
    sides = [superpixels.labels[line] for line in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])]
    to_side = np.stack([apart[np.unique(side)].min(axis=0) for side in sides])
    sets = np.arange(1, 16)[:, None] >> np.arange(4) & 1 == 1
    to_set = np.where(sets[:, :, None], to_side, np.inf).min(axis=1)
    from_seed = apart[centres]
    ranks = np.arange(len(centres))
    return Maps(
        np.concatenate([from_seed, from_seed - to_set[-1], -to_set]),
        np.concatenate([ranks, ranks, np.zeros(len(sets), np.int64)]),
        np.repeat([False, True], [2 * len(centres), len(sets)]),
    )


def levels(
    maps: np.ndarray, areas: np.ndarray, count: int, smallest: np.ndarray, largest: float, ratio: float
) -> Levels:
    """At most `count` critical levels of each of the (M, S) maps, by rank, then map.

    They lie in the widest gaps between consecutive distances that are wider than their neighbours.  A level is passed
    over if the area (pixels) below it is not within `smallest` (M,) and `largest`, or if it is similar to that of a
    level of the same map chosen before: the smaller is at least `ratio` of the larger.
    """
    order = np.argsort(maps, axis=1, kind="stable")
    places = np.argsort(order, axis=1)
    ascending = np.take_along_axis(maps, order, axis=1)
    sizes = np.cumsum(areas[order], axis=1)[:, :-1]
    gaps = np.diff(ascending, axis=1)
    around = np.pad(gaps, ((0, 0), (1, 1)))
    peaks = (gaps > _ROUNDING) & (gaps >= around[:, :-2]) & (gaps > around[:, 2:])
    gaps = np.where(peaks & (sizes >= smallest[:, None]) & (sizes <= largest), gaps, 0)

    chosen = []
    for rank in range(count if gaps.size else 0):
        cut = gaps.argmax(axis=1, keepdims=True)
        width = np.take_along_axis(gaps, cut, axis=1)[:, 0]
        rows = np.flatnonzero(width)
        chosen.append((rows, np.full(len(rows), rank), width[rows], places[rows] <= cut[rows]))
        size = np.take_along_axis(sizes, cut, axis=1)
        gaps[np.minimum(sizes, size) >= ratio * np.maximum(sizes, size)] = 0
    if not chosen:
        return Levels(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, len(areas)), bool))
    return Levels(*(np.concatenate(parts) for parts in zip(*chosen, strict=True)))


def arrange(
    found: Levels, seed_ranks: np.ndarray, areas: np.ndarray, tiers: tuple[tuple[int, int, float], ...], count: int
) -> np.ndarray:
    """(K,) int64 indices of at most `count` levels in the order of the list.

    A level belongs to the first tier with enough seeds and levels for it; inside a tier the wider gap comes first.
    Each tier drops its duplicates of what is already in the list, and takes up what only a stricter tier before it
    called a duplicate.
    """
    tier = np.stack([(seed_ranks >= seeds) | (found.ranks >= levels) for seeds, levels, _ in tiers]).sum(axis=0)
    order = np.lexsort((-found.gaps, tier))
    kept = np.zeros(0, np.int64)
    for number, (_, _, overlap) in enumerate(tiers):
        waiting = order[(tier[order] <= number) & ~np.isin(order, kept)]
        line = np.concatenate([kept, waiting])
        kept = line[sp.distinct(found.members[line], areas, overlap, count)]
        if len(kept) == count:
            break
    return kept
