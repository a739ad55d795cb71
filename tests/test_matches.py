"""Pictures of best matches: what counts as found, and what is drawn."""

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from deepmask import masks
from deepmask.matches import MISSED, best_matches
from deepmask.proposals import Proposals


def square(x, y, side):
    mask = np.zeros((40, 60), bool)
    mask[y : y + side, x : x + side] = True
    return mask


OBJECTS = masks.encode(np.stack([square(2, 2, 10), square(30, 5, 20), square(5, 25, 12)]))
RLES = masks.encode(np.stack([square(30, 5, 19), square(2, 2, 10), square(50, 30, 5)]))
IMAGE = np.full((40, 60, 3), 120, np.uint8)


def test_the_best_proposal_of_each_object_is_shown_and_the_missed_one_is_red():
    axis = Figure().subplots()
    best = best_matches(axis, IMAGE, Proposals.ranked(0, [3, 2, 1], masks.boxes(RLES), RLES), OBJECTS)
    np.testing.assert_allclose(best, masks.iou(RLES, OBJECTS).max(axis=0))
    assert best[0] == 1 and 0.5 < best[1] < 1 and best[2] == 0
    drawn = np.asarray(axis.images[0].get_array())
    assert (drawn[5, 5] != IMAGE[5, 5]).any() and (drawn[10, 40] != IMAGE[10, 40]).any()
    assert (drawn[30, 10] == IMAGE[30, 10]).all() and (drawn[32, 52] == IMAGE[32, 52]).all(), "not what fits nothing"
    (missed,) = axis.collections
    assert to_hex(missed.get_edgecolor()[0]) == MISSED


def test_boxes_are_compared_and_drawn_as_boxes():
    axis = Figure().subplots()
    best = best_matches(axis, IMAGE, Proposals.ranked(0, [3, 2, 1], masks.boxes(RLES)), OBJECTS)
    np.testing.assert_allclose(best, masks.box_iou(masks.boxes(RLES), masks.boxes(OBJECTS)).max(axis=0))
    assert len(axis.patches) == 3 and sum(to_hex(p.get_edgecolor()) == MISSED for p in axis.patches) == 1


def test_nothing_proposed_and_nothing_to_find():
    axis = Figure().subplots()
    assert best_matches(axis, IMAGE, Proposals(0, [], [], []), OBJECTS).tolist() == [0, 0, 0]
    assert len(axis.collections) == 3
    assert best_matches(Figure().subplots(), IMAGE, Proposals(0, [1], [[0, 0, 2, 2]]), []).shape == (0,)
