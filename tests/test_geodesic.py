"""Geodesic-style proposals: distances, seeds and levels against plain loops, and what a list has to hold."""

from __future__ import annotations

import dataclasses
import heapq
import warnings

import numpy as np
import pytest
from conftest import disc_and_square
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmask import masks
from deepmask.baselines import geodesic
from deepmask.baselines import superpixels as sp
from deepmask.baselines.edges import BaselineError
from deepmask.baselines.geodesic import Geodesic, GeodesicConfig

few = settings(max_examples=40, deadline=None)
SMALL = GeodesicConfig(superpixels=60, tiers=((1, 1, 0.7), (2, 2, 0.7), (5, 3, 0.8), (20, 6, 0.9)))


@st.composite
def regions(draw):
    """Superpixels of random blocks of labels with random edge strength; not connected, which nothing here needs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.kron(rng.integers(0, 9, (4, 5)), np.ones((2, 3), int))
    return sp.graph(labels, rng.random(labels.shape, dtype=np.float32))


@pytest.fixture(scope="module")
def scene():
    return disc_and_square()


def heap_distances(s, costs, starts):
    """(S,) least cost from any of the starts, by Dijkstra's algorithm with a heap."""
    neighbours = {label: [] for label in range(s.count)}
    for (a, b), cost in zip(s.pairs.tolist(), costs.tolist(), strict=True):
        neighbours[a].append((b, cost))
        neighbours[b].append((a, cost))
    final, heap = {}, [(0.0, start) for start in sorted(starts)]
    while heap:
        distance, label = heapq.heappop(heap)
        if label not in final:
            final[label] = distance
            for other, cost in neighbours[label]:
                heapq.heappush(heap, (distance + cost, other))
    return np.array([final[label] for label in range(s.count)])


@few
@given(regions())
def test_distances_are_dijkstras(s):
    costs = (2 * s.strengths) ** 3 + 0.002
    apart = geodesic.distances(s, costs)
    np.testing.assert_allclose(apart, [heap_distances(s, costs, {label}) for label in range(s.count)], atol=1e-12)


@few
@given(regions(), st.integers(1, 12))
def test_signed_maps_are_distances_from_seeds_less_those_from_sides(s, count):
    costs = s.strengths**3 + 0.002
    apart = geodesic.distances(s, costs)
    centres = geodesic.seeds(apart, np.ones(s.count), count)
    maps = geodesic.signed_maps(s, apart, centres)
    assert len(maps.distances) == len(maps.seeds) == len(maps.inner) == 2 * len(centres) + 15
    border = set(np.concatenate([s.labels[0], s.labels[-1], s.labels[:, 0], s.labels[:, -1]]).tolist())
    for rank, centre in enumerate(centres.tolist()):
        plain = heap_distances(s, costs, {centre})
        np.testing.assert_allclose(maps.distances[rank], plain, atol=1e-12)
        signed = plain - heap_distances(s, costs, border)
        np.testing.assert_allclose(maps.distances[len(centres) + rank], signed, atol=1e-12)
        assert maps.seeds[rank] == maps.seeds[len(centres) + rank] == rank
    sides = [s.labels[0], s.labels[-1], s.labels[:, 0], s.labels[:, -1]]
    for number in range(1, 16):
        starts = {int(label) for bit in range(4) if number >> bit & 1 for label in sides[bit]}
        row = 2 * len(centres) + number - 1
        np.testing.assert_allclose(-maps.distances[row], heap_distances(s, costs, starts), atol=1e-12)
        assert maps.inner[row] and maps.seeds[row] == 0


@few
@given(regions(), st.integers(1, 12))
def test_seeds_are_the_centre_and_then_the_farthest(s, count):
    apart = geodesic.distances(s, s.strengths + 0.002)
    weights = np.sqrt(s.areas)
    found = geodesic.seeds(apart, weights, count).tolist()
    assert len(found) == len(set(found)) == min(count, s.count)
    assert apart[found[0]].max() == min(row.max() for row in apart)
    for k in range(1, len(found)):
        far = [min(apart[seed, label] for seed in found[:k]) * weights[label] for label in range(s.count)]
        assert far[found[k]] == max(far)
    assert geodesic.seeds(apart, weights, 3).tolist() == found[:3] or count < 3


