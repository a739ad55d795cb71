"""MCG's hierarchies and the unions that they offer, against brute force over sets of superpixels."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmask.baselines import mcg_hierarchies as trees
from deepmask.baselines import superpixels as sp
from deepmask.baselines.mcg_hierarchies import combinations, hierarchy, multiscale, spectral, unions

few = settings(max_examples=40, deadline=None)
ALL = (10**4,) * 4  # limits that nothing reaches


@st.composite
def regions(draw, most=9):
    """Superpixels of random blocks of at most so many labels with random edge strength, not all of them connected."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.kron(rng.integers(0, draw(st.integers(1, most)), (4, 5)), np.ones((2, 3), int))
    return sp.graph(labels, rng.random(labels.shape, dtype=np.float32))


def merged_by_hand(s, strengths):
    """Superpixels and height of each merger of the two sets with the weakest mean border."""
    sets, mergers = [frozenset([label]) for label in range(s.count)], []
    while len(sets) > 1:
        weakest = None
        for a, b in itertools.combinations(sets, 2):
            between = [i for i, (u, v) in enumerate(s.pairs.tolist()) if (u in a and v in b) or (u in b and v in a)]
            if between:
                mean = np.average(strengths[between], weights=s.lengths[between])
                weakest = min(weakest or (np.inf,), (mean, a, b), key=lambda entry: entry[0])
        height, a, b = weakest
        sets = [part for part in sets if part not in (a, b)] + [a | b]
        mergers.append((a | b, height))
    return mergers


@few
@given(regions())
def test_the_weakest_mean_border_goes_first(s):
    tree, mergers = hierarchy(s, s.strengths), merged_by_hand(s, s.strengths)
    np.testing.assert_array_equal(tree.members[: s.count], np.eye(s.count))
    assert not tree.heights[: s.count].any()
    assert [frozenset(np.flatnonzero(row).tolist()) for row in tree.members[s.count :]] == [m for m, _ in mergers]
    np.testing.assert_allclose(tree.heights[s.count :], [height for _, height in mergers])
    ultrametric = [next(h for m, h in mergers if {a, b} <= m) for a, b in s.pairs.tolist()]
    np.testing.assert_allclose(tree.saliency, ultrametric)


@few
@given(regions())
def test_parents_are_the_next_larger_regions_and_never_lower(s):
    tree, nodes = hierarchy(s, s.strengths), 2 * s.count - 1
    assert len(tree.parents) == len(tree.heights) == len(tree.members) == nodes
    assert tree.members[-1].all() and tree.parents[-1] == nodes - 1
    assert (tree.heights[tree.parents] >= tree.heights).all()
    for node, parent in enumerate(tree.parents[:-1].tolist()):
        larger = [n for n in range(nodes) if n != node and (tree.members[n] >= tree.members[node]).all()]
        assert parent == min(larger, key=lambda n: tree.members[n].sum()) > node


def touch(s, a, b):
    """Whether two sets of superpixels (S,) bool have a common border."""
    first, second = s.pairs.T
    return bool(((a[first] & b[second]) | (a[second] & b[first])).any())


def offered_by_hand(tree, s, size):
    """All connected sets of `size` regions that stand together, by the node whose cut brings them, with one half."""
    nodes, parents = len(tree.parents), tree.parents.tolist()
    beside = [[touch(s, a, b) for b in tree.members] for a in tree.members]
    found = []
    for chosen in itertools.combinations(range(nodes - 1), size):
        cut = min(parents[n] for n in chosen)
        if max(chosen) < cut and sum(parents[n] == cut for n in chosen) == 1:
            reached, waiting = {chosen[0]}, [chosen[0]]
            while waiting:
                node = waiting.pop()
                new = {n for n in chosen if beside[node][n]} - reached
                reached, waiting = reached | new, waiting + sorted(new)
            if len(reached) == size:
                found.append((cut, chosen))
    return sorted(found, key=lambda entry: -entry[0])


def rows_of(offered, size):
    """The rows that have so many regions."""
    return offered[(offered >= 0).sum(axis=1) == size]


@few
@given(regions(7))
def test_all_unions_are_those_of_brute_force(s):
    tree = hierarchy(s, s.strengths)
    offered = combinations(tree, s, ALL)
    assert rows_of(offered, 1)[:, 0].tolist() == list(range(2 * s.count - 2, -1, -1))
    for size in (2, 3, 4):
        rows, expected = rows_of(offered, size)[:, :size].tolist(), offered_by_hand(tree, s, size)
        assert len(rows) == len(expected)
        assert {tuple(sorted(row)) for row in rows} == {chosen for _, chosen in expected}
        cuts = [min(tree.parents[node] for node in row) for row in rows]
        assert cuts == [cut for cut, _ in expected], "what the highest cuts bring comes first"


