"""Run-length codes against numpy on the decoded masks, and against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, coco_rle, compressed, ellipse, ellipse_mask, rectangle, uncompressed
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from deepmask import masks
from deepmask.masks import MaskError

stacks = arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9))
few = settings(max_examples=60, deadline=None)


@few
@given(stacks)
def test_encode_and_decode_are_inverse_and_agree_with_pycocotools(stack):
    rles = masks.encode(stack)
    assert [rle["size"] for rle in rles] == [list(stack.shape[1:])] * len(stack)
    for mask, rle in zip(stack, rles, strict=True):
        assert rle == coco_mask.encode(np.asfortranarray(mask, np.uint8))
        decoded = masks.decode(rle)
        assert decoded.dtype == bool and decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, mask)


@few
@given(stacks, st.integers(1, 30))
def test_encode_takes_any_layout_and_any_nonzero_value_and_works_in_pieces(stack, chunk):
    expected = masks.encode(stack)
    values = stack * np.arange(1, stack.shape[2] + 1, dtype=np.uint8)
    assert masks.encode(values) == expected
    assert masks.encode(np.asfortranarray(stack)) == expected
    assert masks.encode(np.repeat(stack, 2, axis=2)[:, :, ::2]) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_CHUNK", chunk)
        assert masks.encode(stack) == expected


@few
@given(stacks)
def test_areas_and_boxes_are_those_of_the_pixels(stack):
    rles = masks.encode(stack)
    np.testing.assert_array_equal(masks.areas(rles), stack.sum((1, 2)))
    for mask, box in zip(stack, masks.boxes(rles), strict=True):
        rows, cols = np.nonzero(mask)
        tight = (cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1) if len(rows) else (0, 0, 0, 0)
        np.testing.assert_array_equal(box, tight)


@few
@given(stacks, st.data())
def test_iou_is_that_of_the_pixels(stack, data):
    crowd = data.draw(arrays(bool, len(stack)))
    a, b = stack[:, None], stack[None]
    inter, union, area = (a & b).sum((2, 3)), (a | b).sum((2, 3)), np.broadcast_to(a.sum((2, 3)), (len(stack),) * 2)
    rles = masks.encode(stack)
    np.testing.assert_allclose(masks.iou(rles, rles), inter / np.maximum(union, 1))
    np.testing.assert_allclose(masks.iou(rles, rles, crowd), inter / np.maximum(np.where(crowd[None], area, union), 1))


@few
@given(st.lists(st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 8)] * 2), min_size=1, max_size=5))
def test_box_iou_is_the_iou_of_the_boxes_as_masks(boxes):
    stack = np.zeros((len(boxes), 16, 16), bool)
    for mask, (x, y, w, h) in zip(stack, boxes, strict=True):
        mask[y : y + h, x : x + w] = True
    rles, crowd = masks.encode(stack), np.arange(len(boxes)) % 2 == 0
    np.testing.assert_allclose(masks.box_iou(boxes, boxes, crowd), masks.iou(rles, rles, crowd))


def test_no_mask_is_no_special_case():
    assert masks.encode(np.zeros((0, 4, 5), bool)) == []
    assert masks.areas([]).shape == (0,) and masks.boxes([]).shape == (0, 4)
    one = masks.encode(np.ones((1, 4, 5), bool))
    assert masks.iou([], one).shape == (0, 1) and masks.iou(one, []).shape == (1, 0)
    assert masks.box_iou(np.zeros((0, 4)), masks.boxes(one)).shape == (0, 1)


coordinates = st.floats(-20, 90, allow_nan=False).map(lambda value: round(value, 2))
polygons = st.integers(3, 7).flatmap(lambda points: st.lists(coordinates, min_size=2 * points, max_size=2 * points))


@few
@given(st.lists(polygons, min_size=1, max_size=3))
def test_polygons_are_the_union_that_pycocotools_draws(segmentation):
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for polygon in segmentation:
        expected |= coco_mask.decode(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH))[:, :, 0].astype(bool)
    np.testing.assert_array_equal(masks.decode(masks.from_segmentation(segmentation, HEIGHT, WIDTH)), expected)


@few
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_both_kinds_of_rle_are_read(mask):
    for segmentation in (uncompressed(mask), compressed(mask)):
        np.testing.assert_array_equal(masks.decode(masks.from_segmentation(segmentation, *mask.shape)), mask)


@few
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_compressed_run_lengths_are_decoded_as_pycocotools_encodes_them(runs):
    rle = coco_mask.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))
    np.testing.assert_array_equal(masks._runs(rle["counts"]), runs)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=8), st.lists(st.integers(48, 111), max_size=8).map(bytes)))
def test_a_compressed_string_is_refused_or_covers_the_image(counts):
    try:
        rle = masks.from_segmentation({"size": [2, 3], "counts": counts}, 2, 3)
    except MaskError:
        return
    assert masks._runs(rle["counts"]).sum() == 6 and masks.decode(rle).shape == (2, 3)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([], "no polygon"),
        ([[1, 1, 5, 5]], "fewer than three"),
        ([rectangle(1, 1, 5, 5), []], "polygon 2 has 0 points"),
        ([[1, 1, 5, 1, 5, 5, 1]], "odd number"),
        ([[[1, 1], [5, 1], [5, 5]]], "flat list"),
        ([["a", 1, 5, 1, 5, 5]], "flat list"),
        ([None], "flat list"),
        ([[1, 1, float("nan"), 1, 5, 5]], "not finite"),
        ([[1, 1, 1e9, 1, 5, 5]], "far outside"),
        ([[1, 1, 10**400, 1, 5, 5]], "flat list"),
        ([[-60, -60, 60, 60] * 20_000], "outlines of the polygons are more than"),
        ([[-60, -60, 60, 60] * 9_000] * 2, "outlines of the polygons are more than"),
        ("abc", "list of polygons"),
        (None, "list of polygons"),
        ({"size": [4, 4], "counts": [24]}, "differs"),
        ({"counts": [24]}, "differs"),
        ({"size": [4, 6]}, "malformed"),
        ({"size": [4, 6], "counts": []}, "malformed"),
        ({"size": [4, 6], "counts": [25, -1]}, "malformed"),
        ({"size": [4, 6], "counts": [12.0, 12.0]}, "malformed"),
        ({"size": [4, 6], "counts": [2**62] * 5}, f"sum to {5 * 2**62}"),
        ({"size": [4, 6], "counts": [4, 4]}, "sum to 8"),
        ({"size": [4, 6], "counts": ""}, "malformed"),
        ({"size": [4, 6], "counts": "P"}, "malformed"),  # says that another character follows
        ({"size": [4, 6], "counts": "\u00e9"}, "malformed"),
        ({"size": [4, 6], "counts": "44"}, "sum to 8"),
    ],
)
def test_what_is_no_mask_is_refused(segmentation, words):
    with pytest.raises(MaskError, match=words):
        masks.from_segmentation(segmentation, 4, 6)


@pytest.mark.parametrize("size", [(2**31, 1), (2**16, 2**16), (10**400, 1), (0, 5), (-2, -3)])
def test_an_image_that_pycocotools_cannot_count_is_refused(size):
    rows = {"size": list(size), "counts": [size[0] * size[1]]}
    for segmentation in (rows, [rectangle(1, 1, 5, 5)]):
        with pytest.raises(MaskError, match="not possible"):
            masks.from_segmentation(segmentation, *size)


def test_a_polygon_beyond_32_bits_of_a_strip_is_refused():
    with pytest.raises(MaskError, match="far outside"):
        masks.from_segmentation([rectangle(2e9, 0, 10, 1)], 1, 2**31 - 1)


@few
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12).filter(any))
def test_runs_of_no_pixel_are_joined(runs):
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)[None]
    written = coco_mask.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))
    for counts in (runs, written["counts"]):
        rle = masks.from_segmentation({"size": [1, sum(runs)], "counts": counts}, 1, sum(runs))
        assert rle == masks.encode(pixels[None])[0]
        assert masks.cover([rle["counts"]], sum(runs))
    assert masks.cover([written["counts"]], sum(runs)) == all(runs[1:])


@few
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9), st.lists(st.integers(0, 40), min_size=1, max_size=9))
def test_cover_takes_the_codes_whose_runs_are_lengths(hostile, sound):
    codes = [_code(runs) for runs in (sound, hostile, sound)]
    for runs, code in ((sound, codes[0]), (hostile, codes[1])):
        assert masks._runs(code).tolist() == runs
        assert masks.cover([code], sum(runs)) == (runs[0] >= 0 and all(run > 0 for run in runs[1:]))
    assert masks.cover(codes, sum(sound)) == all(masks.cover([code], sum(sound)) for code in codes)


def _code(runs):
    """The compressed counts of runs, of which some may be negative, as pycocotools writes them."""
    text = bytearray()
    for k, run in enumerate(runs):
        number, more = run - (runs[k - 2] if k > 2 else 0), True
        while more:
            digit = number & 31
            number >>= 5
            more = number != (-1 if digit & 16 else 0)
            text.append(digit + 32 * more + 48)
    return bytes(text)


def test_masks_of_a_wrong_shape_are_refused():
    with pytest.raises(MaskError, match="N, H, W"):
        masks.encode(np.zeros((4, 5), bool))


def test_shapes_of_the_shared_data_are_what_their_names_say():
    for segmentation in ([ellipse(30, 24, 20, 15)], compressed(ellipse_mask(30, 24, 20, 15))):
        assert masks.areas([coco_rle(segmentation)])[0] == pytest.approx(np.pi * 20 * 15, rel=0.03)
    assert masks.boxes([coco_rle([rectangle(5, 6, 20, 25)])])[0] == pytest.approx([5, 6, 20, 25], abs=1)
