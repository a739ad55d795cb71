"""Images with instance masks in COCO's format, held in flat arrays (paper: section 4, data sets).

COCO's train2014 has 82,783 images and 604,907 annotations.  Every loader worker needs all of them, so nothing here is
one Python object per annotation: a forked worker shares flat numpy arrays with its parent, while reference counts
would copy objects page by page.  Polygons become run-length codes when the file is read.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from deepmask import masks
from deepmask.data import coco_records
from deepmask.data.coco_records import Category, DataError, Finding
from deepmask.masks import RLE

LARGEST = 500_000_000  # pixels of an image: 1.5 GB in memory
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower, and a warning
Image.init()
_RASTERS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "AVIF")  # Pillow 11 lacks the last
FORMATS = tuple(name for name in _RASTERS if name in Image.OPEN)  # Pillow starts other programs for some of the rest


@dataclass(frozen=True, eq=False)
class InstanceDataset:
    """I images and their A annotations, sorted by image id, then annotation id."""

    categories: dict[int, Category]
    image_root: Path
    source: str  # the annotation file, for messages
    image_ids: np.ndarray  # (I,) int64
    image_sizes: np.ndarray  # (I, 2) int32 height, width
    names: np.ndarray  # uint8, all file names as UTF-8
    name_offsets: np.ndarray  # (I + 1,) int64 into names
    first: np.ndarray  # (I + 1,) int64; the annotations of image i are first[i] to first[i + 1] - 1
    ann_ids: np.ndarray  # (A,) int64
    ann_image: np.ndarray  # (A,) int32 index of the image
    ann_category: np.ndarray  # (A,) int64 category id
    ann_boxes: np.ndarray  # (A, 4) float32 x, y, width, height in pixels
    ann_areas: np.ndarray  # (A,) float64 px^2, as the file states it
    ann_crowd: np.ndarray  # (A,) bool
    counts: np.ndarray  # uint8, all compressed RLE counts
    count_offsets: np.ndarray  # (A + 1,) int64 into counts

    @classmethod
    def read(
        cls, annotation_file: str | Path, image_folder: str | Path, *, check_images: bool = False
    ) -> InstanceDataset:
        """Read a COCO annotation file; `check_images` also opens every image.  Raises DataError at the first fault."""

        def fail(finding: Finding) -> None:
            raise DataError(finding) from None

        dataset = collect(annotation_file, image_folder, fail)
        if check_images:
            for i in range(len(dataset)):
                dataset.image(i)
        return dataset

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, i: int) -> str:
        """The file name of image i, relative to `image_root`."""
        return self.names[self.name_offsets[i] : self.name_offsets[i + 1]].tobytes().decode()

    def image(self, i: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of image i; raises DataError if it is missing, unreadable or of another size."""
        path = self.image_root / self.file_name(i)
        pixels = read_image(path)
        height, width = (int(side) for side in self.image_sizes[i])
        if pixels.shape[:2] != (height, width):
            size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
            what = f"{size}, but image {self.image_ids[i]} of {self.source} is {width} x {height}"
            remedy = "restore the original image or correct its width and height"
            raise DataError(Finding(str(path), "", "image size", what, remedy))
        return pixels

    def annotations(self, i: int) -> np.ndarray:
        """(n,) int64 indices of the annotations of image i."""
        return np.arange(self.first[i], self.first[i + 1])

    def rle(self, a: int) -> RLE:
        """The RLE of annotation a, of the size of its image."""
        counts = self.counts[self.count_offsets[a] : self.count_offsets[a + 1]].tobytes()
        return {"size": self.image_sizes[self.ann_image[a]].tolist(), "counts": counts}

    def mask(self, a: int) -> np.ndarray:
        """(H, W) bool mask of annotation a."""
        return masks.decode(self.rle(a))

    def images_subset(self, indices: Any) -> InstanceDataset:
        """Only these images (anything that indexes an array of length I), each once, in the order of their ids."""
        chosen = np.unique(np.arange(len(self))[indices])
        names, name_offsets = _gather(self.names, self.name_offsets, chosen)
        subset = self._annotations_subset(np.isin(self.ann_image, chosen))
        return replace(
            subset,
            image_ids=self.image_ids[chosen],
            image_sizes=self.image_sizes[chosen],
            names=names,
            name_offsets=name_offsets,
            ann_image=np.searchsorted(chosen, subset.ann_image).astype(np.int32),
            first=_offsets(np.diff(subset.first)[chosen]),
        )

    def with_categories(self, ids: Iterable[int]) -> InstanceDataset:
        """All images, but only the annotations of these categories."""
        ids = set(ids)
        subset = self._annotations_subset(np.isin(self.ann_category, list(ids)))
        return replace(subset, categories={id: category for id, category in self.categories.items() if id in ids})

    def seen_categories(self, names: Iterable[str] = ()) -> frozenset[int]:
        """Ids of the categories of these names, or of PASCAL's if none is named; raises DataError on unknown names."""
        known = {category.name: id for id, category in self.categories.items()}
        names = tuple(names) or tuple(category.name for category in self.categories.values() if category.pascal)
        for name in names:
            if name not in known:
                raise DataError(f"{self.source}: no category {name!r}; choose among {', '.join(sorted(known))}")
        return frozenset(known[name] for name in names)

    def category_groups(self, seen: Iterable[int]) -> dict[str, frozenset[int]]:
        """Category ids as "seen", "unseen" (all others), "novel" (unseen ones whose supercategory has none seen)."""
        seen = frozenset(seen) & frozenset(self.categories)
        familiar = {self.categories[id].supercategory for id in seen}
        novel = frozenset(id for id, category in self.categories.items() if category.supercategory not in familiar)
        return {"seen": seen, "unseen": frozenset(self.categories) - seen, "novel": novel}

    def _annotations_subset(self, keep: np.ndarray) -> InstanceDataset:
        kept = np.flatnonzero(keep)
        counts, count_offsets = _gather(self.counts, self.count_offsets, kept)
        per_image = np.bincount(self.ann_image[kept], minlength=len(self))
        columns = ("ann_ids", "ann_image", "ann_category", "ann_boxes", "ann_areas", "ann_crowd")
        return replace(
            self,
            **{name: getattr(self, name)[kept] for name in columns},
            first=_offsets(per_image),
            counts=counts,
            count_offsets=count_offsets,
        )


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file: gray repeated, alpha dropped, the upper 8 of 16 bits kept.

    Annotations are in pixels as stored, so an EXIF orientation is not applied; of several frames the first is read.
    Raises DataError, also for anything but a regular file of one of FORMATS: a pipe would be waited for.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            remedy = "give the file of an image instead"
            raise DataError(Finding(str(path), "", "unreadable image", "a folder or a device, no file", remedy))
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                what = f"{image.width} x {image.height} pixels, more than the {LARGEST} that are read"
                raise DataError(Finding(str(path), "", "image size", what, "shrink it or cut it into parts"))
            if image.mode.startswith("I"):  # 16 bits per pixel
                gray = (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)
                return np.repeat(gray[:, :, None], 3, axis=2)
            if image.mode == "P":  # its transparent colour may be bytes, which only RGBA understands
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        remedy = "add it, or correct the image folder or its file_name"
        raise DataError(Finding(str(path), "", "missing image", "no such image file", remedy)) from None
    except UnidentifiedImageError:
        what = f"not a readable image (of no format that is read: {', '.join(FORMATS)})"
        remedy = "replace the file by an intact copy, or convert it"
        raise DataError(Finding(str(path), "", "unreadable image", what, remedy)) from None
    except MemoryError:
        what = "there is not enough memory for its pixels"
        raise DataError(Finding(str(path), "", "image size", what, "free some, or shrink the image")) from None
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything from within a decoder
        raise DataError(unreadable(path, error)) from None


