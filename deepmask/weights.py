"""Trained networks on disk: safetensors files that carry the geometry and the configuration they need.

Loading executes no code.  Files are written beside their place and then moved, so that none is ever half written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from deepmask import files
from deepmask.config import ConfigError, ModelConfig, from_dict, to_dict
from deepmask.geometry import Geometry
from deepmask.model import DeepMask


class WeightsError(ValueError):
    """A weights file is missing, damaged or not what was asked for; the message names it."""


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able record of where they come from."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    with files.replacing(path) as temporary:
        temporary.write_bytes(save(tensors, {"deepmask": json.dumps(metadata, sort_keys=True)}))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record that `save_tensors` wrote; raises WeightsError."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; train first (make repro) or pass the path of a file")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = json.loads((file.metadata() or {}).get("deepmask", "null"))
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: has no record of the network it belongs to; it was not written by this project")
    return tensors, metadata


def save_model(path: str | Path, model: DeepMask, record: Mapping[str, Any]) -> None:
    """Write a network with all that `load_model` needs; `record` says how it was trained."""
    metadata = {"geometry": to_dict(model.geometry), "model": to_dict(model.config), **record}
    save_tensors(path, model.state_dict(), metadata)


def load_model(path: str | Path, device: torch.device | str = "cpu") -> DeepMask:
    """The network of a file written by `save_model`, in evaluation mode; raises WeightsError."""
    tensors, metadata = load_tensors(path)
    try:
        geometry = from_dict(Geometry, metadata.get("geometry"), f"{path}: geometry")
        model = DeepMask(geometry, from_dict(ModelConfig, metadata.get("model"), f"{path}: model"))
        model.load_state_dict(tensors)
    except (ConfigError, RuntimeError) as error:
        raise WeightsError(f"{path}: not the weights of a DeepMask: {str(error).splitlines()[0]}") from None
    return model.to(device).eval()
