"""Reading COCO-format folders: against pycocotools and Pillow, and what happens to folders that are not sound."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import pickle
import random
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEIGHT, WIDTH, annotation, ellipse, rectangle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from deepmask.data import coco
from deepmask.data.coco import DataError, InstanceDataset, read_image
from deepmask.paper import PASCAL_CATEGORIES

TRAIN2014_ANNOTATIONS = 604_907
BUDGET = 2e9  # bytes


def train(folder: Path) -> Path:
    return folder / "annotations" / "instances_train.json"


def read(folder: Path) -> InstanceDataset:
    return InstanceDataset.read(train(folder), folder / "images")


def edit(folder: Path, change) -> None:
    """Rewrite the training annotations after `change` was applied to the document."""
    document = json.loads(train(folder).read_text())
    change(document)
    train(folder).write_text(json.dumps(document))


@pytest.fixture
def dataset(tiny_coco: Path) -> InstanceDataset:
    return read(tiny_coco)


def test_every_mask_is_the_one_of_pycocotools(tiny_coco, dataset, capsys):
    coco = COCO(str(train(tiny_coco)))
    kinds = {str(type(a["segmentation"])) + str(a["iscrowd"]) for a in coco.anns.values()}
    assert len(kinds) == 3  # polygons, RLE and crowd
    assert sorted(coco.anns) == sorted(dataset.ann_ids.tolist())
    for a, id in enumerate(dataset.ann_ids.tolist()):
        expected = coco.anns[id]
        np.testing.assert_array_equal(dataset.mask(a), coco.annToMask(expected))
        assert dataset.image_ids[dataset.ann_image[a]] == expected["image_id"]
        assert dataset.ann_category[a] == expected["category_id"]
        np.testing.assert_allclose(dataset.ann_boxes[a], expected["bbox"], rtol=1e-6)
        assert dataset.ann_areas[a] == expected["area"]
        assert dataset.ann_crowd[a] == bool(expected["iscrowd"])


def test_everything_is_sorted_by_image_then_annotation_whatever_the_order_of_the_file(tiny_coco, dataset):
    def shuffle(document):
        for records in document.values():
            random.Random(1).shuffle(records)

    edit(tiny_coco, shuffle)
    shuffled = read(tiny_coco)
    assert dataset.image_ids.tolist() == [2, 3, 4, 5, 9]
    for field in dataclasses.fields(InstanceDataset):
        np.testing.assert_equal(getattr(shuffled, field.name), getattr(dataset, field.name))
    indices = [a for i in range(len(dataset)) for a in dataset.annotations(i)]
    assert indices == list(range(len(dataset.ann_ids)))
    for i in range(len(dataset)):
        assert (dataset.ann_image[dataset.annotations(i)] == i).all()
        assert (np.diff(dataset.ann_ids[dataset.annotations(i)]) > 0).all()
    assert len(dataset.annotations(2)) == 0  # image 4 has no objects


def test_images_are_rgb_of_the_stated_size(tiny_coco, dataset):
    for i, id in enumerate(dataset.image_ids.tolist()):
        path = tiny_coco / "images" / dataset.file_name(i)
        assert path.stem == f"{id:06d}"
        expected = np.array(Image.open(path).convert("RGBA"))[:, :, :3]
        np.testing.assert_array_equal(dataset.image(i), expected)


# --- images ---------------------------------------------------------------------------------------------------------


def test_every_mode_of_image_becomes_rgb(tmp_path):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (6, 8, 3), np.uint8)
    gray, alpha = rgb[:, :, 0], rgb[:, :, 1:2]
    repeated = np.repeat(gray[:, :, None], 3, axis=2)
    palette = Image.fromarray(rgb).quantize(256)
    cases = {
        "rgb.png": (Image.fromarray(rgb), rgb),
        "gray.png": (Image.fromarray(gray), repeated),
        "alpha.png": (Image.fromarray(np.concatenate([rgb, alpha], axis=2)), rgb),
        "gray_alpha.png": (Image.fromarray(np.dstack([gray, alpha])), repeated),
        "palette.png": (palette, np.array(palette.convert("RGB"))),
        "deep.png": (Image.fromarray(gray.astype(np.uint16) * 256 + 77), repeated),
        "deep.tiff": (Image.fromarray(gray.astype(np.uint16) * 256 + 77), repeated),
        "binary.png": (Image.fromarray(gray > 99), np.repeat((gray > 99)[:, :, None], 3, axis=2) * 255),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        pixels = read_image(tmp_path / name)
        assert pixels.dtype == np.uint8 and pixels.flags.writeable
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


def test_transparent_palette_keeps_its_colours(tmp_path):
    palette = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB").quantize(256)
    palette.save(tmp_path / "p.png", transparency=bytes(range(256)))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), np.array(palette.convert("RGB")))


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (20, 40, 3)


def test_large_images_are_read_without_a_warning_and_too_large_ones_refused(tmp_path, monkeypatch):
    Image.new("1", (9500, 9500)).save(tmp_path / "large.bmp")  # Pillow warns from 89 million pixels on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "large.bmp").shape == (9500, 9500, 3)
        monkeypatch.setattr(coco, "LARGEST", 9500**2 - 1)
        with pytest.raises(DataError, match="large.bmp: 9500 x 9500 pixels, more than .*; shrink it"):
            read_image(tmp_path / "large.bmp")


def test_an_image_that_cannot_be_used_is_named(tiny_coco, dataset):
    jpeg = tiny_coco / "images" / "000009.jpg"
    i = dataset.image_ids.tolist().index(9)
    intact = jpeg.read_bytes()
    faults = {
        "not a readable image": lambda: jpeg.write_bytes(intact[: len(intact) // 2]),
        "not a readable image ": lambda: jpeg.write_bytes(b"no image"),
        "image 9 of": lambda: Image.new("RGB", (WIDTH + 1, HEIGHT)).save(jpeg),
        "no such image file": jpeg.unlink,
    }
    for words, spoil in faults.items():
        spoil()
        with pytest.raises(DataError) as caught:
            dataset.image(i)
        assert str(jpeg) in str(caught.value) and words.strip() in str(caught.value) and "; " in str(caught.value)
        with pytest.raises(DataError):
            InstanceDataset.read(train(tiny_coco), tiny_coco / "images", check_images=True)
    assert len(read(tiny_coco)) == 5  # images are only opened when they are asked for


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "pipe.png", tmp_path / "folder.png", Path("/dev/zero")):
        with pytest.raises(DataError, match=f"{path}: a folder or a device, no file; "):
            read_image(path)


def test_formats_for_which_pillow_starts_another_program_are_refused(tmp_path, monkeypatch):
    def start(*arguments, **_):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr("subprocess.Popen", start)
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for name in ("a.eps", "a.png"):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(DataError, match=f"{name}: not a readable image .of no format that is read: .*PNG"):
            read_image(tmp_path / name)


def test_an_image_without_enough_memory_says_so(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def convert(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", convert)
    with pytest.raises(DataError, match="a.png: there is not enough memory for its pixels; free some"):
        read_image(tmp_path / "a.png")


def test_a_data_error_survives_a_worker():
    error = pickle.loads(pickle.dumps(DataError("file: annotation 3: wrong; mend it")))
    assert str(error) == "file: annotation 3: wrong; mend it"


# --- unsound files --------------------------------------------------------------------------------------------------


def bad_annotation(**changes):
    def change(document):
        document["annotations"].append(annotation(77, 4, 1, [rectangle(1, 1, 9, 9)]) | changes)

    return change


def without(key):
    def change(document):
        bad_annotation()(document)
        del document["annotations"][-1][key]

    return change


def image(**changes):
    return lambda document: document["images"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bad_annotation(image_id=123), "annotation 77: image_id 123 is not among the images"),
        (bad_annotation(category_id=5), "annotation 77: category_id 5 is not among the categories"),
        (bad_annotation(segmentation=[[1, 1, 5, 5]]), "annotation 77: polygon 1 has 2 points, fewer than three"),
        (bad_annotation(segmentation=[[1, 1, 5, 1, 5, 5, 3]]), "annotation 77: polygon 1 has an odd number"),
        (bad_annotation(segmentation=[]), "annotation 77: the segmentation has no polygon"),
        (bad_annotation(segmentation={"size": [64, 48], "counts": [3072]}), "annotation 77: the RLE's size"),
        (bad_annotation(segmentation={"size": [48, 64], "counts": [3]}), "annotation 77: the RLE's counts sum to 3"),
        (bad_annotation(segmentation={"size": [48, 64], "counts": "~~"}), "annotation 77: the RLE's counts are malf"),
        (bad_annotation(bbox=[1, 2, 3]), "annotation 77: bbox"),
        (bad_annotation(bbox=[1, 2, 3, float("inf")]), "annotation 77: bbox"),
        (bad_annotation(area=-1), "annotation 77: area"),
        (bad_annotation(iscrowd=2), "annotation 77: iscrowd"),
        (bad_annotation(id=900), "annotation 900: id 900 is used twice"),
        (bad_annotation(id="77"), "annotation 77: id '77' is not an integer"),
        (bad_annotation(image_id=4.0), "annotation 77: image_id 4.0 is not an integer"),
        (without("segmentation"), "annotation 77: has no segmentation"),
        (without("iscrowd"), "annotation 77: has no iscrowd"),
        (without("id"), "number 9 of annotations: has no id"),
        (lambda d: d["annotations"].append(3), "number 9 of annotations: 3 is not an object"),
        (image(width=0), "image 9: size 0 x 48"),
        (image(height="48"), "image 9: height '48' is not an integer"),
        (image(file_name=""), "image 9: file_name"),
        (image(id=2), "image 2: id 2 is used twice"),
        (lambda d: d["categories"][0].update(pascal="yes"), "category 1: name is not text or pascal"),
        (lambda d: d["categories"][1].update(id=1), "category 1: id 1 is used twice"),
        (lambda d: d.pop("categories"), 'has no list "categories"'),
        (lambda d: d.update(images={}), 'has no list "images"'),
    ],
)
def test_an_unsound_record_ends_in_one_sentence(tiny_coco, change, words):
    edit(tiny_coco, change)
    with pytest.raises(DataError) as caught:
        read(tiny_coco)
    message = str(caught.value)
    assert message.startswith(f"{train(tiny_coco)}: {words}")
    assert "\n" not in message and message.split("; ")[-1]
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'"text"', b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_that_is_not_coco_json_is_named(tiny_coco, content):
    train(tiny_coco).write_bytes(content)
    with pytest.raises(DataError, match="instances_train.json: .*; "):
        read(tiny_coco)


def test_a_missing_annotation_file_is_named(tiny_coco):
    train(tiny_coco).unlink()
    with pytest.raises(DataError, match="no such annotation file; "):
        read(tiny_coco)


def test_what_does_not_prevent_work_is_accepted(tiny_coco):
    edit(tiny_coco, bad_annotation(bbox=[-5, 1, 200, 9], area=0, segmentation=[[70, 1, 80, 1, 80, 9]]))
    dataset = read(tiny_coco)
    assert not dataset.mask(dataset.ann_ids.tolist().index(77)).any()


def test_a_data_set_without_annotations_is_one(tiny_coco):
    edit(tiny_coco, lambda document: document.update(annotations=[]))
    dataset = read(tiny_coco)
    assert len(dataset) == 5 and dataset.ann_boxes.shape == (0, 4) and dataset.annotations(4).tolist() == []
    assert len(dataset.images_subset([1, 2])) == 2


# --- subsets and categories -----------------------------------------------------------------------------------------


def contents(dataset: InstanceDataset) -> dict:
    """Everything by id, with masks as bytes."""
    return {
        id: (
            dataset.file_name(i),
            dataset.image_sizes[i].tolist(),
            [
                (dataset.ann_ids[a], dataset.ann_category[a], *dataset.ann_boxes[a], dataset.mask(a).tobytes())
                for a in dataset.annotations(i)
            ],
        )
        for i, id in enumerate(dataset.image_ids.tolist())
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> InstanceDataset:
    from conftest import write_tiny_coco

    return read(write_tiny_coco(tmp_path_factory.mktemp("shared") / "tiny"))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=5), st.sets(st.sampled_from([1, 18, 22, 59])))
def test_subsets_keep_what_they_name_and_nothing_else(shared, indices, categories):
    whole = contents(shared)
    chosen = set(shared.image_ids[np.array(indices, int)].tolist())
    expected = {
        id: (name, size, [a for a in annotations if a[1] in categories])
        for id, (name, size, annotations) in whole.items()
        if id in chosen
    }
    assert contents(shared.images_subset(indices).with_categories(categories)) == expected
    assert contents(shared.with_categories(categories).images_subset(indices)) == expected
    assert sorted(shared.with_categories(categories).categories) == sorted(categories)


def test_subsets_take_slices_and_masks(shared):
    assert shared.images_subset(slice(1, 3)).image_ids.tolist() == [3, 4]
    assert shared.images_subset(shared.image_ids > 4).image_ids.tolist() == [5, 9]
    assert shared.images_subset([4, 0]).image_ids.tolist() == [2, 9]


def test_pascal_comes_from_the_file_or_else_from_the_name(tiny_coco):
    assert len(set(PASCAL_CATEGORIES)) == 20
    assert read(tiny_coco).seen_categories() == {1, 18}

    def change(document):
        document["categories"][0]["pascal"] = False
        document["categories"][3]["pascal"] = True

    edit(tiny_coco, change)
    assert read(tiny_coco).seen_categories() == {18, 59}


def test_category_groups(dataset):
    assert dataset.category_groups({1, 18}) == {"seen": {1, 18}, "unseen": {22, 59}, "novel": {59}}
    assert dataset.category_groups(dataset.seen_categories(["pizza"])) == {
        "seen": {59}, "unseen": {1, 18, 22}, "novel": {1, 18, 22}
    }  # fmt: skip
    with pytest.raises(DataError, match="no category 'horse'; choose among dog, elephant, person, pizza"):
        dataset.seen_categories(["dog", "horse"])


# --- memory ---------------------------------------------------------------------------------------------------------


def photographs(folder: Path, images: int, objects: int) -> Path:
    """An annotation file with outlines as long as COCO's: 46 coordinates on average, images of 640 x 480 pixels."""
    rng = np.random.default_rng(0)
    document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for i in range(images):
        document["images"].append({"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "width": 640, "height": 480})
        for k in range(objects):
            a, b = np.minimum(np.exp(rng.normal(3.3, 1, 2)), 200)
            outline = np.array(ellipse(*rng.uniform((a, b), (640 - a, 480 - b)), a, b, 23))
            outline += rng.normal(0, 0.05 * a, 46)
            record = {"id": i * objects + k, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 3.0 * a * b}
            record |= {"bbox": [0.5, 0.5, a, b], "segmentation": [outline.round(2).tolist()]}
            document["annotations"].append(record)
    folder.mkdir(exist_ok=True)
    (folder / "photographs.json").write_text(json.dumps(document))
    return folder / "photographs.json"


def test_train2014_fits_in_memory(tmp_path):
    file = photographs(tmp_path, images=200, objects=7)
    read_file = InstanceDataset.read  # warm up caches before counting
    read_file(file, tmp_path)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    dataset = read_file(file, tmp_path)
    gc.collect()
    held, peak = (value - before for value in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    n = len(dataset.ann_ids)
    assert held / n * TRAIN2014_ANNOTATIONS < BUDGET / 4
    assert held / n < 1000 and peak / n * TRAIN2014_ANNOTATIONS < 1.5 * BUDGET
    plain = [v for v in vars(dataset).values() if not isinstance(v, (dict, str, Path))]
    assert all(isinstance(v, np.ndarray) and v.dtype != object for v in plain)
    assert len(dataset.categories) == 1  # the one dict does not grow with annotations


class Probe(torch.utils.data.Dataset):
    """Tells where a worker sees the arrays, and how many bytes of its own it has after reading them all."""

    def __init__(self, dataset: InstanceDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> dict[str, int]:
        before = private_bytes()
        total = int(self.dataset.counts[::4096].sum(dtype=np.int64)) + len(self.dataset.rle(0)["counts"])
        return {"pid": os.getpid(), "address": address(self.dataset.counts), "total": total, "before": before,
                "after": private_bytes()}  # fmt: skip


def address(values: np.ndarray) -> int:
    return values.ctypes.data_as(ctypes.c_void_p).value


def private_bytes() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_Dirty"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells what a process shares")
def test_loader_workers_share_the_arrays(shared):
    size = 96 << 20
    counts = np.concatenate([shared.counts, np.ones(size, np.uint8)])
    big = dataclasses.replace(shared, counts=counts)
    loader = torch.utils.data.DataLoader(Probe(big), num_workers=1, multiprocessing_context="fork", batch_size=None)
    (seen,) = loader
    assert seen["pid"] != os.getpid()
    assert seen["address"] == address(counts)  # nothing was pickled
    assert seen["total"] > size // 4096  # every page was read
    assert seen["after"] - seen["before"] < size / 10  # and none became the worker's own


# --- real photographs -----------------------------------------------------------------------------------------------

REAL = os.environ.get("DEEPMASK_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="DEEPMASK_REAL_DATA names no COCO-format folder")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_photographs(split, capsys):
    file = Path(REAL, "annotations", f"instances_{split}.json")
    dataset = InstanceDataset.read(file, Path(REAL, "images"), check_images=True)
    coco = COCO(str(file))
    assert {dataset.categories[id].name for id in dataset.seen_categories()} == set(PASCAL_CATEGORIES)
    assert len(dataset.ann_ids) == len(coco.anns) and len(dataset) == len(coco.imgs)
    for a in np.random.default_rng(0).permutation(len(dataset.ann_ids))[:300]:
        expected = coco.annToRLE(coco.anns[int(dataset.ann_ids[a])])
        assert dataset.rle(a)["counts"] == expected["counts"]
