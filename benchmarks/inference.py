"""Milliseconds per image of dense inference (paper: section 3.3), by its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import flops, timing
from deepmask import device as devices
from deepmask import runs
from deepmask.config import Config
from deepmask.inference import DeepMaskProposer, DensePass, Paster, best_cells
from deepmask.model import DeepMask

THRESHOLD = 0.2  # paper: section 3.4, COCO
NETWORK = ("trunk", "score", "mask logits")  # parts that the FLOPs are of


def build(config: Config, device: torch.device) -> DeepMask:
    """The untrained network of a profile, made to draw one blob per mask: masks that fill a patch are too easy."""
    torch.manual_seed(0)
    model = DeepMask(config.geometry, config.model)
    at = torch.linspace(-1, 1, config.geometry.mask)
    angle = torch.atan2(at[:, None], at[None])
    blob = 0.6 + 0.1 * torch.sin(5 * angle) - torch.hypot(at[:, None], at[None])
    with torch.no_grad():
        model.mask_head.pixels.bias.copy_(20 * blob.flatten())
    return model.to(device).eval()


def measure(
    config: Config, model: DeepMask, images: Sequence[np.ndarray], device: torch.device, warm_up: int = 1
) -> dict[str, Any]:
    """Milliseconds of an image in memory to its ranked, encoded masks, in all and by parts; images are of one size.

    The parts are waited for one by one, so on a GPU their sum is a little above the whole.
    """
    config = dataclasses.replace(config, geometry=model.geometry, model=model.config)  # of the weights
    octaves, count = config.propose.scales, config.propose.count
    height, width = images[0].shape[:2]
    proposer = DeepMaskProposer(model, octaves, count=count, threshold=THRESHOLD)
    for image in [*images][:1] * warm_up:
        proposer(image)
    timing.reset_peak(device)
    start = timing.now(device)
    for image in images:
        proposer(image)
    total = (timing.now(device) - start) / len(images)
    peak = timing.peak_mib(device)
    taken = [_parts(model, image, config, device) for image in images]
    parts = {name: float(np.median([run[name] for run, _ in taken])) for name in taken[0][0]}
    parts["scaling"] = _scaling(config, model, images[0], device)
    parts["trunk"] = max(0.0, parts.pop("scaling, trunk") - parts["scaling"])
    gflop = flops.of_image(config, height, width)
    network = sum(parts[name] for name in NETWORK)
    return {
        "image": [height, width],
        "images": len(images),
        "scales": list(octaves),
        "proposals": count,
        "proposals_by_scale": np.sum([cells for _, cells in taken], axis=0).tolist(),
        "precision": _name(device),
        "gflop": gflop,
        "parts_ms": {name: spent * 1e3 for name, spent in parts.items()},
        "network_ms": network * 1e3,
        "network_tflops": sum(gflop.values()) / 1e3 / network,
        "total_ms": total * 1e3,
        "images_per_s": 1 / total,
        "peak_mib": peak,
    }


def _parts(model: DeepMask, image: np.ndarray, config: Config, device: torch.device) -> tuple[dict[str, float], Any]:
    """Seconds by part, and how many of the best cells are of each scale."""
    laps = timing.Laps(device)
    dense = DensePass(model, image, config.propose.scales)
    laps.lap("scaling, trunk")
    scores = dense.scores()
    laps.lap("score")
    cells = best_cells(scores, config.propose.count)
    laps.lap("ranking")
    paster = Paster(dense, cells)
    laps.lap("mask logits")
    with timing.watched(runs.Turns, "rles") as encoding:
        paster.proposals(THRESHOLD)
    laps.lap("paste")
    parts = laps.parts
    parts["RLE"] = min(sum(encoding), parts["paste"])
    parts["paste"] -= parts["RLE"]
    return parts, np.bincount(torch.as_tensor(cells.scale).cpu().numpy(), minlength=len(config.propose.scales))


class _NoTrunk(nn.Module):
    """Stands for a network whose features cost nothing, so that what `DensePass` does besides can be timed."""

    def __init__(self, model: DeepMask) -> None:
        super().__init__()
        self.geometry = model.geometry
        self.weight = nn.Parameter(torch.zeros((), device=next(model.parameters()).device))

    def features(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images


def _scaling(config: Config, model: DeepMask, image: np.ndarray, device: torch.device) -> float:
    """Seconds from an image in memory to its scaled, bordered copies on the device."""
    stub = _NoTrunk(model)
    return timing.seconds(lambda: DensePass(stub, image, config.propose.scales), device)


def _name(device: torch.device) -> str:
    dtype = devices.precision("auto", device)
    return next(name for name, kind in devices.PRECISIONS.items() if kind == dtype)
