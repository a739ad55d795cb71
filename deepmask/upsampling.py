"""A trained layer in the place of the fixed bilinear upsampling of the masks (paper: section 3.4).

The layer is a transposed convolution: every logit adds a kernel, times itself, to the pixels around it.  The loss is
convex in the kernel, so what is learned depends on the network and its patches, not on the random start.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepmask.config import ConfigError, UpsamplingConfig
from deepmask.geometry import Geometry
from deepmask.model import DeepMask


def factor(geometry: Geometry) -> int:
    """How many pixels of the patch one of the mask stands for (paper: 4).  Raises ConfigError if that is not whole."""
    if geometry.patch % geometry.mask:
        raise ConfigError(
            f"geometry.mask: a transposed convolution needs a divisor of geometry.patch ({geometry.patch}), "
            f"got {geometry.mask}"
        )
    return geometry.patch // geometry.mask


def bilinear_kernel(factor: int) -> Tensor:
    """(k, k) float32 with k = 2 factor - factor % 2: bilinear interpolation as a kernel, which sums to factor squared.

    >>> (16 * bilinear_kernel(2)[0]).tolist()
    [1.0, 3.0, 3.0, 1.0]
    """
    side = 2 * factor - factor % 2
    row = 1 - (torch.arange(side) - (side - 1) / 2).abs() / factor
    return row[:, None] * row


def transposed(logits: Tensor, kernel: Tensor) -> Tensor:
    """Mask logits (N, m, m) -> (N, P, P) by the transposed convolution with a kernel of `bilinear_kernel`'s shape.

    Logits at the border are repeated outwards, so that with `bilinear_kernel` this is bilinear interpolation whose
    corners are not aligned.
    """
    side = kernel.shape[-1]
    factor = (side + 1) // 2
    padded = F.pad(logits[:, None], [1, 1, 1, 1], mode="replicate")
    return F.conv_transpose2d(padded, kernel[None, None], stride=factor, padding=factor + (side - factor) // 2)[:, 0]


def learn_kernel(logits: Tensor, target: Tensor, config: UpsamplingConfig) -> tuple[Tensor, list[float]]:
    """The kernel, from a random start, that turns mask logits (N, m, m) into masks (N, P, P) bool with least loss.

    Also returns the loss per patch, the first term of Eq. 1, at each evaluation.  The steps are L-BFGS's: neighbouring
    logits are nearly equal, so along its gradient alone the kernel would need thousands.
    """
    side = len(bilinear_kernel(target.shape[-1] // logits.shape[-1]))
    start = torch.randn(side, side, generator=torch.Generator().manual_seed(config.seed)) / side
    kernel = start.to(logits.device).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [kernel], max_iter=config.steps, history_size=20, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )
    losses: list[float] = []

    def evaluate() -> Tensor:
        optimiser.zero_grad()
        loss = pixel_loss(transposed(logits, kernel), target)
        loss.backward()
        losses.append(loss.item())
        return loss

    optimiser.step(evaluate)
    return kernel.detach(), losses


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The first term of Eq. 1 per patch of the upsampled logits (N, P, P) for masks (N, P, P) bool."""
    return F.binary_cross_entropy_with_logits(logits, target.float())


@torch.no_grad()
def mask_logits(model: DeepMask, windows: Tensor) -> Tensor:
    """The mask logits (N, m, m) of the frozen network on training crops (N, 3, window, window)."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device), "mask").float() for part in windows.split(64)])


def likeness(kernel: Tensor, reference: Tensor) -> dict[str, float]:
    """Correlation of two kernels, and the norm of their difference relative to the second."""
    pair = torch.stack([kernel.flatten(), reference.to(kernel.device).flatten()])
    difference = (pair[0] - pair[1]).norm() / pair[1].norm()
    return {"correlation": float(torch.corrcoef(pair)[0, 1]), "difference": float(difference)}
