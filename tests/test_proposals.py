"""The COCO results file: round trips, other programs' files, and what is said about damaged ones."""

import contextlib
import io
import json
import os

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import deepmask.results_file as module
from deepmask import masks
from deepmask.proposals import ProposalError, ProposalMethod, Proposals
from deepmask.results_file import read, write

HEIGHT, WIDTH = 30, 40


def random_proposals(rng, image_id, count, with_masks=True):
    pixels = np.zeros((count, HEIGHT, WIDTH), bool)
    for mask in pixels[1:]:  # the first stays empty
        y, x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
        mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = True
        mask &= rng.random(mask.shape) < rng.choice([0.5, 2])
    rles = masks.encode(pixels)
    boxes = masks.boxes(rles) if with_masks else rng.random((count, 4)) * 30
    return Proposals.ranked(image_id, rng.random(count), boxes, rles if with_masks else None)


@pytest.fixture
def proposals():
    rng = np.random.default_rng(0)
    return [random_proposals(rng, image_id, count) for image_id, count in ((7, 40), (3, 25), (12, 1))]


def results(path, entries):
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return path


def entry(**changes):
    rle = masks.encode(np.ones((1, HEIGHT, WIDTH), bool))[0]
    segmentation = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
    values = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 40, 30], "segmentation": segmentation}
    return {key: value for key, value in (values | changes).items() if value is not ...}


@pytest.mark.parametrize("with_masks", [True, False])
def test_what_is_written_is_read(tmp_path, with_masks):
    rng = np.random.default_rng(1)
    written = {image_id: random_proposals(rng, image_id, 30, with_masks) for image_id in (9, 2, 5)}
    write(tmp_path / "new" / "proposals.json", (p for p in written.values()))
    again = read(tmp_path / "new" / "proposals.json", image_ids=np.array([2, 5, 9]))
    assert list(again) == [2, 5, 9]
    for image_id, expected in written.items():
        np.testing.assert_array_equal(again[image_id].scores, expected.scores)
        np.testing.assert_array_equal(again[image_id].boxes, expected.boxes)
        assert again[image_id].masks == expected.masks
        assert again[image_id].scores.dtype == again[image_id].boxes.dtype == np.float32


def test_pycocotools_loads_the_file(tmp_path, proposals):
    write(tmp_path / "p.json", proposals)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": p.image_id, "height": HEIGHT, "width": WIDTH} for p in proposals],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(str(tmp_path / "p.json"))
    for expected in proposals:
        annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[expected.image_id]))
        assert [a["score"] for a in annotations] == pytest.approx(expected.scores.tolist())
        np.testing.assert_allclose([a["bbox"] for a in annotations], expected.boxes)
        for annotation, rle in zip(annotations, expected.masks, strict=True):
            np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), masks.decode(rle))


def test_same_proposals_same_bytes_and_order_of_images_is_kept(tmp_path, proposals):
    write(tmp_path / "a.json", proposals)
    write(tmp_path / "b.json", iter(proposals))
    text = (tmp_path / "a.json").read_bytes()
    assert text == (tmp_path / "b.json").read_bytes() and text.endswith(b"\n]\n")
    assert list(dict.fromkeys(e["image_id"] for e in json.loads(text))) == [7, 3, 12]


def test_no_proposals_at_all(tmp_path):
    write(tmp_path / "p.json", [Proposals(4, [], [], [])])
    assert json.loads((tmp_path / "p.json").read_text()) == [] and read(tmp_path / "p.json") == {}


def test_an_interrupted_write_leaves_the_old_file(tmp_path, proposals):
    def fails():
        yield proposals[0]
        raise KeyboardInterrupt

    write(tmp_path / "p.json", proposals[:1])
    before = (tmp_path / "p.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "p.json", fails())
    with pytest.raises(ProposalError, match="image 7 was given twice"):
        write(tmp_path / "p.json", [proposals[0], proposals[0]])
    assert [f.name for f in tmp_path.iterdir()] == ["p.json"] and (tmp_path / "p.json").read_bytes() == before


def test_other_programs_files_are_read(tmp_path):
    counts = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH - 60, 60]}
    mixed = [
        entry(image_id=2, score=0.25, category_id=17, bbox=...),
        entry(image_id=1, score=1, segmentation=..., bbox=[1, 2.5, 3, 4]),
        entry(image_id=2, score=0.75, category_id=..., bbox=..., segmentation=counts, id=5, area=3),
        entry(image_id=1, score=2.5, segmentation=...),
        entry(image_id=1, score=1, segmentation=..., bbox=[5, 5, 5, 5]),
    ]
    found = read(results(tmp_path / "p.json", json.dumps(mixed, indent=3) + "\n"))
    np.testing.assert_array_equal(found[1].scores, [2.5, 1, 1])
    np.testing.assert_array_equal(found[1].boxes, [[0, 0, 40, 30], [1, 2.5, 3, 4], [5, 5, 5, 5]])  # ties keep order
    assert found[1].masks is None
    np.testing.assert_array_equal(found[2].scores, [0.75, 0.25])
    np.testing.assert_array_equal(found[2].boxes, [[0, 0, 38, 30], [0, 0, 40, 30]])
    assert [int(masks.decode(rle).sum()) for rle in found[2].masks] == [HEIGHT * WIDTH - 60, HEIGHT * WIDTH]


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_a_file_read_in_pieces_is_the_same(tmp_path, proposals, monkeypatch, chunk):
    write(tmp_path / "p.json", [p.top(5) for p in proposals])
    whole = read(tmp_path / "p.json")
    monkeypatch.setattr(module, "_CHUNK", chunk)
    pieces = read(tmp_path / "p.json")
    assert list(pieces) == list(whole)
    for image_id, expected in whole.items():
        np.testing.assert_array_equal(pieces[image_id].scores, expected.scores)
        assert pieces[image_id].masks == expected.masks


