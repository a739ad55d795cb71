"""What a result was computed with: versions, processor and number format.

Neither the commit nor the time is part of the record: a result that is made again by the same code on the same
machine has to be the same file (`dvc.lock` says which code made it).
"""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

from deepmask import device as devices

PACKAGES = (
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
    "higra",
    "pillow",
    "opencv-contrib-python-headless",
    "pycocotools",
    "pandas",
)


def environment(precision: str = "auto") -> dict[str, Any]:
    """A JSON-able record of what computes here; it names no host, user or folder.

    `precision` is the setting of the run ("auto", "bf16" or "fp32"); the record holds the one that it means here.
    """
    device = devices.device()
    dtype = devices.precision(precision, device)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {"torch": torch.__version__, **{name: _version(name) for name in PACKAGES}},
        "processor": devices.processor(),
        "cores": devices.cores(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "devices": torch.cuda.device_count() if device.type == "cuda" else 1,
        "precision": next(name for name, kind in devices.PRECISIONS.items() if kind == dtype),
        "native_bf16": devices.native_bf16(device),
    }


def describe(precision: str = "auto") -> str:
    """The record in one line, for the first cell of a notebook and for logs."""
    record = environment(precision)
    packages = ", ".join(f"{name} {record['packages'][name]}" for name in ("torch", "torchvision", "numpy"))
    place = f"{record['cores']} cores of {record['processor']}"
    if record["device"] != "cpu":
        place = f"{record['devices']} x {record['device']}, {place}"
    return f"Python {record['python']}, {packages}; {place}; {record['precision']}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
