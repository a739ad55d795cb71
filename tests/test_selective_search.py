"""Selective search: the trees are greedy merging done by hand, and proposals are what their nodes cover."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deepmask import masks
from deepmask.baselines import superpixels
from deepmask.baselines.edges import BaselineError
from deepmask.baselines.selective_search import SelectiveSearch, SelectiveSearchConfig, grow, histograms, segment

SMALL = SelectiveSearchConfig(scales=(20.0, 60.0), minimum_area=4, minimum_side=3)


@pytest.fixture(scope="module")
def image():
    """Discs on a striped ground, with noise."""
    rng = np.random.default_rng(0)
    picture = np.full((60, 80, 3), (90, 120, 60), np.uint8)
    picture[:, ::6] += 25
    for x, y, radius in zip(rng.integers(5, 75, 9), rng.integers(5, 55, 9), rng.integers(3, 14, 9), strict=True):
        cv2.circle(picture, (int(x), int(y)), int(radius), rng.integers(0, 256, 3).tolist(), -1)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def proposals(image):
    return SelectiveSearch(SMALL)(image)


def mosaic(seed, side=9, count=12):
    """A label map of cells around random points, and bins of two histograms for every pixel."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((side, side + 3))
    points = rng.random((count, 2)) * (side, side + 3)
    labels = np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in points], axis=0)
    regions = superpixels.graph(labels, np.zeros(labels.shape, np.float32))
    return regions, rng.integers(0, 5, (*labels.shape, 3), np.uint8), rng.integers(0, 4, (*labels.shape, 2), np.uint8)


def histogram(bins, size):
    """Of the (N, C) bins of N pixels: C histograms in a row, of sum 1 in all."""
    return np.concatenate([np.bincount(channel, minlength=size) for channel in bins.T]) / bins.size


def similarity_by_hand(a, b, colours, textures, letters):
    """Of two (H, W) bool masks, from their pixels."""
    both = a | b
    rows, columns = np.nonzero(both)
    filled = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    terms = {
        "C": np.minimum(histogram(colours[a], 5), histogram(colours[b], 5)).sum(),
        "T": np.minimum(histogram(textures[a], 4), histogram(textures[b], 4)).sum(),
        "S": 1 - both.mean(),
        "F": 1 - (filled - both.sum()) / both.size,
    }
    return sum(terms[letter] for letter in letters)


def touch(a, b):
    return (ndimage.binary_dilation(a) & b).any()  # 4-neighbours


@given(seed=st.integers(0, 10_000), letters=st.sampled_from(["C", "T", "S", "F", "CTSF", "TSF", "CF"]))
@settings(max_examples=25, deadline=None)
def test_trees_are_greedy_merging_of_masks(seed, letters):
    """Every similarity recomputed from pixels before every merge; the tree must take one of the most similar pairs."""
    regions, colours, textures = mosaic(seed)
    tree = grow(regions, histograms(regions, colours, 5), histograms(regions, textures, 4), letters)
    nodes = {leaf: regions.labels == leaf for leaf in range(regions.count)}
    for node, (a, b) in enumerate(tree.children.tolist(), regions.count):
        values = {
            (i, j): similarity_by_hand(nodes[i], nodes[j], colours, textures, letters)
            for i in nodes
            for j in nodes
            if i < j and touch(nodes[i], nodes[j])
        }
        assert values[min(a, b), max(a, b)] >= max(values.values()) - 1e-9
        nodes[node] = nodes.pop(a) | nodes.pop(b)
    assert [mask.all() for mask in nodes.values()] == [True]


def test_histograms_are_those_of_the_pixels():
    regions, colours, _ = mosaic(3)
    expected = [histogram(colours[regions.labels == leaf], 5) for leaf in range(regions.count)]
    assert np.allclose(histograms(regions, colours, 5), expected)


def test_nodes_are_connected_unions_with_tight_corners(image):
    trees = list(SelectiveSearch(SMALL).trees(image))
    assert len(trees) == 2 * 2 * 2
    for tree in trees:
        leaves = tree.superpixels.count
        members = tree.members()
        assert leaves > 3 and members[-1].all() and (members[:leaves] == np.eye(leaves)).all()
        for node, (a, b) in enumerate(tree.children, leaves):
            assert not (members[a] & members[b]).any() and (members[node] == members[a] | members[b]).all()
        for row, corners in zip(members, tree.corners, strict=True):
            mask = row[tree.superpixels.labels]
            rows, columns = np.nonzero(mask)
            assert corners.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert ndimage.label(mask, np.ones((3, 3)))[1] == 1  # superpixels are 8-connected


