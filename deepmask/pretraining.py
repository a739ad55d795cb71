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
from deepmask import distributed
from deepmask.config import ModelConfig, PretrainConfig
from deepmask.data.scenes import object_patches
from deepmask.geometry import Geometry
from deepmask.model import DeepMask, Trunk

_HELD_OUT = 0.05  # fraction of the drawn objects that are not trained on


class Classifier(nn.Module):
    """The trunk of a DeepMask, averaged over the image, and one linear layer: (N, 3, H, W) uint8 -> (N, classes)."""

    def __init__(self, model: DeepMask, classes: int) -> None:
        super().__init__()
        self.model = model
        self.linear = nn.Linear(model.trunk.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.model.features(images).mean((2, 3)))


class Objects(Dataset):
    """Batch `step` of drawn objects, mirrored at random; every epoch has its own order."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, config: PretrainConfig, rank: int, ranks: int) -> None:
        self.images, self.labels, self.config, self.rank, self.ranks = images, labels, config, rank, ranks
        self.per_epoch = len(images) // config.batch

    def __len__(self) -> int:
        return self.per_epoch * self.config.epochs

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, batch = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.images))
        start = batch * self.config.batch
        chosen = order[start : start + self.config.batch][self.rank :: self.ranks]
        mirrored = np.random.default_rng([self.config.seed, epoch, batch, self.rank]).random(len(chosen)) < 0.5
        images = np.where(mirrored[:, None, None, None], self.images[chosen][:, :, ::-1], self.images[chosen])
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(self.labels[chosen])


def pretrain(
    geometry: Geometry, model: ModelConfig, config: PretrainConfig, rank: int = 0, ranks: int = 1
) -> tuple[Trunk, pd.DataFrame]:
    """The pre-trained trunk and the history of its training, one row per epoch (loss, held-out accuracy)."""
    torch.manual_seed(config.seed)
    network = DeepMask(geometry, model)
    if config.weights == "imagenet":
        from torchvision.models import VGG11_Weights, vgg11

        network.trunk.load_vgg_a(vgg11(weights=VGG11_Weights.IMAGENET1K_V1))
        return network.trunk, pd.DataFrame(columns=["epoch", "loss", "accuracy"])
    device = devices.device()
    dtype = devices.precision("auto", device)
    images, labels = object_patches(config.classes, config.patches, config.size, config.seed)
    held = max(1, int(len(images) * _HELD_OUT))
    classifier = Classifier(network, config.classes).to(device).to(memory_format=torch.channels_last)
    parameters = [*network.trunk.parameters(), *classifier.linear.parameters()]
    for parameter in (*network.mask_head.parameters(), *network.score_head.parameters()):
        parameter.requires_grad_(False)
    optimiser = torch.optim.AdamW(parameters, config.lr, betas=(0.9, 0.99), weight_decay=5e-5, fused=True)
    wrapped = distributed.wrap(classifier)
    data = Objects(images[held:], labels[held:], config, rank, ranks)
    rows, total = [], 0.0
    bar = distributed.progress(DataLoader(data, batch_size=None), rank, desc="pretrain", unit="batch")
    for step, (x, y) in enumerate(bar):
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 100)
            group["lr"] = config.lr * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * step / len(data))) / 2)
        optimiser.zero_grad(set_to_none=True)
        with devices.autocast(dtype, device):
            loss = F.cross_entropy(wrapped(x.to(device)).float(), y.to(device))
        loss.backward()
        optimiser.step()
        total += loss.item()
        if (step + 1) % data.per_epoch == 0:
            accuracy = _accuracy(classifier, images[:held], labels[:held]) if rank == 0 else math.nan
            rows.append({"epoch": len(rows) + 1, "loss": total / data.per_epoch, "accuracy": accuracy})
            bar.set_postfix(loss=f"{rows[-1]['loss']:.3f}", accuracy=f"{accuracy:.3f}")
            total = 0.0
    return network.trunk, pd.DataFrame(rows)


@torch.inference_mode()
def _accuracy(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    device = next(classifier.parameters()).device
    parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(64)
    guesses = torch.cat([classifier(part.to(device)).argmax(1).cpu() for part in parts])
    return float((guesses.numpy() == labels).mean())