def levels_by_hand(distances, areas, count, smallest, largest, ratio):
    """(member set, gap) of one map, widest gap first."""
    order = sorted(range(len(areas)), key=lambda label: distances[label])
    gaps = [distances[b] - distances[a] for a, b in zip(order[:-1], order[1:], strict=True)]
    found = []
    for k in range(len(gaps)):
        left, right = gaps[k - 1] if k else 0, gaps[k + 1] if k + 1 < len(gaps) else 0
        size = sum(areas[label] for label in order[: k + 1])
        if gaps[k] > 1e-9 and gaps[k] >= left and gaps[k] > right and smallest <= size <= largest:
            found.append((gaps[k], size, frozenset(order[: k + 1])))
    chosen = []
    for gap, size, members in sorted(found, key=lambda level: -level[0]):
        if all(min(size, other) < ratio * max(size, other) for _, other, _ in chosen):
            chosen.append((gap, size, members))
    return [(members, gap) for gap, _, members in chosen[:count]]


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 5), st.sampled_from([0.5, 0.8, 1.0]))
def test_levels_are_the_widest_gaps(seed, regions, count, ratio):
    rng = np.random.default_rng(seed)
    areas = rng.integers(1, 20, regions).astype(float)
    maps = rng.integers(-9, 9, (5, regions)) + rng.integers(0, 2) * rng.random((5, regions))  # with and without ties
    smallest = rng.choice([0.0, 0.1 * areas.sum()], 5)
    found = geodesic.levels(maps, areas, count, smallest, 0.75 * areas.sum(), ratio)
    assert found.members.shape == (len(found.maps), regions)
    for number in range(5):
        here = np.flatnonzero(found.maps == number)
        assert found.ranks[here].tolist() == list(range(len(here)))
        got = [(frozenset(np.flatnonzero(found.members[i]).tolist()), found.gaps[i]) for i in here]
        assert got == levels_by_hand(maps[number], areas, count, smallest[number], 0.75 * areas.sum(), ratio)


def arranged_by_hand(members, areas, gaps, seeds, ranks, tiers, count):
    """Indices in the order of the list: proposal by proposal, tier by tier."""

    def overlap(a, b):
        return areas[members[a] & members[b]].sum() / areas[members[a] | members[b]].sum()

    def tier_of(i):
        return next(
            t
            for t, (most_seeds, most_levels, _) in enumerate(tiers)
            if seeds[i] < most_seeds and ranks[i] < most_levels
        )

    order = sorted(range(len(gaps)), key=lambda i: (tier_of(i), -gaps[i]))
    kept = []
    for t, (_, _, threshold) in enumerate(tiers):
        for i in order:
            if tier_of(i) <= t and i not in kept and len(kept) < count:
                if all(overlap(i, k) < threshold for k in kept):
                    kept.append(i)
    return kept


@few
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(1, 25))
def test_list_is_ordered_by_tier_then_gap_without_duplicates(seed, proposals, count):
    rng = np.random.default_rng(seed)
    areas = rng.integers(1, 20, 7).astype(float)
    members = rng.random((proposals, 7)) < 0.5
    members[:, 0] |= ~members.any(axis=1)
    seeds, ranks, gaps = rng.integers(0, 6, proposals), rng.integers(0, 3, proposals), rng.random(proposals)
    tiers = ((1, 1, 0.4), (2, 3, 0.5), (6, 3, 0.8))
    found = geodesic.Levels(np.zeros(proposals, np.int64), ranks, gaps, members)
    got = geodesic.arrange(found, seeds, areas, tiers, count).tolist()
    assert got == arranged_by_hand(members, areas, gaps, seeds, ranks, tiers, count)


def test_settings_reach_what_they_set(scene, monkeypatch):
    image, edges, _ = scene
    config = GeodesicConfig(superpixels=30, gain=1.5, power=2.0, step=0.01, seed_area=0.7, tiers=((4, 5, 0.8),))
    calls = {}

    def listen(name):
        function = getattr(geodesic, name)

        def heard(*args, **named):
            calls[name] = args, named
            return function(*args, **named)

        monkeypatch.setattr(geodesic, name, heard)

    for name in ("distances", "seeds", "levels"):
        listen(name)
    Geodesic(config)(image, edges)
    s = sp.segment(edges.mean(axis=0, dtype=np.float32), 30)
    np.testing.assert_allclose(calls["distances"][0][1], (1.5 * s.strengths) ** 2 + 0.01)
    np.testing.assert_allclose(calls["seeds"][0][1], s.areas**0.7)
    assert calls["seeds"][0][2] == 4
    (maps, areas, count), limits = calls["levels"]
    np.testing.assert_array_equal(areas, s.areas)
    assert count == 5 and len(maps) == 2 * 4 + 15
    np.testing.assert_allclose(limits["smallest"], np.repeat([0, 0.1 * 60 * 80], [8, 15]))
    assert limits["largest"] == 0.75 * 60 * 80 and limits["ratio"] == config.level_ratio


