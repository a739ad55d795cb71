"""Readers of binary files, for `fuzz.py`."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from fuzz import Target
from PIL import Image
from torch import nn

from deepmask import checkpoints, files, imagenet, released, weights
from deepmask.baseline_config import BaselineError
from deepmask.baselines import mcg_forest
from deepmask.baselines.edges import EdgeDetector
from deepmask.baselines.mcg_forest import Ranking
from deepmask.checkpoints import CheckpointError
from deepmask.config import ModelConfig, ProposeConfig
from deepmask.data import archives, sources
from deepmask.data.archives import ArchiveError
from deepmask.data.coco import read_image
from deepmask.data.coco_records import DataError
from deepmask.files import FileError
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.weights import WeightsError

Prepare = Callable[[Path], Callable[[Path], None]]
FEATURES = 3  # that a tiny ranking asks for


def passes(read: Callable[[Path], object], *errors: type[Exception]) -> Prepare:
    """A target's `prepare`: `read` may also end in one of our errors, of one line that names the file."""

    def attempt(file: Path) -> None:
        try:
            read(file)
        except errors as error:
            assert str(file) in str(error) and "\n" not in str(error), f"says too little: {error}"

    return lambda folder: attempt


def written(write: Callable[[Path], object], suffix: str = "") -> bytes:
    """What `write` writes into the file that it is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        write(path)
        return path.read_bytes()


def images() -> list[bytes]:
    """Every format, and every kind of pixel."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8))
    gray = colours.convert("L")
    palette = colours.quantize(16)
    deep = Image.fromarray(rng.integers(0, 65536, (9, 13)).astype(np.uint16))
    real = Image.fromarray(rng.normal(0, 200, (9, 13)).astype(np.float32))
    other = colours.transpose(Image.Transpose.ROTATE_180)
    frames = {"save_all": True, "append_images": [other]}
    kinds = [
        *((colours, name, {}) for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")),
        *((gray, name, {}) for name in ("PNG", "JPEG", "TIFF", "PPM")),
        (deep, "PNG", {}),
        (deep, "TIFF", {}),
        (deep, "PPM", {}),
        (real, "TIFF", {}),
        (real, "PPM", {}),
        (colours.convert("CMYK"), "JPEG", {}),
        (colours.convert("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        (colours.convert("LAB"), "TIFF", {}),
        (colours.convert("YCbCr"), "TIFF", {"compression": "jpeg"}),
        (gray.convert("1"), "TIFF", {"compression": "group4"}),
        (colours, "TIFF", {"compression": "tiff_deflate"}),
        (gray.convert("1"), "PNG", {}),
        (palette, "PNG", {"transparency": bytes(range(16))}),
        (palette, "GIF", {"transparency": 3}),
        (palette, "BMP", {}),
        (colours.convert("RGBA"), "PNG", {}),
        (colours, "WEBP", {"lossless": True}),
        *((colours, name, frames) for name in ("TIFF", "GIF", "PNG", "WEBP", "MPO")),
        (colours, "JPEG", {"progressive": True, "comment": b"made here"}),
    ]
    made = []
    for image, name, options in kinds:
        content = io.BytesIO()
        image.copy().save(content, name, **options)  # as JPEG leaves settings in an image
        made.append(content.getvalue())
    return made


def _network() -> list[bytes]:
    torch.manual_seed(0)
    geometry = Geometry(patch=32, canonical=16, stride=4, mask=4, jitter=2.0, negative=6.0)
    model = DeepMask(geometry, ModelConfig(width=0.01, rank=3, score_hidden=(2, 2)))

    def release(path: Path) -> None:
        weights.save_model(path.with_name("whole"), model, {"variant": "deepmask"})
        released.write(path.with_name("whole"), path, ProposeConfig(), 0.2)

    return [written(lambda path: weights.save_model(path, model, {})), written(release)]


def _tensors() -> list[bytes]:
    made = {"a": torch.zeros(2, 3), "b": torch.arange(4), "empty": torch.zeros(0, 5)}
    return [written(lambda path: weights.save_tensors(path, made, {"of": "nothing"}))]


class _Small(nn.Module):
    """Stands in for torchvision's network, whose file has 500 MB."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Linear(4, 1))


def _imagenet(folder: Path) -> Callable[[Path], None]:
    torchvision.models.vgg11 = _Small

    def load(file: Path) -> None:
        sources.weights_file = lambda name: file
        imagenet.load("vgg11")

    return passes(load, WeightsError)(folder)


def _imagenet_weights() -> list[bytes]:
    state = _Small().state_dict()
    old = {"_use_new_zipfile_serialization": False}
    return [written(lambda path: torch.save(state, path)), written(lambda path: torch.save(state, path, **old))]


def _archive(folder: Path) -> Callable[[Path], None]:
    target, scratch = folder / "target", folder / "scratch"

    def extract(file: Path) -> None:
        archives.extract(file, target, scratch, 100_000)

    def read(file: Path) -> None:
        passes(extract, ArchiveError)(folder)(file)
        assert not scratch.exists() and {path.name for path in folder.iterdir()} <= {file.name, "target"}
        if target.exists():
            archives.shutil.rmtree(target)

    return read


CONTENT = {"a.txt": b"one", "deep/er/b.bin": bytes(700), "c": b"", "folder/": b""}


def zip_file(content: dict[str, bytes] = CONTENT, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of these members."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return made.getvalue()


def tar_file(content: dict[str, bytes] = CONTENT, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of these members."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name.removesuffix("/"))
            member.type, member.size = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE, len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def _tars() -> list[bytes]:
    long = CONTENT | {"long" * 40: b"name"}
    return [tar_file(long, format) for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)] + [tar_file()]


def ranking() -> Ranking:
    """Of one tree with three nodes."""
    parts = {"features": [FEATURES - 1, -1, -1], "thresholds": [0.5, 0, 0], "left": [1, 0, 0], "right": [2, 0, 0]}
    parts |= {"values": [0, 0.25, 0.75], "roots": [0]}
    kinds = {"features": np.int32, "left": np.int32, "right": np.int32, "roots": np.int32}
    return Ranking(**{name: np.array(part, kinds.get(name, np.float64)) for name, part in parts.items()})


def _rank(file: Path) -> None:
    mcg_forest._predict = getattr(mcg_forest._predict, "py_func", mcg_forest._predict)  # Numba knows no Atheris
    made = Ranking.load(file)
    try:
        made.predict(np.zeros((2, FEATURES)))
    except BaselineError as error:  # asks for another feature: it knows no file
        assert "asks for feature" in str(error)


def forest() -> bytes:
    """A structured forest in OpenCV's format, of two trees that are grown nowhere else."""
    from deepmask.baselines import forest

    rng = np.random.default_rng(0)
    labels = [np.kron(rng.integers(0, 9, (4, 5)), np.ones((12, 12), int)).astype(np.int32) for _ in range(3)]
    samples = [(np.repeat(many[:, :, None] * 25, 3, axis=2).astype(np.uint8), [many]) for many in labels]
    settings = forest.ForestConfig(trees=2, patches=80, pairs=16, depth=3)
    return gzip.decompress(written(lambda path: forest.train(samples, path, settings), ".yml.gz"))


def _detect(file: Path) -> None:
    EdgeDetector(file, (1.0,))(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))


def _arrays() -> list[bytes]:
    return [
        written(lambda path: files.write_array(path, np.arange(12.0).reshape(3, 4)), ".npz"),
        written(lambda path: files.write_array(path, np.zeros((2, 0), np.float16)), ".npz"),
    ]


def _run() -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    model = nn.Linear(2, 3)
    return model, [torch.optim.AdamW(model.parameters())]


def _checkpoint(path: Path) -> None:
    model, optimisers = _run()
    model(torch.ones(1, 2)).sum().backward()
    optimisers[0].step()
    checkpoints.save(path, model, optimisers, "run", step=1, rows=[{"loss": 0.5}], totals={"mask": 1.0})


def _resume(file: Path) -> None:
    checkpoints.resume(file, *_run(), "run", step=0, rows=[], totals={})


cv2.setNumThreads(1)
TARGETS = {
    "array": Target(_arrays, passes(files.read_array, FileError), ".npz"),
    "checkpoint": Target(lambda: [written(_checkpoint)], passes(_resume, CheckpointError), ".pt"),
    "forest": Target(lambda: [forest()], passes(_detect, BaselineError), ".yml", slow=4),
    "image": Target(images, passes(read_image, DataError)),
    "imagenet weights": Target(_imagenet_weights, _imagenet, ".pth"),
    "ranking": Target(lambda: [written(lambda path: ranking().save(path))], passes(_rank, BaselineError), ".npz"),
    "tar": Target(_tars, _archive, ".tar", slow=4),
    "tensors": Target(_tensors, passes(weights.load_tensors, WeightsError)),
    "weights": Target(_network, passes(released.load, WeightsError), slow=4),
    "zip": Target(lambda: [zip_file(), zip_file(method=zipfile.ZIP_STORED)], _archive, ".zip", slow=4),
}
