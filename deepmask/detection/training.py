"""Training Fast R-CNN on the proposals of one method (paper: section 4, Detection).

A run is a pure function of its configuration: images, mirroring, RoIs and dropout of iteration t depend on (seed, t)
only, and the checkpoint holds everything else, so a run that is stopped and resumed ends with the weights of one that
was not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deepmask import checkpoints, distributed
from deepmask import device as devices
from deepmask.data.coco import InstanceDataset
from deepmask.detection import rois
from deepmask.detection.model import FastRCNN, losses
from deepmask.detection.rois import RoIs
from deepmask.detection_config import DetectionConfig, DetectionError
from deepmask.optim import make_optimisers
from deepmask.proposals import Proposals

LOOKS = 10  # rows of the history


class RoIBatches(Dataset):
    """Batch t of a run, of one rank's share: images (3, H, W) uint8, half of them mirrored, each with its RoIs.

    Every image comes once in an epoch; those without objects are left out, and crowds are no objects.  Class k, from
    1 on, is the k-th category by id.  Raises DetectionError if no image has an object.
    """

    def __init__(
        self,
        dataset: InstanceDataset,
        proposals: Mapping[int, Proposals],
        config: DetectionConfig,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.dataset, self.proposals, self.config, self.rank, self.ranks = dataset, proposals, config, rank, ranks
        self.objects = np.flatnonzero(~dataset.ann_crowd & (dataset.ann_boxes[:, 2:] >= rois.LEAST_SIDE).all(axis=1))
        self.images = np.unique(dataset.ann_image[self.objects])
        self.labels = np.searchsorted(sorted(dataset.categories), dataset.ann_category) + 1
        if not len(self.images):
            raise DetectionError(f"{dataset.source}: no image has an object of the categories to detect")

    def __len__(self) -> int:
        return self.config.iterations

    def __getitem__(self, t: int) -> list[tuple[Tensor, RoIs]]:
        return [self.example(t * self.config.images + k) for k in range(self.rank, self.config.images, self.ranks)]

    def example(self, k: int) -> tuple[Tensor, RoIs]:
        """The k-th image of the run and its RoIs."""
        epoch, place = divmod(k, len(self.images))
        i = int(np.random.default_rng([self.config.seed, 0, epoch]).permutation(self.images)[place])
        rng = np.random.default_rng([self.config.seed, 1, k])
        image = torch.from_numpy(self.dataset.image(i)).permute(2, 0, 1)
        objects = self.objects[self.dataset.ann_image[self.objects] == i]
        made = self.proposals[int(self.dataset.image_ids[i])].top(self.config.proposals)
        boxes, truth = rois.corners(made.boxes[rois.usable(made)]), rois.corners(self.dataset.ann_boxes[objects])
        if rng.uniform() < 0.5:
            image, width = image.flip(2), image.shape[2]
            boxes, truth = rois.flip(boxes, width), rois.flip(truth, width)
        return image, rois.sample(boxes, truth, torch.from_numpy(self.labels[objects]), self.config, rng)


class Objective(nn.Module):
    """Network and loss of one batch, as one module, so that data-parallel training wraps both."""

    def __init__(self, model: FastRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: list[tuple[Tensor, RoIs]]) -> tuple[Tensor, Tensor]:
        """Class and box loss; see `losses`."""
        images, sampled = zip(*batch, strict=True)
        logits, deltas = self.model(images, [r.boxes for r in sampled])
        return losses(logits, deltas, sampled, self.model.config.rois)


def train(
    model: FastRCNN,
    dataset: InstanceDataset,
    proposals: Mapping[int, Proposals],
    *,
    checkpoint: Path,
    key: str = "",
    rank: int = 0,
    ranks: int = 1,
    stop_at: int | None = None,
) -> pd.DataFrame:
    """Train `model` in place and return its history, LOOKS rows of the mean losses since the row before.

    `proposals`: by image id, of every image of `dataset`; `checkpoint`: where the state is kept, and a run found there
    is resumed; `key`: stands for what the run depends on besides the model's configuration, the checkpoint of another
    one is refused; `ranks`: at most the images of a batch; `stop_at`: leave after that iteration (tests).
    Raises DetectionError on a loss that is not finite, and CheckpointError.
    """
    config, device = model.config, next(model.parameters()).device
    if ranks > config.images:
        raise DetectionError(f"detection: {ranks} ranks cannot share a batch of {config.images} images")
    dtype = devices.precision(config.precision, device)
    model.to(memory_format=torch.channels_last)
    objective = distributed.wrap(Objective(model))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimisers = make_optimisers(config.optimiser, trained, config.lr, config.momentum, config.weight_decay)
    state = checkpoints.resume(checkpoint, model, optimisers, (config, key), step=0, rows=[], totals=[0.0, 0.0])
    start, rows, totals = state["step"], state["rows"], state["totals"]
    batches = RoIBatches(dataset, proposals, config, rank, ranks)
    loader = DataLoader(batches, batch_size=None, sampler=range(start, len(batches)), num_workers=config.workers)
    ends = np.unique(np.linspace(0, len(batches), LOOKS + 1).astype(int)[1:]).tolist()
    bar = distributed.progress(loader, rank, total=len(batches), initial=start, desc="train detector", unit="batch")
    model.train()
    for step, batch in enumerate(bar, start):
        torch.manual_seed(hash((config.seed, step, rank)) % 2**63)  # of dropout
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = config.lr * learning_rate(step, config)
            optimiser.zero_grad(set_to_none=True)
        batch = [(image.to(device), r.to(device)) for image, r in batch]
        with devices.autocast(dtype, device):
            parts = objective(batch)
        loss = sum(parts)
        if not math.isfinite(loss.item()):
            raise DetectionError(f"iteration {step}: the loss is {loss.item()}; lower detection.lr ({config.lr})")
        (loss * ranks).backward()  # data-parallel training averages over ranks, the loss is a sum over RoIs
        for optimiser in optimisers:
            optimiser.step()
        totals = [total + part.item() * ranks for total, part in zip(totals, parts, strict=True)]
        done = step + 1
        if done in ends:
            since = done - (rows[-1]["iteration"] if rows else 0)
            rows.append({"iteration": done, "class_loss": totals[0] / since, "box_loss": totals[1] / since})
            totals = [0.0, 0.0]
            bar.set_postfix({k: f"{v:.3f}" for k, v in rows[-1].items() if k != "iteration"})
        if rank == 0 and (done % config.checkpoint_every == 0 or done == stop_at):
            checkpoints.save(checkpoint, model, optimisers, (config, key), step=done, rows=rows, totals=totals)
        if done == stop_at:
            break
    return pd.DataFrame(rows)


def learning_rate(step: int, config: DetectionConfig) -> float:
    """Factor of the learning rate: linear warm-up, then cosine to 2 percent, or a tenth in the last quarter."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "cosine":
        return warm * (0.02 + 0.98 * (1 + math.cos(math.pi * step / config.iterations)) / 2)
    return warm * (1.0 if step < 0.75 * config.iterations else 0.1)
