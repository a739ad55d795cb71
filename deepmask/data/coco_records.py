"""The records of a COCO annotation file, checked one by one (paper: section 4, data sets).

A record that is not sound is a `Fault`: what is wrong, and what its owner should do about it.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from deepmask import masks
from deepmask.masks import RLE, MaskError
from deepmask.paper import PASCAL_CATEGORIES

IMAGE_KEYS = ("id", "height", "width", "file_name")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd")
CATEGORY_KEYS = ("id", "name")


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file, or with one record of it, and what to do about it."""

    file: str
    record: str  # such as "annotation 17"; empty for the file as a whole
    kind: str  # a few words that all findings of this sort share
    what: str
    remedy: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.record, f"{self.what}; {self.remedy}")))


class DataError(ValueError):
    """A data set cannot be used as it is; the message names file, record and what to do."""

    def __init__(self, problem: str | Finding) -> None:
        super().__init__(str(problem))
        self.finding = problem if isinstance(problem, Finding) else None


@dataclass(frozen=True)
class Category:
    """A class of objects; `pascal` marks the classes that DeepMask20 is trained on."""

    id: int
    name: str
    supercategory: str
    pascal: bool


class Fault(ValueError):
    def __init__(self, kind: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.kind, self.what, self.remedy = kind, what, remedy


def load(path: str, fault: Callable[[Finding], None]) -> dict[str, list]:
    """The three lists of a COCO file; empty ones where `fault` was told that there is none."""
    lists: dict[str, list] = {"categories": [], "images": [], "annotations": []}
    expected = "expected COCO's instances format, an object with images, annotations and categories"
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file, object_hook=_compact)
    except FileNotFoundError:
        fault(Finding(path, "", "annotation file", "no such annotation file", "correct its path"))
    except (OSError, ValueError, RecursionError) as error:
        fault(Finding(path, "", "annotation file", f"not valid JSON ({error})", "export or download the file again"))
    else:
        for key in lists:
            records = document.get(key) if isinstance(document, dict) else None
            if isinstance(records, list):
                lists[key] = records
            else:
                fault(Finding(path, "", "annotation file", f'has no list "{key}"', expected))
    return lists


def _compact(record: dict) -> dict:
    """JSON object hook: polygons become arrays while the file is parsed, at a quarter of the memory of lists."""
    polygons = record.get("segmentation")
    if isinstance(polygons, list):
        try:
            record["segmentation"] = [array("d", polygon) for polygon in polygons]
        except (TypeError, OverflowError):
            pass  # `masks.from_segmentation` says what is wrong with it
    return record


def category(record: Any) -> Category:
    _require(record, CATEGORY_KEYS, ("id",))
    name, pascal = record["name"], record.get("pascal")
    if not isinstance(name, str) or not isinstance(pascal, bool | None):
        raise Fault("category", "name is not text or pascal not true or false", "correct the category")
    pascal = name in PASCAL_CATEGORIES if pascal is None else pascal
    return Category(record["id"], name, str(record.get("supercategory") or name), pascal)


def image(record: Any) -> tuple[int, int, int, str]:
    _require(record, IMAGE_KEYS, ("id", "height", "width"))
    height, width, name = record["height"], record["width"], record["file_name"]
    if height <= 0 or width <= 0 or height * width >= 2**31:
        raise Fault("image size", f"size {width} x {height} is not possible", "state the image's size in pixels")
    if not isinstance(name, str) or not name:
        raise Fault("file name", f"file_name {name!r} is not text", "state the file, relative to the image folder")
    return record["id"], height, width, name


def annotation(record: Any, sizes: Mapping[int, tuple[int, int]], categories: Container[int]) -> RLE:
    _require(record, ANNOTATION_KEYS, ("id", "image_id", "category_id"))
    if record["image_id"] not in sizes:
        what = f"image_id {record['image_id']} is not among the images"
        raise Fault("annotation without image", what, "add the image or remove the annotation")
    if record["category_id"] not in categories:
        what = f"category_id {record['category_id']} is not among the categories"
        raise Fault("unknown category", what, "add the category or correct the annotation")
    if not isinstance(record["bbox"], list) or len(record["bbox"]) != 4 or not _finite(*record["bbox"]):
        raise Fault("box", f"bbox {record['bbox']!r:.60} is not four numbers", "state x, y, width, height in pixels")
    if not _finite(record["area"]) or record["area"] < 0:
        raise Fault("area", f"area {record['area']!r:.60} is not a size", "state the area of the mask in pixels")
    if record["iscrowd"] not in (0, 1):
        raise Fault("crowd", f"iscrowd {record['iscrowd']!r:.60} is not 0 or 1", "set 1 for a crowd region, else 0")
    try:
        return masks.from_segmentation(record["segmentation"], *sizes[record["image_id"]])
    except MaskError as error:
        raise Fault("segmentation", str(error), "correct the segmentation or remove the annotation") from None


def _require(record: Any, keys: tuple[str, ...], integers: tuple[str, ...]) -> None:
    if not isinstance(record, dict):
        raise Fault("record", f"{record!r:.60} is not an object", f"give it the keys {', '.join(keys)}")
    for key in keys:
        if key not in record:
            raise Fault("missing key", f"has no {key}", f"give it the keys {', '.join(keys)}")
    for key in integers:
        if type(record[key]) is not int or abs(record[key]) >= 2**63:
            raise Fault("number", f"{key} {record[key]!r:.60} is not an integer", f"write {key} as an integer")


def new(id: int, known: Container[int]) -> None:
    if id in known:
        raise Fault("duplicate id", f"id {id} is used twice", "remove the copy or number the records anew")


def _finite(*values: Any) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)
