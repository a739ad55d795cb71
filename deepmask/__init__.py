"""Reference companion to "Learning to Segment Object Candidates" (DeepMask, NIPS 2015).

`deepmask.load("deepmask")` is the shortest way to proposals: a method that takes an image and returns `Proposals`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, imported when it is first asked for, as it brings PyTorch with it."""
    if name == "load":
        return importlib.import_module("deepmask.hub").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
