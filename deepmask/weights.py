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
from torch import Tensor, nn

from deepmask import files
from deepmask.config import ConfigError, ModelConfig, from_dict, to_dict
from deepmask.geometry import Geometry
from deepmask.model import VGG_A, DeepMask

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)  # whose values a network holds in float32


class WeightsError(ValueError):
    """A weights file is missing, damaged or not what was asked for; the message names it."""


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able record of where they come from."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    with files.replacing(path) as temporary:
        temporary.write_bytes(save(tensors, {"deepmask": json.dumps(metadata, sort_keys=True)}))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record that `save_tensors` wrote; raises WeightsError, also where a number is not finite."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; train first (make repro) or pass the path of a file")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = json.loads((file.metadata() or {}).get("deepmask", "null"))
    except (SafetensorError, ValueError, OSError, RecursionError) as error:  # the last: JSON nested too deep
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None
    for name, tensor in tensors.items():
        if tensor.dtype in _FLOATS and not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: {name} has values that are not finite; take an intact copy or train again")
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: has no record of the network it belongs to; it was not written by this project")
    return tensors, metadata


def save_model(path: str | Path, model: DeepMask, record: Mapping[str, Any]) -> None:
    """Write a network with all that `load_model` needs; `record` says how it was trained."""
    metadata = {"geometry": to_dict(model.geometry), "model": to_dict(model.config), **record}
    save_tensors(path, model.state_dict(), metadata)


def load_model(path: str | Path, device: torch.device | str = "cpu") -> DeepMask:
    """The network of a file written by `save_model`, in evaluation mode.

    Its tensors decide how much is allocated: what the record claims must fit them.  Raises WeightsError.
    """
    tensors, metadata = load_tensors(path)
    try:
        geometry = from_dict(Geometry, metadata.get("geometry"), f"{path}: geometry")
        config = from_dict(ModelConfig, metadata.get("model"), f"{path}: model")
        if geometry.pools > len(VGG_A):
            raise ConfigError(f"geometry: stride {geometry.stride} takes more pools than the {len(VGG_A)} of VGG-A")
        if not 0 <= config.dropout <= 1:
            raise ConfigError(f"model: dropout {config.dropout} is no probability")
        with torch.device("meta"):  # shapes without memory
            _compare(tensors, DeepMask(geometry, config).state_dict())
        model = DeepMask(geometry, config)
        model.load_state_dict(tensors)
    except (ValueError, ArithmeticError, TypeError, RuntimeError) as error:  # of sizes that are no sizes
        raise WeightsError(f"{path}: not the weights of a DeepMask: {str(error).splitlines()[0]}") from None
    return model.to(device).eval()


def load_into(module: nn.Module, path: str | Path) -> None:
    """Load a file of `save_tensors` into a part of a network, such as its trunk; raises WeightsError."""
    try:
        module.load_state_dict(load_tensors(path)[0])
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: not the weights of this {type(module).__name__} ({what:.200}); make it again"
        ) from None


def _compare(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless the tensors have the expected names and shapes and hold real numbers, at least one."""
    for name in sorted(tensors.keys() ^ expected.keys()):
        raise ValueError(f"{name} is {'missing' if name in expected else 'not part of it'}")
    for name, tensor in tensors.items():
        shape, wanted = tuple(tensor.shape), tuple(expected[name].shape)
        if shape != wanted or not tensor.numel():
            raise ValueError(f"{name} is {shape}, but its record asks for {wanted}")
        if tensor.dtype not in _FLOATS:
            raise ValueError(f"{name} is of {tensor.dtype}, not {', '.join(map(str, _FLOATS))}")
