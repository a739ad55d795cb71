"""Proposals as a COCO results file, which pycocotools and other programs read and write.

A list of one object per proposal: image_id, score, bbox [x, y, width, height] in pixels and/or segmentation as RLE.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from reprlib import repr as shown
from typing import IO, Any, TextIO

import numpy as np

from deepmask import files
from deepmask import masks as mask_ops
from deepmask.data.coco_records import LARGEST, is_integer
from deepmask.masks import RLE
from deepmask.proposals import ProposalError, Proposals

CATEGORY = 1  # proposals have no class; COCO tools want one, and 1 exists in every COCO file
_CHUNK = 1 << 20  # characters that `read` takes from the file at a time
_SEPARATOR = re.compile(r"\s*([,\]]?)\s*")


def write(path: str | Path, proposals: Iterable[Proposals]) -> None:
    """Write a COCO results file, one proposal per line; the same proposals give the same bytes.

    `proposals` is consumed one image at a time, so it may be a generator that computes them.  The file appears only
    when all are written.  Raises ProposalError if an image comes twice.
    """
    with writing(path) as writer:
        for of_image in proposals:
            writer.add(of_image)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Writer]:
    """A COCO results file that grows image by image while the block runs, and appears at its end; see `write`."""
    with files.replacing(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        writer = Writer(Path(path), file)
        yield writer
        file.write("\n]\n" if writer.started else "[]\n")


class Writer:
    """What `writing` hands out."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.started = path, False
        self._file, self._seen = file, set()

    def add(self, of_image: Proposals) -> None:
        """Append the proposals of one image; raises ProposalError if it came before."""
        if of_image.image_id in self._seen:
            raise ProposalError(f"{self.path}: image {of_image.image_id} was given twice")
        self._seen.add(of_image.image_id)
        for line in _lines(of_image):
            self.append(line)

    def append(self, line: str) -> None:
        """Append one entry, a JSON object without a line break."""
        self._file.write(",\n" if self.started else "[\n")
        self._file.write(line)
        self.started = True


def join(parts: Iterable[str | Path], path: str | Path) -> None:
    """Write one results file with the entries of `parts`, files of `write`, in their order."""
    with writing(path) as writer:
        for part in parts:
            with open(part, encoding="ascii") as file:
                for line in file:
                    if line.startswith("{"):
                        writer.append(line.rstrip("\n").removesuffix(","))


def read(
    path: str | Path, image_ids: Collection[int] | None = None, only: Collection[int] | None = None
) -> dict[int, Proposals]:
    """Proposals by image id from a COCO results file of any program, sorted by descending score.

    Boxes alone, masks alone (RLE, compressed or not) or both will do; missing boxes are those of the masks.  Category
    ids are ignored, and equal scores keep the order of the file.  Images that are not in `only` are passed over: a
    file may cover more than what is asked, and more than fits into memory.  A folder stands for all its files
    proposals*.json, each with images of its own.  Raises ProposalError if the file is missing or malformed, or if it
    has an image that is not among `image_ids`.
    """
    path = Path(path)
    collected: dict[int, _Columns] = {}
    known = None if image_ids is None else {int(i) for i in image_ids}
    wanted = None if only is None else {int(i) for i in only}
    for part in _parts(path):
        for index, entry in enumerate(_entries(part)):
            try:
                image_id, score = _number(entry, "image_id"), _number(entry, "score")
                if image_id not in collected:
                    if not is_integer(image_id) or (known is not None and image_id not in known):
                        what = f"image_id {shown(image_id)} is not annotated"
                        raise ProposalError(f"{what}; do the two files belong together?")
                    if wanted is not None and image_id not in wanted:
                        continue
                    collected[image_id] = _Columns(part)
                if collected[image_id].path != part:
                    raise ProposalError(
                        f"image_id {image_id} is also in {collected[image_id].path}; remove one of them"
                    )
                collected[image_id].add(index, score, entry.get("bbox"), entry.get("segmentation"))
            except ProposalError as error:
                raise ProposalError(f"{part}: entry {index}: {error}") from None
    return {image_id: collected[image_id].proposals(image_id) for image_id in sorted(collected)}


def _parts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    parts = sorted(path.glob("proposals*.json"))
    if not parts:
        raise ProposalError(f"{path}: no file proposals*.json in this folder; name the file of the proposals")
    return parts


