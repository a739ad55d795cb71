"""Proposals of any number of image files, by any method, shared by the ranks of a job (paper: section 4).

What is finished of an image is a pair of small files, the second written when the first is whole, so an interrupted
run goes on where it was.  The bytes of the results do not depend on the number of ranks.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepmask import distributed, files, masks, pictures, results_file
from deepmask.baseline_config import BaselineError
from deepmask.data import coco_records
from deepmask.data.coco import read_image
from deepmask.data.coco_records import DataError, Fault
from deepmask.proposals import ProposalMethod, Proposals
from deepmask.stages import sharing

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}  # taken from a folder
SCRATCH = "unfinished"  # folder in the folder of the results
SHOWN = 10  # proposals in the picture of an image
LONGEST = 200  # bytes of an image's name in that of its picture; file systems take 255 in all
WIDEST = 5.0  # width by height of a picture, or height by width; a strip stands in an empty frame


def find_images(arguments: Sequence[str | Path], out: str | Path) -> list[Path]:
    """The image files that arguments name: files, folders (all images below, but not below `out`) and patterns.

    In the order of the arguments, those of one sorted, each once.  A single file may be missing: it is reported when
    it is read.  Raises DataError if a folder has no image or a pattern fits nothing.
    """
    found: dict[Path, None] = {}  # a set that keeps its order
    for argument in map(str, arguments):
        matches = [argument] if Path(argument).exists() else sorted(glob.glob(argument, recursive=True))
        if not matches and glob.has_magic(argument):
            raise DataError(f"{argument}: no file matches; give image files, folders of images or patterns")
        for path in map(Path, matches or [argument]):
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
            inside = [p for p in inside if p == path or _real(out) not in _real(p).parents]
            if not inside:
                raise DataError(f"{path}: no image below this folder; known are {', '.join(sorted(SUFFIXES))}")
            found.update(dict.fromkeys(inside))
    return list(found)


def annotated_ids(images: Sequence[Path], annotations: str | Path) -> list[int | None]:
    """The id of each image in a COCO annotation file, by the end of its path; None if the file does not have it.

    Raises DataError if the annotation file cannot be used, has none of them, or if two of them are the same image.
    """
    faults: list[Any] = []
    records = coco_records.load(str(annotations), faults.append)["images"]  # a list without annotations will do
    if not records:
        raise DataError(faults[0] if faults else f"{annotations}: has no images; use the one of these images")
    try:
        ids = {name: id for id, _, _, name in map(coco_records.image, records)}
    except Fault as fault:
        raise DataError(f"{annotations}: an image: {fault}; {fault.remedy}") from None
    found: list[int | None] = []
    owners: dict[int, Path] = {}
    for path in images:
        ends = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
        id = next((ids[end] for end in ends if end in ids), None)
        if id is not None and owners.setdefault(id, path) != path:
            raise DataError(f"{owners[id]} and {path} are both image {id} of {annotations}; give one of them")
        found.append(id)
    if not owners:
        raise DataError(f"{annotations}: has none of the {len(images)} images, such as {images[0]}; is it theirs?")
    return found


def propose_files(
    method: ProposalMethod,
    images: Sequence[Path],
    folder: Path,
    *,
    reads: Sequence[Any] = (),
    ids: Sequence[int | None] | None = None,
    chunk: int = 5000,
    drawn: int = 20,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[str]:
    """Propose on image files, all ranks sharing them, and yield lines of text about them on the first rank.

    Writes COCO results into `folder`, `chunk` images to a file: proposals.json if one holds all, else
    proposals-00000.json, proposals-05000.json and so on; images.json, their names and sizes in COCO's format, so that
    pycocotools loads both; and a picture of the best of each of the first `drawn`.  Images are numbered from 1 unless
    `ids` gives their ids.  `reads`: values, and Paths of files, that the proposals depend on (`sharing.claim`); what
    an interrupted run with the same ones has finished is not made again.  Images that cannot be read, or that the
    method fails on, have no proposals: each is named in a line, and a DataError tells their number when all others are
    done.
    """
    scratch = sharing.claim(folder / SCRATCH, rank, method.name, *reads)
    ids = range(1, len(images) + 1) if ids is None else ids
    records, failed, written = [], 0, set()
    for start in range(0, len(images), chunk):
        part = range(start, min(start + chunk, len(images)))
        output = folder / ("proposals.json" if len(images) <= chunk else f"proposals-{start:05d}.json")
        pieces = [scratch / f"{ids[i]}-{_digest(images[i])}.json" for i in part]
        for i in distributed.progress(part[rank::ranks], rank, desc=f"propose {output.stem}", unit="image"):
            picture = folder / f"{ids[i]}-{_short(images[i].stem)}.png" if i < drawn else None
            _propose(method, images[i], ids[i], pieces[i - start], picture)
        distributed.barrier()
        if rank == 0:
            found = [json.loads(_record(piece).read_text()) for piece in pieces]
            yield from (said for record in found if (said := record.pop("said", None)))
            results_file.join([piece for piece, record in zip(pieces, found, strict=True) if record], output)
            written.add(output)
            records += filter(None, found)
            failed += found.count({})
            number = len(found) - found.count({})
            yield f"{output}: the proposals of {number} image{'s' * (number != 1)}, by {method.name}"
    if rank == 0:
        document = {
            "images": records,
            "annotations": [],
            "categories": [{"id": results_file.CATEGORY, "name": "object"}],
        }
        files.write_text(folder / "images.json", json.dumps(document, indent=1) + "\n")
        for path in folder.glob("proposals*.json"):
            if re.fullmatch(r"proposals(-\d{5,})?\.json", path.name) and path not in written:
                path.unlink()  # of a run before, whose images.json is gone
        if not failed:
            shutil.rmtree(scratch)
    distributed.barrier()
    if failed:
        remedy = "repair or leave out those named above and repeat the command"
        raise DataError(f"{failed} of {len(images)} images have no proposals; {remedy}")


def _propose(method: ProposalMethod, path: Path, id: int | None, piece: Path, picture: Path | None) -> None:
    """Write the proposals of one image, its picture if there is to be one, and last its record in images.json.

    The record also has a line "said" for the user, and nothing else if there are no proposals.
    """
    done = json.loads(_record(piece).read_text()) if _record(piece).is_file() else {}
    if "id" in done and (picture is None or picture.is_file()):
        return
    try:
        if id is None:
            raise DataError(f"{path}: not among the annotated images; leave it out, or add it to the annotation file")
        image = read_image(path)
        made = _made(method, image, path).of(id)
    except DataError as error:
        record = {"said": str(error)}
    else:
        results_file.write(piece, [made])
        record = {"id": id, "file_name": str(path), "width": image.shape[1], "height": image.shape[0]}
        if picture:
            best = made.top(SHOWN)
            pictures.save(_picture(image, best), picture.with_name(picture.name.removesuffix(".png")))
            record["said"] = f"{path}: {len(made)} proposals, the best {len(best)} in {picture}"
    files.write_text(_record(piece), json.dumps(record))


def _made(method: ProposalMethod, image: np.ndarray, path: Path) -> Proposals:
    try:
        return method(image)
    except BaselineError:  # of its settings or its files: it would fail on every image
        raise
    except Exception as error:  # whatever it is that one image does to a method, the others must not suffer from it
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        remedy = f"shrink it, leave it out or take another method (it has {image.shape[1]} x {image.shape[0]} pixels)"
        raise DataError(f"{path}: {method.name} fails on this image ({what}); {remedy}") from error


def _record(piece: Path) -> Path:
    return piece.with_suffix(".record")


def _digest(path: Path) -> str:
    """Another one if the file is another or has changed."""
    state = path.stat() if path.is_file() else None
    content = f"{_real(path)} {state and (state.st_size, state.st_mtime_ns)}"
    return hashlib.sha256(os.fsencode(content)).hexdigest()[:12]


def _real(path: str | Path) -> Path:
    """Without links; `Path.resolve` fails where a link leads to itself."""
    return Path(os.path.realpath(path))


def _short(stem: str) -> str:
    """The start of a name that leaves room for what is put before and after it."""
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    return stem


def _picture(image: np.ndarray, proposals: Proposals) -> Figure:
    shape = np.clip(image.shape[0] / image.shape[1], 1 / WIDEST, WIDEST)
    figure = Figure(figsize=(8, 8 * shape), layout="constrained")
    axis = figure.subplots()
    if proposals.masks is None:
        pictures.show(axis, image)
        pictures.show_boxes(axis, proposals.boxes, pictures.colours(len(proposals)))
    else:
        pictures.show_masks(axis, image, [masks.decode(rle) for rle in proposals.masks])
    return figure
