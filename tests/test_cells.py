"""Cells found by a pixel: the nearest one by geometry, with the score and the mask of the dense pass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmask import masks
from deepmask.cells import ImageCells, nearest
from deepmask.config import ModelConfig
from deepmask.geometry import Geometry
from deepmask.inference import Cells, DeepMaskProposer, DensePass, Paster
from deepmask.model import DeepMask

GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
OCTAVES = (-1.0, 0.0, 0.5)
HEIGHT, WIDTH = 37, 53
PIXELS = [(0, 0), (20, 11), (31, 30), (WIDTH - 1, HEIGHT - 1)]


def network(seed):
    torch.manual_seed(seed)
    return DeepMask(GEOMETRY, ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))).eval()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def proposer():
    return DeepMaskProposer(network(0), OCTAVES, count=40, threshold=0.45, precision="fp32")


@pytest.fixture(scope="module")
def cells(proposer, image):
    return ImageCells(proposer, image)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.2, 3), st.data())
def test_no_centre_of_a_cell_is_nearer(height, width, scale, data):
    shape = GEOMETRY.cells(*(max(1, round(side * scale)) for side in (height, width)))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    rows, cols = (grid.ravel() for grid in np.indices(shape))
    patches = GEOMETRY.cell_boxes(rows, cols, scale)
    middles = patches[:, :2] + patches[:, 2:] / 2
    apart = np.hypot(*(middles - (x + 0.5, y + 0.5)).T)
    row, col = nearest(GEOMETRY, x, y, scale, shape)
    assert apart[row * shape[1] + col] <= apart.min() + 1e-9


def test_pixels_outside_the_image_have_the_nearest_cell_inside():
    assert nearest(GEOMETRY, -50, 500, 1.0, (10, 14)) == (9, 0)


@pytest.mark.parametrize("scale", range(len(OCTAVES)))
def test_score_and_mask_are_those_of_the_dense_pass(proposer, image, cells, scale):
    dense = DensePass(proposer.masker, image, OCTAVES, "fp32")
    logits = dense.scores()[scale]
    rows, cols = (grid.ravel() for grid in np.indices(logits.shape))
    every = Cells(np.full(len(rows), scale), rows, cols, np.zeros(len(rows), np.float32))
    paster = Paster(dense, every)
    np.testing.assert_allclose(cells.scores(scale), 1 / (1 + np.exp(-logits)), rtol=1e-6)
    for threshold in (None, 0.55):
        rles = paster.masks(threshold or proposer.threshold)
        for x, y in PIXELS:
            cell = cells.at(x, y, scale, threshold)
            assert (cell.scale, cell.row, cell.col) == (
                scale,
                *nearest(GEOMETRY, x, y, 2 ** OCTAVES[scale], logits.shape),
            )
            assert cell.score == pytest.approx(1 / (1 + np.exp(-logits[cell.row, cell.col])))
            rle = rles[cell.row * logits.shape[1] + cell.col]
            assert cell.mask.shape == (HEIGHT, WIDTH)
            assert (cell.mask != masks.decode(rle)).mean() < 1e-3  # one cell at a time rounds differently


def test_the_cell_of_a_proposal_has_its_score_and_mask(proposer, image, cells):
    """A click into the middle of the patch that a proposal comes from gives that proposal."""
    made = proposer(image)
    again = cells.proposals(40)
    assert again.masks == made.masks and np.array_equal(again.scores, made.scores)
    assert (
        cells.proposals(5, 0.6).masks
        == DeepMaskProposer(proposer.masker, OCTAVES, count=5, threshold=0.6, precision="fp32")(image).masks
    )
    highest = [(float(cells.scores_at(x, y).max()), x, y) for y in range(HEIGHT) for x in range(WIDTH)]
    score, x, y = max(highest)
    cell = cells.at(x, y)
    assert score == cell.score == made.scores[0], "the best cell is the nearest of some pixel"
    assert (cell.mask != masks.decode(made.masks[0])).mean() < 1e-3


def test_without_a_scale_the_highest_score_decides(cells):
    chosen = set()
    for x, y in PIXELS:
        at_each = [cells.at(x, y, scale).score for scale in range(len(OCTAVES))]
        np.testing.assert_allclose(cells.scores_at(x, y), at_each, rtol=1e-6)
        best = cells.at(x, y)
        assert best.scale == int(np.argmax(at_each))
        chosen.add(best.scale)
    assert len(chosen) > 1, "else any fixed scale would pass"


def test_the_patch_is_centred_near_the_pixel(cells):
    for x, y in PIXELS[:-1]:  # at the far edge the last cell may be further away
        for scale, octave in enumerate(OCTAVES):
            left, top, width, height = cells.at(x, y, scale).box
            assert (width, height) == (32 / 2**octave,) * 2
            apart = max(abs(left + width / 2 - x - 0.5), abs(top + height / 2 - y - 0.5))
            assert apart <= 2 / 2**octave + 1e-9, "half a step between cells"


def test_masks_of_one_network_and_scores_of_another(image):
    masker, scorer = network(1), network(2)
    starred = ImageCells(DeepMaskProposer(masker, OCTAVES, scorer=scorer, precision="fp32"), image)
    of_masker, of_scorer = (ImageCells(DeepMaskProposer(n, OCTAVES, precision="fp32"), image) for n in (masker, scorer))
    cell = starred.at(20, 11, 1)
    assert cell.score == of_scorer.at(20, 11, 1).score != of_masker.at(20, 11, 1).score
    assert np.array_equal(cell.mask, of_masker.at(20, 11, 1).mask)
    assert not np.array_equal(cell.mask, of_scorer.at(20, 11, 1).mask)


def test_pixels_of_a_large_image_are_its_own(proposer):
    large = np.random.default_rng(3).integers(0, 256, (80, 120, 3), np.uint8)
    limited = ImageCells(DeepMaskProposer(proposer.masker, (0.0,), precision="fp32", longest=60), large)
    cell = limited.at(100, 60)
    assert limited.scales.tolist() == [0.5] and cell.mask.shape == (80, 120)
    assert np.abs(cell.box[:2] + cell.box[2:] / 2 - (100.5, 60.5)).max() <= 4 and cell.box[2] == 64


@pytest.mark.parametrize("scale", [-1, len(OCTAVES)])
def test_a_scale_that_is_not_there_is_named(cells, scale):
    with pytest.raises(ValueError, match=f"scale: {scale} .* give 0 to 2"):
        cells.at(3, 3, scale)
    with pytest.raises(ValueError, match=str(scale)):
        cells.scores(scale)