GOOD = entry()["segmentation"]
NEGATIVE = "aU1O"  # runs of 1201 and -1
DAMAGED = {
    "no score": (entry(score=...), "entry 1: has no score"),
    "no image": (entry(image_id=...), "entry 1: has no image_id"),
    "text score": (entry(score="high"), "entry 1: score 'high' is not a number"),
    "infinite score": (entry(score=float("nan")), "entry 1: score is not finite"),
    "infinite box": (entry(bbox=[0, 0, 1, float("inf")]), "entry 1: bbox is not finite"),
    "fraction": (entry(image_id=1.5), "entry 1: image_id 1.5 is not annotated"),
    "unknown image": (entry(image_id=8), "entry 1: image_id 8 is not annotated"),
    "short box": (entry(bbox=[0, 0, 1]), r"entry 1: bbox \[0, 0, 1\] is not"),
    "neither": (entry(bbox=..., segmentation=...), "entry 1: has neither bbox nor segmentation"),
    "some masks": (entry(segmentation=...), "entry 1: some proposals of its image have a segmentation"),
    "polygon": (entry(segmentation=[[0, 0, 5, 0, 5, 5]]), "entry 1: segmentation is not an RLE"),
    "size": (entry(segmentation=GOOD | {"size": [40, 30]}), r"entry 1: segmentation: size \[40, 30\] differs"),
    "cut counts": (entry(segmentation=GOOD | {"counts": GOOD["counts"][:-1]}), "entry 1: segmentation: .*counts"),
    "open counts": (entry(segmentation=GOOD | {"counts": GOOD["counts"] + "P"}), "entry 1: segmentation: .*counts"),
    "bad counts": (entry(segmentation=GOOD | {"counts": "\x7f!"}), "entry 1: segmentation: .*counts"),
    "no counts": (entry(segmentation=GOOD | {"counts": ""}), "entry 1: segmentation: .*counts"),
    "not an object": (3, "entry 1: 3 is not an object"),
    "huge score": (entry(score=10**400), "entry 1: score is not finite, or too large for 32 bits"),
    "large score": (entry(score=-1e39), "entry 1: score is not finite, or too large for 32 bits"),
    "huge box": (entry(bbox=[0, 0, 1, 10**400]), "entry 1: bbox is not finite, or too large for 32 bits"),
    "large box": (entry(bbox=[0, 0, 1, 1e39]), "entry 1: bbox is not finite, or too large for 32 bits"),
    "huge id": (entry(image_id=2**63), f"entry 1: image_id {2**63} is not annotated"),
    "foreign counts": (
        entry(segmentation=GOOD | {"counts": GOOD["counts"] + "\ud800"}),
        "entry 1: segmentation: .*counts",
    ),
    "negative run": (entry(segmentation=GOOD | {"counts": NEGATIVE}), "entry 1: segmentation: .*counts"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_entry_is_named(tmp_path, name):
    damaged, message = DAMAGED[name]
    with pytest.raises(ProposalError, match=f"p.json: {message}"):
        read(results(tmp_path / "p.json", [entry(), damaged, entry()]), image_ids=[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a COCO results file"),
        ('{"annotations": []}', "not a COCO results file"),
        ("[", "entry 0 is not valid JSON"),
        (json.dumps([entry(), entry()])[:-20], "entry 1 is not valid JSON"),
        (json.dumps([entry()])[:-1], "entry 1 is not valid JSON"),
        ('[{"image_id": 1 "score": 2}]', "entry 0 is not valid JSON"),
        ("[" * 100_000, "entry 0 is nested too deeply"),
        ('[{"bbox":' + "[" * 5000 + "]" * 5000 + "}]", "entry 0 is nested too deeply"),
        ("[] []", "goes on after the end of the list"),
        (json.dumps([entry()]) * 2, "goes on after the end of the list"),
        (
            json.dumps([entry()] + [entry(image_id=2, segmentation={"size": [2**31, 1], "counts": [2**31]})]),
            r"entry 1: segmentation: size \[2147483648, 1\] is not possible",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    with pytest.raises(ProposalError, match=f"p.json: {message}"):
        read(results(tmp_path / "p.json", text))


def test_runs_of_no_pixel_are_joined(tmp_path):
    odd, plain = ({"size": [2, 3], "counts": counts} for counts in ([1, 1, 0, 2, 2], [1, 3, 2]))
    written = coco_mask.frPyObjects(odd, 2, 3)["counts"].decode()
    entries = [entry(segmentation=shape, bbox=...) for shape in (odd, odd | {"counts": written}, plain)]
    found = read(results(tmp_path / "p.json", entries))[1]
    assert found.masks[0] == found.masks[1] == found.masks[2] and len({*map(tuple, found.boxes.tolist())}) == 1


def test_a_byte_order_mark_is_passed_over(tmp_path):
    assert list(read(results(tmp_path / "p.json", "\ufeff" + json.dumps([entry()])))) == [1]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.json")
    with pytest.raises(ProposalError, match="p.json: neither a file nor a folder"):
        read(tmp_path / "p.json")


def test_a_file_that_breaks_off_with_an_error_is_named(tmp_path):
    (tmp_path / "p.json").symlink_to("/proc/self/mem")  # can be opened, but not be read at its start
    with pytest.raises(ProposalError, match="p.json: cannot read the proposals: "):
        read(tmp_path / "p.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ProposalError, match="none.json: cannot read .* No such file"):
        read(tmp_path / "none.json")


def test_every_run_length_code_is_accepted_and_every_cut_one_refused(tmp_path):
    rng = np.random.default_rng(5)
    pixels = rng.random((60, HEIGHT, WIDTH)) < np.linspace(0, 1, 60)[:, None, None]
    big = np.zeros((1, 900, 1100), bool)
    big[0, 450:, 300:800] = True
    for encoded, size in ((masks.encode(pixels), HEIGHT * WIDTH), (masks.encode(big), 900 * 1100)):
        counts = [rle["counts"] for rle in encoded]
        assert masks.cover(counts, size) and not masks.cover(counts, size + 1)
        for code in counts:
            assert not masks.cover([counts[0], code[:-1], counts[-1]], size)


def test_proposals_keep_their_parts_together(tmp_path, proposals):
    best = proposals[0].top(3).of(np.int64(99))
    assert len(best) == 3 and best.image_id == 99 and len(best.masks) == 3 and best.boxes.shape == (3, 4)
    with pytest.raises(ProposalError, match="image 1: scores, boxes and masks differ"):
        Proposals(1, [0.5], np.zeros((2, 4)))
    with pytest.raises(ProposalError, match="not descending"):
        Proposals(1, [0.5, 0.6], np.zeros((2, 4)))
    with pytest.raises(ProposalError, match="not finite"):
        write(tmp_path / "p.json", [Proposals(1, [0.5], [[0, 0, np.nan, 0]])])


def test_any_callable_with_a_name_is_a_method():
    class Whole:
        name = "whole image"

        def __call__(self, image: np.ndarray) -> Proposals:
            return Proposals(0, [1.0], [[0, 0, image.shape[1], image.shape[0]]])

    method: ProposalMethod = Whole()
    assert method(np.zeros((3, 5, 3), np.uint8)).boxes.tolist() == [[0, 0, 5, 3]]


def test_tv_tensors_are_what_torchvision_works_with():
    """Boxes that RoIAlign takes, masks whose boxes torchvision finds where ours are."""
    from torchvision.ops import masks_to_boxes, roi_align
    from torchvision.tv_tensors import BoundingBoxes, Mask

    pixels = np.zeros((2, 20, 30), bool)
    pixels[0, 3:9, 4:15] = pixels[1, 10:, :7] = True
    rles = masks.encode(pixels)
    made = Proposals(0, [0.9, 0.5], masks.boxes(rles), rles).tv_tensors((20, 30))
    assert isinstance(made["boxes"], BoundingBoxes) and isinstance(made["masks"], Mask)
    assert np.array_equal(made["masks"].numpy(), pixels) and made["scores"].tolist() == pytest.approx([0.9, 0.5])
    found = masks_to_boxes(made["masks"])  # of the last pixels, not beyond them
    assert np.array_equal(found[:, :2], made["boxes"][:, :2]) and np.array_equal(found[:, 2:] + 1, made["boxes"][:, 2:])
    pooled = roi_align(torch.ones(1, 1, 20, 30), [made["boxes"].as_subclass(torch.Tensor)], 2)
    assert torch.allclose(pooled, torch.ones(2, 1, 2, 2))
    assert "masks" not in Proposals(0, [], []).tv_tensors((20, 30))
