"""Floating-point operations of the network, counted by PyTorch on tensors without data; a multiply-add is two."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from deepmask.config import Config
from deepmask.model import DeepMask
from deepmask.sampling import BRANCHES
from deepmask.training import Objective


def network(config: Config) -> DeepMask:
    """The network of a profile without data: shapes only."""
    with torch.device("meta"):
        return DeepMask(config.geometry, config.model)


def of_patch(config: Config) -> dict[str, float]:
    """GFLOP of one training patch, forward and backward, by branch; pooling, ReLU and upsampling count nothing."""
    model, geometry = network(config), config.geometry
    windows = torch.empty(1, 3, geometry.window, geometry.window, dtype=torch.uint8, device="meta")
    masks = torch.empty(1, geometry.patch, geometry.patch, dtype=torch.bool, device="meta")
    targets = {"mask": masks, "score": masks[:, 0, 0]}
    found = {}
    for branch in BRANCHES:
        with FlopCounterMode(display=False) as counter:
            Objective(model, config.train.score_weight)(windows, targets[branch], branch).backward()
        found[branch] = counter.get_total_flops() / 1e9
    return found


def scaled_sizes(config: Config, height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of an image at every scale of dense inference, with the border."""
    border, scales = 2 * config.geometry.border, config.propose.scales
    return [tuple(max(1, int(side * 2.0**octave + 0.5)) + border for side in (height, width)) for octave in scales]


@torch.inference_mode()
def of_image(config: Config, height: int, width: int) -> dict[str, float]:
    """GFLOP of dense inference on one image: trunk and score head at every scale, mask head of the best cells."""
    model = network(config).eval()
    sizes = scaled_sizes(config, height, width)
    inputs = [torch.empty(1, 3, *size, dtype=torch.uint8, device="meta") for size in sizes]
    with FlopCounterMode(display=False) as trunk:
        features = [model.features(x) for x in inputs]
    with FlopCounterMode(display=False) as score:
        cells = [model.score_head.dense(x).numel() for x in features]
    with FlopCounterMode(display=False) as mask:
        at = torch.zeros(min(config.propose.count, sum(cells)), dtype=torch.int64, device="meta")
        model.mask_head.at(features, at, at, at)
    counted = {"trunk": trunk, "score": score, "mask logits": mask}
    return {name: counter.get_total_flops() / 1e9 for name, counter in counted.items()}
