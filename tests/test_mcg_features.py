"""What MCG's ranking is told about a candidate, against the pixels and the trees."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deepmask.baselines import mcg_features
from deepmask.baselines import superpixels as sp
from deepmask.baselines.mcg_features import features
from deepmask.baselines.mcg_hierarchies import combinations, multiscale, unions


@pytest.fixture(scope="module")
def scene():
    """An image (24, 30), three edge maps, superpixels, and the trees of `multiscale`."""
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (24, 30, 3), np.uint8)
    edges = cv2.GaussianBlur(rng.random((24, 30, 3), np.float32), (5, 5), 0).transpose(2, 0, 1).astype(np.float16)
    s = sp.segment(edges.mean(axis=0, dtype=np.float32), 25)
    made = multiscale(s, edges, weights=(0, 1, 3), regions=(4, 8, 0), vectors=(4, 3), gains=(2.0, 1.0))
    return image, edges, s, made


@pytest.fixture(scope="module")
def described(scene):
    """Candidates of the scene and their features by name: masks (P, H, W), source, regions, table."""
    image, edges, s, made = scene
    offered = [combinations(tree, s, (40, 15, 15, 15)) for tree in made]
    chosen, source = np.concatenate(offered), np.repeat(np.arange(4), [len(part) for part in offered])
    members = unions(made, source, chosen)
    table = features(image, edges, s, made, members, source, chosen)
    groups = (
        mcg_features._shape(s, members),
        mcg_features._borders(image, edges, s, made, members),
        mcg_features._places(s, made, members, source, chosen),
    )
    names = [name for group in groups for name in group]
    assert table.dtype == np.float32 and len(set(names)) == len(names) == table.shape[1]
    return members[:, s.labels], source, chosen, dict(zip(names, table.T, strict=True))


def check(table, row, expected):
    got = {name: table[name][row] for name in expected}
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_every_feature_is_finite_and_few_are_constant(described):
    table = described[3]
    assert all(np.isfinite(column).all() for column in table.values())
    assert {name for name, column in table.items() if np.ptp(column) == 0} == set()


def test_shapes_are_those_of_the_pixels(scene, described):
    masks, _, _, table = described
    for row, mask in enumerate(masks):
        y, x = np.nonzero(mask)
        width, height = np.ptp(x) + 1, np.ptp(y) + 1
        spreads = np.linalg.eigvalsh(np.cov([x, y], bias=True) + np.eye(2) / 12)  # a pixel is a square
        expected = {
            "share of the image": np.log(mask.mean()),
            "area": np.log(mask.sum()),
            "width": width / 30,
            "height": height / 24,
            "aspect": np.log(width / height),
            "extent": mask.sum() / (width * height),
            "off centre": abs((x.mean() + 0.5) / 30 - 0.5),
            "centre, vertical": (y.mean() + 0.5) / 24,
            "top": y.min() / 24,
            "bottom": (y.max() + 1) / 24,
            "nearest side": min(x.min(), 29 - x.max()) / 30,
            "elongation": np.sqrt(spreads[0] / spreads[1]),
            "ellipse": mask.sum() / (4 * np.pi * np.sqrt(spreads.prod())),
        }
        check(table, row, expected)


def steps(array):
    """The values on both sides of every pair of 4-adjacent pixels: two arrays (N, ...)."""
    sides = (array[:, :-1], array[:-1]), (array[:, 1:], array[1:])
    return [np.concatenate([part.reshape(-1, *array.shape[2:]) for part in side]) for side in sides]


def mean(values, chosen):
    return values[chosen].mean(axis=0) if chosen.any() else 0 * values[0]


def test_borders_are_those_of_the_pixels(scene, described):
    image, edges, s, made = scene
    masks, _, _, table = described
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(float) / 255
    labels = np.stack(steps(s.labels), axis=1)
    differ = labels[:, 0] != labels[:, 1]
    at = {pair: i for i, pair in enumerate(map(tuple, s.pairs.tolist()))}
    column = [at.get((min(a, b), max(a, b)), 0) for a, b in labels.tolist()]
    saliency, strength = made[0].saliency[column], [sum(steps(edge.astype(float))) / 2 for edge in edges]
    flat = np.array([lab[s.labels == label].mean(axis=0) for label in range(s.count)])[s.labels]
    beyond = steps(flat)[::-1]
    for row, mask in enumerate(masks):
        a, b = steps(mask)
        around, within, area = a != b, a & b & differ, mask.sum()
        frame = sum(side.sum() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
        surround = mean(np.where(a[:, None], *beyond), around)
        expected = {f"around: edges {k}": mean(strength[k], around) for k in range(3)}
        expected |= {f"within: edges {k}": mean(strength[k], within) for k in range(3)}
        expected |= {f"around: saliency {k}": mean(made[k].saliency[column], around) for k in range(4)}
        expected |= {
            "around: above weak": mean(saliency > 0.1, around),
            "within: affinity": mean(np.exp(-saliency / 0.1), within),
            "on the frame": frame / (around.sum() + frame),
            "compactness": np.sqrt(area) / (around.sum() + frame),
            "inner length": within.sum() / area,
            "cut": saliency[around].sum() / np.sqrt(s.labels.size),
            "strongest within": saliency[within].max(initial=0),
            "weakest around": saliency[around].min(initial=1),
            "edges within": edges[2][mask].mean(dtype=float),
            "contrast": np.linalg.norm(lab[mask].mean(axis=0) - surround),
            "spread of colour": np.sqrt(lab[mask].var(axis=0).sum()),
        }
        check(table, row, expected)


def test_places_are_those_of_the_trees(scene, described):
    _, _, s, made = scene
    masks, source, regions, table = described
    for row, (index, chosen) in enumerate(zip(source, regions.tolist(), strict=True)):
        tree, chosen = made[index], [node for node in chosen if node >= 0]
        members = tree.members[chosen].any(axis=0)
        joined = next(node for node, larger in enumerate(tree.members) if (larger >= members).all())
        appears, vanishes = tree.heights[chosen], tree.heights[tree.parents[chosen]]
        sizes = tree.members[chosen] @ s.areas
        expected = {
            "appears last": appears.max(),
            "vanishes first": vanishes.min(),
            "lasts": vanishes.min() - appears.max(),
            "joins": tree.heights[joined],
            "balance": sizes.min() / sizes.max(),
            "share of joined": masks[row].sum() / (tree.members[joined] @ s.areas),
            "rank": np.log(2 * s.count - min(chosen)),
            "rank of joined": np.log(2 * s.count - joined),
            "regions": len(chosen),
            "hierarchy": index,
        }
        check(table, row, expected)
    everywhere = np.concatenate([mcg_features.common(made[i].parents, regions[[r]]) for r, i in enumerate(source)])
    holding = np.array([made[i].members[node] for i, node in zip(source, everywhere, strict=True)])
    assert (holding[:, s.labels] >= masks).all()
