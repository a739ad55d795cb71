"""Pictures show what they are given: contours, tints, squares, and files that are the same for the same picture."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from deepmask import pictures

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


@given(hnp.arrays(bool, SHAPES))
def test_contour_is_the_mask_without_its_erosion(mask):
    assert np.array_equal(pictures.contour(mask), mask & ~ndimage.binary_erosion(mask))


@given(hnp.arrays(np.uint8, SHAPES.map(lambda s: (*s, 3))), st.integers(0, 2**31))
def test_overlay_leaves_pixels_outside_the_masks_alone(image, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((3, *image.shape[:2])) < 0.3
    outside = ~masks.any(axis=0)
    result = pictures.overlay(image, masks)
    assert result.dtype == np.uint8 and np.array_equal(result[outside], image[outside])
    edge = pictures.contour(masks[2])  # the last mask is on top
    assert np.array_equal(result[edge], np.broadcast_to(np.rint(255 * pictures.colours(3)[2]), (edge.sum(), 3)))
    assert np.array_equal(pictures.overlay(image, []), image)


def test_colours_are_distinct_and_do_not_depend_on_their_number():
    assert np.array_equal(pictures.colours(40)[:7], pictures.colours(7))
    apart = np.abs(pictures.colours(12)[:, None] - pictures.colours(12)).max(axis=2)
    assert apart[~np.eye(12, dtype=bool)].min() > 0.1


def test_spotlight_keeps_the_object_and_fades_the_rest():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:7] = True
    lit = pictures.spotlight(image, mask)
    assert np.array_equal(lit[mask], image[mask])
    assert np.ptp(lit[~mask]) < 0.2 * 256


def test_thumbnail_of_a_square_box_is_the_box_enlarged():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    tile = pictures.thumbnail(image, np.array([4, 6, 8, 8]), 16, margin=0)
    assert np.array_equal(tile, image[6:14, 4:12].repeat(2, axis=0).repeat(2, axis=1))
    assert (pictures.thumbnail(image, np.array([-40, -40, 8, 8]), 4) == 128).all(), "gray outside the image"


def test_score_cells_are_centred_on_multiples_of_the_step():
    image = np.zeros((40, 60, 3), np.uint8)
    _, axis = plt.subplots()
    shown = pictures.show_scores(axis, image, np.zeros((5, 7)), 10)
    left, right, bottom, top = shown.get_extent()
    assert (left, right, top, bottom) == (-5.5, 64.5, -5.5, 44.5), "pixel k reaches from k - .5 to k + .5 on the axes"
    assert axis.get_xlim() == (-0.5, 59.5) and axis.get_ylim() == (39.5, -0.5)


def test_boxes_are_drawn_where_their_pixels_are():
    _, axis = plt.subplots()
    pictures.show_boxes(axis, np.array([[0, 0, 2, 3], [4, 5, 1, 1]]), "red")
    assert [p.get_bbox().bounds for p in axis.patches] == [(-0.5, -0.5, 2, 3), (3.5, 4.5, 1, 1)]


@pytest.mark.parametrize("count", [1, 5, 9])
def test_grid_shows_every_image_once(count):
    images = [np.full((4, 6, 3), k, np.uint8) for k in range(count)]
    figure = pictures.grid(images, [str(k) for k in range(count)], columns=4)
    shown = [axis for axis in figure.axes if axis.images]
    assert [int(axis.images[0].get_array()[0, 0, 0]) for axis in shown] == list(range(count))
    assert [axis.get_title() for axis in shown] == [str(k) for k in range(count)]


def test_triplets_give_positives_a_mask_and_negatives_none():
    patches = [np.zeros((4, 4, 3), np.uint8)] * 5
    figure = pictures.triplets(patches, [np.ones((4, 4), bool), None, np.zeros((4, 4), bool), None, None], columns=3)
    frames = [axis.spines["left"].get_edgecolor() for axis in figure.axes if axis.images]
    positive, negative = (matplotlib.colors.to_rgba(c) for c in (pictures.POSITIVE, pictures.NEGATIVE))
    assert frames.count(positive) == 4 and frames.count(negative) == 3


def test_shelves_hold_all_thumbnails_in_their_frames():
    tile = np.zeros((20, 20, 3), np.uint8)
    figure = pictures.shelves({"a": [tile, tile], "b": [tile]}, {"a": ["#ff0000", "#00ff00"], "b": ["#ff0000"]})
    (picture,) = figure.axes[0].images
    pixels = np.asarray(picture.get_array())
    frame = 26**2 - 20**2
    assert (pixels == (255, 0, 0)).all(axis=2).sum() == 2 * frame
    assert (pixels == (0, 255, 0)).all(axis=2).sum() == frame
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]


def test_network_names_every_map_and_layer():
    figure = pictures.network([("patch", 3, 224), ("conv1", 64, 112)], [("#ddeedd", ["mask"]), ("#eedddd", ["score"])])
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"patch", "conv1", "mask", "score", "64\n112²"} <= texts


def test_saved_files_are_the_same_for_the_same_picture(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for name in ("a", "b"):
        pictures.save(pictures.grid([image, image[::-1]], ["one", "two"]), tmp_path / "figures" / name)
    files = sorted((tmp_path / "figures").iterdir())
    assert [file.name for file in files] == ["a.png", "b.png"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_border_map_has_the_value_of_each_border_on_both_sides():
    labels = np.array([[0, 0, 1], [0, 2, 1]])
    drawn = pictures.border_map(labels, np.array([[0, 1], [0, 2], [1, 2]]), np.array([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(drawn, [[0, 0.5, 0.1], [0.5, 0.9, 0.9]])
    assert not pictures.border_map(np.zeros((2, 3), int), np.zeros((0, 2), int), np.zeros(0)).any()
