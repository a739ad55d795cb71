"""Large photographs: the proposals of a smaller copy, enlarged; and no change within the limit."""

import numpy as np
from conftest import disc_and_square
from hypothesis import given
from hypothesis import strategies as st

from deepmask import choosing, masks
from deepmask.baselines.selective_search import SelectiveSearch
from deepmask.config import Config
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.shrinking import Shrinking, enlarged

sides = st.integers(1, 12)


@given(sides, sides, st.integers(0, 30), st.integers(0, 30), st.sampled_from([0, 0.2, 0.5, 0.9, 1]), st.integers(0, 99))
def test_an_enlarged_mask_has_the_nearest_pixels(height, width, more_rows, more_columns, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    large = height + more_rows, width + more_columns
    rows, columns = (((np.arange(b) + 0.5) * a / b).astype(int) for a, b in zip(mask.shape, large, strict=True))
    (small,), (expected,) = masks.encode(mask[None]), masks.encode(mask[np.ix_(rows, columns)][None])
    assert enlarged(small, *large) == expected


def test_within_the_limit_nothing_changes():
    image = disc_and_square()[0]
    plain, found = SelectiveSearch()(image), Shrinking(SelectiveSearch(), 80)(image)
    assert len(plain) > 5 and found.masks == plain.masks
    np.testing.assert_array_equal(found.scores, plain.scores)
    np.testing.assert_array_equal(found.boxes, plain.boxes)


def test_beyond_it_the_proposals_are_those_of_the_large_image():
    image, _, objects = disc_and_square(height=480, width=640)
    method = Shrinking(SelectiveSearch(), 160)
    found = method(image)
    assert method.name == "selectivesearch" and {tuple(rle["size"]) for rle in found.masks} == {(480, 640)}
    np.testing.assert_array_equal(found.boxes, masks.boxes(found.masks))
    assert masks.iou(found.masks, masks.encode(objects)).max(axis=0).min() > 0.9


def test_boxes_without_masks_are_enlarged():
    class Boxes:
        name = "boxes"

        def __call__(self, image):
            assert image.shape == (10, 100, 3)
            return Proposals(0, [1.0], [[10, 1, 80, 8]])

    found = Shrinking(Boxes(), 100)(np.zeros((20, 200, 3), np.uint8))
    assert found.masks is None and found.boxes.tolist() == [[20, 2, 160, 16]]


def test_users_get_it_for_methods_without_a_network(tmp_path):
    chosen = choosing.find("selectivesearch", Study(tmp_path), Config(), 5)
    assert isinstance(chosen.method, Shrinking) and chosen.method.longest == Config().propose.longest == 1280
    assert 1280 in chosen.reads
