"""The canonical patch and the map between cells and the image."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmask.geometry import Geometry

PAPER = Geometry()
MINI = Geometry(patch=80, canonical=46, stride=8, mask=40, jitter=6.0, negative=12.0, context=8)


def test_paper_sizes():
    assert (PAPER.features, PAPER.pools, PAPER.border, PAPER.window) == (14, 4, 112, 224)


def test_cells_of_a_coco_image_are_the_published_ones():
    """9,890 cells on 640 x 480 over seven scales (derived in the README of the released code's protocol)."""
    cells = []
    for octave in np.arange(-2, 1.5, 0.5):
        height, width = (math.floor(side * 2.0**octave + 0.5) for side in (480, 640))
        cells.append(math.prod(PAPER.cells(height, width)))
    assert cells == [88, 165, 336, 638, 1271, 2451, 4941]


@pytest.mark.parametrize("geometry", [PAPER, MINI])
@given(st.integers(1, 700), st.integers(1, 700))
def test_first_and_last_cells_are_centred_in_the_image(geometry, height, width):
    rows, cols = geometry.cells(height, width)
    x, y, w, h = geometry.cell_boxes(np.array([0, rows - 1]), np.array([0, cols - 1]), 1.0).T
    centre_x, centre_y = x + w / 2, y + h / 2
    assert (centre_x[0], centre_y[0]) == (0, 0)
    assert width - geometry.stride < centre_x[1] <= width and height - geometry.stride < centre_y[1] <= height


def test_cell_boxes_scale_back_to_the_image():
    at_one, at_half = (PAPER.cell_boxes(np.array([3]), np.array([5]), scale) for scale in (1.0, 0.5))
    assert np.allclose(at_half, at_one * 2)
    assert np.allclose(at_one, [[16 * 5 - 112, 16 * 3 - 112, 224, 224]])


@given(st.floats(0, 600), st.floats(0, 400), st.floats(1, 500), st.floats(1, 500))
def test_canonical_position_brings_the_larger_side_to_128(x, y, w, h):
    ((cx, cy, octave),) = PAPER.canonical_positions(np.array([[x, y, w, h]]))
    assert math.isclose(max(w, h) * 2**octave, 128, rel_tol=1e-9)
    assert math.isclose(cx, x + w / 2) and math.isclose(cy, y + h / 2)


@pytest.mark.parametrize(
    ("dx", "dy", "octave", "negative"),
    [
        (0, 0, 0, False),
        (31.9, 31.9, -0.99, False),
        (32, 0, 0, True),
        (0, -32, 0, True),
        (0, 0, 1, True),
        (0, 0, -1, True),
        (16, 0, 0.99, False),  # 16 image pixels at almost double scale are almost 32 patch pixels
    ],
)
def test_negatives_follow_the_rule_of_section_3_4(dx, dy, octave, negative):
    positive = PAPER.canonical_positions(np.array([[100, 100, 128, 64]]))
    x, y = positive[0, :2]
    assert PAPER.is_negative(x + dx, y + dy, octave, positive) is negative


def test_everything_is_negative_without_objects():
    assert PAPER.is_negative(0, 0, 0, np.zeros((0, 3)))


@pytest.mark.parametrize("wrong", [{"patch": 220}, {"context": 3}, {"canonical": 200}, {"stride": 12, "patch": 228}])
def test_impossible_geometries_are_refused(wrong):
    with pytest.raises(ValueError, match="geometry"):
        Geometry(**wrong)
