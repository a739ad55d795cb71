"""MCG-style proposals: combinations of a few regions from hierarchies at several scales, ranked by a forest.

After Arbelaez, Pont-Tuset, Barron, Marques and Malik, "Multiscale Combinatorial Grouping" (CVPR 2014).  Ours computes
the globalisation (its spectral step) on superpixels instead of pixels, has its own edges and features after the
publication's list, and learns its ranking from the study's training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepmask.baseline_config import BaselineError, MCGConfig
from deepmask.baselines import superpixels as sp
from deepmask.baselines.mcg_features import features
from deepmask.baselines.mcg_forest import Ranking
from deepmask.baselines.mcg_hierarchies import Hierarchy, combinations, multiscale, unions
from deepmask.baselines.superpixels import Superpixels
from deepmask.masks import RLE, decode
from deepmask.proposals import Proposals


@dataclass(frozen=True, eq=False)
class Pool:
    """All P candidates of an image, before they are ranked."""

    superpixels: Superpixels
    members: np.ndarray  # (P, S) bool, no two the same
    features: np.ndarray  # (P, F) float32
    trees: list[Hierarchy]  # of all scales, and of each


class MCG:
    """The method; `count`: at most so many proposals.  Without a ranking it can make pools, to learn one from."""

    name = "mcg"

    def __init__(self, config: MCGConfig, ranking: Ranking | None = None, count: int = 1000) -> None:
        self.config, self.ranking, self.count = config, ranking, count

    def __call__(self, image: np.ndarray, edges: np.ndarray) -> Proposals:
        """Proposals (image_id 0) of an image (H, W, 3) uint8 RGB with edges (K, H, W) float16."""
        pool = self.pool(image, edges)
        scores = self.ranking.predict(pool.features)
        order = np.argsort(-scores, kind="stable")
        areas = pool.superpixels.areas
        order = order[sp.distinct(pool.members[order], areas, self.config.overlap, self.config.candidates)]
        similar = sp.iou(pool.members[order], pool.members[order], areas).astype(np.float32)
        chosen, values = diverse(scores[order], similar, self.config.diversity, self.count)
        return sp.proposals(pool.superpixels, pool.members[order[chosen]], values, self.count)

    def pool(self, image: np.ndarray, edges: np.ndarray) -> Pool:
        """The candidates of an image: every union that one of the hierarchies offers, once, with its features.

        Raises BaselineError if the edges are not of as many scales as there are weights.
        """
        config = self.config
        if len(edges) != len(config.weights):
            raise BaselineError(
                f"mcg: edges at {len(edges)} scales, but weights for {len(config.weights)}; edges.scales and "
                "baselines.mcg.weights and regions are of one length"
            )
        mean = np.tensordot(np.asarray(config.weights) / sum(config.weights), edges.astype(np.float32), 1)
        superpixels = sp.segment(mean.astype(np.float32), config.superpixels)
        trees = multiscale(
            superpixels,
            edges,
            weights=config.weights,
            regions=config.regions,
            vectors=config.vectors,
            gains=config.gains,
        )
        offered = [combinations(tree, superpixels, config.limits) for tree in trees]
        regions = np.concatenate(offered)
        source = np.repeat(np.arange(len(trees)), [len(part) for part in offered])
        members = unions(trees, source, regions)
        _, first = np.unique(np.packbits(members, axis=1), axis=0, return_index=True)
        kept = np.sort(first)
        members, source, regions = members[kept], source[kept], regions[kept]
        described = features(image, edges, superpixels, trees, members, source, regions)
        return Pool(superpixels, members, described, trees)


def diverse(scores: np.ndarray, similar: np.ndarray, weight: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Maximal marginal relevance: (K,) int64 at most `count` candidates, and (K,) float64 what each was worth then.

    Again and again the candidate with the largest weight x score - (1 - weight) x IoU with the most similar one that is
    chosen already; `similar`: (P, P) IoU.  The worth never rises.
    """
    worth = weight * np.asarray(scores, np.float64)
    nearest = np.zeros(len(scores))
    chosen, values = [], []
    for _ in range(min(count, len(scores))):
        value = worth - (1 - weight) * nearest
        best = int(value.argmax())
        chosen.append(best)
        values.append(value[best])
        nearest = np.maximum(nearest, similar[best])
        worth[best] = -np.inf
    return np.array(chosen, np.int64), np.array(values)


def best_overlaps(pool: Pool, objects: Sequence[RLE]) -> np.ndarray:
    """(P,) float64 IoU of each candidate with the object that fits it best; 0 without objects."""
    labels, count = pool.superpixels.labels.ravel(), pool.superpixels.count
    best = np.zeros(len(pool.members))
    areas = pool.members @ pool.superpixels.areas
    for rle in objects:
        inside = decode(rle).ravel()
        common = pool.members @ np.bincount(labels, inside, count)
        best = np.maximum(best, common / np.maximum(areas + inside.sum() - common, 1))
    return best


def training_rows(pool: Pool, overlaps: np.ndarray, samples: Sequence[int], seed: int) -> np.ndarray:
    """(R,) int64 candidates to learn from: random ones of each band of IoU, so that good ones are not too rare."""
    rng = np.random.default_rng(seed)
    bands = (overlaps >= 0.5, (overlaps < 0.5) & (overlaps >= 0.25), overlaps < 0.25)
    return np.concatenate([rng.permutation(np.flatnonzero(b))[:n] for b, n in zip(bands, samples, strict=True)])
