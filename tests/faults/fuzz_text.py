"""Readers of text files, for `fuzz.py`: what they accept must also be of use to what comes after them."""

from __future__ import annotations

import json
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from conftest import write_tiny_coco
from fuzz import Target
from PIL import Image

from deepmask import masks, proposing, results_file
from deepmask.data import voc
from deepmask.data.check import check_folder, format_report
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.evaluation import evaluate
from deepmask.masks import MaskError
from deepmask.matching import EvaluationError
from deepmask.proposals import ProposalError

DECODED = 1 << 20  # pixels of the largest mask that is laid out here
NAME = "000001"
ENTRY = {"image_id": 9, "score": 0.5, "bbox": [1, 2, 3, 4]}
XML = """<annotation><filename>x.jpg</filename><size><width>50</width><height>40</height><depth>3</depth></size>
<object><name>dog</name><truncated>0</truncated><difficult>1</difficult>
<bndbox><xmin>5</xmin><ymin>6.5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"""


@contextmanager
def in_one_line(error: type[Exception], file: str | Path) -> Iterator[None]:
    """Let an error of ours pass that is one line, without control characters, and names the file."""
    try:
        yield
    except error as caught:
        message = str(caught)
        assert str(file) in message and not re.search("[\\x00-\\x1f\\x7f-\\x9f]", message), message
        assert len(message) < 1000 + 3 * len(str(file)), message


# --- COCO -----------------------------------------------------------------------------------------------------------


def look_at(file: Path, images: Path) -> None:
    """Read a COCO file that lies in the folder annotations, use what it has and check its folder."""
    sound = False
    with in_one_line(DataError, file):
        dataset = InstanceDataset.read(file, images)
        sound = True
        rles = [dataset.rle(a) for a in range(len(dataset.ann_ids))]
        for rle, area in zip(rles, masks.areas(rles), strict=True):
            check_mask(rle, area)
        assert np.isfinite(dataset.ann_boxes).all() and np.isfinite(dataset.ann_areas).all()
        evaluate(dataset, {}).auc()
        for i in range(len(dataset)):
            with in_one_line(DataError, images / dataset.file_name(i)):
                dataset.image(i)
    report = check_folder(file.parent.parent, images)
    assert sound or report.errors
    format_report(report).encode()


def check_mask(rle: masks.RLE, area: float) -> None:
    """Area, box, turns and pixels of a mask must agree."""
    height, width = rle["size"]
    turns, (box,) = masks.turns(rle), masks.boxes([rle])
    assert len(turns) % 2 == 0 and (np.diff(turns) > 0).all() and (turns[1::2] - turns[::2]).sum() == area
    assert masks.cover([rle["counts"]], height * width)
    if height * width <= DECODED:
        pixels = masks.decode(rle)
        assert pixels.shape == (height, width) and pixels.sum() == area
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        ends = [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1] if area else [0, 0, 0, 0]
        assert box.tolist() == ends
        assert masks.iou([rle], masks.encode(pixels[None]))[0, 0] == (area > 0)


def _coco(folder: Path) -> Callable[[Path], None]:
    tiny = write_tiny_coco(folder / "tiny")
    for file in (tiny / "annotations").iterdir():
        file.unlink()
    place = tiny / "annotations" / "instances_tried.json"
    place.symlink_to(folder / "file.json")
    return lambda _: look_at(place, tiny / "images")


def coco_documents(folder: Path) -> list[bytes]:
    """COCO files with all kinds of segmentations."""
    return [file.read_bytes() for file in sorted((write_tiny_coco(folder) / "annotations").iterdir())]


def _coco_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        documents = coco_documents(Path(folder) / "tiny")
    small = json.loads(documents[0])  # of a small file, more changes leave it JSON
    kept = {key: records[:1] for key, records in small.items()}
    kept["annotations"][0] |= {"segmentation": {"size": [48, 64], "counts": [100, 20, 2952]}}
    return [*documents, json.dumps(kept).encode(), b'{"images": [], "annotations": [], "categories": []}']


def ids(folder: Path) -> Callable[[Path], None]:
    """What asks a COCO file for the ids of images."""
    images = [folder / "images" / name for name in ("000009.jpg", "000012.png", "none.png")]

    def read(file: Path) -> None:
        with in_one_line(DataError, file):
            found = proposing.annotated_ids(images, file)
            assert len(found) == len(images) and any(id is not None for id in found)

    return read


# --- proposals ------------------------------------------------------------------------------------------------------


def read_proposals(file: Path, dataset: InstanceDataset) -> None:
    """Read a results file, evaluate what it has, and write it again."""
    with in_one_line(ProposalError, file):
        found = results_file.read(file)
        for of_image in found.values():
            if of_image.masks is not None:
                for rle, area in zip(of_image.masks, masks.areas(of_image.masks), strict=True):
                    check_mask(rle, area)
        for kind in ("bbox", "segm"):
            try:
                assert 0 <= evaluate(dataset, found, kind).auc() <= 1
            except EvaluationError:  # other images, or no masks
                pass
        copy = file.with_name("again.json")
        results_file.write(copy, found.values())
        again = results_file.read(copy)
        assert again.keys() == found.keys()
        for id, of_image in found.items():
            assert again[id].scores.tolist() == of_image.scores.tolist() and again[id].masks == of_image.masks
            assert again[id].boxes.tolist() == of_image.boxes.tolist()


