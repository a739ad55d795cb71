"""Unions of superpixels against their pixels: the areas, boxes, overlaps and codes must be those of the masks."""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from deepmask import masks
from deepmask.baselines import superpixels as sp

few = settings(max_examples=60, deadline=None)
label_maps = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 5))


@st.composite
def unions(draw, most=8):
    """A label map without gaps and at most so many unions of its regions, among them empty, full and equal ones."""
    drawn = draw(label_maps)
    labels = np.unique(drawn, return_inverse=True)[1].reshape(drawn.shape)
    members = draw(arrays(bool, (draw(st.integers(0, most)), int(labels.max()) + 1)))
    return labels, members


def superpixels_of(labels):
    return sp.graph(labels, np.zeros(labels.shape, np.float32))


@few
@given(label_maps, st.integers(0, 2**32 - 1))
def test_graph_is_that_of_the_pixels(labels, seed):
    """Every number of the graph, counted pixel by pixel."""
    edges = np.random.default_rng(seed).random(labels.shape, dtype=np.float32)
    s = sp.graph(labels * 3 - 4, edges)  # with gaps and negative numbers
    assert s.labels.dtype == np.int32 and s.pairs.dtype == np.int32
    values = sorted(set(labels.ravel().tolist()))
    assert s.count == len(values)
    np.testing.assert_array_equal(np.array(values)[s.labels], labels)

    borders, outline = defaultdict(list), np.zeros(s.count)
    height, width = labels.shape
    for y, x in np.ndindex(height, width):
        here = int(s.labels[y, x])
        for other in [(y, x + 1), (y + 1, x)]:
            if other[0] < height and other[1] < width and s.labels[other] != here:
                pair = tuple(sorted([here, int(s.labels[other])]))
                borders[pair].append((float(edges[y, x]) + float(edges[other])) / 2)
        outline[here] += (y == 0) + (y == height - 1) + (x == 0) + (x == width - 1)
    assert [tuple(pair) for pair in s.pairs.tolist()] == sorted(borders)
    np.testing.assert_array_equal(s.lengths, [len(borders[pair]) for pair in sorted(borders)])
    np.testing.assert_allclose(s.strengths, [np.mean(borders[pair]) for pair in sorted(borders)])
    np.testing.assert_array_equal(s.border_lengths, outline)
    for label in range(s.count):
        rows, columns = np.nonzero(s.labels == label)
        assert s.areas[label] == len(rows)
        assert s.corners[label].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@few
@given(label_maps, st.integers(1, 3))
def test_means_are_those_of_the_pixels(labels, channels):
    values = np.random.default_rng(channels).random((*labels.shape, channels))
    s = superpixels_of(labels)
    expected = [values[s.labels == label].mean(axis=0) for label in range(s.count)]
    np.testing.assert_allclose(s.means(values), expected)
    np.testing.assert_allclose(s.means(values[..., 0]), np.array(expected)[:, :1])


@few
@given(unions())
def test_iou_and_boxes_are_those_of_the_masks(case):
    labels, members = case
    s = superpixels_of(labels)
    rles = masks.encode(members[:, labels])
    np.testing.assert_allclose(sp.iou(members, members, s.areas), masks.iou(rles, rles), rtol=1e-12)
    np.testing.assert_array_equal(np.diag(sp.intersections(members, members, s.areas)), masks.areas(rles))
    np.testing.assert_array_equal(sp.boxes(s, members), masks.boxes(rles))


def test_large_areas_stay_exact():
    """Above 2**24 pixels float32 no longer counts every one of them."""
    areas = np.array([2.0**24, 1.0, 2.0**24 + 1])
    members = np.array([[True, True, False], [True, True, True]])
    assert sp.iou(members, members, areas)[0, 1] == (2.0**24 + 1) / (2.0**25 + 2)


@few
@given(unions())
def test_codes_of_unions_are_those_of_their_masks(case):
    labels, members = case
    assert masks.encode_regions(labels, members) == masks.encode(members[:, labels])


