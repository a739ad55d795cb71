"""The released weights: a small file in git, with which DeepMask proposes in a fresh clone before anything is trained.

They are the weights of the study's DeepMask in half precision, and carry the settings that they were chosen with:
scales, mask threshold, profile and seed.  `results/weights/README.md` says what they are good for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deepmask import device as devices
from deepmask.config import ConfigError, ProposeConfig, from_dict
from deepmask.inference import DeepMaskProposer
from deepmask.paths import REPOSITORY, Study
from deepmask.systems import SYSTEMS
from deepmask.weights import WeightsError, load_model, load_tensors, save_tensors

METHODS = ("deepmask", "deepmaskzoom")  # systems of the one network that is released
OCTAVES = 4  # log2; a file may ask for scales within 1/16 and 16


def path(study: Study | None = None) -> Path:
    """The released weights of a study, by default of the repository's."""
    return (study or Study(REPOSITORY)).result("weights", "deepmask.safetensors")


def write(
    source: str | Path, destination: str | Path, settings: ProposeConfig, threshold: float, **record: Any
) -> None:
    """Write the network of `source`, a file of `weights.save_model`, in float16 with what its use needs.

    `settings`: scales, zoom and longest side; `threshold`: the probability at which its masks are cut; `record`:
    further JSON-able facts.  Raises WeightsError, also on values that float16 cannot hold.
    """
    tensors, metadata = load_tensors(source)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    for name, tensor in halves.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{source}: {name} has values that float16 cannot hold; release it in float32")
    propose = {
        "scales": settings.scales,
        "zoom": settings.zoom,
        "longest": settings.longest,
        "thresholds": [threshold],
    }
    save_tensors(destination, halves, {**metadata, **record, "propose": propose})


def settings(file: str | Path, otherwise: ProposeConfig | None = None) -> ProposeConfig:
    """How a weights file says its network is to be used; a file that does not: `otherwise`, or the defaults.

    The first of its `thresholds` is the one that was chosen.  Raises WeightsError.
    """
    record: Mapping[str, Any] = load_tensors(file)[1]
    if "propose" not in record:
        return otherwise or ProposeConfig()
    try:
        found = from_dict(ProposeConfig, record["propose"], "propose")
    except (ConfigError, OverflowError) as error:
        raise WeightsError(f"{file}: its settings cannot be used: {error}") from None
    if max(map(abs, (*found.scales, found.zoom))) > OCTAVES:
        raise WeightsError(f"{file}: its settings cannot be used: propose: scales beyond {OCTAVES} octaves")
    return found


def load(
    file: str | Path | None = None,
    method: str = "deepmask",
    count: int = 1000,
    otherwise: ProposeConfig | None = None,
) -> DeepMaskProposer:
    """DeepMask, or DeepMaskZoom, with the weights of a file, the released ones unless given, in float32.

    `otherwise`: as for `settings`.  Raises ConfigError on another `method`, and WeightsError.
    """
    if method not in METHODS:
        raise ConfigError(
            f"method: a weights file makes {' or '.join(METHODS)}, not {method!r}; leave out one of the two"
        )
    if count < 0:
        raise ConfigError(f"count: {count} proposals cannot be made; ask for 0 or more")
    file = path() if file is None else file
    network, found = load_model(file, devices.device()), settings(file, otherwise)
    return DeepMaskProposer(
        network,
        found.scales + ((found.zoom,) if SYSTEMS[method].zoom else ()),
        count=count,
        threshold=found.thresholds[0],
        longest=found.longest,
        name=SYSTEMS[method].name,
    )
