"""Training patches: which are positive, which are negative, and the batches made of them (paper: sections 3.2, 3.4).

Sample k of a run is a pure function of (seed, k), so a batch does not depend on the number of loader workers or of
data-parallel ranks, and a resumed run sees the batches that the interrupted one would have seen.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from deepmask.config import ConfigError, SamplingConfig
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.geometry import Geometry
from deepmask.model import GRAY

BRANCHES = ("mask", "score")  # batches alternate between them (paper: section 3.2)
_BIN = 4  # score positives are drawn over bins of a quarter octave of size (released code)
_TRIES = 100  # candidates for a negative in one image before another image is drawn


@dataclass(frozen=True)
class Placement:
    """Where a patch lies: centre (image pixels), log2 scale, mirrored or not."""

    x: float
    y: float
    octave: float
    flip: bool


@dataclass(frozen=True)
class Sample:
    """One training triplet (paper: section 3): `annotation` is the centred object, or -1 for a negative."""

    image: int
    annotation: int
    placement: Placement

    @property
    def label(self) -> bool:
        """Whether y = +1."""
        return self.annotation >= 0


class PatchSampler:
    """Draws the triplets (x, m, y) of one dataset.

    `dataset`: images and instances; its annotations are the objects, everything else is background.
    Raises DataError if the dataset has no usable object.
    """

    def __init__(
        self, dataset: InstanceDataset, geometry: Geometry, config: SamplingConfig, seed: int = 0, cache_mb: int = 1024
    ) -> None:
        self.dataset, self.geometry, self.config, self.seed = dataset, geometry, config, seed
        boxes = dataset.ann_boxes
        usable = ~dataset.ann_crowd & (dataset.ann_areas >= config.min_area)
        usable &= (boxes[:, 2] >= config.min_side) & (boxes[:, 3] >= config.min_side)
        self.objects = np.flatnonzero(usable)
        if not len(self.objects):
            raise DataError(f"no object to train on: no annotation passes min_area {config.min_area} and min_side")
        self.positions = geometry.canonical_positions(boxes)  # of every annotation, crowds too
        self._by_category = _groups(self.objects, dataset.ann_category[self.objects])
        self._by_image = _groups(self.objects, dataset.ann_image[self.objects])
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_bytes = cache_mb << 20

    def mask_sample(self, k: int, negatives: bool = False) -> Sample:
        """Sample k of the mask batches: a jittered positive, category first if `categories` is uniform.

        `negatives`: for odd k a negative, as the score batches have them (paper: section 3.2, "an alternative").
        """
        rng = np.random.default_rng([self.seed, 0, k])
        if negatives and k % 2:
            return self._negative(rng)
        if self.config.categories == "uniform":
            annotation = rng.choice(self._by_category[rng.integers(len(self._by_category))])
        else:
            annotation = rng.choice(self.objects)
        return self._positive(annotation, rng)

    def score_sample(self, k: int) -> Sample:
        """Sample k of the score batches: positives for even k, negatives for odd k (paper: equal numbers)."""
        rng = np.random.default_rng([self.seed, 1, k])
        if k % 2:
            return self._negative(rng)
        objects = self._by_image[rng.integers(len(self._by_image))]
        bins = np.floor(self.positions[objects, 2] * _BIN)
        return self._positive(rng.choice(objects[bins == rng.choice(np.unique(bins))]), rng)

    def window(self, sample: Sample) -> np.ndarray:
        """The patch x with its context: (window, window, 3) uint8 RGB, gray outside the image."""
        image = self._image(sample.image)
        return crop(image, sample.placement, self.geometry.window, GRAY)

    def mask(self, sample: Sample) -> np.ndarray:
        """The mask m: (patch, patch) bool, the centred object alone, resampled like the patch; empty for a negative."""
        if not sample.label:
            return np.zeros((self.geometry.patch, self.geometry.patch), bool)
        full = self.dataset.mask(sample.annotation).astype(np.uint8) * 255
        window = crop(full, sample.placement, self.geometry.window, 0)
        inner = slice(self.geometry.context, self.geometry.context + self.geometry.patch)
        return window[inner, inner] > 127

    def _positive(self, annotation: int, rng: np.random.Generator) -> Sample:
        x, y, octave = self.positions[annotation]
        octave += rng.uniform(-1, 1) * self.geometry.jitter_octaves
        dx, dy = rng.uniform(-1, 1, 2) * self.geometry.jitter / 2.0**octave
        placement = Placement(x + dx, y + dy, octave, bool(rng.integers(2)))
        return Sample(int(self.dataset.ann_image[annotation]), int(annotation), placement)

    def _negative(self, rng: np.random.Generator) -> Sample:
        for _ in range(_TRIES):
            image = int(rng.integers(len(self.dataset)))
            annotations = self.dataset.annotations(image)
            positions = self.positions[annotations]
            crowds = self.dataset.ann_boxes[annotations][self.dataset.ann_crowd[annotations]]
            near = len(annotations) and rng.random() < self.config.near_negatives
            for _ in range(_TRIES):
                x, y, octave = self._near(positions, rng) if near else self._anywhere(image, rng)
                in_crowd = (np.abs((x, y) - crowds[:, :2] - crowds[:, 2:] / 2) <= crowds[:, 2:] / 2).all(1).any()
                if not in_crowd and self.geometry.is_negative(x, y, octave, positions):
                    return Sample(image, -1, Placement(x, y, octave, bool(rng.integers(2))))
        raise DataError(f"no negative patch found in {_TRIES} images: objects or crowds leave no room for background")

    def _anywhere(self, image: int, rng: np.random.Generator) -> tuple[float, float, float]:
        height, width = self.dataset.image_sizes[image]
        return rng.uniform(0, width), rng.uniform(0, height), rng.uniform(*self.config.negative_octaves)

    def _near(self, positions: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
        """A candidate around an object: hard negatives that show parts of it, or show it at another scale."""
        x, y, octave = positions[rng.integers(len(positions))]
        octave = np.clip(octave + rng.uniform(-1.5, 1.5), *self.config.negative_octaves)
        dx, dy = rng.uniform(-1, 1, 2) * 3 * self.geometry.negative / 2.0**octave
        return x + dx, y + dy, octave

    def _image(self, index: int) -> np.ndarray:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        image = self.dataset.image(index)
        self._cache[index] = image
        self._cache_bytes -= image.nbytes
        while self._cache_bytes < 0 and len(self._cache) > 1:
            self._cache_bytes += self._cache.popitem(last=False)[1].nbytes
        return image


class PatchBatches(Dataset):
    """Batch number `step` of a run, of one rank's share: a dict of "windows", "target" and the "branch".

    Even steps are mask batches: windows (n, 3, window, window) uint8, target (n, patch, patch) bool.  Odd steps are
    score batches: target (n,) bool, the labels.  n is `batch / ranks`.  With `mask_negatives`, half of each mask batch
    are negatives with empty targets.  Raises ConfigError if the ranks cannot share a batch.
    """

    def __init__(
        self,
        sampler: PatchSampler,
        steps: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
        mask_negatives: bool = False,
    ) -> None:
        if batch % (2 * ranks):
            raise ConfigError(f"train.batch {batch} must be a multiple of twice the number of ranks ({ranks})")
        self.sampler, self.steps, self.batch, self.rank, self.ranks = sampler, steps, batch, rank, ranks
        self.mask_negatives = mask_negatives

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor | str]:
        branch, samples = self.samples(step)
        return collate(self.sampler, samples, branch)

    def samples(self, step: int) -> tuple[str, list[Sample]]:
        """The branch of batch `step`, and the samples of this rank's share of it."""
        share = self.batch // self.ranks
        start = step // 2 * self.batch + self.rank * share
        branch = BRANCHES[step % 2]
        numbers = range(start, start + share)
        if branch == "mask":
            return branch, [self.sampler.mask_sample(k, self.mask_negatives) for k in numbers]
        return branch, [self.sampler.score_sample(k) for k in numbers]