@few
@given(regions(20), st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_unions_are_distinct_and_limits_take_the_first(s, limits):
    tree = hierarchy(s, s.strengths)
    whole, part = combinations(tree, s, ALL), combinations(tree, s, limits)
    assert part.shape == (len(part), 4) and part.dtype == np.int32
    sizes = (part >= 0).sum(axis=1)
    assert (np.diff(sizes) >= 0).all() and ((part >= 0) == (np.arange(4) < sizes[:, None])).all()
    for size, limit in enumerate(limits, 1):
        np.testing.assert_array_equal(rows_of(part, size), rows_of(whole, size)[:limit])
    assert len({frozenset(row) for row in whole.tolist()}) == len(whole)
    for row in whole.tolist():
        chosen = [node for node in row if node >= 0]
        assert len(chosen) == 1 or max(chosen) < min(tree.parents[chosen]), "they stand together in a cut"
        assert (tree.members[chosen].sum(axis=0) <= 1).all()


def test_unions_by_hand():
    labels = np.array([[0, 1, 2, 3]])
    s = sp.graph(labels, np.zeros(labels.shape))
    one, two = hierarchy(s, np.array([0.1, 0.9, 0.2])), hierarchy(s, np.array([0.9, 0.1, 0.2]))
    assert one.members[4:6].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]] and two.members[4].tolist() == [0, 1, 1, 0]
    source = np.array([0, 1, 1, 0, 1])
    chosen = np.array([[4, 3, -1, -1], [4, 0, -1, -1], [4, -1, -1, -1], [0, 1, 2, 3], [5, -1, -1, -1]])
    expected = [[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1]]
    np.testing.assert_array_equal(unions([one, two], source, chosen), np.array(expected, bool))
    # cuts: {4, 5}, then {4, 2, 3}, then {0, 1, 2, 3}; both halves of a node together are that node
    assert [row[:2] for row in rows_of(combinations(one, s, ALL), 2).tolist()] == [[2, 4], [1, 2]]
    assert [row[:3] for row in rows_of(combinations(one, s, ALL), 3).tolist()] == [[1, 2, 3]]


@few
@given(regions(20), st.integers(1, 5))
def test_spectral_is_that_of_the_dense_matrix(s, count):
    found = spectral(s, s.strengths, count, 0.2)
    vectors = min(count, s.count - 2)
    if vectors < 1:
        np.testing.assert_array_equal(found, np.zeros(len(s.pairs)))
        return
    affinity = np.zeros((s.count, s.count))
    first, second = s.pairs.T
    affinity[first, second] = affinity[second, first] = s.lengths * np.exp(-s.strengths / 0.2)
    degrees = affinity.sum(axis=0)
    root = np.sqrt(degrees)
    values, columns = np.linalg.eigh(np.eye(s.count) - affinity / np.outer(root, root))
    generalised = columns[:, 1 : vectors + 1] / root[:, None]
    generalised /= np.abs(generalised).max(axis=0)
    shares = 1 / np.sqrt(values[1 : vectors + 1] + 1e-3)
    expected = (np.abs(generalised[first] - generalised[second]) * shares / shares.sum()).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert found.min() >= 0 and found.max() <= 2


@few
@given(regions())
def test_no_vectors_give_no_strength(s):
    np.testing.assert_array_equal(spectral(s, s.strengths, 0), np.zeros(len(s.pairs)))


@pytest.fixture(scope="module")
def scene():
    """Edge maps (3, 24, 30) and superpixels."""
    noise = np.random.default_rng(5).random((24, 30, 3), np.float32)
    edges = cv2.GaussianBlur(noise, (5, 5), 0).transpose(2, 0, 1).astype(np.float16)
    return edges, sp.segment(edges.mean(axis=0, dtype=np.float32), 25)


def test_multiscale_without_alignment_and_vectors_is_one_hierarchy_a_map(scene):
    edges, s = scene
    made = multiscale(s, edges, weights=(0, 1, 3), regions=(0, 0, 0), vectors=(0, 0), gains=(2.0, 1.0))
    strengths = [sp.graph(s.labels, edge).strengths for edge in edges]
    for tree, strength in zip(made, [(strengths[1] + 3 * strengths[2]) / 4, *strengths], strict=True):
        expected = hierarchy(s, strength)
        np.testing.assert_array_equal(tree.members, expected.members)
        np.testing.assert_allclose(tree.heights, expected.heights)


def test_borders_inside_a_coarse_region_are_those_within_one_majority(scene):
    edges, s = scene
    small = cv2.resize(edges[0].astype(np.float32), (15, 12), interpolation=cv2.INTER_AREA)
    coarse = np.kron(sp.segment(small, 4).labels, np.ones((2, 2), int))
    home = [np.bincount(coarse[s.labels == label]).argmax() for label in range(s.count)]
    expected = [home[a] != home[b] for a, b in s.pairs.tolist()]
    assert 0 < sum(expected) < len(expected)
    np.testing.assert_array_equal(trees._apart(s, edges[0], 4), expected)