def test_superpixels_are_no_smaller_than_the_minimum(image):
    fine, coarse = (segment(image, scale, 10, 0.8) for scale in (10.0, 200.0))
    assert fine.areas.min() >= 10 and coarse.areas.min() >= 10
    assert fine.count > coarse.count > 1


def test_proposals_are_nodes_with_their_boxes(image, proposals):
    nodes = {
        row[tree.superpixels.labels].tobytes() for tree in SelectiveSearch(SMALL).trees(image) for row in tree.members()
    }
    assert 50 < len(proposals)
    assert {masks.decode(rle).tobytes() for rle in proposals.masks} <= nodes
    assert (proposals.boxes == masks.boxes(proposals.masks)).all()
    assert proposals.boxes[:, 2:].min() >= SMALL.minimum_side
    assert len(np.unique(proposals.boxes, axis=0)) == len(proposals)
    assert [0, 0, 80, 60] in proposals.boxes.tolist()


def test_a_limit_keeps_the_front(image, proposals):
    few = SelectiveSearch(SMALL, count=17)(image)
    assert len(few) == 17
    assert few.masks == proposals.masks[:17] and (few.scores == proposals.scores[:17]).all()


def test_ranks_depend_on_the_seed_alone(image, proposals):
    method = SelectiveSearch(SMALL)
    method(image[:30])  # what came before must not matter
    again = method(image)
    other = SelectiveSearch(replace(SMALL, seed=1))(image)
    assert again.scores.tobytes() == proposals.scores.tobytes() and again.masks == proposals.masks
    assert (other.boxes[:20] != proposals.boxes[:20]).any()
    assert set(map(tuple, other.boxes.tolist())) == set(map(tuple, proposals.boxes.tolist()))  # the same pool


def test_nodes_near_the_root_tend_to_come_first(proposals):
    areas = masks.areas(proposals.masks)
    assert areas[:30].mean() > 2 * areas[-30:].mean()


def test_a_disc_is_found():
    picture = np.full((48, 64, 3), 40, np.uint8)
    cv2.circle(picture, (40, 20), 9, (200, 60, 30), -1)
    disc = (picture[:, :, 0] == 200)[None]
    found = SelectiveSearch(SMALL)(picture)
    assert masks.iou(masks.encode(disc), found.masks).max() > 0.85


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    kind=st.sampled_from(["one colour", "gray", "colour"]),
    minimum_side=st.sampled_from([1, 10]),
)
@settings(max_examples=30, deadline=None)
@pytest.mark.filterwarnings("error")
def test_any_small_image(height, width, kind, minimum_side):
    shape = {"one colour": (1, 1, 1), "gray": (height, width, 1), "colour": (height, width, 3)}[kind]
    image = np.zeros((height, width, 3), np.uint8) + np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = SelectiveSearch(SelectiveSearchConfig(minimum_area=1, scales=(5.0,), minimum_side=minimum_side))(image)
    assert (found.boxes[:, 2:] >= minimum_side).all()
    assert (found.boxes == masks.boxes(found.masks)).all()
    if kind == "one colour":
        whole = [[0, 0, width, height]] if min(height, width) >= minimum_side else []
        assert found.boxes.tolist() == whole


def test_one_proposal_per_term_and_colour(image):
    """Each diversification changes what is proposed."""
    pools = []
    for change in (
        {},
        {"colours": ("lab",)},
        {"similarities": ("S",)},
        {"similarities": ("F",)},
        {"colours": ("rgb",)},
    ):
        base = {"colours": ("hsv",), "similarities": ("C",), **change}
        pools.append(frozenset(map(tuple, SelectiveSearch(replace(SMALL, **base))(image).boxes.tolist())))
    assert len(set(pools)) == len(pools)


@pytest.mark.parametrize(
    "change", [{"colours": ("xyz",)}, {"similarities": ("CX",)}, {"similarities": ("",)}, {"scales": ()}]
)
def test_what_cannot_be_done_is_said(change):
    with pytest.raises(BaselineError):
        SelectiveSearch(replace(SMALL, **change))