def collate(sampler: PatchSampler, samples: list[Sample], branch: str) -> dict[str, Tensor | str]:
    """The batch of `PatchBatches` made of the given samples."""
    windows = torch.from_numpy(np.stack([sampler.window(s) for s in samples])).permute(0, 3, 1, 2)
    if branch == "mask":
        target = torch.from_numpy(np.stack([sampler.mask(s) for s in samples]))
    else:
        target = torch.tensor([s.label for s in samples])
    return {"branch": branch, "windows": windows, "target": target}


def crop(image: np.ndarray, placement: Placement, size: int, fill: int) -> np.ndarray:
    """Resample a square of an image to (size, size[, 3]) uint8, anti-aliased bilinear, `fill` outside the image.

    `image`: (H, W[, 3]) uint8.  The square is centred on the placement and has a side of size / 2**octave pixels.
    """
    side = size / 2.0**placement.octave
    left, top = placement.x - side / 2, placement.y - side / 2
    margin = math.ceil(max(1.0, side / size)) + 1  # pixels that the filter reaches beyond the square
    x0, y0 = math.floor(left) - margin, math.floor(top) - margin
    x1, y1 = math.ceil(left + side) + margin, math.ceil(top + side) + margin
    region = np.full((y1 - y0, x1 - x0, *image.shape[2:]), fill, np.uint8)
    height, width = image.shape[:2]
    inside_y, inside_x = slice(max(y0, 0), max(min(y1, height), 0)), slice(max(x0, 0), max(min(x1, width), 0))
    part = image[inside_y, inside_x]
    if part.size:
        region[inside_y.start - y0 : inside_y.stop - y0, inside_x.start - x0 : inside_x.stop - x0] = part
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    patch = np.asarray(Image.fromarray(region).resize((size, size), Image.Resampling.BILINEAR, box=box))
    return patch[:, ::-1] if placement.flip else patch


def _groups(members: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """`members` split by equal `keys`, in ascending order of the key."""
    order = np.argsort(keys, kind="stable")
    return np.split(members[order], np.flatnonzero(np.diff(keys[order])) + 1)
