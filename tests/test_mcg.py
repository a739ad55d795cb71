"""MCG-style proposals: candidates and their order against plain loops, and what a list has to hold."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from conftest import disc_and_square
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmask import masks
from deepmask.baseline_config import BaselineError, MCGConfig
from deepmask.baselines.mcg import MCG, best_overlaps, diverse, training_rows
from deepmask.baselines.mcg_forest import Ranking

few = settings(max_examples=40, deadline=None)
SMALL = MCGConfig(superpixels=60, regions=(15, 30, 0), vectors=(4, 3), limits=(120, 150, 80, 40), trees=6, leaf=5)


def picture(seed=0):
    """A disc and a square at random places."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.uniform(0.3, 0.7, 2), rng.uniform([0.2, 0.7], [0.3, 0.8])
    return disc_and_square((rows[0], columns[0]), (rows[1], columns[1]), rng)


@pytest.fixture(scope="module")
def scene():
    return picture()


@pytest.fixture(scope="module")
def pool(scene):
    return MCG(SMALL).pool(*scene[:2])


@pytest.fixture(scope="module")
def ranking():
    """Learned from other images than the scene."""
    rows = []
    for seed in (1, 2, 3):
        image, edges, objects = picture(seed)
        pool = MCG(SMALL).pool(image, edges)
        overlaps = best_overlaps(pool, masks.encode(objects))
        chosen = training_rows(pool, overlaps, SMALL.samples, seed)
        rows.append(np.column_stack([overlaps[chosen], pool.features[chosen]]))
    table = np.concatenate(rows)
    return Ranking.fit(table[:, 1:], table[:, 0], SMALL.trees, SMALL.leaf, 0)


@pytest.fixture(scope="module")
def found(scene, ranking):
    return MCG(SMALL, ranking)(*scene[:2])


def diverse_by_hand(scores, similar, weight, count):
    left, chosen, worth = list(range(len(scores))), [], []
    while left and len(chosen) < count:
        values = [weight * scores[i] - (1 - weight) * max((similar[i, j] for j in chosen), default=0) for i in left]
        worth.append(max(values))
        chosen.append(left.pop(values.index(worth[-1])))  # of equal ones the first
    return chosen, worth


@few
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 14), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_diverse_is_greedy(seed, candidates, count, weight):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 9, candidates) / 8  # sums are exact, so that ties are ties
    similar = rng.integers(0, 9, (candidates, candidates)) / 8
    similar = np.maximum(similar, similar.T)
    chosen, worth = diverse(scores, similar, weight, count)
    assert (chosen.tolist(), worth.tolist()) == diverse_by_hand(scores, similar, weight, count)
    assert chosen.dtype == np.int64 and (np.diff(worth) <= 0).all()


def test_candidates_are_distinct_unions_that_a_tree_offers(pool):
    count = pool.superpixels.count
    assert pool.members.shape == (len(pool.features), count) and len(pool.trees) == 4
    assert len(np.unique(pool.members, axis=0)) == len(pool.members) > 500
    assert pool.features.dtype == np.float32 and np.isfinite(pool.features).all()
    whole = {row.tobytes() for row in pool.members}
    assert all(row.tobytes() in whole for tree in pool.trees for row in tree.members), "all single regions"


