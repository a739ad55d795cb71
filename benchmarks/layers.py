"""A roofline per layer: how fast it is, and how fast the matrix rate and the memory would let it be.

The bytes are ideal: every input, weight and output moves once.  A layer's bound is the smaller of the matrix rate and
bandwidth times FLOP per byte; its share is the time it would take at its bound by the time it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import seconds
from deepmask import device as devices
from deepmask.config import Config
from deepmask.model import DeepMask, mask_loss


def measure(config: Config, batch: int, device: torch.device, least: float = 0.1) -> list[dict[str, Any]]:
    """One row per layer of trunk and heads and direction, for training patches; `least`: seconds that each is timed."""
    torch.manual_seed(0)
    dtype = devices.precision(config.train.precision, device)
    model = DeepMask(config.geometry, config.model).to(device).to(dtype).to(memory_format=torch.channels_last).train()
    rows: list[dict[str, Any]] = []

    def row(
        name: str, work: Callable[[Tensor], Tensor], x: Tensor, layer: nn.Module | None = None, reads: float = 0.0
    ) -> Tensor:
        """Time one layer; its output, cut off from its gradient, is the next one's input; it `reads` further bytes."""
        first = not rows
        given = x.detach().requires_grad_(not first)  # an image needs no gradient
        weights = list(layer.parameters()) if layer is not None else []
        y = work(given)
        flop = _flop(layer, y)
        moved = _bytes(x) + _bytes(*weights) + reads
        with torch.no_grad():
            forward = seconds(lambda: work(given), device, least=least)
        rows.append(_row(name, "forward", flop, moved + _bytes(y), forward))
        wanted = weights + [given] * (not first)
        slope = torch.ones_like(y)
        backward = seconds(lambda: torch.autograd.grad(y, wanted, slope, retain_graph=True), device, least=least)
        flop *= len(wanted) - len(weights) + bool(weights)
        # the inputs and weights again, the gradient of the output in, those of input and weights out
        moved += _bytes(y) + _bytes(*wanted)
        rows.append(_row(name, "backward", flop, moved, backward))
        return y.detach()

    geometry = config.geometry
    x = torch.rand(batch, 3, geometry.window, geometry.window, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    number, group = 0, 1
    for layer in model.trunk:
        if isinstance(layer, nn.Conv2d):
            number += 1
            x = row(f"conv{number}", layer, x, layer)
        else:
            relu = isinstance(layer, nn.ReLU)
            x = row(f"relu{number}" if relu else f"pool{group}", F.relu if relu else layer, x)
            group += not relu
    margin = geometry.context // geometry.stride
    features = x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin].contiguous()
    head = model.mask_head
    x = F.relu(row("mask 1x1", head.conv, features, head.conv)).flatten(1)
    if isinstance(head.low_rank, nn.Linear):
        x = row("mask low rank", head.low_rank, x, head.low_rank)
    x = row("mask pixels", head.pixels, x, head.pixels).unflatten(1, (geometry.mask, geometry.mask))
    target = torch.rand(batch, geometry.patch, geometry.patch, device=device) > 0.5
    row("mask upsample, loss", lambda logits: mask_loss(logits, target), x, reads=_bytes(target))
    head = model.score_head
    x = F.max_pool2d(features, 2).flatten(1)
    x = F.relu(row("score fc1", head.fc1, x, head.fc1))
    x = F.relu(row("score fc2", head.fc2, x, head.fc2))
    row("score out", head.out, x, head.out)
    return rows


def _row(name: str, direction: str, flop: float, moved: float, took: float) -> dict[str, Any]:
    return {
        "layer": name,
        "direction": direction,
        "gflop": flop / 1e9,
        "mb": moved / 1e6,
        "flop_per_byte": flop / moved,
        "ms": took * 1e3,
        "tflops": flop / took / 1e12,
        "gbs": moved / took / 1e9,
    }


def judged(row: Mapping[str, Any], tflops: float, gbs: float) -> dict[str, Any]:
    """A row with its bound and its share of it, at a matrix rate and a copy rate."""
    arithmetic, memory = row["gflop"] / tflops, row["mb"] / gbs  # milliseconds
    return {
        **row,
        "bound_tflops": min(tflops, gbs * row["flop_per_byte"] / 1e3),
        "bound_by": "matrix rate" if arithmetic >= memory else "memory",
        "share": max(arithmetic, memory) / row["ms"],
    }


def _flop(layer: nn.Module | None, y: Tensor) -> float:
    """A multiply-add is two; what has no weights counts nothing."""
    weight = getattr(layer, "weight", None)
    return 0.0 if weight is None else 2.0 * weight.numel() * y.numel() / weight.shape[0]


def _bytes(*tensors: Tensor) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
