"""PASCAL VOC to COCO's format: coordinates by hand, pycocotools, hostile files, and the real annotations if named."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepmask import masks
from deepmask.__main__ import main
from deepmask.data import voc
from deepmask.data.check import check_folder
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.evaluation import evaluate
from deepmask.proposals import Proposals

WIDTH, HEIGHT = 50, 40
NAMES = ("000003", "000012", "000020")


def annotation_xml(objects, width=WIDTH, height=HEIGHT):
    """An annotation file as VOC writes it; an object is (class, xmin, ymin, xmax, ymax, difficult)."""
    parts = [
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        "</object>"
        for name, x0, y0, x1, y1, difficult in objects
    ]
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{size}<segmented>0</segmented>{''.join(parts)}</annotation>"


OBJECTS = {
    "000003": [("dog", 1, 1, 50, 40, 0), ("person", 11, 6, 20, 25, 1)],
    "000012": [("tvmonitor", 5, 5, 24, 24, 0), ("aeroplane", 26, 3, 45, 12, 0), ("chair", 2, 30, 9, 38, 1)],
    "000020": [],
}


def instance_numbers():
    """SegmentationObject of 000012: two objects with void borders; the chair, which is difficult, is all void."""
    numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (_, x0, y0, x1, y1, _) in enumerate(OBJECTS["000012"], 1):
        numbers[y0 - 1 : y1, x0 - 1 : x1] = 255
        if number < 3:
            numbers[y0 : y1 - 1, x0 : x1 - 1] = number
    numbers[10:14, 10:14] = 0  # a hole
    return numbers


def write_devkit(root: Path) -> Path:
    for folder in ("Annotations", "JPEGImages", "SegmentationObject", "ImageSets/Main"):
        (root / "VOCdevkit" / "VOC2007" / folder).mkdir(parents=True)
    year = root / "VOCdevkit" / "VOC2007"
    for name, listed in OBJECTS.items():
        (year / "Annotations" / f"{name}.xml").write_text(annotation_xml(listed))
        Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(year / "JPEGImages" / f"{name}.jpg")
    palette = Image.fromarray(instance_numbers()).convert("P")
    palette.putpalette(bytes(range(256)) * 3)
    palette.save(year / "SegmentationObject" / "000012.png")
    (year / "ImageSets" / "Main" / "test.txt").write_text("000020\n000003 \n\n000012\n")
    (year / "ImageSets" / "Main" / "trainval.txt").write_text("000003\n")
    return year


@pytest.fixture
def year(tmp_path: Path) -> Path:
    return write_devkit(tmp_path)


@pytest.fixture
def converted(year, tmp_path):
    """The written file and what pycocotools makes of it."""
    file = tmp_path / "annotations" / "instances_test.json"
    voc.write_coco(year, file)
    with contextlib.redirect_stdout(io.StringIO()):
        return file, COCO(str(file))


def test_boxes_by_hand(converted):
    """Pixels 11 to 20 are ten pixels, the first of which is number 10 from 0."""
    _, coco = converted
    assert [(i["id"], i["file_name"]) for i in coco.dataset["images"]] == [
        (3, "000003.jpg"),
        (12, "000012.jpg"),
        (20, "000020.jpg"),
    ]
    dog, person = coco.imgToAnns[3]
    assert dog["bbox"] == [0, 0, 50, 40] and dog["area"] == 2000 and (dog["iscrowd"], dog["difficult"]) == (0, 0)
    assert person["bbox"] == [10, 5, 10, 20] and person["area"] == 200
    assert (person["iscrowd"], person["difficult"]) == (1, 1)
    assert person["segmentation"] == [[10, 5, 20, 5, 20, 25, 10, 25]]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:25, 10:20] = 1
    np.testing.assert_array_equal(coco.annToMask(person), expected)
    assert len({a["id"] for a in coco.dataset["annotations"]}) == 5


def test_categories_are_vocs_in_its_order(converted):
    categories = converted[1].dataset["categories"]
    assert [c["id"] for c in categories] == list(range(1, 21)) and all(c["pascal"] for c in categories)
    names = [c["name"] for c in categories]
    assert names == sorted(names) and (names[0], names[11], names[14], names[19]) == (
        "aeroplane",
        "dog",
        "person",
        "tvmonitor",
    )
    assert [a["category_id"] for a in converted[1].imgToAnns[3]] == [12, 15]


def test_instance_masks_are_the_pixels_of_the_png(converted):
    _, coco = converted
    television, plane, chair = coco.imgToAnns[12]
    for number, annotation in ((1, television), (2, plane)):
        expected = instance_numbers() == number
        np.testing.assert_array_equal(coco.annToMask(annotation), expected)
        assert annotation["area"] == expected.sum() == coco_mask.area(coco.annToRLE(annotation))
    assert television["bbox"] == [4, 4, 20, 20]  # VOC's box, void border included
    assert isinstance(chair["segmentation"], list) and chair["area"] == 8 * 9  # no pixel is the chair's
    assert coco.dataset["info"]["segmentation"] == "2 objects have an instance mask, 3 only their box"


def test_a_mask_that_is_elsewhere_is_not_the_objects(year):
    numbers = instance_numbers()
    swapped = np.choose(np.where(numbers == 255, 3, numbers), [0, 2, 1, 255]).astype(np.uint8)
    Image.fromarray(swapped).save(year / "SegmentationObject" / "000012.png")
    assert all(isinstance(a["segmentation"], list) for a in voc.convert(year)["annotations"])


def test_the_written_folder_is_sound(year, converted):
    report = check_folder(converted[0].parent.parent, voc.image_folder(year))
    assert report.errors == [] and report.warnings == []
    assert [(s.images, s.annotations, s.crowds) for s in report.files.values()] == [(3, 5, 2)]


def test_difficult_objects_are_ignored_here_and_by_pycocotools(year, converted):
    """Proposals for all objects but the difficult ones find everything; those for the difficult ones find nothing."""
    file, coco = converted
    dataset = InstanceDataset.read(file, voc.image_folder(year), check_images=True)
    for difficult, recall in ((0, 1.0), (1, 0.0)):
        chosen = [a for a in coco.dataset["annotations"] if a["difficult"] == difficult]
        proposals = {}
        for image_id in {a["image_id"] for a in chosen}:
            rles = [coco.annToRLE(a) for a in chosen if a["image_id"] == image_id]
            boxes = [a["bbox"] for a in chosen if a["image_id"] == image_id]
            proposals[image_id] = Proposals.ranked(image_id, np.ones(len(rles)), boxes, rles)
        results = [
            {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 1.0, "area": a["area"]}
            for a in chosen
        ]
        for kind in ("bbox", "segm"):
            found = evaluate(dataset, proposals, kind)
            assert len(found.images) == 3 and found.ar(10) == recall
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
            evaluation.params.useCats = 0
            evaluation.evaluate()
            evaluation.accumulate()
        assert (evaluation.eval["recall"][:, 0, 0, -1] == recall).all()


def test_the_devkit_is_found_from_above(year, tmp_path):
    assert {voc.devkit(folder) for folder in (tmp_path, year.parent, year)} == {year}
    with pytest.raises(DataError, match="no Annotations folder.*name a VOCdevkit"):
        voc.devkit(year / "JPEGImages")


def test_without_a_list_all_annotated_images_are_taken(year):
    document = voc.convert(year, "trainval")
    assert [image["id"] for image in document["images"]] == [3] and "trainval split" in voc.describe(document)
    document = voc.convert(year, "val")
    assert [image["id"] for image in document["images"]] == [3, 12, 20]
    assert "all annotated images, as ImageSets has no val split" in voc.describe(document)


def test_command_line(year, tmp_path, capsys):
    out = tmp_path / "made" / "voc.json"
    assert main(["voc", str(tmp_path), str(out), "--split", "test"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert str(out) in line and "3 images, 5 objects (2 difficult), 2 objects have an instance mask" in line
    first = out.read_bytes()
    assert main(["voc", str(year), str(out), "--classes"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 20 and lines[14].split() == ["person:", "1", "objects", "(1", "difficult)"]
    assert out.read_bytes() == first
    (year / "Annotations" / "000012.xml").unlink()
    assert main(["voc", str(year), str(out)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "000012.xml: no such annotation file" in error and out.read_bytes() == first


# --- files that are not sound ---------------------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghij"))


@pytest.mark.parametrize(
    "content",
    [
        f'<!DOCTYPE a [<!ENTITY a "ha">{LAUGHS}]><annotation>&j;</annotation>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "SECRET">]><annotation><size><width>&x;</width></size></annotation>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "SECRET"> %x;]><annotation/>',
        '<!DOCTYPE annotation SYSTEM "SECRET"><annotation/>',
    ],
)
def test_hostile_xml_is_refused_before_anything_is_expanded(year, content):
    (year / "secret.txt").write_text("<size><width>50</width><height>40</height></size>")
    content = content.replace("SECRET", (year / "secret.txt").as_uri())
    (year / "Annotations" / "000012.xml").write_text(content)
    with pytest.raises(DataError, match="000012.xml: declares a document type"):
        voc.convert(year)


def box(*coordinates):
    return annotation_xml([("dog", 1, 1, 9, 9, 0), ("cat", *coordinates, 0)])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not valid XML"),
        ("<annotation>", "not valid XML"),
        ("<annotation>&x;</annotation>", "not valid XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not valid XML"),
        ('<?xml version="1.0" encoding="utf-7"?><annotation/>', "not valid XML"),
        ("<annotation/>", "image: has no size/width"),
        (annotation_xml([], width="wide"), "image: size/width 'wide' is not a number"),
        (annotation_xml([], width=0), "image: size 0 x 40 is not possible"),
        (annotation_xml([], height="inf"), "image: size/height 'inf' is not a number"),
        (annotation_xml([], width="1e308", height="1e308"), "image: size 1e+308 x 1e+308 is not possible"),
        ("<a>" * 100_000 + "</a>" * 100_000, "image: has no size/width"),
        (annotation_xml([("a\n" * 999, 1, 1, 9, 9, 0)]), "object 1: name 'a\\na\\na"),
        (annotation_xml([], height=1.5), "image: size 50 x 1.5 is not possible"),
        (annotation_xml([("unicorn", 1, 1, 9, 9, 0)]), "object 1: name 'unicorn' is not one of the 20 classes"),
        (
            "<annotation><size><width>50</width><height>40</height></size><object/></annotation>",
            "object 1: name '' is not one",
        ),
        (box(0, 1, 9, 9), "object 2 (cat): box 0, 1, 9, 9 is empty or not in the 50 x 40 image"),
        (box(1, 1, 51, 9), "object 2 (cat): box 1, 1, 51, 9 is empty"),
        (box(1, 1, 9, 41), "object 2 (cat): box 1, 1, 9, 41 is empty"),
        (box(9, 1, 8, 9), "object 2 (cat): box 9, 1, 8, 9 is empty"),
        (box("nan", 1, 8, 9), "object 2 (cat): bndbox/xmin 'nan' is not a number"),
        (annotation_xml([("dog", 1, 1, 9, 9, 2)]), "object 1 (dog): difficult '2' is neither 0 nor 1"),
    ],
)
def test_errors_name_file_and_object(year, content, words):
    (year / "Annotations" / "000012.xml").write_text(content)
    with pytest.raises(DataError) as caught:
        voc.convert(year)
    message = str(caught.value)
    assert message.startswith(str(year / "Annotations" / "000012.xml")) and words in message and "; " in message


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("P", (30_000, 30_000)), "mask of 30000 x 30000 pixels, but"),
        (Image.new("P", (WIDTH, HEIGHT + 1)), "mask of 50 x 41 pixels, but the image is 50 x 40"),
        (Image.new("RGB", (WIDTH, HEIGHT)), "has no palette"),
        (None, "not a readable image"),
    ],
)
def test_errors_name_the_mask(year, image, words):
    file = year / "SegmentationObject" / "000012.png"
    file.write_bytes(b"no image") if image is None else image.save(file)
    with pytest.raises(DataError) as caught:
        voc.convert(year)
    assert str(caught.value).startswith(str(file)) and words in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("000003 1\n000012 -1\n", "'000003 1' is no image name"),  # a list of one class
        ("../../secret\n", "'../../secret' is no image name"),
        ("000003\n000003\n", "000003 is listed twice"),
        ("000003\n3\n", "3 is listed twice, first as 000003"),
        ("x" * 9999, "xxx' is no image name"),
        ("\n", "names no image"),
    ],
)
def test_errors_name_the_list(year, listed, words):
    file = year / "ImageSets" / "Main" / "test.txt"
    file.write_text(listed)
    with pytest.raises(DataError) as caught:
        voc.convert(year)
    assert str(caught.value).startswith(str(file)) and words in str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(year, make):
    (year / "Annotations" / "000003.xml").unlink()
    make(year / "Annotations" / "000003.xml")
    with pytest.raises(DataError, match="000003.xml: no such annotation file; "):
        voc.convert(year)


def test_a_file_that_breaks_off_with_an_error_is_named(year):
    (year / "Annotations" / "000003.xml").unlink()
    (year / "Annotations" / "000003.xml").symlink_to("/proc/self/mem")  # can be opened, but not be read at its start
    with pytest.raises(DataError, match="000003.xml: cannot be read "):
        voc.convert(year)


def test_a_devkit_without_annotations_is_refused(tmp_path):
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(DataError, match="names no image"):
        voc.convert(tmp_path)


# --- the real annotations -------------------------------------------------------------------------------------------

NAMED = os.environ.get("DEEPMASK_REAL_DATA")
PLACES = [Path(NAMED), Path(NAMED, "voc07"), Path(NAMED, "..", "voc07")] if NAMED else []
REAL = next((path for path in PLACES if (path / "VOCdevkit").is_dir()), None)
real = pytest.mark.skipif(REAL is None, reason="DEEPMASK_REAL_DATA names no folder with a VOCdevkit or voc07 near it")

# objects of VOC 2007 test that are not difficult, as the challenge published them
PUBLISHED = {
    "aeroplane": 285, "bicycle": 337, "bird": 459, "boat": 263, "bottle": 469, "bus": 213, "car": 1201, "cat": 358,
    "chair": 756, "cow": 244, "diningtable": 206, "dog": 489, "horse": 348, "motorbike": 325, "person": 4528,
    "pottedplant": 480, "sheep": 242, "sofa": 239, "train": 282, "tvmonitor": 308,
}  # fmt: skip


@real
def test_real_devkit(tmp_path):
    """Masks are the PNG's pixels and fill their boxes up to void borders, and every image can be read."""
    document = voc.write_coco(REAL, tmp_path / "annotations" / "instances_all.json", "all")
    assert len(document["images"]) >= 13 and "instance mask" in voc.describe(document)
    report = check_folder(tmp_path, voc.image_folder(REAL))
    assert report.errors == [] and report.warnings == []
    masked = 0
    for image in document["images"]:
        png = voc.devkit(REAL) / "SegmentationObject" / f"{image['id']:06d}.png"
        objects = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        for number, a in enumerate(objects if png.exists() else [], 1):
            rle = masks.from_segmentation(a["segmentation"], image["height"], image["width"])
            np.testing.assert_array_equal(masks.decode(rle), np.array(Image.open(png)) == number)
            assert masks.box_iou(masks.boxes([rle]), np.array([a["bbox"]]))[0, 0] > 0.6
            masked += 1
    assert masked >= 8


