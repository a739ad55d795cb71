"""torchvision's networks with their downloaded ImageNet weights (paper: section 3.1, "pre-trained ... on ImageNet")."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from deepmask.data import sources
from deepmask.weights import WeightsError


def load(name: str) -> nn.Module:
    """The network "vgg11" (VGG-A) or "vgg16", from its file among the downloads.

    No code in the file is run, and nothing is drawn from the random generator.  Raises WeightsError.
    """
    path = sources.weights_file(name)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; run `python -m deepmask download` with this study's profile")
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(init_weights=False)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except Exception as error:  # a damaged file may raise anything from within a decoder
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not the weights of {name} ({what}); remove it and download it again") from None
    for key, tensor in network.state_dict().items():
        if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            what = "values that are not finite" if tensor.dtype == torch.float32 else f"values of {tensor.dtype}"
            raise WeightsError(f"{path}: {key} has {what}; remove it and download it again")
    return network