@few
@given(
    unions(20),
    st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 0.9, 1.0]),
    st.none() | st.integers(1, 6),
    st.integers(1, 5),
)
def test_distinct_is_greedy(case, threshold, limit, block):
    """Against the plain loop over masks, whatever the size of the blocks that are compared at a time."""
    labels, members = case
    stack, kept = members[:, labels], []
    for i, mask in enumerate(stack):
        overlaps = [(mask & stack[j]).sum() / (mask | stack[j]).sum() for j in kept]
        if mask.any() and all(overlap < threshold for overlap in overlaps) and (limit is None or len(kept) < limit):
            kept.append(i)
    areas = superpixels_of(labels).areas
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp, "_BLOCK", block)
        found = sp.distinct(members, areas, threshold, limit)
    assert found.tolist() == kept and found.dtype == np.int64
    assert sp.distinct(members, areas, threshold, limit).tolist() == kept


@few
@given(unions(40), st.integers(0, 40))
def test_proposals_are_the_best_unions_with_their_masks(case, limit):
    labels, members = case
    scores = np.random.default_rng(limit).integers(0, 4, len(members))  # with ties
    made = sp.proposals(superpixels_of(labels), members, scores, limit)
    order = sorted(range(len(members)), key=lambda i: -scores[i])[:limit]
    assert made.masks == masks.encode(members[order][:, labels]) and made.image_id == 0
    np.testing.assert_array_equal(made.scores, scores[order])
    np.testing.assert_array_equal(made.boxes, masks.boxes(made.masks))


@pytest.fixture(scope="module")
def edges():
    """A disc and a square with a weak line across it on a noisy ground, (60, 80) float32."""
    rows, columns = np.mgrid[:60, :80]
    noise = np.random.default_rng(0).random((60, 80)) * 0.05
    disc = np.abs(np.hypot(rows - 30, columns - 20) - 12) < 1
    square = np.maximum(np.abs(rows - 30), np.abs(columns - 58)) == 14
    line = (columns == 58) & (np.abs(rows - 30) < 14)
    return (noise + disc * 0.8 + square * 0.9 + line * 0.3).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 40])
def test_segments_are_connected_and_as_many_as_asked(edges, count):
    s = sp.segment(edges, count)
    assert 0.5 * count <= s.count <= count
    for label in range(s.count):
        assert ndimage.label(s.labels == label)[1] == 1, "4-connected"


def test_coarser_segments_are_unions_of_finer_ones(edges):
    fine, coarse = sp.segment(edges, 40), sp.segment(edges, 6)
    assert len(np.unique(fine.labels.astype(np.int64) * coarse.count + coarse.labels)) == fine.count


def test_strong_borders_are_left_when_weak_ones_are_merged(edges):
    s = sp.segment(edges, 3)
    assert s.count == 3
    ground, disc, square = s.labels[3, 3], s.labels[30, 20], s.labels[30, 50]
    assert len({ground, disc, square}) == 3
    assert s.labels[30, 66] == square, "the line across the square is weaker"


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (2, 7), (20, 20)])
@pytest.mark.parametrize("noisy", [False, True])
def test_tiny_and_flat_maps_are_tiled(shape, noisy):
    edges = np.random.default_rng(1).random(shape, dtype=np.float32) * noisy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for count in (1, 5, 1000):
            s = sp.segment(edges, count)
            assert s.labels.shape == shape and s.areas.sum() == edges.size and s.count <= count
            assert np.array_equal(np.bincount(s.labels.ravel()), s.areas) and np.isfinite(s.strengths).all()
            made = sp.proposals(s, np.eye(s.count, dtype=bool), np.zeros(s.count))
            assert masks.areas(made.masks).sum() == edges.size
            assert sp.proposals(s, np.zeros((0, s.count), bool), np.zeros(0)).masks == []


def test_segments_are_the_same_every_time(edges):
    first, second = sp.segment(edges, 20), sp.segment(edges.copy(), 20)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.strengths, second.strengths)
