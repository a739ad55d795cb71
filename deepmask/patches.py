"""Training patches cut in whole batches on a device: the crops, flips and resampling of `sampling` at a GPU's pace.

The loader decides where patches lie and which pixels they need (`plan`); the device resamples them (`cut`), each as
two matrix products with the weights of an anti-aliased bilinear filter, rows @ image @ columns.  The patches are those
that `sampling.crop` cuts with Pillow, up to its rounding between the two: of photographs at the paper's size .13 gray
levels on average and 1 at most, and one mask pixel in a hundred thousand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from deepmask import masks
from deepmask.data.pixels import PixelStore
from deepmask.geometry import Geometry
from deepmask.model import GRAY
from deepmask.sampling import PatchBatches, PatchSampler, Sample

Plan = dict[str, Tensor | str]

_NEVER = 1 << 40  # a turn beyond any image
_HALF = 0.499  # of a pixel; Pillow rounds a half up


class _Part(NamedTuple):
    """The pixels of an image that a patch reads, and where it lies in them; the rows of a plan's tensors."""

    part: tuple[int, ...]  # image, top, left, height, width
    filter: tuple[float, ...]  # y, x, pixels of the image per pixel of the patch, mirrored


class PlannedBatches(Dataset):
    """The batches of a `PatchBatches`, as plans.

    `store`: where loader processes take pixels from; None if the device has them all and takes them itself.
    """

    def __init__(self, batches: PatchBatches, store: PixelStore | None) -> None:
        self.batches, self.store = batches, store

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> Plan:
        branch, samples = self.batches.samples(step)
        return plan(self.batches.sampler, samples, branch, self.store)


def plan(sampler: PatchSampler, samples: list[Sample], branch: str, store: PixelStore | None) -> Plan:
    """All that `cut` needs to know of N samples, in flat arrays that travel between processes.

    "parts" (N, 5) int64: image, top, left, height and width of the pixels that each window reads; "pixels": these
    pixels, one part after another, if `store` is given; "filters" (N, 4) float32: y and x of the window's upper left
    corner in its part, pixels of the image per pixel of the window, and 1 if it is mirrored.  Of a mask batch also
    "mask_parts" and "mask_filters", which are those of the masks, and "turns" (N, L) int64, where they turn on and
    off, counted down the columns of their parts; of a score batch "target" (N,) bool.
    """
    size = sampler.geometry.window
    size, sizes = sampler.geometry.window, sampler.dataset.image_sizes
    parts, filters = _stacked([_window(sample, size, sizes[sample.image]) for sample in samples])
    result: Plan = {"branch": branch, "parts": parts, "filters": filters}
    if store is not None:
        pieces = [store.image(i)[y : y + h, x : x + w].reshape(-1) for i, y, x, h, w in parts.tolist()]
        result["pixels"] = torch.cat(pieces)
    if branch == "score":
        return result | {"target": torch.tensor([sample.label for sample in samples])}
    parts, turns = zip(*(_object(sampler, sample) for sample in samples), strict=True)
    parts, filters = _stacked(parts)
    turns = pad_sequence([torch.from_numpy(t) for t in turns], batch_first=True, padding_value=_NEVER)
    return result | {"mask_parts": parts, "mask_filters": filters, "turns": turns}


def cut(plan: Plan, geometry: Geometry, device: torch.device, store: PixelStore | None = None) -> tuple[Tensor, Tensor]:
    """The windows and the target of a batch, as `sampling.collate` gives them, on `device`.

    `store`: with its pixels on `device`, if the plan carries none.  Nothing here waits for a GPU.
    """
    parts = plan["parts"]
    if store is None:
        pieces = plan["pixels"].to(device, non_blocking=True).split((3 * parts[:, 3] * parts[:, 4]).tolist())
    else:
        pieces = [store.image(i)[y : y + h, x : x + w] for i, y, x, h, w in parts.tolist()]
    planes = _canvas(pieces, parts[:, 3:]).to(_precision(device), memory_format=torch.contiguous_format) - GRAY
    windows = resample(planes, parts[:, 3:], plan["filters"], geometry.window) + GRAY
    windows = windows.round_().clamp_(0, 255).to(torch.uint8)
    if plan["branch"] == "score":
        return windows, plan["target"].to(device, non_blocking=True)
    extents = plan["mask_parts"][:, 3:]
    planes = draw(plan["turns"].to(device, non_blocking=True), extents).to(_precision(device))
    return windows, resample(planes, extents, plan["mask_filters"], geometry.patch)[:, 0] > _HALF


