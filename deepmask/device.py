"""The processor, GPU and number format of a run: only the cores it is allowed, and what the hardware does natively."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import torch

from deepmask.config import ConfigError

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86: the first two; Arm: the last


def device() -> torch.device:
    """The GPU if there is one that PyTorch can use, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cores(root: str | Path = "/") -> int:
    """How many processor cores this process may keep busy, at least 1.

    The smaller of the affinity mask and the CPU quota of its control group (version 1 or 2) or any group above; part
    of a core counts as one.  `root` is where the system's /proc and /sys are.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:  # systems without affinity masks have no control groups either
        allowed = os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _cpu_quotas(Path(root)))])


def native_bf16(device: torch.device, root: str | Path = "/") -> bool:
    """Whether the hardware computes in bfloat16 itself; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = {*_cpuinfo(root, "flags").split(), *_cpuinfo(root, "Features").split()}
    return not flags.isdisjoint(BF16_FLAGS)


def precision(name: str, device: torch.device) -> torch.dtype:
    """The number format for "bf16", "fp32" or "auto", which is bf16 where `device` has it natively.

    Any other name is a ConfigError.
    """
    if name == "auto":
        name = "bf16" if native_bf16(device) else "fp32"
    if name not in PRECISIONS:
        raise ConfigError(f"precision: {name!r} is none of auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager:
    """A context in which networks compute in `dtype`; float32 leaves everything as it is."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def tune(device: torch.device) -> None:
    """Let a GPU look for its fastest convolutions of the size at hand, and use TF32 where training stays in float32.

    For training, whose batches are all of one size; images are not.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # Muon's products


def processor(root: str | Path = "/") -> str:
    """The model name of the processor, or its architecture where the system does not tell."""
    return _cpuinfo(root, "model name") or os.uname().machine


def _cpuinfo(root: str | Path, field: str) -> str:
    try:
        text = (Path(root) / "proc/cpuinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == field:
            return value.strip()
    return ""


def _cpu_quotas(root: Path) -> list[float]:
    """Every CPU quota that applies, in cores: those of this process's control groups and of the groups above."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for group in groups:  # hierarchy:controllers:path
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers  # version 2 has one hierarchy without a name
        folder = mount / path.lstrip("/")
        # in a container the path may be the host's, so that only the mount itself exists
        for place in [folder, *folder.parents]:
            quotas.append(_quota_v1(place) if controllers else _quota_v2(place))
            if place == mount:
                break
    return [quota for quota in quotas if quota is not None]


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except OSError:
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except OSError:
        return None
    return None if quota <= 0 else quota / period
