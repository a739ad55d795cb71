"""The state of a training run on disk, so that a run that is interrupted goes on (paper: five days of training).

No code in a file is run, and a file is written whole or not at all.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from deepmask import files


class CheckpointError(RuntimeError):
    """A checkpoint is damaged or of another run; the message names it."""


def save(path: Path, model: nn.Module, optimisers: Sequence[Optimizer], config: Any, **state: Any) -> None:
    """Write network, optimisers and `state`, lists and dicts of numbers, of a run with the parameters `config`."""
    optimiser_states = [optimiser.state_dict() for optimiser in optimisers]
    content = {"model": model.state_dict(), "optimisers": optimiser_states, "config": repr(config), **state}
    buffer = io.BytesIO()  # torch.save hides the error of a full disk behind one of its own
    torch.save(content, buffer)
    with files.replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def resume(path: Path, model: nn.Module, optimisers: Sequence[Optimizer], config: Any, **start: Any) -> dict[str, Any]:
    """Put a run back to where `save` was called, and return its `state`; `start` if there is no file.

    Raises CheckpointError if the file is damaged, or of a run with another `config`.
    """
    if not path.is_file():
        return start
    try:
        content = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
        same = content["config"] == repr(config)
        state = {name: content[name] for name in start}
        if same:
            model.load_state_dict(content["model"])
            for optimiser, kept in zip(optimisers, content["optimisers"], strict=True):
                optimiser.load_state_dict(kept)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise anything while it is read
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: a damaged checkpoint ({what}); remove it to start anew") from None
    if not same:
        raise CheckpointError(f"{path}: left by a run with other parameters; remove it to start anew")
    return state
