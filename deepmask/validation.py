"""Held-out patches: how well single patches are segmented and scored while a network trains.

Patches come from the tuning images, never from those that are reported on, and separately for the categories that
DeepMask20 trains on ("seen"), the others ("unseen") and those of families it never sees ("novel").
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from deepmask import device as devices
from deepmask.config import SamplingConfig
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.geometry import Geometry
from deepmask.model import DeepMask, upsample
from deepmask.sampling import PatchSampler, collate


class HeldOut:
    """A fixed set of jittered positives per category group, and of negatives.

    `groups`: name -> category ids; a group without objects in the images is left out.
    `patches`: number of positives per group, and of negatives.
    """

    def __init__(
        self,
        dataset: InstanceDataset,
        groups: dict[str, frozenset[int]],
        geometry: Geometry,
        config: SamplingConfig,
        patches: int,
        seed: int = 0,
    ) -> None:
        self.positives: dict[str, tuple[Tensor, Tensor]] = {}
        for name, categories in groups.items():
            try:
                sampler = PatchSampler(dataset.with_categories(categories), geometry, config, seed)
            except DataError:
                continue
            batch = collate(sampler, [sampler.mask_sample(k) for k in range(patches)], "mask")
            self.positives[name] = batch["windows"], batch["target"]
        sampler = PatchSampler(dataset, geometry, config, seed)
        self.negatives = collate(sampler, [sampler.score_sample(2 * k + 1) for k in range(patches)], "score")["windows"]

    @torch.inference_mode()
    def measure(self, model: DeepMask, dtype: torch.dtype = torch.float32) -> dict[str, float]:
        """Per group the mean IoU of the masks cut at probability .5, and accuracy and AUC of the scores."""
        model.eval()
        row = {}
        negative = _scores(model, self.negatives, dtype)
        for name, (windows, target) in self.positives.items():
            logits = torch.cat([_run(model, part, "mask", dtype) for part in windows.split(64)])
            row[f"iou_{name}"] = float(patch_iou(upsample(logits, target.shape[-1]) > 0, target).mean())
            positive = _scores(model, windows, dtype)
            row[f"accuracy_{name}"] = float(((positive > 0).mean() + (negative <= 0).mean()) / 2)
            row[f"auc_{name}"] = auc(positive, negative)
        return row


def patch_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """(N,) float32 intersection over union of masks (N, P, P) bool; 1 where both are empty."""
    both, either = (prediction & target).sum((1, 2)), (prediction | target).sum((1, 2))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive outscores a negative, ties counting half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    wins = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def _run(model: DeepMask, windows: Tensor, branch: str, dtype: torch.dtype) -> Tensor:
    device = next(model.parameters()).device
    with devices.autocast(dtype, device):
        return model(windows.to(device), branch).float().cpu()


def _scores(model: DeepMask, windows: Tensor, dtype: torch.dtype) -> np.ndarray:
    return torch.cat([_run(model, part, "score", dtype) for part in windows.split(64)]).numpy()