def test_objects_are_found_early(scene):
    image, edges, objects = scene
    made = Geodesic(SMALL)(image, edges)
    overlaps = masks.iou(made.masks, masks.encode(objects))
    assert (overlaps[:15].max(axis=0) > 0.85).all()


def test_proposals_are_ranked_tight_and_distinct(scene):
    image, edges, _ = scene
    made = Geodesic(SMALL)(image, edges)
    assert len(made) > 20 and made.image_id == 0
    assert np.all(np.diff(made.scores) < 0) and made.scores[0] == 1 and made.scores[-1] > 0
    np.testing.assert_array_equal(made.boxes, masks.boxes(made.masks))
    areas = masks.areas(made.masks)
    assert areas.min() > 0 and areas.max() <= SMALL.largest * edges[0].size
    overlaps = masks.iou(made.masks, made.masks)
    assert overlaps[np.triu_indices(len(made), 1)].max() < SMALL.tiers[-1][2]


@pytest.mark.parametrize("count", [1, 2, 7, 30, 1000])
def test_a_smaller_budget_is_the_beginning_of_the_list(scene, count):
    image, edges, _ = scene
    whole, part = Geodesic(SMALL)(image, edges), Geodesic(SMALL, count)(image, edges)
    assert len(part) == min(count, len(whole))
    assert part.masks == whole.masks[:count]
    np.testing.assert_array_equal(part.scores, whole.scores[:count])


def test_fewer_tiers_are_the_beginning_of_the_list(scene):
    """The tiers of a smaller budget alone, with their seeds and levels, propose what the list of all begins with."""
    image, edges, _ = scene
    whole = Geodesic(SMALL)(image, edges)
    for tiers in range(1, len(SMALL.tiers)):
        part = Geodesic(dataclasses.replace(SMALL, tiers=SMALL.tiers[:tiers]))(image, edges)
        assert 0 < len(part) < len(whole) and part.masks == whole.masks[: len(part)]


def test_the_same_every_time_and_inputs_left_alone(scene):
    image, edges, _ = scene
    before = edges.copy()
    first, second = Geodesic(SMALL)(image, edges), Geodesic(SMALL)(image.copy(), edges.copy())
    assert first.masks == second.masks and first.scores.tobytes() == second.scores.tobytes()
    np.testing.assert_array_equal(edges, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (2, 2), (3, 5), (20, 20)])
@pytest.mark.parametrize("kind", ["flat", "noise", "full"])
def test_tiny_gray_and_flat_images(shape, kind):
    rng = np.random.default_rng(2)
    edges = {"flat": np.zeros((3, *shape)), "noise": rng.random((3, *shape)), "full": np.ones((3, *shape))}[kind]
    gray = np.repeat(rng.integers(0, 256, (*shape, 1), np.uint8), 3, axis=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = Geodesic(GeodesicConfig())(gray, edges.astype(np.float16))
    assert all(rle["size"] == list(shape) for rle in made.masks)
    np.testing.assert_array_equal(made.boxes, masks.boxes(made.masks).reshape(-1, 4))
    assert (masks.areas(made.masks) <= 0.75 * np.prod(shape)).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 0.0}, "step is 0.0"),
        ({"superpixels": 0}, "superpixels is 0"),
        ({"tiers": ()}, "at least one"),
        ({"tiers": ((0, 1, 0.7),)}, "above 0"),
        ({"tiers": ((2, 3, 0.7), (3, 2, 0.7))}, "below that of the tier before"),
        ({"tiers": ((2, 3, 0.8), (3, 3, 0.7))}, "below that of the tier before"),
    ],
)
def test_impossible_settings_are_refused(changes, said):
    with pytest.raises(BaselineError, match=said):
        GeodesicConfig(**changes)
