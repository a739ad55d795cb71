"""PASCAL VOC annotations as a COCO-format file (paper: section 4, Table 2: VOC 2007 test).

Pixels of VOC count from 1 and its boxes include both corners; those written here start at 0 as COCO's do.  Objects
marked difficult are ignored by the paper's numbers, so they become `iscrowd` 1, which every COCO evaluation ignores,
and keep `difficult` 1 beside it.  Where VOC has no instance mask, the segmentation is the box as a polygon.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from reprlib import repr as shown
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from PIL import Image

from deepmask import masks
from deepmask.data.coco import FORMATS, LARGEST, DataError, unreadable
from deepmask.files import write_text

# The 20 classes in VOC's order, with its supercategories; a category's id is its place here, from 1.
CLASSES = {
    "aeroplane": "vehicle", "bicycle": "vehicle", "bird": "animal", "boat": "vehicle", "bottle": "indoor",
    "bus": "vehicle", "car": "vehicle", "cat": "animal", "chair": "indoor", "cow": "animal",
    "diningtable": "indoor", "dog": "animal", "horse": "animal", "motorbike": "vehicle", "person": "person",
    "pottedplant": "indoor", "sheep": "animal", "sofa": "indoor", "train": "vehicle", "tvmonitor": "indoor",
}  # fmt: skip
IDS = {name: id for id, name in enumerate(CLASSES, 1)}
YEAR = "VOC2007"  # the paper's
IN_BOX = 0.5  # share of a mask that must lie in the object's box; else the two do not belong together


def devkit(folder: str | Path) -> Path:
    """The folder that holds Annotations/: `folder` itself, VOC2007 or VOCdevkit/VOC2007 in it.  Raises DataError."""
    folder = Path(folder)
    for found in (folder, folder / YEAR, folder / "VOCdevkit" / YEAR):
        if (found / "Annotations").is_dir():
            return found
    raise DataError(f"{folder}: no Annotations folder in it, in {YEAR} or in VOCdevkit/{YEAR}; name a VOCdevkit")


def image_folder(folder: str | Path) -> Path:
    """Where the file names of the written annotations start."""
    return devkit(folder) / "JPEGImages"


def image_names(folder: str | Path, split: str) -> tuple[list[str], bool]:
    """Names of the images of a split, such as "000001", and whether ImageSets/Main lists it.

    Without that list these are all images that have an annotation file.  Raises DataError.
    """
    root = devkit(folder)
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    if listed := file.is_file():
        names = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
        names = sorted(filter(None, names))
    else:
        file = root / "Annotations"
        names = sorted(path.stem for path in file.glob("*.xml"))
    if not names:
        raise DataError(f"{file}: names no image; choose another split or folder")
    before: dict[int, str] = {}
    for name in names:
        if not _digits(name):
            what = f"{shown(name)} is no image name such as 000001"
            raise DataError(f"{file}: {what}; name a split such as test or trainval")
        id = int(_digits(name))
        if id in before:
            raise DataError(f"{file}: {name} is listed twice, first as {before[id]}; remove one of them")
        before[id] = name
    return names, listed


def convert(folder: str | Path, split: str = "test") -> dict[str, Any]:
    """The COCO document of a split: image ids are the numbers in VOC's names, category ids are 1 to 20 in its order.

    `bbox` is VOC's box as [x, y, w, h]: x = xmin - 1, w = xmax - xmin + 1.  Segmentation and `area` are those of the
    instance mask in SegmentationObject if there is one, void pixels left out, else of the box.  Raises DataError,
    which names file and object, for a file that is missing or malformed, a class that is not VOC's, and a box or
    mask that does not fit the image.
    """
    root = devkit(folder)
    names, listed = image_names(folder, split)
    images, annotations = [], []
    for name in names:
        image, objects = _image(root, name)
        images.append(image)
        annotations += [{"id": id, **record} for id, record in enumerate(objects, len(annotations) + 1)]
    which = f"{split} split" if listed else f"all annotated images, as ImageSets has no {split} split"
    masked = sum(isinstance(a["segmentation"], dict) for a in annotations)
    return {
        "info": {
            "description": f"PASCAL {root.name}, {which}",
            "segmentation": f"{masked} objects have an instance mask, {len(annotations) - masked} only their box",
            "version": "1.0",
        },
        "licenses": [],
        "categories": [
            {"id": IDS[name], "name": name, "supercategory": group, "pascal": True} for name, group in CLASSES.items()
        ],
        "images": images,
        "annotations": annotations,
    }


def write_coco(folder: str | Path, file: str | Path, split: str = "test") -> dict[str, Any]:
    """Write and return what `convert` returns."""
    document = convert(folder, split)
    write_text(file, json.dumps(document, sort_keys=True, separators=(",", ":")))
    return document


def describe(document: dict[str, Any], per_class: bool = False) -> str:
    """What a converted document holds, in one line, and in one more per class."""
    objects = document["annotations"]
    counts = f"{len(document['images'])} images, {_counts(objects)}, {document['info']['segmentation']}"
    lines = [f"{document['info']['description']}: {counts}"]
    if per_class:
        of_class = {name: [a for a in objects if a["category_id"] == id] for name, id in IDS.items()}
        lines += [f"  {name}: {_counts(chosen)}" for name, chosen in of_class.items()]
    return "\n".join(lines)


def _counts(objects: list[dict]) -> str:
    return f"{len(objects)} objects ({sum(a['difficult'] for a in objects)} difficult)"


def _image(root: Path, name: str) -> tuple[dict, list[dict]]:
    """The records of one image and of its objects."""
    file = root / "Annotations" / f"{name}.xml"
    tree = _parse(file)
    width, height = (_number(tree, f"size/{side}", f"{file}: image") for side in ("width", "height"))
    if min(width, height) < 1 or width % 1 or height % 1 or width * height > LARGEST:
        raise DataError(f"{file}: image: size {width:g} x {height:g} is not possible; state it in pixels")
    width, height = int(width), int(height)
    image = {"id": int(_digits(name)), "file_name": f"{name}.jpg", "width": width, "height": height}
    instances = _instances(root / "SegmentationObject" / f"{name}.png", width, height)
    objects = []
    for number, element in enumerate(tree.findall("object"), 1):
        label = (element.findtext("name") or "").strip()
        if label not in IDS:
            what = f"name {shown(label)} is not one of the {len(IDS)} classes"
            raise DataError(f"{file}: object {number}: {what}; they are {', '.join(IDS)}")
        where = f"{file}: object {number} ({label})"
        x0, y0, x1, y1 = box = [_number(element, f"bndbox/{c}", where) for c in ("xmin", "ymin", "xmax", "ymax")]
        if not (1 <= x0 <= x1 <= width and 1 <= y0 <= y1 <= height):
            what = f"box {', '.join(f'{c:g}' for c in box)} is empty or not in the {width} x {height} image"
            raise DataError(f"{where}: {what}; pixels count from 1, correct it")
        x, y, w, h = x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1
        difficult = _flag(element, "difficult", where)
        record = {
            "image_id": image["id"],
            "category_id": IDS[label],
            "bbox": [x, y, w, h],
            "area": w * h,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            "iscrowd": difficult,
            "difficult": difficult,
            "truncated": _flag(element, "truncated", where),
        }
        if instances is not None:
            record |= _mask(instances == number, x, y, w, h)
        objects.append(record)
    return image, objects


def _mask(mask: np.ndarray, x: float, y: float, w: float, h: float) -> dict[str, Any]:
    """Segmentation and area of an instance mask; nothing if it is empty or not of the object with this box."""
    pixels = np.count_nonzero(mask)
    inside = np.count_nonzero(mask[int(y) : math.ceil(y + h), int(x) : math.ceil(x + w)])
    if not pixels or inside < IN_BOX * pixels:
        return {}
    (rle,) = masks.encode(mask[None])
    return {"area": float(pixels), "segmentation": rle | {"counts": rle["counts"].decode("ascii")}}


def _instances(file: Path, width: int, height: int) -> np.ndarray | None:
    """(H, W) uint8: 1 for pixels of the first object and so on, 0 background, 255 void; None without a file."""
    if not file.is_file():
        return None
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.mode not in ("P", "L"):
                raise DataError(f"{file}: has no palette, so its pixels number no objects; restore VOC's own file")
            if image.size != (width, height):  # seen before it is decoded, as it may be of any size
                what = f"mask of {image.width} x {image.height} pixels, but the image is {width} x {height}"
                raise DataError(f"{file}: {what}; restore VOC's own file")
            return np.array(image)
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything from within a decoder
        raise DataError(unreadable(file, error)) from None


def _parse(file: Path) -> Element:
    """The root of an XML file.  Raises DataError; a document type is refused, as entities are declared in one."""

    def refuse(*_: Any) -> None:
        raise DataError(f"{file}: declares a document type, which VOC's files never do; remove it")

    tree, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = refuse
    if not file.is_file():  # a pipe would be waited for
        raise DataError(f"{file}: no such annotation file; add it, or take it off the split's list")
    try:
        with open(file, "rb") as content:
            parser.ParseFile(content)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); make it readable") from None
    except DataError:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two from encodings that expat has not
        raise DataError(f"{file}: not valid XML ({error}); restore the original file") from None
    return tree.close()


def _number(element: Element, path: str, where: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text)  # a few boxes of later years are not whole
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        what = f"has no {path}" if text is None else f"{path} {shown(text)} is not a number"
        raise DataError(f"{where}: {what}; state it in pixels")
    return value


def _flag(element: Element, name: str, where: str) -> int:
    """0 or 1; 0 if it is not stated."""
    text = (element.findtext(name) or "0").strip()
    if text not in ("0", "1"):
        raise DataError(f"{where}: {name} {shown(text)} is neither 0 nor 1; correct it")
    return int(text)


def _digits(name: str) -> str:
    """The digits of an image name of VOC, 000001 or 2012_000001, which make an id; empty if it is none."""
    digits = name.replace("_", "")
    return digits if digits.isascii() and digits.isdigit() and len(digits) < 19 else ""