def _proposals(folder: Path) -> Callable[[Path], None]:
    tiny = write_tiny_coco(folder / "tiny")
    dataset = InstanceDataset.read(tiny / "annotations" / "instances_train.json", tiny / "images")
    return lambda file: read_proposals(file, dataset)


def proposal_documents() -> list[bytes]:
    """Results files with boxes, with both kinds of masks, and with nothing."""
    long, short = {"size": [48, 64], "counts": [100, 20, 2952]}, {"size": [48, 64], "counts": "T3d0h\\2"}
    boxes = [ENTRY, ENTRY | {"image_id": 2, "category_id": 1}]
    shapes = [ENTRY | {"segmentation": long}, {"image_id": 9, "score": 0.25, "segmentation": short}]
    return [json.dumps(entries).encode() for entries in (boxes, shapes, [])]


# --- masks ----------------------------------------------------------------------------------------------------------


def _rle(folder: Path) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        content = file.read_bytes()
        if len(content) < 5:
            return
        kind, height, width = struct.unpack("<BHH", content[:5])
        rest = content[5:]
        if kind % 3 == 0:
            segmentation = {"size": [height, width], "counts": rest.decode("latin-1")}
        elif kind % 3 == 1:
            runs = np.frombuffer(rest[: len(rest) // 2 * 2], np.int16)
            segmentation = {"size": [height, width], "counts": runs.tolist()}
        else:
            cut = struct.unpack("<H", rest[:2])[0] if len(rest) > 1 else 0
            points = np.frombuffer(rest[2 : 2 + len(rest[2:]) // 4 * 4], np.float32).tolist()
            segmentation = [points[:cut], points[cut:]]
        try:
            rle = masks.from_segmentation(segmentation, height, width)
        except MaskError as error:
            assert len(str(error)) < 300
            if kind % 3 == 0:
                assert not masks.cover([rest], height * width)
            return
        check_mask(rle, masks.areas([rle])[0])

    return read


def _rle_seeds() -> list[bytes]:
    corners = np.array([1, 1, 8, 1, 8, 4, 2, 2, 9, 3, 1, 5], np.float32).tobytes()
    return [
        struct.pack("<BHH", 0, 6, 4) + b"4;9",
        struct.pack("<BHH", 0, 3, 8) + b"0004d0",
        struct.pack("<BHHHHHH", 1, 6, 4, 0, 10, 4, 10),
        struct.pack("<BHHH", 2, 6, 10, 6) + corners,
    ]


# --- PASCAL VOC -----------------------------------------------------------------------------------------------------


def devkit(folder: Path, annotation: Path | None = None, listed: Path | None = None) -> Path:
    """A devkit of one image whose annotation file, or list of images, is that file."""
    for name in ("Annotations", "SegmentationObject", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    Image.new("P", (50, 40), 1).save(folder / "SegmentationObject" / f"{NAME}.png")
    for place, file, text in (
        (folder / "Annotations" / f"{NAME}.xml", annotation, XML),
        (folder / "ImageSets" / "Main" / "test.txt", listed, NAME),
    ):
        if file:
            place.symlink_to(file)
        else:
            place.write_text(text)
    return folder


def convert(root: Path) -> None:
    """Convert a devkit, and read what was written."""
    with in_one_line(DataError, root):
        document = voc.write_coco(root, root / "written.json")
        assert len({image["id"] for image in document["images"]}) == len(document["images"])
        InstanceDataset.read(root / "written.json", root)


def _voc(folder: Path) -> Callable[[Path], None]:
    root = devkit(folder / "kit", annotation=folder / "file.xml")
    return lambda _: convert(root)


def _voc_seeds() -> list[bytes]:
    entity = '<!DOCTYPE a [<!ENTITY x "50">]>' + XML.replace("50", "&x;")
    utf16 = '<?xml version="1.0" encoding="utf-16"?>' + XML
    return [XML.encode(), entity.encode(), utf16.encode("utf-16"), XML.replace("dog", "d&#111;g").encode()]


def _voc_list(folder: Path) -> Callable[[Path], None]:
    root = devkit(folder / "kit", listed=folder / "file.txt")
    return lambda _: convert(root)


TARGETS = {
    "COCO annotations": Target(_coco_seeds, _coco, ".json", slow=2),
    "ids of a COCO file": Target(_coco_seeds, ids, ".json"),
    "proposals": Target(proposal_documents, _proposals, ".json"),
    "segmentations": Target(_rle_seeds, _rle),
    "VOC annotation": Target(_voc_seeds, _voc, ".xml"),
    "VOC list": Target(lambda: [b"000001\n", b"000001\n2012_000002\n\n"], _voc_list, ".txt"),
}