@real
def test_real_boxes_of_all_test_images(tmp_path):
    """All 4,952 annotation files, made of the listed boxes: counts as published, every box one pixel from VOC's."""
    source = REAL / "boxes_all_images" / "voc07_test_boxes.json"
    if not source.exists():
        pytest.skip("boxes_all_images is not beside the VOCdevkit")
    listed = json.loads(source.read_text())
    (tmp_path / "Annotations").mkdir()
    for name, image in listed.items():
        objects = [(o["class"], *o["bbox"], o["difficult"]) for o in image["objects"]]
        content = annotation_xml(objects, image["width"], image["height"])
        (tmp_path / "Annotations" / f"{name}.xml").write_text(content)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    names = (source.parent / "official_ids_test.txt").read_text()
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text(names)
    document = voc.convert(tmp_path)
    objects = document["annotations"]
    assert len(document["images"]) == 4952 and len(objects) == 14976 and sum(a["iscrowd"] for a in objects) == 2944
    classes = list(voc.CLASSES)
    assert Counter(classes[a["category_id"] - 1] for a in objects if not a["difficult"]) == PUBLISHED
    boxes = [o["bbox"] for name in sorted(listed) for o in listed[name]["objects"]]
    x0, y0, x1, y1 = np.array(boxes).T
    assert np.array_equal([a["bbox"] for a in objects], np.stack([x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1], axis=1))
