"""The optimisers of training: SGD as in the paper (section 3.4), AdamW, and Muon for small budgets.

The paper's SGD needs hundreds of thousands of steps.  The small study has about two thousand, and measures the
optimiser that gets furthest in them.  Muon replaces the momentum of a weight matrix by the nearest orthogonal matrix,
so that all directions of a layer are learned at the same pace; a product of two linear layers, which is what the
low-rank mask head is, is where gradients differ most between directions.  torch.optim.Muon takes no convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from deepmask.config import ConfigError

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Newton-Schulz polynomial of the published Muon; drives singular values to 1
_STEPS = 5
_RATE = 30  # learning rate of Muon relative to AdamW's, which steps the biases; 20 and 60 do as well
_WIDEST = 512  # matrices with both sides above this (DeepMaskFull's pixel classifiers) are left to AdamW: too costly


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, for weights of two or more dimensions, flattened to (outputs, the rest)."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update of every parameter that has a gradient; the others keep their momentum as it is."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonal(parameter.grad.lerp(average, group["momentum"]).flatten(1))  # Nesterov
                # outputs of a layer then change alike, whatever its shape; without this wide layers diverge
                size = _RATE * (update.shape[0] / update.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix (m, n) with its singular values brought near 1.

    The Newton-Schulz iteration X <- (a + b XX' + c (XX')^2) X runs on the small square matrix XX' alone; the wide
    one is multiplied once at the end.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = _QUINTIC
    matrix = matrix / (matrix.norm() + 1e-12)
    square = matrix @ matrix.T
    identity = product = torch.eye(len(square), dtype=square.dtype, device=square.device)
    for _ in range(_STEPS):
        factor = a * identity + b * square + c * square @ square
        square = factor @ square @ factor
        product = factor @ product
    return product @ matrix


def make_optimisers(
    name: str, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """The optimisers that together update all parameters; weight decay on every one of them (Torch's default).

    `name`: "sgd", "adamw" or "muon" (with AdamW for vectors and for matrices that are too wide).  Raises ConfigError.
    """
    parameters = list(parameters)
    betas = (momentum, 0.99)
    if name == "sgd":
        sgd = torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay, fused=True)
        for parameter in parameters if momentum else ():  # the fused step cannot start one head later than the other
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return [sgd]
    if name == "adamw":
        return [torch.optim.AdamW(parameters, lr, betas=betas, weight_decay=weight_decay, fused=True)]
    if name == "muon":
        matrices = [p for p in parameters if p.ndim > 1 and 1 < min(p.flatten(1).shape) <= _WIDEST]
        chosen = {id(p) for p in matrices}
        rest = [p for p in parameters if id(p) not in chosen]
        adamw = torch.optim.AdamW(rest, lr, betas=betas, weight_decay=weight_decay, fused=True)
        return [Muon(matrices, lr, momentum, weight_decay), adamw]
    raise ConfigError(f"train.optimiser: expected sgd, adamw or muon, got {name!r}")
