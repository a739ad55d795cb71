"""All images of a data set decoded once, as raw pixels in one file that every process maps into its memory.

A GPU takes thousands of patches a second; decoding a JPEG for each would take hundreds of cores.  COCO's train2014 is
69 GB of raw pixels (82,783 images of .83 MB): on a disk once, in the memory of one process per machine, or on a GPU
that has the room (`PixelStore.to`).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deepmask import device as devices
from deepmask import files
from deepmask.data.coco import DataError, InstanceDataset

_AHEAD = 256  # images that are decoded before they are written in order
_ROOM = 0.6  # of the free memory of a GPU that images may take


class PixelStore:
    """The pixels of I images, one image after another: `pixels` is (bytes,) uint8, an image is (H, W, 3) of it."""

    def __init__(self, pixels: Tensor, sizes: np.ndarray) -> None:
        self.pixels, self.sizes = pixels, sizes
        self.offsets = _offsets(sizes)

    @classmethod
    def open(cls, dataset: InstanceDataset, path: str | Path) -> PixelStore:
        """The store in the file `path`, which is made first unless it is there and of these very image files.

        Raises DataError if an image is missing or unreadable, or if the disk has no room.
        """
        path, key = Path(path), _key(dataset)
        mark = path.with_name(path.name + ".key")
        total = int(_offsets(dataset.image_sizes)[-1])
        if not (path.is_file() and path.stat().st_size == total and mark.is_file() and mark.read_text() == key):
            mark.unlink(missing_ok=True)
            _write(dataset, path, total)
            files.write_text(mark, key)
        return cls(torch.from_file(str(path), shared=False, size=total, dtype=torch.uint8), dataset.image_sizes)

    def image(self, i: int) -> Tensor:
        """(H, W, 3) uint8 RGB of image i, a view."""
        height, width = self.sizes[i].tolist()
        return self.pixels[self.offsets[i] : self.offsets[i + 1]].view(height, width, 3)

    def fits(self, device: torch.device) -> bool:
        """Whether the images may be kept on a device: a GPU, whose memory training needs too, up to .6 of it."""
        return device.type == "cuda" and self.pixels.nbytes <= _ROOM * torch.cuda.mem_get_info(device)[0]

    def to(self, device: torch.device) -> PixelStore:
        """The same store with its pixels on a device; copied in pieces, so that no second copy is made here."""
        pixels = torch.empty(self.pixels.shape, dtype=torch.uint8, device=device)
        step = 1 << 28
        for start in range(0, len(pixels), step):
            pixels[start : start + step].copy_(self.pixels[start : start + step])
        return PixelStore(pixels, self.sizes)


def _offsets(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(3 * sizes.astype(np.int64).prod(axis=1))])


def _key(dataset: InstanceDataset) -> str:
    """Changes with the list of images, their sizes, and the size and time of every file."""
    digest = hashlib.sha256(dataset.image_sizes.tobytes())
    for i in range(len(dataset)):
        path = dataset.image_root / dataset.file_name(i)
        try:
            stat = path.stat()
        except OSError:
            dataset.image(i)  # says what is wrong with it
            raise
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write(dataset: InstanceDataset, path: Path, total: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < total:
        gigabytes = f"{total / 1e9:.1f} GB of decoded images, but {free / 1e9:.1f} GB are free"
        raise DataError(f"{path.parent}: needs {gigabytes}; make room, or set train.cut to host, which decodes anew")
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        for image in tqdm(_decoded(dataset), total=len(dataset), desc="decode", unit="image"):
            file.write(image.data)


def _decoded(dataset: InstanceDataset) -> Iterator[np.ndarray]:
    """The images in order; Pillow decodes outside of Python's lock, so threads are enough."""
    with ThreadPoolExecutor(devices.cores()) as pool:
        for start in range(0, len(dataset), _AHEAD):
            yield from pool.map(dataset.image, range(start, min(start + _AHEAD, len(dataset))))
