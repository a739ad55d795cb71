"""A look at a whole COCO-format folder before anything is trained on it: every fault listed, none fatal.

Errors are what the study would stop at; warnings are what it can work with but its owner should know.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from deepmask import masks
from deepmask.data.coco import FORMATS, DataError, Finding, InstanceDataset, collect, unreadable

SHOWN = 20  # findings of one kind that are written out
OUTSIDE = 0.5  # px that a box may reach beyond the image; COCO's own are rounded
AREA_RATIO, AREA_PIXELS = 0.5, 10  # a stated area may be off by this part of the mask, or by so many px
SMALL, LARGE = 32**2, 96**2  # px^2, COCO's and the paper's limits of S and L (section 4)


@dataclass(frozen=True)
class Summary:
    """What the sound records of one annotation file hold; objects are the annotations that are no crowds."""

    image_folder: str
    images: int
    empty_images: int
    annotations: int
    crowds: int
    categories: int
    small: int
    medium: int
    large: int


@dataclass
class Report:
    """All findings about a folder, and a summary of each annotation file."""

    folder: str
    files: dict[str, Summary] = field(default_factory=dict)
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)


def check_folder(folder: str | Path, image_folder: str | Path | None = None) -> Report:
    """Check annotations/instances_*.json of a folder and every image they name.

    `image_folder` is where their file_names start; without it the folder below `folder` that has most of them is
    found.  Raises nothing on bad data: what is wrong is in the report.
    """
    folder = Path(folder)
    report = Report(str(folder))
    files = sorted(folder.glob("annotations/instances_*.json"))
    if not files:
        what, remedy = "no annotations/instances_*.json", "name a COCO-format folder, or put the file there"
        report.errors.append(Finding(str(folder), "", "annotation file", what, remedy))
    for file in files:
        dataset = collect(file, folder, report.errors.append)
        dataset = replace(dataset, image_root=Path(image_folder) if image_folder else _image_root(folder, dataset))
        report.errors += _images(dataset)
        report.warnings += _annotations(dataset)
        report.files[str(file)] = _summary(dataset)
    return report


def format_report(report: Report) -> str:
    """The report as text: a paragraph per annotation file, the findings, and a last line with their number."""
    lines = []
    for file, s in report.files.items():
        lines += [
            f"{file}:",
            f"  {s.images} images ({s.empty_images} without annotations) in {s.image_folder}",
            f"  {s.annotations} annotations ({s.crowds} crowd regions) of {s.categories} categories",
            f"  {s.small} small, {s.medium} medium, {s.large} large objects (below 32^2, between, above 96^2 px)",
        ]
    for severity, findings in (("error", report.errors), ("warning", report.warnings)):
        lines += [f"{severity}: {line}" for line in _shorten(findings)]
    lines.append(f"{report.folder}: {_number(report.errors, 'error')}, {_number(report.warnings, 'warning')}")
    return "\n".join(lines)


def _image_root(folder: Path, dataset: InstanceDataset) -> Path:
    """The folder at or below `folder` from which most of some file names lead to a file."""
    sample = np.linspace(0, len(dataset) - 1, min(len(dataset), SHOWN)).astype(int)
    names = [dataset.file_name(i) for i in sample]
    below = sorted(Path(path, name) for path, folders, _ in os.walk(folder) for name in folders)
    candidates = [folder / "images", folder, *below]
    return max(candidates, key=lambda root: sum(os.path.isfile(root / name) for name in names))


def _images(dataset: InstanceDataset) -> Iterator[Finding]:
    def look(i: int) -> Finding | None:
        path = dataset.image_root / dataset.file_name(i)
        try:
            dataset.image(i)
            with Image.open(path, formats=FORMATS) as image:
                image.verify()  # finds wrong checksums that decoding passes over
        except DataError as error:
            finding = error.finding
        except Exception as error:  # see read_image
            finding = unreadable(path, error)
        else:
            return None
        return replace(finding, record=f"image {dataset.image_ids[i]} of {Path(dataset.source).name}")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        yield from filter(None, pool.map(look, range(len(dataset))))


def _annotations(dataset: InstanceDataset) -> Iterator[Finding]:
    for i in range(len(dataset)):
        height, width = dataset.image_sizes[i].tolist()
        indices = dataset.annotations(i)
        for a, pixels in zip(indices, masks.areas([dataset.rle(a) for a in indices]), strict=True):
            x, y, w, h = dataset.ann_boxes[a].tolist()
            area = dataset.ann_areas[a]
            box = f"box [{x:g}, {y:g}, {w:g}, {h:g}]"
            record = f"annotation {dataset.ann_ids[a]}"
            if w <= 0 or h <= 0:
                yield Finding(dataset.source, record, "empty box", f"{box} is empty", "derive it from the mask")
            elif min(x, y, width - x - w, height - y - h) < -OUTSIDE:
                what = f"{box} reaches beyond the {width} x {height} image"
                yield Finding(dataset.source, record, "box outside the image", what, "clip it to the image")
            if pixels == 0:
                what = "the mask has no pixel"
                yield Finding(dataset.source, record, "empty mask", what, "remove the annotation or redraw the object")
            elif abs(area - pixels) > max(AREA_PIXELS, AREA_RATIO * pixels):
                what = f"area {area:g} but the mask has {pixels:g} pixels"
                yield Finding(dataset.source, record, "area", what, "state the area of the mask in pixels")


def _summary(dataset: InstanceDataset) -> Summary:
    areas = dataset.ann_areas[~dataset.ann_crowd]
    return Summary(
        image_folder=str(dataset.image_root),
        images=len(dataset),
        empty_images=int((np.diff(dataset.first) == 0).sum()),
        annotations=len(dataset.ann_ids),
        crowds=int(dataset.ann_crowd.sum()),
        categories=len(dataset.categories),
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas <= LARGE)).sum()),
        large=int((areas > LARGE).sum()),
    )


def _shorten(findings: Iterable[Finding]) -> Iterator[str]:
    """One line per finding up to SHOWN of a kind, then one line for the rest of that kind."""
    number: Counter[str] = Counter()
    for finding in findings:
        number[finding.kind] += 1
        if number[finding.kind] <= SHOWN:
            yield str(finding)
    for kind, count in number.items():
        if count > SHOWN:
            yield f"{kind}: {count - SHOWN} more like these"


def _number(findings: list[Finding], noun: str) -> str:
    return f"{len(findings)} {noun}{'' if len(findings) == 1 else 's'}"
