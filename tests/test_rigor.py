"""Rigor-style proposals: cuts against all labelings and scipy's maximum flow, and what a list has to hold."""

from __future__ import annotations

import dataclasses
import itertools
import warnings

import numpy as np
import pytest
from conftest import disc_and_square
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, maximum_flow

from deepmask import masks
from deepmask.baselines import cuts, rigor
from deepmask.baselines import superpixels as sp
from deepmask.baselines.edges import BaselineError
from deepmask.baselines.rigor import Rigor, RigorConfig

few = settings(max_examples=40, deadline=None)
SMALL = RigorConfig(superpixels=60, seeds=(1, 4, 9, 16), smallest=4.0)


@st.composite
def problems(draw, most=8, whole=False):
    """Pairs, weights, seeds, biases, slopes and lambdas of a random graph; `whole`: of small integers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, most))
    pairs = np.array([p for p in itertools.combinations(range(count), 2) if rng.random() < 0.5], int).reshape(-1, 2)
    seeds = rng.integers(0, count, 3)
    if whole:
        weights, slopes = rng.integers(0, 9, len(pairs)), rng.integers(0, 4, count)
        biases, lambdas = rng.integers(-9, 5, (3, count)).astype(float), np.arange(-2, 4)
    else:
        weights, slopes = rng.random(len(pairs)), rng.random(count)
        biases, lambdas = rng.normal(-0.3, 1, (3, count)), np.sort(rng.normal(0, 1, 5))
    biases[rng.random((3, count)) < 0.2] = -np.inf
    biases[np.arange(3), seeds] = 0
    return pairs, weights, seeds, biases, slopes, lambdas


def energies(foregrounds, pairs, weights, rewards):
    """(P,) cut edges less rewards of (P, N) bool foregrounds; inf if one holds a node that is barred."""
    cut = (foregrounds[:, pairs[:, 0]] != foregrounds[:, pairs[:, 1]]) @ weights
    barred = (foregrounds & np.isneginf(rewards)).any(axis=1)
    return np.where(barred, np.inf, cut - foregrounds @ np.where(np.isneginf(rewards), 0, rewards))


def solve(problem):
    pairs, weights, seeds, biases, slopes, lambdas = problem
    return cuts.foregrounds(cuts.arcs(pairs, len(slopes)), weights, seeds, biases, slopes, lambdas)


@pytest.fixture(scope="module")
def scene():
    return disc_and_square()


@pytest.fixture(scope="module")
def found(scene):
    return Rigor(SMALL)(*scene[:2])


@few
@given(problems())
def test_cuts_are_the_best_of_all_labelings(problem):
    pairs, weights, seeds, biases, slopes, lambdas = problem
    every = np.array(list(itertools.product([False, True], repeat=len(slopes))))
    result = solve(problem)
    for k, step in np.ndindex(*result.shape[:2]):
        rewards = biases[k] + lambdas[step] * slopes
        allowed = every[every[:, seeds[k]]]
        assert result[k, step, seeds[k]]
        best = energies(allowed, pairs, weights, rewards).min()
        assert energies(result[k, step][None], pairs, weights, rewards)[0] == pytest.approx(best, abs=1e-9)


@few
@given(problems(whole=True))
def test_of_equal_cuts_the_largest_foreground_is_taken(problem):
    pairs, weights, seeds, biases, slopes, lambdas = problem
    every = np.array(list(itertools.product([False, True], repeat=len(slopes))))
    result = solve(problem)
    for k, step in np.ndindex(*result.shape[:2]):
        allowed = every[every[:, seeds[k]]]
        values = energies(allowed, pairs, weights, biases[k] + lambdas[step] * slopes)
        # minimisers are closed under union
        np.testing.assert_array_equal(result[k, step], allowed[values == values.min()].any(axis=0))


@few
@given(problems(most=40))
def test_foregrounds_grow_with_lambda_and_match_single_cuts(problem):
    result = solve(problem)
    assert (result[:, :-1] <= result[:, 1:]).all()
    single = [solve((*problem[:5], problem[5][step : step + 1]))[:, 0] for step in range(len(problem[5]))]
    np.testing.assert_array_equal(result, np.stack(single, axis=1))


@few
@given(problems(most=40, whole=True))
def test_the_cut_has_the_value_of_scipys_maximum_flow(problem):
    pairs, weights, seeds, biases, slopes, lambdas = problem
    count, endless = len(slopes), 10**6
    result = solve(problem)
    for k, step in np.ndindex(*result.shape[:2]):
        rewards = np.where(np.isneginf(biases[k]), -endless, biases[k] + lambdas[step] * slopes)
        rewards[seeds[k]] = endless
        capacities = np.zeros((count + 2, count + 2), np.int32)
        capacities[pairs[:, 0], pairs[:, 1]] = capacities[pairs[:, 1], pairs[:, 0]] = weights
        capacities[count, :count], capacities[:count, count + 1] = np.maximum(rewards, 0), np.maximum(-rewards, 0)
        side = np.append(result[k, step], [True, False])
        value = capacities[np.ix_(side, ~side)].sum()
        assert value == maximum_flow(csr_array(capacities), count, count + 1).flow_value


@few
@given(problems(most=20))
def test_components_are_those_of_scipy(problem):
    pairs, count = problem[0], len(problem[4])
    sets = np.random.default_rng(len(pairs)).random((5, count)) < 0.5
    graph = cuts.arcs(pairs, count)
    members, origins = cuts.components(graph.starts, graph.heads, sets)
    for c, nodes in enumerate(sets):
        inside = pairs[nodes[pairs].all(axis=1)]
        adjacency = csr_array((np.ones(len(inside)), tuple(inside.T)), shape=(count, count))
        labels = connected_components(adjacency, directed=False)[1]
        expected = {tuple(np.flatnonzero(nodes & (labels == label))) for label in set(labels[nodes])}
        rows = members[origins == c]
        assert len(rows) == len(expected) and {tuple(np.flatnonzero(row)) for row in rows} == expected


def test_arcs_pair_up():
    pairs = np.array([[0, 1], [0, 3], [1, 3], [2, 3]])
    graph = cuts.arcs(pairs, 5)
    tails = np.repeat(np.arange(5), np.diff(graph.starts))
    np.testing.assert_array_equal(graph.twins[graph.twins], np.arange(8))
    np.testing.assert_array_equal(tails[graph.twins], graph.heads)
    np.testing.assert_array_equal(np.sort([tails, graph.heads], axis=0).T, pairs[graph.edges])


def test_seeds_start_at_the_centre_and_spread():
    labels = np.arange(30 * 40).reshape(30, 40)
    seeds = rigor.grid_seeds(labels, 9)
    places = np.stack(np.divmod(seeds, 40), axis=1)
    assert places[0].tolist() == [15, 20] and len(set(seeds.tolist())) == 9
    corners = {(5, 6), (5, 33), (25, 6), (25, 33)}
    assert set(map(tuple, places[1:5].tolist())) == corners
    assert rigor.grid_seeds(np.zeros((7, 5), int), 9).tolist() == [0]


def test_contrast_is_the_mean_strength_along_the_outline():
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    edges = np.random.default_rng(1).random(labels.shape)
    superpixels = sp.graph(labels, edges)
    for members in ([True, False, False], [True, True, False], [False, True, True], [True, True, True]):
        mask = np.pad(np.array(members)[labels], 1)
        padded, total, steps = np.pad(edges, 1), 0.0, 0
        for y, x in np.argwhere(mask):
            for v, u in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
                if not mask[v, u]:
                    steps += 1
                    inside = 1 <= v <= 3 and 1 <= u <= 3
                    total += (padded[y, x] + padded[v, u]) / 2 if inside else 0
        assert rigor.contrasts(superpixels, np.array([members]))[0] == pytest.approx(total / steps)


def test_segments_are_different_connected_and_within_the_limits(scene):
    image, edges, _ = scene
    superpixels = sp.segment(edges.mean(axis=0, dtype=np.float32), 60)
    config = dataclasses.replace(SMALL, smallest=30.0, largest=0.5)
    result = rigor.segments(image, superpixels, config)
    areas = result.members @ superpixels.areas
    assert len(areas) > 10 and areas.min() >= 30 and areas.max() <= 0.5 * 60 * 80
    assert len(np.unique(result.members, axis=0)) == len(result.members)
    assert all(ndimage.label(row[superpixels.labels])[1] == 1 for row in result.members)
    assert set(result.sigmas.tolist()) <= {0, 1, 2} and set(result.tiers.tolist()) <= {0, 1, 2, 3}


def test_a_smaller_grid_of_seeds_has_the_first_tiers_only(scene):
    image, edges, _ = scene
    superpixels = sp.segment(edges.mean(axis=0, dtype=np.float32), 60)
    result = rigor.segments(image, superpixels, SMALL)
    assert set(result.tiers.tolist()) == {0, 1, 2, 3}
    one = rigor.segments(image, superpixels, dataclasses.replace(SMALL, seeds=(1,)))
    assert not one.tiers.any()  # both grids have a point in the superpixel of the centre
    assert {row.tobytes() for row in one.members} != {row.tobytes() for row in result.members}


def test_finds_both_objects_at_the_top(scene, found):
    truth = masks.encode(scene[2])
    assert masks.iou(found.masks[:20], truth).max(axis=0).min() > 0.9


def test_proposals_are_tight_connected_and_ranked(found):
    np.testing.assert_array_equal(found.boxes, masks.boxes(found.masks))
    np.testing.assert_array_equal(np.round(1 / found.scores), np.arange(1, len(found) + 1))
    assert all(ndimage.label(masks.decode(rle))[1] == 1 for rle in found.masks)
    assert (masks.areas(found.masks) >= SMALL.smallest).all()


def test_near_duplicates_come_last_and_duplicates_not_at_all(found):
    overlaps = np.triu(masks.iou(found.masks, found.masks), 1)
    assert overlaps.max() < 0.95
    near = (overlaps >= 0.85).any(axis=0)
    assert near.any() and not near[: int(near.argmax())].any()
    assert near[int(near.argmax()) :].all()


def test_a_smaller_count_is_the_beginning_of_the_list(scene, found):
    top = Rigor(SMALL, 7)(*scene[:2])
    assert len(top) == 7 and top.masks == found.masks[:7]


def test_large_sigmas_come_first(scene):
    image, edges, _ = scene
    config = dataclasses.replace(SMALL, overlaps=(0.95, 0.95))
    single = Rigor(dataclasses.replace(config, sigmas=config.sigmas[:1]))(image, edges)
    every = Rigor(config)(image, edges)
    assert len(single) < len(every) and every.masks[: len(single)] == single.masks


def test_same_image_same_bytes(scene, found):
    again = Rigor(SMALL)(*scene[:2])
    assert again.masks == found.masks
    assert again.scores.tobytes() == found.scores.tobytes() and again.boxes.tobytes() == found.boxes.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 2), (5, 4), (20, 20)])
@pytest.mark.parametrize("flat", [True, False])
def test_tiny_and_flat_images_give_valid_proposals(size, flat):
    rng = np.random.default_rng(3)
    image = np.full((*size, 3), 90, np.uint8) if flat else rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    edges = np.zeros((3, *size), np.float16) if flat else rng.random((3, *size)).astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Rigor(dataclasses.replace(SMALL, smallest=1.0))(image, edges)
    assert len(found) == len(found.masks) and all(rle["size"] == list(size) for rle in found.masks)
    np.testing.assert_array_equal(found.boxes, masks.boxes(found.masks))


def test_gray_images(scene):
    image, edges, truth = scene
    gray = np.repeat(image.max(axis=2, keepdims=True), 3, axis=2)
    found = Rigor(SMALL)(gray, edges)
    assert masks.iou(found.masks, masks.encode(truth)).max(axis=0).min() > 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"superpixels": 0},
        {"floor": 0.0},
        {"window": -1.0},
        {"sigmas": ()},
        {"sigmas": (0.1, 0.0)},
        {"seeds": ()},
        {"seeds": (4, 1)},
        {"seeds": (0, 4)},
        {"lambdas": (0.5, 0.1, 4)},
        {"colour_lambdas": (0.1, 0.5, 1)},
        {"overlaps": (0.9, 0.8)},
    ],
)
def test_settings_that_make_no_sense_are_named(change):
    with pytest.raises(BaselineError, match=f"rigor: {next(iter(change))}"):
        RigorConfig(**change)
