"""Turns of many masks at once, against pycocotools and against masks that were really pasted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from deepmask import masks, runs

MARGIN = 40  # pixels around an image in which the patches of these tests still lie
few = settings(max_examples=150, deadline=None)
sizes = st.tuples(*[st.integers(1, 12)] * 2)


def pasted(patches, corners, height, width, empty=False):
    """(N, height, width): patches at their places in images that are `empty` elsewhere."""
    images = np.full((len(patches), height + 2 * MARGIN, width + 2 * MARGIN), empty)
    for image, patch, (x, y) in zip(images, patches, corners, strict=True):
        image[MARGIN + y : MARGIN + y + patch.shape[0], MARGIN + x : MARGIN + x + patch.shape[1]] = patch
    return images[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width]


def check(turns, images):
    """The codes are pycocotools' own, and boxes and areas are its as well."""
    expected = [coco_mask.encode(np.asfortranarray(image, np.uint8)) for image in images]
    assert turns.rles() == expected
    np.testing.assert_array_equal(turns.boxes(), masks.boxes(expected))
    np.testing.assert_array_equal(turns.areas(), masks.areas(expected))


def turns_of(images):
    """The turns of (N, H, W) bool masks, looked for in every pixel."""
    columns = np.pad(images.transpose(0, 2, 1).reshape(len(images), -1), ((0, 0), (1, 1)))
    mask, pixel = np.nonzero(columns[:, 1:] != columns[:, :-1])
    return runs.Turns(torch.from_numpy(mask), torch.from_numpy(pixel), *images.shape)


@few
@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9), fill=st.booleans()))
def test_any_masks_are_encoded_as_pycocotools_does(images):
    check(turns_of(images), images)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (300, 200)])
@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks(size, value):
    images = np.full((3, *size), value)
    check(turns_of(images), images)


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 400), st.integers(1, 60))
def test_runs_of_every_length(seed, height, width, blob):
    """Rectangles of all sizes have runs, and differences of runs, of one digit to four."""
    rng = np.random.default_rng(seed)
    images = np.zeros((4, height, width), bool)
    for image in images:
        for _ in range(3):
            y, x = rng.integers(0, height), rng.integers(0, width)
            image[y : y + rng.integers(1, blob * 8), x : x + rng.integers(1, blob + 1)] ^= True
    check(turns_of(images), images)


@few
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(1, 7), sizes)
def test_logits_pass_zero_where_interpolated_logits_do(seed, count, mask, size):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, mask, mask)).astype(np.float32))
    corners, sides = rng.integers(-20, 14, (count, 2)), rng.integers(1, 25, count)
    turns = runs.of_logits(logits, torch.from_numpy(corners), torch.from_numpy(sides), *size)
    codes = turns.rles()
    patches = [
        F.interpolate(one[None, None], (side, side), mode="bilinear", align_corners=True)[0, 0].numpy()
        for one, side in zip(logits, sides.tolist(), strict=True)
    ]
    images = pasted(patches, corners, *size, empty=np.float32(-1))
    found = np.array([masks.decode(code) for code in codes]).reshape(images.shape)
    assert not np.any((found != (images > 0)) & (np.abs(images) > 1e-5)), "but where rounding decides"
    np.testing.assert_array_equal(turns.areas(), found.sum((1, 2)))
    np.testing.assert_array_equal(turns.boxes(), masks.boxes(codes))


def test_a_mask_between_the_logits_is_found():
    """Two logits of 1 between many of -1: the object ends half way to its neighbours."""
    logits = -torch.ones(1, 8, 8)
    logits[0, 3:5, 3:5] = 1
    turns = runs.of_logits(logits, torch.tensor([[100, 200]]), torch.tensor([701]), 1000, 1000)
    assert turns.boxes().tolist() == [[351, 451, 199, 199]], "from 2.5 to 4.5 logits, 100 pixels apart, both excluded"


def test_no_mask_is_no_special_case():
    none = torch.zeros(0, 2, dtype=torch.int64)
    turns = runs.of_logits(torch.zeros(0, 3, 3), none, none[:, 0], 5, 6)
    assert turns.rles() == [] and turns.boxes().shape == (0, 4) and turns.areas().shape == (0,)
