"""What the trunk starts from (paper: section 3.1, "pre-trained to perform classification on ImageNet").

At the paper's profile that is torchvision's VGG-A; the small study, which has no photographs, classifies drawn
objects of classes that nothing else in it uses, and all variants share the result.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deepmask import device as devices
from deepmask import distributed, imagenet
from deepmask.config import ModelConfig, PretrainConfig
from deepmask.data.drawing import draw_patch
from deepmask.geometry import Geometry
from deepmask.model import DeepMask, Trunk
from deepmask.optim import make_optimisers

_HELD_OUT = 10**9  # index of the first drawn object that accuracy is measured on; training never gets there
_LOOKS = 4  # rows of the history


class Classifier(nn.Module):
    """The trunk of a DeepMask, averaged over the image, and one linear layer: (N, 3, H, W) uint8 -> (N, classes)."""

    def __init__(self, model: DeepMask, classes: int) -> None:
        super().__init__()
        self.model = model
        self.linear = nn.Linear(model.trunk.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.model.features(images).mean((2, 3)))


class Objects(Dataset):
    """Batch `step` of drawn objects, of one rank's share: (n, 3, size, size) uint8 and (n,) int64 classes.

    No object is drawn twice: object k of a run is a pure function of (seed, k).
    """

    def __init__(self, config: PretrainConfig, batch: int, rank: int = 0, ranks: int = 1, first: int = 0) -> None:
        self.config, self.batch, self.rank, self.ranks, self.first = config, batch, rank, ranks, first

    def __len__(self) -> int:
        return max(1, self.config.samples // self.batch)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        c = self.config
        indices = range(self.first + step * self.batch + self.rank, self.first + (step + 1) * self.batch, self.ranks)
        images = np.stack([draw_patch(c.seed, c.classes, c.size, k) for k in indices])
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor([k % c.classes for k in indices])


def pretrain(
    geometry: Geometry, model: ModelConfig, config: PretrainConfig, rank: int = 0, ranks: int = 1
) -> tuple[Trunk, pd.DataFrame]:
    """The pre-trained trunk and the history of its training, a few rows of training loss and held-out accuracy.

    With ImageNet weights the history has no rows; raises WeightsError if they are not there.
    """
    torch.manual_seed(config.seed)
    network = DeepMask(geometry, model)
    if config.weights == "imagenet":
        network.trunk.load_vgg_a(imagenet.load("vgg11"))
        return network.trunk, pd.DataFrame(columns=["samples", "loss", "accuracy"])
    device = devices.device()
    dtype = devices.precision("auto", device)
    held_out = Objects(config, config.held_out, first=_HELD_OUT)[0]
    classifier = Classifier(network, config.classes).to(device).to(memory_format=torch.channels_last)
    parameters = [*network.trunk.parameters(), *classifier.linear.parameters()]
    for parameter in (*network.mask_head.parameters(), *network.score_head.parameters()):
        parameter.requires_grad_(False)
    optimisers = make_optimisers(config.optimiser, parameters, config.lr, momentum=0.9, weight_decay=5e-5)
    wrapped = distributed.wrap(classifier)
    data = Objects(config, config.batch, rank, ranks)
    ends = np.unique(np.linspace(0, len(data), _LOOKS + 1).astype(int)[1:])
    rows, total = [], 0.0
    loader = DataLoader(data, batch_size=None, num_workers=config.workers)
    bar = distributed.progress(loader, rank, desc="pretrain", unit="batch")
    for step, (x, y) in enumerate(bar):
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                warm = min(1.0, (step + 1) / config.warmup)
                group["lr"] = config.lr * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * step / len(data))) / 2)
            optimiser.zero_grad(set_to_none=True)
        with devices.autocast(dtype, device):
            loss = F.cross_entropy(wrapped(x.to(device)).float(), y.to(device))
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        total += loss.item()
        if step + 1 in ends:
            last = rows[-1]["samples"] // config.batch if rows else 0
            row = {"samples": (step + 1) * config.batch, "loss": total / (step + 1 - last)}
            rows.append({**row, "accuracy": _accuracy(classifier, *held_out) if rank == 0 else math.nan})
            bar.set_postfix({k: f"{v:.3f}" for k, v in rows[-1].items() if k != "samples"})
            total = 0.0
    return network.trunk, pd.DataFrame(rows)


@torch.inference_mode()
def _accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    device = next(classifier.parameters()).device
    guesses = torch.cat([classifier(part.to(device)).argmax(1).cpu() for part in images.split(64)])
    return float((guesses == labels).float().mean())
