"""The masks of one image as runs of pixels, many at once and on any device (paper: section 4, masks of proposals).

Column by column, the pixels of a mask take turns between background and object.  A mask is the pixels at which they
do, and COCO's code for it is their differences.  All of this is a few tensor operations on the turns of all masks, so
the device that computed the logits also encodes the masks, and no mask is ever an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepmask.masks import RLE


@dataclass(frozen=True, eq=False)
class Turns:
    """Where the pixels of `count` masks of height x width pixels turn into object and back.

    An even number of turns for each mask, ordered by mask and pixel, and no pixel twice.
    """

    mask: Tensor  # (T,) int64, 0 to count - 1
    pixel: Tensor  # (T,) int64, counted down the columns: column * height + row; height * width is the end
    count: int
    height: int
    width: int

    def rles(self) -> list[RLE]:
        """One RLE per mask, the same bytes as pycocotools' encoder gives.

        A code is a series of numbers: the lengths of the runs, from the fourth on less the length of the run two
        before.  A number is little-endian 5-bit digits, each in a character from 48 on; bit 5 says that another digit
        follows, and bit 4 of the last digit is the sign.
        """
        pixels, device = self.height * self.width, self.mask.device
        masks = torch.arange(self.count + 1, device=device)
        first = torch.searchsorted(self.mask, masks) + masks  # each mask gets one more run, up to its last pixel
        last = first[1:] - 1
        ends = torch.full((len(self.mask) + self.count,), pixels, device=device)
        ends[torch.arange(len(self.mask), device=device) + self.mask] = self.pixel
        lengths = ends - F.pad(ends, (1, 0))[:-1]
        lengths[first[:-1]] = ends[first[:-1]]
        index = torch.arange(len(ends), device=device)
        rank = index - first[torch.searchsorted(last, index)]
        numbers = torch.where(rank > 2, lengths - F.pad(lengths, (2, 0))[:-2], lengths)

        places = torch.arange(pixels.bit_length() // 5 + 1, device=device)
        least = torch.where(places > 0, 1 << (5 * places - 1).clamp(min=0), 0)  # number that needs this many places
        used = ((numbers ^ (numbers >> 63))[:, None] >= least).sum(dim=1)
        used[last] *= lengths[last] > 0  # a mask may end with object: then that run is none
        characters = (numbers[:, None] >> 5 * places & 31) + 32 * (places < used[:, None] - 1) + 48
        text = characters.to(torch.uint8)[places < used[:, None]].cpu().numpy().tobytes()
        stops = used.cumsum(0)[last].tolist()
        size = [self.height, self.width]
        return [
            {"size": list(size), "counts": text[start:stop]} for start, stop in zip([0, *stops], stops, strict=False)
        ]

    def boxes(self) -> np.ndarray:
        """(count, 4) int64 x, y, width, height of the tight box of each mask; zeros for an empty mask."""
        mask, start, end = self.mask[::2], self.pixel[::2], self.pixel[1::2] - 1
        x, y = torch.stack([start, end]) // self.height, torch.stack([start, end]) % self.height
        whole = x[0] < x[1]  # a run over the end of a column touches the top and the bottom
        y = torch.where(whole, torch.tensor([[0], [self.height - 1]], device=mask.device), y)
        index = mask[:, None].expand(-1, 2)
        none = torch.zeros(self.count, 2, dtype=torch.int64, device=mask.device)
        low = none.scatter_reduce(0, index, torch.stack([x[0], y[0]], dim=1), "amin", include_self=False)
        beyond = none.scatter_reduce(0, index, torch.stack([x[1], y[1]], dim=1) + 1, "amax", include_self=False)
        return torch.cat([low, beyond - low], dim=1).cpu().numpy()

    def areas(self) -> np.ndarray:
        """(count,) int64 pixels of each mask."""
        none = torch.zeros(self.count, dtype=torch.int64, device=self.mask.device)
        return none.scatter_add(0, self.mask[::2], self.pixel[1::2] - self.pixel[::2]).cpu().numpy()


def of_logits(logits: Tensor, corners: Tensor, sides: Tensor, height: int, width: int) -> Turns:
    """The turns of masks that are the pixels above 0 of interpolated logits, and empty outside a square patch.

    `logits`: (N, m, m) float32, interpolated bilinearly with aligned corners; `sides`: (N,) int64 sides of the patches
    in pixels; `corners`: (N, 2) int64 x, y of their top left pixels, which may lie outside the image.  The logits are
    interpolated along the rows only: down a column they are straight between two rows, so where they pass 0 follows
    from their values there.
    """
    side = logits.shape[-1]
    pitch = (sides - 1).float() / max(side - 1, 1)  # pixels between neighbouring logits
    first = (-corners[:, 0]).clamp(min=0)  # columns of the patch that lie in the image
    number = (torch.minimum(sides, width - corners[:, 0]) - first).clamp(min=0)
    mask = torch.repeat_interleave(number)
    x = torch.arange(len(mask), device=mask.device) + (first - number.cumsum(0) + number)[mask]
    place = (x / pitch[mask]).nan_to_num(0.0)  # a patch of one pixel shows the first logit
    near = place.long().clamp(max=side - 1)
    columns, near_index = logits.transpose(1, 2).reshape(-1, side), mask * side + near
    values = columns.index_select(0, near_index)
    values.lerp_(columns.index_select(0, near_index + (near < side - 1)), (place - near)[:, None])

    inside = F.pad(values > 0, (1, 1))
    changes = (inside[:, 1:] != inside[:, :-1]).flatten().nonzero()[:, 0]
    column, step = changes // (side + 1), changes % (side + 1)  # a change before the row `step` of the logits
    mask, x = mask[column], x[column]
    pitch, values = pitch[mask], values.flatten()
    above = values[column * side + (step - 1).clamp(min=0)]
    below = values[column * side + step.clamp(max=side - 1)]
    passed = (step - 1 + above / (above - below)) * pitch
    y = torch.where(above > 0, passed.ceil(), passed.floor() + 1)
    y = y.clamp(((step - 1) * pitch).floor() + 1, (step * pitch).floor() + 1)  # rounding must not change the order
    y = torch.where(step == 0, 0, torch.where(step == side, sides[mask], y.long()))
    return _clipped(mask, corners[mask, 0] + x, corners[mask, 1] + y, len(logits), height, width)


def _clipped(mask: Tensor, x: Tensor, y: Tensor, count: int, height: int, width: int) -> Turns:
    """Turns from those of single columns, in order, of which some are outside the image.

    A turn at a pixel where another one is cancels it: both are above the image or below it, or a run goes on from the
    end of one column at the start of the next.
    """
    pixels = height * width
    key = mask * (pixels + 1) + x * height + y.clamp(0, height)
    key, times = torch.unique_consecutive(key[(x >= 0) & (x < width)], return_counts=True)
    key = key[times % 2 == 1]
    return Turns(key // (pixels + 1), key % (pixels + 1), count, height, width)