def unreadable(path: str | Path, error: Exception) -> Finding:
    """The finding that `error` was raised while the image file `path` was decoded."""
    what = f"not a readable image ({error or type(error).__name__})"
    return Finding(str(path), "", "unreadable image", what, "replace the file by an intact copy")


def collect(annotation_file: str | Path, image_folder: str | Path, fault: Callable[[Finding], None]) -> InstanceDataset:
    """The data set of all sound records of a COCO annotation file; `fault` is called for each of the others."""
    source = str(annotation_file)
    categories: dict[int, Category] = {}
    sizes: dict[int, tuple[int, int]] = {}
    image_names: dict[int, bytes] = {}
    ids: dict[int, None] = {}  # a set that keeps its order
    image_ids, category_ids, crowd, areas, boxes, lengths = (array(code) for code in "qqbddq")
    counts = bytearray()

    def category(record: Any) -> None:
        entry = coco_records.category(record)
        coco_records.new(entry.id, categories)
        categories[entry.id] = entry

    def image(record: Any) -> None:
        id, height, width, name = coco_records.image(record)
        coco_records.new(id, sizes)
        sizes[id] = height, width
        image_names[id] = name.encode()

    def annotation(record: Any) -> None:
        rle = coco_records.annotation(record, sizes, categories)
        coco_records.new(record["id"], ids)
        ids[record["id"]] = None
        image_ids.append(record["image_id"])
        category_ids.append(record["category_id"])
        crowd.append(record["iscrowd"])
        areas.append(record["area"])
        boxes.extend(record["bbox"])
        lengths.append(len(rle["counts"]))
        counts.extend(rle["counts"])

    lists = coco_records.load(source, fault)
    for key, noun, take in (
        ("categories", "category", category),
        ("images", "image", image),
        ("annotations", "annotation", annotation),
    ):
        records = lists[key][::-1]
        lists[key] = []
        number = 0
        while records:  # each record is freed once it is in the arrays
            record = records.pop()
            number += 1
            try:
                take(record)
            except coco_records.Fault as error:
                id = record.get("id") if isinstance(record, dict) else None
                where = f"number {number} of {key}" if id is None else f"{noun} {id}"
                fault(Finding(source, where, error.kind, error.what, error.remedy))

    sorted_images = np.array(sorted(sizes), np.int64)
    names = [image_names[id] for id in sorted_images.tolist()]
    ann_ids = np.fromiter(ids, np.int64, len(ids))
    ann_image = np.searchsorted(sorted_images, np.array(image_ids, np.int64)).astype(np.int32)
    order = np.lexsort((ann_ids, ann_image))
    flat_counts, count_offsets = _gather(np.frombuffer(counts, np.uint8), _offsets(lengths), order)
    return InstanceDataset(
        categories=dict(sorted(categories.items())),
        image_root=Path(image_folder),
        source=source,
        image_ids=sorted_images,
        image_sizes=np.array([sizes[id] for id in sorted_images.tolist()], np.int32).reshape(-1, 2),
        names=np.frombuffer(b"".join(names), np.uint8),
        name_offsets=_offsets([len(name) for name in names]),
        first=_offsets(np.bincount(ann_image, minlength=len(sorted_images))),
        ann_ids=ann_ids[order],
        ann_image=ann_image[order],
        ann_category=np.array(category_ids, np.int64)[order],
        ann_boxes=np.array(boxes, np.float32).reshape(-1, 4)[order],
        ann_areas=np.array(areas, np.float64)[order],
        ann_crowd=np.array(crowd, bool)[order],
        counts=flat_counts,
        count_offsets=count_offsets,
    )


def _offsets(lengths: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _gather(flat: np.ndarray, offsets: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pieces `indices` of a flat array one after another, and their offsets."""
    bounds = zip(offsets[indices].tolist(), offsets[indices + 1].tolist(), strict=True)
    return np.frombuffer(b"".join(flat[a:b] for a, b in bounds), np.uint8), _offsets(np.diff(offsets)[indices])
