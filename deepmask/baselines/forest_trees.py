"""Growing one tree of a structured forest: compiled loops over patches and features.

See `deepmask.baselines.forest`.  Every function releases the interpreter's lock, so trees grow side by side in
threads; sums are in a fixed order, so a seed gives one tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

_DIRECTION_SAMPLES = 512  # patches of a node that suffice for its principal direction
_ITERATIONS = 12  # of the power method; two classes need no exact direction


@dataclass(frozen=True, eq=False)
class Tree:
    """M nodes; node 0 is the root, a right child comes directly after the left one."""

    left: np.ndarray  # (M,) int32 index of the left child plus 1, 0 for a leaf
    feature: np.ndarray  # (M,) int
    threshold: np.ndarray  # (M,) float64; smaller features go left
    patch: np.ndarray  # (M, P) uint8 segmentation that stands for the node's


def grow(values: np.ndarray, patches: np.ndarray, tries: int, pairs: int, leaf: int, depth: int, seed: int) -> Tree:
    """A tree over N patches with F features each.

    `values`: (F, N) int16 features; `patches`: (N, P) uint8 segmentations, of which only equality within a patch
    counts; `tries`: features looked at per node; `pairs`: of pixels that stand for a segmentation in a node;
    `leaf`: patches in a leaf at least.
    """
    nodes, left, feature, threshold, example = _grow(values, patches, tries, pairs, leaf, depth, seed)
    return Tree(left[:nodes], feature[:nodes], threshold[:nodes], patches[example[:nodes]])


@numba.njit(cache=True, nogil=True)
def gather(channels, starts, strides, features):
    """(F, N) int16 features of patches.

    `channels`: int16, flat; `starts`, `strides`: (N,) int64 first cell of each patch and step to its next row there;
    `features`: (F, 4) int64 row and offset in it, and of the cell that is subtracted, or -1.
    """
    values = np.empty((len(features), len(starts)), np.int16)
    for i in range(len(starts)):
        for f in range(len(features)):
            value = channels[starts[i] + features[f, 0] * strides[i] + features[f, 1]]
            if features[f, 2] >= 0:
                value -= channels[starts[i] + features[f, 2] * strides[i] + features[f, 3]]
            values[f, i] = value
    return values


@numba.njit(cache=True, nogil=True)
def relabelled(patches):
    """(N, P) uint8 for (N, h, w) integer labels: each replaced by its place in the order of first occurrence."""
    n, height, width = patches.shape
    out = np.empty((n, height * width), np.uint8)
    seen = np.empty(height * width, patches.dtype)
    for i in range(n):
        count = 0
        for y in range(height):
            for x in range(width):
                k = 0
                while k < count and seen[k] != patches[i, y, x]:
                    k += 1
                if k == count:
                    seen[k] = patches[i, y, x]
                    count += 1
                out[i, y * width + x] = k
    return out


@numba.njit(cache=True, nogil=True)
def _grow(values, patches, tries, pairs, leaf, depth, seed):
    """Number of nodes, and arrays over nodes: left child plus 1, feature, threshold, index of the medoid."""
    np.random.seed(seed)  # of this thread
    n = len(patches)
    capacity = 2 * (n // leaf) + 1
    left = np.zeros(capacity, np.int32)
    feature = np.zeros(capacity, np.int32)
    threshold = np.zeros(capacity, np.float64)
    example = np.zeros(capacity, np.int64)
    first = np.zeros(capacity, np.int64)
    last = np.zeros(capacity, np.int64)
    level = np.zeros(capacity, np.int64)
    last[0] = n
    order = np.arange(n)
    spare = np.empty(n, np.int64)
    choice = np.arange(len(values))
    nodes = 1
    node = 0
    while node < nodes:
        members = order[first[node] : last[node]]
        codes = _codes(patches, members, pairs)
        example[node] = members[_medoid(codes)]
        if len(members) >= 2 * leaf and level[node] < depth:
            best, cut = _split(values, choice, tries, members, _classes(codes), leaf)
            if best >= 0:
                a, b = 0, 0
                for i in members:  # left to the front, right to the back, each in order
                    if values[best, i] < cut:
                        members[a] = i
                        a += 1
                    else:
                        spare[b] = i
                        b += 1
                members[a:] = spare[:b]
                left[node], feature[node], threshold[node] = nodes + 1, best, cut
                first[nodes], last[nodes] = first[node], first[node] + a
                first[nodes + 1], last[nodes + 1] = first[node] + a, last[node]
                level[nodes] = level[nodes + 1] = level[node] + 1
                nodes += 2
        node += 1
    return nodes, left, feature, threshold, example


@numba.njit(cache=True, nogil=True)
def _codes(patches, members, pairs):
    """(pairs, m) float32: 1 where two random pixels of a segmentation are in one segment, less the mean over m."""
    codes = np.empty((pairs, len(members)), np.float32)
    for p in range(pairs):
        a = np.random.randint(patches.shape[1])
        b = (a + 1 + np.random.randint(patches.shape[1] - 1)) % patches.shape[1]
        same = 0
        for k in range(len(members)):
            equal = patches[members[k], a] == patches[members[k], b]
            codes[p, k] = equal
            same += equal
        codes[p] -= np.float32(same / len(members))
    return codes


@numba.njit(cache=True, nogil=True)
def _medoid(codes):
    """The column nearest to the mean code, which is zero."""
    distance = np.zeros(codes.shape[1], np.float32)
    for p in range(codes.shape[0]):
        distance += codes[p] * codes[p]
    return np.argmin(distance)


@numba.njit(cache=True, nogil=True)
def _classes(codes):
    """(m,) bool: on which side of the mean each column lies along the first principal direction."""
    pairs, m = codes.shape
    some = codes[:, :: max(1, m // _DIRECTION_SAMPLES)].copy()
    direction = np.empty(pairs, np.float32)
    for p in range(pairs):
        direction[p] = np.random.random() - 0.5
    for _ in range(_ITERATIONS):
        along = np.zeros(some.shape[1], np.float32)
        for p in range(pairs):
            along += direction[p] * some[p]
        for p in range(pairs):
            direction[p] = np.sum(some[p] * along)
        norm = np.sqrt(np.sum(direction * direction))
        if norm == 0:
            break
        direction /= norm
    along = np.zeros(m, np.float32)
    for p in range(pairs):
        along += direction[p] * codes[p]
    return along > 0


@numba.njit(cache=True, nogil=True)
def _split(values, choice, tries, members, classes, leaf):
    """The feature and threshold of least Gini impurity among `tries` random features; -1, 0 if none separates."""
    m = len(members)
    ones = np.sum(classes)
    best, cut = -1, 0.0
    purity = (ones * ones + (m - ones) * (m - ones)) / m + 1e-9
    keys = np.empty(m, np.int32)  # value and class in one number, to be sorted together
    for t in range(tries):
        other = t + np.random.randint(len(choice) - t)
        choice[t], choice[other] = choice[other], choice[t]
        for k in range(m):
            keys[k] = 2 * np.int32(values[choice[t], members[k]]) + classes[k]
        keys.sort()
        below = 0
        for k in range(m - leaf):
            below += keys[k] & 1
            if k + 1 >= leaf and keys[k] >> 1 != keys[k + 1] >> 1:
                a, b = k + 1, m - k - 1
                above = ones - below
                here = (below * below + (a - below) * (a - below)) / a + (above * above + (b - above) * (b - above)) / b
                if here > purity:
                    purity, best = here, choice[t]
                    cut = ((keys[k] >> 1) + (keys[k + 1] >> 1)) / 2
    return best, cut