def draw(turns: Tensor, extents: Tensor) -> Tensor:
    """Masks (N, 1, H, W) uint8 that turn on and off at `turns` (N, L) int64, counted down columns of their own height.

    `extents`: (N, 2) height and width of each mask, on the host; what lies beyond has no meaning.
    """
    height, width = (int(side) for side in extents.amax(0).clamp(min=1))
    own = extents[:, :1].clamp(min=1).to(turns.device, non_blocking=True)
    places = (turns // own * height + turns % own).clamp(max=width * height)  # in columns of the common height
    flips = torch.zeros(len(turns), width * height + 1, dtype=torch.uint8, device=turns.device)
    flips.scatter_add_(1, places, torch.ones_like(places, dtype=torch.uint8))
    inside = flips[:, :-1].cumsum(1, dtype=torch.int32) & 1
    return inside.to(torch.uint8).view(-1, 1, width, height).mT


def resample(planes: Tensor, extents: Tensor, filters: Tensor, size: int) -> Tensor:
    """Patches (N, C, size, size) float32 of images (N, C, H, W), anti-aliased bilinear; zero outside of the images.

    `extents`: (N, 2) height and width of each image; pixels beyond are not used.  `filters`: see `plan`.  Both are on
    the host.  The products are computed in the precision of `planes`.
    """
    ratio, flip = filters[:, 2], filters[:, 3].bool()
    taps = 2 * math.ceil(max(1.0, float(ratio.max()))) + 1
    rows, columns = (
        weights(*(t.to(planes.device, non_blocking=True) for t in (start, ratio, extent)), size, length, taps)
        for start, extent, length in zip(filters[:, :2].unbind(1), extents.unbind(1), planes.shape[2:], strict=True)
    )
    columns = torch.where(flip.to(planes.device, non_blocking=True)[:, None, None], columns.flip(1), columns)
    return (rows.to(planes.dtype)[:, None] @ planes @ columns.to(planes.dtype)[:, None].mT).float()


def weights(start: Tensor, ratio: Tensor, extent: Tensor, size: int, length: int, taps: int) -> Tensor:
    """(N, size, length) float32 weights of `length` pixels for each of `size` outputs, along one axis.

    `start`, `ratio`: (N,) place of the first output's edge, and pixels per output; `extent`: (N,) how many pixels
    there are; `taps`: how many at most are within reach of an output.  The filter is a triangle that reaches one
    pixel, or one output where that is more; its sum over all pixels, there or not, is 1.
    """
    index = torch.arange(size, device=start.device)
    centre = (start[:, None] + (index + 0.5) * ratio[:, None])[..., None]  # (N, size, 1)
    reach = ratio.clamp(min=1)[:, None, None]
    near = (centre - reach).floor() + torch.arange(taps, device=start.device) + 0.5  # all that may be within reach
    total = (1 - (near - centre).abs() / reach).clamp(min=0).sum(-1, keepdim=True)
    pixel = torch.arange(length, device=start.device)
    weight = (1 - (pixel + 0.5 - centre).abs() / reach).clamp(min=0) / total
    return torch.where(pixel < extent[:, None, None], weight, 0.0)


def _precision(device: torch.device) -> torch.dtype:
    """Half precision on a GPU: its products are exact to a tenth of a gray level, and eight times as fast."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _canvas(pieces: Sequence[Tensor], extents: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 with each piece, of (height, width) `extents`, in its upper left corner."""
    height, width = (int(side) for side in extents.amax(0).clamp(min=1))
    canvas = torch.zeros(len(pieces), height, width, 3, dtype=torch.uint8, device=pieces[0].device)
    for image, piece, (h, w) in zip(canvas, pieces, extents.tolist(), strict=True):
        image[:h, :w] = piece.view(h, w, 3) if piece.ndim == 1 else piece
    return canvas.permute(0, 3, 1, 2)


def _window(sample: Sample, size: int, image_size: np.ndarray) -> _Part:
    """What the filter of a square of `size` pixels at the placement of a sample reads of its image."""
    p = sample.placement
    side, ratio = size / 2.0**p.octave, 2.0**-p.octave
    corner = np.array([p.y - side / 2, p.x - side / 2])
    reach = max(1.0, ratio) + 1
    first = np.clip(np.floor(corner - reach), 0, image_size).astype(int)
    last = np.clip(np.ceil(corner + side + reach), 0, image_size).astype(int)
    extent = last - first if (last > first).all() else np.zeros(2, int)
    return _Part((sample.image, *first, *extent), (*(corner - first), ratio, p.flip))


def _object(sampler: PatchSampler, sample: Sample) -> tuple[_Part, np.ndarray]:
    """The columns of the image that the mask of a sample covers, and where the mask turns on and off in them."""
    placement, geometry = sample.placement, sampler.geometry
    ratio = 2.0**-placement.octave
    turns = masks.turns(sampler.dataset.rle(sample.annotation)) if sample.label else np.zeros(0, np.int64)
    height = int(sampler.dataset.image_sizes[sample.image, 0])
    first = int(turns[0]) // height if len(turns) else 0
    width = (int(turns[-1]) - 1) // height + 1 - first if len(turns) else 0
    y, x = (centre - geometry.patch * ratio / 2 for centre in (placement.y, placement.x))
    part = _Part((sample.image, 0, first, height, width), (y, x - first, ratio, placement.flip))
    return part, turns - first * height


def _stacked(parts: Sequence[_Part]) -> tuple[Tensor, Tensor]:
    return torch.tensor([p.part for p in parts]), torch.tensor([p.filter for p in parts], dtype=torch.float32)