def test_best_overlaps_are_those_of_the_masks(scene, pool):
    rng = np.random.default_rng(0)
    objects = masks.encode(np.concatenate([scene[2], rng.random((2, 60, 80)) < 0.3, np.zeros((1, 60, 80), bool)]))
    expected = masks.iou(masks.encode_regions(pool.superpixels.labels, pool.members), objects)
    np.testing.assert_allclose(best_overlaps(pool, objects), expected.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(best_overlaps(pool, objects[2:3]), expected[:, 2], rtol=1e-12)
    assert not best_overlaps(pool, []).any() and len(best_overlaps(pool, [])) == len(pool.members)


def test_rows_to_learn_from_are_random_ones_of_each_band(pool):
    overlaps = np.random.default_rng(0).permutation(np.concatenate([np.linspace(0, 0.99, 100), [0.25, 0.5] * 5]))
    for samples in ((7, 5, 9), (0, 0, 3), (1000, 1000, 1000)):
        rows = training_rows(pool, overlaps, samples, 0)
        assert len(set(rows.tolist())) == len(rows)
        chosen = overlaps[rows]
        counts = (chosen >= 0.5).sum(), ((chosen >= 0.25) & (chosen < 0.5)).sum(), (chosen < 0.25).sum()
        assert counts == tuple(min(n, there) for n, there in zip(samples, (55, 30, 25), strict=True))
    again = [training_rows(pool, overlaps, (7, 5, 9), seed).tolist() for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_finds_both_objects_at_the_top(scene, found):
    truth = masks.encode(scene[2])
    assert masks.iou(found.masks[:20], truth).max(axis=0).min() > 0.9


def test_a_disc_on_a_plain_ground_comes_first(ranking):
    rows, columns = np.mgrid[:60, :80]
    disc = np.hypot(rows - 28, columns - 45) < 13
    edges = np.zeros((60, 80))
    edges[:, 1:] += 0.5 * (disc[:, 1:] != disc[:, :-1])
    edges[1:] += 0.5 * (disc[1:] != disc[:-1])
    image = np.where(disc[..., None], [210, 160, 30], 70).astype(np.uint8)
    found = MCG(SMALL, ranking)(image, np.stack([edges] * 3).clip(0, 1).astype(np.float16))
    assert masks.iou(found.masks[:1], masks.encode(disc[None]))[0, 0] > 0.85


def test_proposals_are_ranked_tight_and_distinct(found):
    assert len(found) > 50 and found.image_id == 0 and (np.diff(found.scores) <= 0).all()
    np.testing.assert_array_equal(found.boxes, masks.boxes(found.masks))
    assert masks.areas(found.masks).min() > 0
    assert np.triu(masks.iou(found.masks, found.masks), 1).max() < SMALL.overlap


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_a_smaller_count_is_the_beginning_of_the_list(scene, ranking, found, count):
    top = MCG(SMALL, ranking, count)(*scene[:2])
    assert len(top) == count and top.masks == found.masks[:count]
    np.testing.assert_array_equal(top.scores, found.scores[:count])


def test_without_diversity_the_order_is_that_of_the_forest(scene, pool, ranking):
    config = dataclasses.replace(SMALL, diversity=1.0)
    plain = MCG(config, ranking)(*scene[:2])
    scores = ranking.predict(pool.features)
    assert plain.scores[0] == np.float32(scores.max())
    assert plain.masks[:1] == masks.encode_regions(pool.superpixels.labels, pool.members[[scores.argmax()]])
    few_left = MCG(dataclasses.replace(config, candidates=9), ranking)(*scene[:2])
    assert len(few_left) == 9 and few_left.masks == plain.masks[:9]


def test_the_same_every_time_and_inputs_left_alone(scene, ranking, found):
    image, edges = scene[0].copy(), scene[1].copy()
    again = MCG(SMALL, ranking)(image, edges)
    assert again.masks == found.masks
    assert again.scores.tobytes() == found.scores.tobytes() and again.boxes.tobytes() == found.boxes.tobytes()
    np.testing.assert_array_equal(image, scene[0])
    np.testing.assert_array_equal(edges, scene[1])


def test_gray_images(scene, ranking):
    image, edges, truth = scene
    gray = np.repeat(image.max(axis=2, keepdims=True), 3, axis=2)
    found = MCG(SMALL, ranking)(gray, edges)
    assert masks.iou(found.masks[:30], masks.encode(truth)).max(axis=0).min() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (20, 1), (2, 2), (3, 5), (20, 20), (21, 33)])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("config", [SMALL, MCGConfig(limits=(0, 9, 9, 9))], ids=["small", "no single regions"])
def test_tiny_and_flat_images_give_valid_proposals(ranking, size, flat, config):
    rng = np.random.default_rng(3)
    image = np.full((*size, 3), 90, np.uint8) if flat else rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    edges = np.zeros((3, *size), np.float16) if flat else rng.random((3, *size)).astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = MCG(config, ranking)(image, edges)
    assert len(found) == len(found.masks) and all(rle["size"] == list(size) for rle in found.masks)
    np.testing.assert_array_equal(found.boxes, masks.boxes(found.masks))
    assert np.isfinite(found.scores).all() and (masks.areas(found.masks) > 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"weights": (0.0, 0.0, 0.0)},
        {"regions": (3, 3)},
        {"limits": (-1, 5, 5, 5)},
        {"trees": 0},
        {"leaf": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_make_no_sense_are_named(change):
    with pytest.raises(BaselineError, match=f"mcg: .*{next(iter(change))}"):
        MCGConfig(**change)
