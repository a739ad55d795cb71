"""The report about a folder: complete, never fatal, and readable."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, annotation, rectangle
from PIL import Image
from pycocotools.coco import COCO

from deepmask.data.check import SHOWN, check_folder, format_report


def train(folder: Path) -> Path:
    return folder / "annotations" / "instances_train.json"


def edit(folder: Path, change) -> None:
    document = json.loads(train(folder).read_text())
    change(document)
    train(folder).write_text(json.dumps(document))


def add(folder: Path, *records: dict) -> None:
    edit(folder, lambda document: document["annotations"].extend(records))


def box(id: int, **changes) -> dict:
    return annotation(id, 4, 1, [rectangle(10, 10, 20, 20)]) | changes


def test_a_sound_folder_has_counts_and_no_findings(tiny_coco, capsys):
    report = check_folder(tiny_coco)
    assert report.errors == [] and report.warnings == []
    coco = COCO(str(train(tiny_coco)))
    objects = [a for a in coco.anns.values() if not a["iscrowd"]]
    summary = report.files[str(train(tiny_coco))]
    sizes = [sum(a["area"] < 1024 for a in objects), sum(a["area"] >= 1024 for a in objects), 0]
    assert astuple(summary)[1:] == (5, 1, len(coco.anns), len(coco.anns) - len(objects), 4, *sizes)
    text = format_report(report)
    assert "5 images (1 without annotations)" in text and "(1 crowd regions) of 4 categories" in text
    assert text.endswith("0 errors, 0 warnings")


def test_every_fault_is_found_at_once(tiny_coco):
    add(
        tiny_coco,
        box(71, image_id=123),
        box(72, category_id=7),
        box(73, segmentation=[[1, 1, 2, 2]]),
        box(74, segmentation={"size": [9, 9], "counts": [81]}),
        box(900),
        {"id": 75},
        box(81, bbox=[50, 10, 30, 20]),
        box(82, bbox=[10, 10, 0, 20]),
        box(83, area=4 * 20 * 20.0),
        box(84, segmentation=[rectangle(80, 10, 5, 5)], area=0, bbox=[60, 10, 4, 4]),
        box(85, bbox=[-0.4, 10, 20, 20], area=1.2 * 20 * 20),  # as inexact as COCO itself
    )
    images = tiny_coco / "images"
    (images / "000003.png").unlink()
    (images / "000009.jpg").write_bytes((images / "000009.jpg").read_bytes()[:500])
    Image.new("RGB", (HEIGHT, WIDTH)).save(images / "000004.png")
    report = check_folder(tiny_coco)
    found = {(finding.record, finding.kind) for finding in report.errors}
    assert found == {
        ("annotation 71", "annotation without image"),
        ("annotation 72", "unknown category"),
        ("annotation 73", "segmentation"),
        ("annotation 74", "segmentation"),
        ("annotation 900", "duplicate id"),
        ("annotation 75", "missing key"),
        ("image 3 of instances_train.json", "missing image"),
        ("image 9 of instances_train.json", "unreadable image"),
        ("image 4 of instances_train.json", "image size"),
    }
    assert [(finding.record, finding.kind) for finding in report.warnings] == [
        ("annotation 81", "box outside the image"),
        ("annotation 82", "empty box"),
        ("annotation 83", "area"),
        ("annotation 84", "empty mask"),
    ]
    lines = format_report(report).splitlines()
    for finding in [*report.errors, *report.warnings]:
        assert Path(finding.file).parent in (images, train(tiny_coco).parent)
        assert finding.what and finding.remedy
        assert sum(str(finding) in line for line in lines) == 1
    assert lines[-1].endswith("9 errors, 4 warnings")
    assert report.files[str(train(tiny_coco))].annotations == 8 + 5  # the sound ones


def test_a_wrong_checksum_is_found(tiny_coco):
    path = tiny_coco / "images" / "000004.png"
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + length] ^= 1
    path.write_bytes(data)
    assert [finding.kind for finding in check_folder(tiny_coco).errors] == ["unreadable image"]


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}'])
def test_a_file_that_is_not_coco_json_does_not_hide_the_others(tiny_coco, content):
    train(tiny_coco).write_text(content)
    report = check_folder(tiny_coco)
    assert {finding.kind for finding in report.errors} == {"annotation file"}
    assert report.files[str(train(tiny_coco))].images == 0
    assert report.files[str(tiny_coco / "annotations" / "instances_val.json")].images == 3


@pytest.mark.parametrize("name", ["a" * 5000, "../images/000009.jpg"])
def test_a_file_name_that_leads_nowhere_is_a_finding(tiny_coco, name):
    edit(tiny_coco, lambda document: document["images"][0].update(file_name=name))
    errors = check_folder(tiny_coco).errors
    assert [finding.record for finding in errors] == ["image 9 of instances_train.json"]


def test_a_folder_without_annotations_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        report = check_folder(folder)
        assert [finding.what for finding in report.errors] == ["no annotations/instances_*.json"]
        assert format_report(report).endswith("1 error, 0 warnings")


def test_many_findings_of_one_kind_are_summarised(tiny_coco):
    add(tiny_coco, *[box(1000 + k, category_id=7) for k in range(SHOWN + 5)], box(2000, image_id=123))
    report = check_folder(tiny_coco)
    lines = format_report(report).splitlines()
    assert Counter(finding.kind for finding in report.errors)["unknown category"] == SHOWN + 5
    assert sum("category_id 7" in line for line in lines) == SHOWN
    assert "error: unknown category: 5 more like these" in lines
    assert any("annotation 2000" in line for line in lines)
    assert lines[-1].endswith(f"{SHOWN + 6} errors, 0 warnings")


def test_images_are_found_where_they_are(tiny_coco, tmp_path):
    for source, target in (("images", "train2014"), ("train2014", "photos/all")):
        (tiny_coco / target).parent.mkdir(exist_ok=True)
        (tiny_coco / source).rename(tiny_coco / target)
        report = check_folder(tiny_coco)
        assert report.errors == []
        assert {summary.image_folder for summary in report.files.values()} == {str(tiny_coco / target)}
    (tiny_coco / "photos/all").rename(tmp_path / "elsewhere")
    (tiny_coco / "linked").symlink_to(tmp_path / "elsewhere")
    assert check_folder(tiny_coco).errors == []
    (tiny_coco / "linked").unlink()
    assert {finding.kind for finding in check_folder(tiny_coco).errors} == {"missing image"}
    assert check_folder(tiny_coco, tmp_path / "elsewhere").errors == []


def test_file_names_may_carry_their_folder(tiny_coco):
    edit(tiny_coco, lambda d: [record.update(file_name="images/" + record["file_name"]) for record in d["images"]])
    assert check_folder(tiny_coco).errors == []


@pytest.mark.skipif(not os.environ.get("DEEPMASK_REAL_DATA"), reason="DEEPMASK_REAL_DATA names no COCO-format folder")
def test_real_photographs_are_sound():
    report = check_folder(os.environ["DEEPMASK_REAL_DATA"])
    assert report.errors == []
    objects = np.array([(s.small, s.medium, s.large) for s in report.files.values()]).sum()
    assert objects > 0 and len(report.warnings) < 0.01 * objects