class _Columns:
    """What was read of one image so far; checks that are slow one by one wait for `proposals`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.indices: list[int] = []
        self.scores: list[float] = []
        self.boxes: list[list[float] | None] = []
        self.masks: list[RLE] = []
        self.size: list[int] | None = None  # one list shared by all masks

    def add(self, index: int, score: float, box: Any, segmentation: Any) -> None:
        if box is None and segmentation is None:
            raise ProposalError("has neither bbox nor segmentation; a proposal needs one of them")
        if box is not None and not (type(box) is list and len(box) == 4 and {*map(type, box)} <= {int, float}):
            raise ProposalError(f"bbox {shown(box)} is not [x, y, width, height] in pixels")
        if (segmentation is None) == bool(self.masks) and self.indices:
            raise ProposalError("some proposals of its image have a segmentation and others do not")
        if segmentation is not None:
            self.masks.append(self._rle(segmentation))
        self.indices.append(index)
        self.scores.append(score)
        self.boxes.append(box)

    def proposals(self, image_id: int) -> Proposals:
        if self.masks:
            self._check_masks()
            if None in self.boxes:
                tight = mask_ops.boxes(self.masks).tolist()
                self.boxes = [t if box is None else box for box, t in zip(self.boxes, tight, strict=True)]
        boxes, scores = self._numbers("bbox", self.boxes), self._numbers("score", self.scores)
        return Proposals.ranked(image_id, scores, boxes, self.masks or None)

    def _numbers(self, key: str, values: list) -> np.ndarray:
        """One number or one list of numbers per entry, as float64; they must be finite in the 32 bits of Proposals."""
        try:
            numbers = np.array(values, np.float64)
        except OverflowError:  # an integer that no float holds
            numbers = np.array(values, object)
        fits = (np.abs(numbers) <= LARGEST).reshape(len(values), -1).all(axis=1)
        if not fits.all():
            entry = self.indices[fits.argmin()]
            raise ProposalError(f"{self.path}: entry {entry}: {key} is not finite, or too large for 32 bits")
        return numbers

    def _rle(self, segmentation: Any) -> RLE:
        if type(segmentation) is not dict:
            raise ProposalError("segmentation is not an RLE with size [height, width] and counts")
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if self.size is None:
            if not (type(size) is list and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
                raise ProposalError(f"segmentation: size {shown(size)} is not [height, width] in pixels")
            if size[0] * size[1] > mask_ops.MOST_PIXELS:
                raise ProposalError(f"segmentation: size {shown(size)} is not possible; state the image's")
            self.size = size
        if size != self.size:
            raise ProposalError(f"segmentation: size {shown(size)} differs from {self.size} of the same image")
        if type(counts) is str:
            return {"size": self.size, "counts": counts.encode("utf-8", "surrogatepass")}
        try:
            return mask_ops.from_segmentation({"size": size, "counts": counts}, *size)
        except mask_ops.MaskError as error:
            raise ProposalError(f"segmentation: {error}") from None

    def _check_masks(self) -> None:
        """Damaged counts would keep pycocotools busy for ever or make it read beyond their end.

        Runs of no pixel, of which it would make wrong boxes, are joined.
        """
        height, width = self.size
        if mask_ops.cover([rle["counts"] for rle in self.masks], height * width):
            return
        for i, (index, rle) in enumerate(zip(self.indices, self.masks, strict=True)):
            try:
                self.masks[i] = mask_ops.from_segmentation(rle, height, width) | {"size": self.size}
            except mask_ops.MaskError as error:
                raise ProposalError(f"{self.path}: entry {index}: segmentation: {error}") from None


def _lines(proposals: Proposals) -> Iterator[str]:
    if not (np.isfinite(proposals.scores).all() and np.isfinite(proposals.boxes).all()):
        raise ProposalError(f"image {proposals.image_id}: a score or box is not finite")
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for index, (score, box) in enumerate(zip(_shortest(proposals.scores), _shortest(proposals.boxes), strict=True)):
        entry = {"image_id": int(proposals.image_id), "category_id": CATEGORY, "score": score, "bbox": box}
        if proposals.masks is not None:
            rle = proposals.masks[index]
            entry["segmentation"] = {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}
        yield encode(entry)


def _shortest(values: np.ndarray) -> list:
    """Python floats with the fewest digits that are still the same float32."""
    return values.astype(str).astype(np.float64).tolist()


def _entries(path: Path) -> Iterator[Any]:
    """The elements of a JSON list, decoded one by one: as Python objects a whole file could exceed the memory."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ProposalError(f"{path}: neither a file nor a folder; name a file of proposals")
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            yield from _decoded(file, path)
    except OSError as error:
        raise ProposalError(f"{path}: cannot read the proposals: {error.strerror}") from None


def _decoded(file: IO[str], path: Path) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    text, position, index = file.read(_CHUNK).lstrip(), 1, 0
    if not text.startswith("["):
        raise ProposalError(f"{path}: not a COCO results file; it must be a JSON list of proposals")
    while True:
        separator = _SEPARATOR.match(text, position)
        if separator[1] == "]":
            if text[separator.end() :] or file.read(_CHUNK).strip():
                raise ProposalError(f"{path}: goes on after the end of the list; keep one list of proposals")
            return
        try:
            if (separator[1] == ",") != (index > 0):
                raise ValueError
            entry, end = decode(text, separator.end())
        except ValueError:
            more = file.read(max(_CHUNK, len(text)))
            if not more:
                raise ProposalError(f"{path}: entry {index} is not valid JSON; is the file complete?") from None
            text, position = text[position:] + more, 0
            continue
        except RecursionError:
            raise ProposalError(f"{path}: entry {index} is nested too deeply to be a proposal") from None
        yield entry
        position, index = end, index + 1


def _number(entry: Any, key: str) -> float:
    value = entry.get(key) if type(entry) is dict else None
    if type(value) in (float, int):
        return value
    if type(entry) is not dict:
        raise ProposalError(f"{shown(entry)} is not an object with image_id, score, and bbox or segmentation")
    if key not in entry:
        raise ProposalError(f"has no {key}; every proposal needs one")
    raise ProposalError(f"{key} {shown(value)} is not a number")
