"""EdgeBoxes: its lines are OpenCV's, and closed contours are found."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmask import masks
from deepmask.baselines import edge_boxes, forest
from deepmask.baselines.edge_boxes import EdgeBoxes, EdgeBoxesConfig

EVERYTHING = EdgeBoxesConfig(min_area=1.0, min_score=0.0)


def contour(height, width, left, top, right, bottom):
    """(1, H, W) float16 edges around one rectangle of pixels."""
    edges = np.zeros((1, height, width), np.float32)
    edges[0, top : bottom + 1, left : right + 1] = 1
    edges[0, top + 1 : bottom, left + 1 : right] = 0
    return edges.astype(np.float16)


def blank(edges):
    return np.zeros((*edges.shape[1:], 3), np.uint8)


@pytest.fixture(scope="module")
def smooth():
    """(60, 85) float32 edge strength without ties."""
    noise = np.random.default_rng(0).random((60, 85), np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 2.0) ** 2


def test_lines_are_those_of_opencv(smooth, tmp_path):
    """The forest is not asked: OpenCV has orientation and thinning in the class of its detector only."""
    image, labels = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.int32)
    image[:, 20:], labels[:, 20:] = 200, 1
    forest.train([(image, [labels])], tmp_path / "f.yml.gz", forest.ForestConfig(trees=1, patches=100, pairs=8))
    opencv = cv2.ximgproc.createStructuredEdgeDetection(str(tmp_path / "f.yml.gz"))
    angles = opencv.computeOrientation(smooth)
    difference = np.abs(edge_boxes.orientation(smooth) - angles)
    assert np.minimum(difference, np.pi - difference).max() < 1e-3
    expected, got = opencv.edgesNms(smooth, angles), edge_boxes.thinned(smooth, angles)
    assert ((expected > 0) == (got > 0)).mean() > 0.99
    assert 0.02 < (expected > 0).mean() < 0.5


def test_a_contour_is_the_best_box():
    edges = contour(120, 160, 40, 30, 119, 89)
    best = EdgeBoxes()(blank(edges), edges).boxes[:1]
    assert masks.box_iou(best, np.array([[40, 30, 80, 60]]))[0, 0] > 0.85


def test_boxes_follow_the_contour_without_an_offset():
    """Of the best box around contours at many places, the mean error of the corners is less than a pixel."""
    errors = []
    for shift in range(0, 40, 3):
        edges = contour(150, 150, 20 + shift, 30 + shift, 80 + shift, 90 + shift)
        x, y, width, height = EdgeBoxes()(blank(edges), edges).boxes[0]
        errors.append([x + width / 2 - (50.5 + shift), y + height / 2 - (60.5 + shift)])
    assert np.abs(np.mean(errors, axis=0)).max() < 1.0


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.0]))
def test_boxes_are_ranked_and_inside_the_image(height, width, seed, noise):
    rng = np.random.default_rng(seed)
    edges = (1 - noise * rng.random((3, height, width))).astype(np.float16)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    proposals = EdgeBoxes(EVERYTHING, count=30)(image, edges)
    again = EdgeBoxes(EVERYTHING, count=30)(image, edges)
    assert len(proposals) <= 30 and proposals.masks is None
    assert np.isfinite(proposals.scores).all()
    assert (proposals.boxes[:, :2] >= 0).all() and (proposals.boxes[:, 2:] > 0).all()
    assert (proposals.boxes[:, :2] + proposals.boxes[:, 2:] <= [width, height]).all()
    np.testing.assert_array_equal(proposals.boxes, again.boxes)
    np.testing.assert_array_equal(proposals.scores, again.scores)


def test_nothing_comes_of_no_edges():
    for size in ((1, 1), (20, 20), (90, 120)):
        edges = np.zeros((3, *size), np.float16)
        assert len(EdgeBoxes()(blank(edges), edges)) == 0


def test_an_object_forgets_the_image_before(smooth):
    method, first, second = EdgeBoxes(EVERYTHING), contour(90, 70, 10, 10, 50, 60), smooth[None].astype(np.float16)
    expected = EdgeBoxes(EVERYTHING)(blank(second), second)
    method(blank(first), first)
    np.testing.assert_array_equal(method(blank(second), second).boxes, expected.boxes)


def test_settings_reach_opencv(smooth):
    edges = smooth[None].astype(np.float16)

    def boxes(**settings):
        return EdgeBoxes(EdgeBoxesConfig(**{"min_area": 50.0} | settings))(blank(edges), edges).boxes

    # the search refines boxes that are large enough, which may shrink them a little
    assert (boxes(min_area=600.0)[:, 2:].prod(axis=1) > 300).all()
    assert (boxes()[:, 2:].prod(axis=1) < 100).any()
    strict = boxes(beta=0.5)
    assert np.triu(masks.box_iou(strict, strict), 1).max() < 0.55
    assert len(strict) < len(boxes(beta=0.9))
    changes = {
        "alpha": 0.8,
        "eta": 0.99,
        "min_score": 0.3,
        "min_edge": 0.26,
        "merge": 2.0,
        "min_group": 5.0,
        "max_aspect": 1.3,
        "gamma": 1.0,
        "kappa": 2.0,
    }
    for name, value in changes.items():
        assert not np.array_equal(boxes(**{name: value}), boxes()), name
