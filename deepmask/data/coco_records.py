"""The records of a COCO annotation file, checked one by one (paper: section 4, data sets).

A record that is not sound is a `Fault`: what is wrong, and what its owner should do about it.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any

import numpy as np

from deepmask import masks
from deepmask.masks import RLE, MaskError
from deepmask.paper import PASCAL_CATEGORIES

IMAGE_KEYS = ("id", "height", "width", "file_name")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd")
CATEGORY_KEYS = ("id", "name")
LARGEST = float(np.finfo(np.float32).max)  # number that a box can hold
_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of characters


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


def load(
    path: str, fault: Callable[[Finding], None], keys: Sequence[str] = ("categories", "images", "annotations")
) -> dict[str, list]:
    """These lists of a COCO file; empty ones where `fault` was told that there is none."""
    lists: dict[str, list] = {key: [] for key in keys}
    expected = "expected COCO's instances format, an object with images, annotations and categories"
    if not os.path.isfile(path):  # a pipe would be waited for
        fault(Finding(path, "", "annotation file", "no such annotation file", "correct its path"))
        return lists
    try:
        with open(path, encoding="utf-8-sig") as file:
            document = json.load(file, object_hook=_compact)
    except OSError as error:
        fault(Finding(path, "", "annotation file", f"cannot be read ({error.strerror})", "make it readable"))
    except (ValueError, RecursionError) as error:
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
    name, pascal, family = record["name"], record.get("pascal"), record.get("supercategory") or record["name"]
    if not _is_text(name) or not isinstance(pascal, bool | None):
        raise Fault("category", "name is not text or pascal not true or false", "correct the category")
    if isinstance(family, dict | list) or not _is_text(str(family)):
        raise Fault("category", f"supercategory {shown(family)} is not text", "correct the category")
    pascal = name in PASCAL_CATEGORIES if pascal is None else pascal
    return Category(record["id"], name, str(family), pascal)


def image(record: Any) -> tuple[int, int, int, str]:
    _require(record, IMAGE_KEYS, ("id", "height", "width"))
    height, width, name = record["height"], record["width"], record["file_name"]
    if height <= 0 or width <= 0 or height * width > masks.MOST_PIXELS:
        raise Fault("image size", f"size {width} x {height} is not possible", "state the image's size in pixels")
    if not name or not _is_text(name):
        raise Fault("file name", f"file_name {shown(name)} is not text", "state the file, relative to the image folder")
    return record["id"], height, width, name


def annotation(record: Any, sizes: Mapping[int, tuple[int, int]], categories: Container[int]) -> RLE:
    _require(record, ANNOTATION_KEYS, ("id", "image_id", "category_id"))
    if record["image_id"] not in sizes:
        what = f"image_id {record['image_id']} is not among the images"
        raise Fault("annotation without image", what, "add the image or remove the annotation")
    if record["category_id"] not in categories:
        what = f"category_id {record['category_id']} is not among the categories"
        raise Fault("unknown category", what, "add the category or correct the annotation")
    if not isinstance(record["bbox"], list) or len(record["bbox"]) != 4 or not _fit(*record["bbox"]):
        raise Fault("box", f"bbox {shown(record['bbox'])} is not four numbers", "state x, y, width, height in pixels")
    if not _fit(record["area"]) or record["area"] < 0:
        raise Fault("area", f"area {shown(record['area'])} is not a size", "state the area of the mask in pixels")
    if not isinstance(record["iscrowd"], int) or record["iscrowd"] not in (0, 1):
        raise Fault("crowd", f"iscrowd {shown(record['iscrowd'])} is not 0 or 1", "set 1 for a crowd region, else 0")
    try:
        return masks.from_segmentation(record["segmentation"], *sizes[record["image_id"]])
    except MaskError as error:
        raise Fault("segmentation", str(error), "correct the segmentation or remove the annotation") from None


def _require(record: Any, keys: tuple[str, ...], integers: tuple[str, ...]) -> None:
    if not isinstance(record, dict):
        raise Fault("record", f"{shown(record)} is not an object", f"give it the keys {', '.join(keys)}")
    for key in keys:
        if key not in record:
            raise Fault("missing key", f"has no {key}", f"give it the keys {', '.join(keys)}")
    for key in integers:
        if not is_integer(record[key]):
            raise Fault("number", f"{key} {shown(record[key])} is not an integer", f"write {key} as an integer")


def new(id: int, known: Container[int]) -> None:
    if id in known:
        raise Fault("duplicate id", f"id {id} is used twice", "remove the copy or number the records anew")


def is_integer(value: Any) -> bool:
    """Whether it is an integer of 64 bits."""
    return type(value) is int and -(2**63) < value < 2**63


def _fit(*values: Any) -> bool:
    return all(type(value) in (int, float) and -LARGEST <= value <= LARGEST for value in values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not _NO_TEXT.search(value)
