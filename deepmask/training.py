"""Training DeepMask: alternating mask and score batches on Equation 1 (paper: sections 3.2 and 3.4).

A run is a pure function of its configuration: batches and dropout of step t depend on (seed, t) only, and the
checkpoint holds everything else, so a run that is stopped and resumed ends with the weights of one that was not.
A batch is divided among the ranks, so their number changes nothing but dropout and the order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from deepmask import checkpoints, distributed
from deepmask import device as devices
from deepmask.config import TrainConfig
from deepmask.data.pixels import PixelStore
from deepmask.loading import Loader
from deepmask.model import DeepMask, downsample, mask_loss, score_loss
from deepmask.optim import make_optimisers
from deepmask.sampling import BRANCHES, PatchBatches, PatchSampler
from deepmask.validation import HeldOut

_UNREAD = 50  # batches whose losses may be unread


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


class Objective(nn.Module):
    """Network and loss of one batch, as one module, so that data-parallel training wraps both."""

    def __init__(self, model: DeepMask, score_weight: float) -> None:
        super().__init__()
        self.model, self.score_weight = model, score_weight

    def forward(self, windows: Tensor, target: Tensor, branch: str) -> Tensor:
        """Eq. 1 over the batch, a sum over its patches; windows and target as in `PatchBatches`."""
        logits = self.model(windows, branch)
        return mask_loss(logits, target) if branch == "mask" else score_loss(logits, target, self.score_weight)


def train(
    model: DeepMask,
    sampler: PatchSampler,
    config: TrainConfig,
    *,
    checkpoint: Path,
    held_out: HeldOut | None = None,
    store: PixelStore | None = None,
    key: str = "",
    rank: int = 0,
    ranks: int = 1,
    stop_at: int | None = None,
) -> pd.DataFrame:
    """Train `model` in place and return its history, one row per look at the held-out patches.

    `checkpoint`: where the state is kept; a run found there is resumed, whatever the number of ranks was.  `store`:
    the decoded images, from which the device cuts its patches; without it the host cuts them.  `key`: stands for what
    the run depends on besides `config`; the checkpoint of another one is refused.  `stop_at`: leave after that step
    (tests).  Raises TrainingError on a loss that is not finite, and CheckpointError.
    """
    steps = max(1, round(config.samples / config.batch))
    device = next(model.parameters()).device
    dtype = devices.precision(config.precision, device)
    devices.tune(device)
    model.to(memory_format=torch.channels_last)
    objective = Objective(model, config.score_weight)
    if config.compile:
        objective.compile(dynamic=False)
    objective = distributed.wrap(objective)
    optimisers = make_optimisers(config.optimiser, model.parameters(), config.lr, config.momentum, config.weight_decay)
    batches = PatchBatches(sampler, steps, config.batch, rank, ranks, config.mask_negatives)
    state = {"step": 0, "rows": [], "totals": dict.fromkeys(BRANCHES, 0.0)}
    state = checkpoints.resume(checkpoint, model, optimisers, (config, key), **state)
    start, rows, losses = state["step"], state["rows"], Losses(state["totals"], config.lr)
    loader = Loader(batches, device, config.workers, store)
    bar = distributed.progress(loader.batches(start), rank, total=steps, initial=start, desc="train", unit="batch")
    model.train()
    for step, (branch, windows, target) in enumerate(bar, start):
        torch.manual_seed(hash((config.seed, step, rank)) % 2**63)  # of dropout
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = config.lr * learning_rate(step, steps, config)
            optimiser.zero_grad(set_to_none=True)  # the idle head keeps no gradient, so it is not moved
        if config.downsample_targets and branch == "mask":
            target = downsample(target, model.geometry.mask)
        with devices.autocast(dtype, device):
            loss = objective(windows, target, branch)
        (loss * ranks).backward()  # data-parallel training averages over ranks, Eq. 1 sums over patches
        for optimiser in optimisers:
            optimiser.step()
        losses.add(step, branch, loss.detach() / len(target))
        done = step + 1
        if done % config.eval_every == 0 or done == steps:
            row = _row(done, config, losses.drained(), done - (rows[-1]["step"] if rows else 0))
            row |= held_out.measure(model, dtype) if held_out and rank == 0 else {}
            rows.append(row)
            losses.totals = dict.fromkeys(BRANCHES, 0.0)
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k.split("_")[-1] in ("loss", "seen")})
            model.train()
        if done % config.checkpoint_every == 0 or done == stop_at:
            kept = losses.drained()
            if rank == 0:
                checkpoints.save(checkpoint, model, optimisers, (config, key), step=done, rows=rows, totals=kept)
        if done == stop_at:
            break
    return pd.DataFrame(rows)


class Losses:
    """Sums of the losses per patch and branch, of all ranks; read only now and then, as reading waits for a GPU."""

    def __init__(self, totals: dict[str, float], lr: float) -> None:
        self.totals, self.lr = totals, lr
        self._waiting: list[tuple[int, str, Tensor]] = []

    def add(self, step: int, branch: str, loss: Tensor) -> None:
        """Note the loss per patch of a batch, a scalar on the device; raises TrainingError as `drained` does."""
        self._waiting.append((step, branch, loss))
        if len(self._waiting) == _UNREAD:
            self.drained()

    def drained(self) -> dict[str, float]:
        """The sums up to the last batch; raises TrainingError if one of the losses is not finite."""
        if self._waiting:
            values = distributed.mean(torch.stack([loss for _, _, loss in self._waiting])).tolist()
            for (step, branch, _), value in zip(self._waiting, values, strict=True):
                if not math.isfinite(value):  # the mean is so for all ranks, and all of them stop
                    raise TrainingError(f"step {step}: the {branch} loss is {value}; lower train.lr ({self.lr})")
                self.totals[branch] += value
            self._waiting = []
        return self.totals


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Factor of the learning rate at a step: linear warm-up, then constant, or cosine to 2 percent."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "constant":
        return warm
    if config.schedule == "cosine":
        return warm * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
    raise TrainingError(f"train.schedule: expected constant or cosine, got {config.schedule!r}")


def _row(done: int, config: TrainConfig, totals: Mapping[str, float], steps: int) -> dict[str, float]:
    """Mean loss per patch of each branch since the last look, the score's without its weight."""
    half = max(1, steps / 2)
    weights = {"mask": 1.0, "score": config.score_weight}
    losses = {f"{branch}_loss": totals[branch] / half / weights[branch] for branch in BRANCHES}
    return {"step": done, "samples": done * config.batch, **losses}
