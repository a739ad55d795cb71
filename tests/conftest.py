"""Small data that several test files share."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

WIDTH, HEIGHT = 64, 48
CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 18, "name": "dog", "supercategory": "animal"},
    {"id": 22, "name": "elephant", "supercategory": "animal"},  # not PASCAL's, but of a family that PASCAL has
    {"id": 59, "name": "pizza", "supercategory": "food"},  # of a family that PASCAL does not have
]


class Stress:
    """How much `tests/faults` tries, and what came of it: short in `make test`, all of it in `make stress`."""

    def __init__(self, record: str | None) -> None:
        self.full = record is not None
        self.counts: dict[str, dict[str, Any]] = defaultdict(dict)  # "kills", "cases", ... -> what -> number

    def scale(self, short: int, full: int) -> int:
        """How often something is tried."""
        return full if self.full else short

    def count(self, area: str, what: str, number: float) -> None:
        """Add to a count of the record, once what was counted has gone well."""
        self.counts[area][what] = self.counts[area].get(what, 0) + number


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stress", metavar="FILE", help="run tests/faults in full and write what was counted to FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: only with --stress, as it takes minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--stress"):
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make stress"))


@pytest.fixture(scope="session")
def stress(request: pytest.FixtureRequest) -> Stress:
    """The counts of this run; see `Stress`."""
    request.config.stress = Stress(request.config.getoption("--stress"))
    return request.config.stress


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Undisturbed runs of the parts of a small study (`faults/work.py`)."""
    from work import References

    return References(tmp_path_factory.mktemp("references"))


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Print the counts, and write them if all tests have passed."""
    counted, file = getattr(config, "stress", None), config.getoption("--stress")
    if counted is None:
        return
    for area, numbers in sorted(counted.counts.items()):
        terminalreporter.write_line(f"{area}: {', '.join(f'{n:g} {what}' for what, n in sorted(numbers.items()))}")
    if file and exitstatus == 0:
        from deepmask import environment, files

        files.write_json(file, {**counted.counts, "environment": environment.environment()})
        terminalreporter.write_line(f"{file}: written")


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Path:
    """A COCO-format folder with every kind of segmentation and of image; see `write_tiny_coco`."""
    return write_tiny_coco(tmp_path / "tiny")


def write_tiny_coco(folder: Path) -> Path:
    """Write images/ and annotations/instances_{train,val}.json: 5 and 3 images of 64 x 48 pixels with 8 and 5 masks.

    Train holds polygons in one and two parts, a compressed RLE with a hole, an uncompressed crowd RLE, an image
    without objects (id 4), a grayscale (2) and an RGBA (3) file; ids are neither dense nor in the file's order.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    ring = ellipse_mask(24, 20, 14, 12) & ~ellipse_mask(24, 20, 6, 5)
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[40:, 2:60] = True
    train = {
        9: ("RGB", "jpg", [(1, [rectangle(5, 6, 20, 25)]), (18, [ellipse(45, 20, 12, 14)]), (1, uncompressed(crowd))]),
        2: ("L", "png", [(22, compressed(ring)), (59, [rectangle(44, 30, 17, 12)])]),
        3: ("RGBA", "png", [(18, [rectangle(2, 2, 14, 40), rectangle(24, 2, 10, 40)]), (1, [ellipse(50, 24, 9, 20)])]),
        4: ("RGB", "png", []),
        5: ("RGB", "png", [(59, [ellipse(30, 24, 28, 20)])]),
    }
    val = {
        12: ("RGB", "png", [(1, [rectangle(8, 8, 30, 30)]), (22, [ellipse(50, 30, 10, 12)])]),
        10: ("RGB", "jpg", [(18, [ellipse(20, 20, 15, 15)]), (59, [rectangle(40, 10, 15, 25)])]),
        11: ("L", "png", [(1, [ellipse(32, 24, 20, 20)])]),
    }
    for split, images in (("train", train), ("val", val)):
        document = {"images": [], "annotations": [], "categories": CATEGORIES}
        for image_id, (mode, suffix, objects) in images.items():
            name = f"{image_id:06d}.{suffix}"
            document["images"].append({"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT})
            added = [
                annotation(100 * image_id - k, image_id, category, shape) for k, (category, shape) in enumerate(objects)
            ]
            document["annotations"] += added
            _draw(image_id, added).convert(mode).save(folder / "images" / name)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder


def annotation(id: int, image_id: int, category: int, segmentation: Any, **changes: Any) -> dict[str, Any]:
    """A complete annotation; an uncompressed RLE is a crowd region."""
    rle = coco_rle(segmentation)
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category,
        "segmentation": segmentation,
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": float(coco_mask.area(rle)),
        "iscrowd": int(isinstance(segmentation, dict) and isinstance(segmentation["counts"], list)),
    } | changes


def coco_rle(segmentation: Any) -> dict[str, Any]:
    """The RLE of a segmentation in a 64 x 48 image, by pycocotools alone."""
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH) if isinstance(counts, list) else segmentation
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH))


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """A polygon in COCO's flat form."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def ellipse(x: float, y: float, a: float, b: float, points: int = 24) -> list[float]:
    """A polygon in COCO's flat form, with half axes a and b."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + a * np.cos(angle), y + b * np.sin(angle)], axis=1).round(2).ravel().tolist()


def ellipse_mask(x: float, y: float, a: float, b: float) -> np.ndarray:
    """(48, 64) bool."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    return ((cols - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """A mask as JSON holds a compressed RLE."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """A mask as JSON holds an uncompressed RLE."""
    pixels = np.concatenate([[False], mask.T.ravel()])
    turns = np.flatnonzero(pixels[1:] != pixels[:-1])
    return {"size": list(mask.shape), "counts": np.diff([0, *turns, mask.size]).tolist()}


def _draw(seed: int, annotations: list[dict[str, Any]]) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(90, 130, (HEIGHT, WIDTH, 3), np.uint8))
    draw = ImageDraw.Draw(image)
    for record in annotations:
        mask = coco_mask.decode(coco_rle(record["segmentation"])) * 255
        draw.bitmap((0, 0), Image.fromarray(mask), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def disc_and_square(disc_at=(0.5, 0.25), square_at=(0.5, 0.75), rng=None, height=60, width=80):
    """An RGB image with a disc and a square, edge maps (3, H, W) of their outlines with some noise, and their masks.

    The places are shares of height and width.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - disc_at[0] * height, columns - disc_at[1] * width) < 0.2 * width
    apart = np.abs(rows - square_at[0] * height), np.abs(columns - square_at[1] * width)
    square = np.maximum(*apart) < 0.15 * width
    image = np.stack([disc * 200, square * 150, np.full(disc.shape, 40)], axis=-1).astype(np.uint8)
    outline = np.zeros((height, width))
    for mask in (disc, square):
        outline[:, 1:] += 0.4 * (mask[:, 1:] != mask[:, :-1])
        outline[1:] += 0.4 * (mask[1:] != mask[:-1])
    edges = (outline + 0.1 * rng.random((3, height, width))).clip(0, 1).astype(np.float16)
    return image, edges, np.stack([disc, square])
