"""Multiscale hierarchies on common superpixels and unions of a few of their regions (MCG, sections 3 to 5).

Arbelaez et al., "Multiscale Combinatorial Grouping", CVPR 2014.  A hierarchy is a binary tree over the S superpixels:
nodes 0 to S - 1 are the superpixels, node S + i is the i-th merger, the last node is the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import higra
import numba
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import eigsh

from deepmask.baselines.superpixels import Superpixels, graph, segment

MOST = 4  # regions in a union
_SHIFT = 1e-3  # added to the eigenvalues, the smallest of which is 0, so that they can be inverted
_INSIDE = 0.01  # share of its strength that a border inside a region of a coarse scale keeps


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """N = 2 S - 1 regions; a region stands from its own height to that of its parent."""

    parents: np.ndarray  # (N,) int64, above their children; the root is its own parent
    heights: np.ndarray  # (N,) float64 mean strength of the border that the merger removed, at least its children's
    saliency: np.ndarray  # (E,) float64 height at which the two sides of each border of the superpixels join
    members: np.ndarray  # (N, S) bool superpixels of each region


def hierarchy(superpixels: Superpixels, strengths: np.ndarray) -> Hierarchy:
    """Merge the two neighbours with the weakest mean border, again and again; (E,) `strengths` of the borders."""
    count = superpixels.count
    if count == 1:
        return Hierarchy(np.zeros(1, np.int64), np.zeros(1), np.zeros(0), np.ones((1, 1), bool))
    borders = higra.UndirectedGraph(count)
    borders.add_edges(*superpixels.pairs.T.astype(np.int64))
    tree, heights = higra.binary_partition_tree_average_linkage(borders, strengths, superpixels.lengths)
    parents, heights = np.array(tree.parents(), np.int64), np.array(heights, np.float64)
    members = np.zeros((len(parents), count), bool)
    members[:count] = np.eye(count, dtype=bool)
    _spread_up(members, parents)
    for child, parent in enumerate(parents[:-1].tolist()):
        heights[parent] = max(heights[parent], heights[child])
    return Hierarchy(parents, heights, np.array(higra.saliency(tree, heights, borders)), members)


def multiscale(
    superpixels: Superpixels,
    edges: np.ndarray,
    *,
    weights: Sequence[float],
    regions: Sequence[int],
    vectors: Sequence[int],
    gains: Sequence[float],
) -> list[Hierarchy]:
    """The hierarchy of all scales, then one for each of the K scales of (K, H, W) `edges`, on the same superpixels.

    `weights`: K shares of the scales in the first one.  `regions`: K numbers of regions into which a scale cuts the
    image itself, at half size, to which the superpixels are aligned (section 3.3); 0 to keep the superpixels.
    `vectors`, `gains`: of `spectral` for the first one and for the others.
    """
    strengths = [graph(superpixels.labels, scale).strengths for scale in edges]
    first = np.tensordot(np.asarray(weights) / sum(weights), strengths, 1)
    trees = [hierarchy(superpixels, first + gains[0] * spectral(superpixels, first, vectors[0]))]
    for scale, strength, count in zip(edges, strengths, regions, strict=True):
        keep = np.where(_apart(superpixels, scale, count), 1, _INSIDE) if count else 1
        strength = strength * keep
        strength = strength + keep * gains[1] * spectral(superpixels, strength, vectors[1])
        trees.append(hierarchy(superpixels, strength))
    return trees


def spectral(superpixels: Superpixels, strengths: np.ndarray, count: int, sharpness: float = 0.1) -> np.ndarray:
    """(E,) float64 strength that `count` eigenvectors of the normalised cut give each border (section 3.1).

    The affinity of two neighbours is the length of their border times exp(-strength / sharpness).  A vector spans at
    most 2 and counts with the inverse root of its eigenvalue; 0 vectors give zeros.
    """
    nodes, (first, second) = superpixels.count, superpixels.pairs.T
    count = min(count, nodes - 2)
    if count < 1:
        return np.zeros(len(strengths))
    affinity = superpixels.lengths * np.exp(-strengths / sharpness) + 1e-6
    half = sparse.coo_array((affinity, (first, second)), (nodes, nodes))
    laplacian, root = csgraph.laplacian((half + half.T).tocsc(), normed=True, return_diag=True)
    shifted = (laplacian + _SHIFT * sparse.eye_array(nodes)).tocsc()
    start = np.random.default_rng(0).normal(size=nodes)
    values, vectors = eigsh(shifted, count + 1, sigma=0, v0=start)
    vectors = vectors[:, 1:] / root[:, None]
    vectors /= np.maximum(np.abs(vectors).max(axis=0), 1e-12)
    shares = 1 / np.sqrt(np.maximum(values[1:], _SHIFT))
    return np.abs(vectors[first] - vectors[second]) @ (shares / shares.sum())


def combinations(tree: Hierarchy, superpixels: Superpixels, limits: Sequence[int]) -> np.ndarray:
    """(P, 4) int32 regions of each union, -1 where it has fewer: single regions, then pairs, triplets, quadruples.

    The regions of a union touch and stand at the same time in some cut of the tree; the unions are those that the
    highest cuts bring (section 4), at most limits[k - 1] of k regions.
    """
    nodes, count = len(tree.parents), superpixels.count
    singles = np.full((min(limits[0], nodes), MOST), -1, np.int32)
    singles[:, 0] = np.arange(nodes - 1, -1, -1)[: len(singles)]
    if nodes == 1:
        return singles
    near = np.zeros((nodes, count), bool)  # region beside superpixel
    near[tuple(superpixels.pairs.T)] = near[tuple(superpixels.pairs.T[::-1])] = True
    touching = np.zeros((nodes, nodes), bool)
    _spread_up(near, tree.parents)
    touching[:count] = near.T
    _spread_up(touching, tree.parents)
    children = np.argsort(tree.parents[:-1], kind="stable").reshape(-1, 2)
    return np.concatenate([singles, *_neighbours(children, touching, np.array(limits[1:], np.int64))])


@numba.njit(cache=True)
def _neighbours(children: np.ndarray, touching: np.ndarray, limits: np.ndarray) -> tuple:
    """Pairs, triplets and quadruples of regions that stand together, from the root down.

    When a region is cut in two, the new unions are the connected ones with exactly one half.  A set grows by one of its
    candidates at a time, and those passed over are left out for good, so that each set is found once (Wernicke,
    "Efficient detection of network motifs", 2006).
    """
    nodes = len(touching)
    count = nodes - len(children)
    pairs = np.full((limits[0], 4), -1, np.int32)
    triplets = np.full((limits[1], 4), -1, np.int32)
    quadruples = np.full((limits[2], 4), -1, np.int32)
    p = t = q = 0
    standing = np.zeros(nodes, np.bool_)
    first, second, third = np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    for node in range(nodes - 1, count - 1, -1):
        if p == limits[0] and t == limits[1] and q == limits[2]:
            break
        standing[node] = False
        others = np.flatnonzero(standing)
        for x in children[node - count]:
            beside = others[touching[x][others]]
            n = len(beside)
            first[:n] = beside
            for i in range(n):
                u = first[i]
                if p < limits[0]:
                    pairs[p, 0], pairs[p, 1] = x, u
                    p += 1
                if t == limits[1] and q == limits[2]:
                    continue
                m = n - i - 1
                second[:m] = first[i + 1 : n]
                for o in others:
                    if touching[u, o] and o != u and not touching[x, o]:
                        second[m] = o
                        m += 1
                for j in range(m):
                    v = second[j]
                    if t < limits[1]:
                        triplets[t, 0], triplets[t, 1], triplets[t, 2] = x, u, v
                        t += 1
                    if q == limits[2]:
                        continue
                    k = m - j - 1
                    third[:k] = second[j + 1 : m]
                    for o in others:
                        if touching[v, o] and o != u and o != v and not touching[x, o] and not touching[u, o]:
                            third[k] = o
                            k += 1
                    for w in third[: min(k, limits[2] - q)]:
                        quadruples[q, 0], quadruples[q, 1], quadruples[q, 2], quadruples[q, 3] = x, u, v, w
                        q += 1
        standing[children[node - count]] = True
    return pairs[:p], triplets[:t], quadruples[:q]


def unions(trees: Sequence[Hierarchy], source: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """(P, S) bool superpixels of the unions (P, 4) of `regions` of trees[source]."""
    members = np.zeros((len(regions), trees[0].members.shape[1]), bool)
    for index, tree in enumerate(trees):
        padded = np.concatenate([tree.members, np.zeros((1, members.shape[1]), bool)])  # region -1 is empty
        here = source == index
        for column in regions[here].T:
            members[here] |= padded[column]
    return members


def _spread_up(rows: np.ndarray, parents: np.ndarray) -> None:
    """Each region's row of a bool matrix also holds what its parts' rows hold."""
    for child, parent in enumerate(parents[:-1].tolist()):
        rows[parent] |= rows[child]


def _apart(superpixels: Superpixels, edges: np.ndarray, count: int) -> np.ndarray:
    """(E,) bool whether the two sides of a border lie mostly in different ones of `count` regions of an edge map."""
    height, width = edges.shape
    size = (max(2, width // 2), max(2, height // 2))
    coarse = segment(cv2.resize(edges.astype(np.float32), size, interpolation=cv2.INTER_AREA), count).labels
    labels = coarse[np.arange(height)[:, None] * size[1] // height, np.arange(width) * size[0] // width]
    columns = int(coarse.max()) + 1
    keys = superpixels.labels.ravel().astype(np.int64) * columns + labels.ravel()
    home = np.bincount(keys, minlength=superpixels.count * columns).reshape(-1, columns).argmax(axis=1)
    first, second = superpixels.pairs.T
    return home[first] != home[second]
