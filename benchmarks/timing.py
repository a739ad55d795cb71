"""Seconds of a piece of work on the processor or the GPU, which runs behind the program that feeds it."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import torch

LEAST, BLOCKS = 0.3, 3  # seconds that a measurement lasts at least, and the blocks it is the median of


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given; a processor always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def now(device: torch.device) -> float:
    """Seconds of a clock that only rises, read when the device is idle."""
    synchronise(device)
    return time.perf_counter()


def seconds(work: Callable[[], object], device: torch.device, warm_up: int = 1, least: float = LEAST) -> float:
    """Seconds of one call of `work`: the median over blocks of calls, which together last about `least` seconds.

    The device is waited for before and after a block and not between its calls, so a queue of short kernels is timed
    without the time it takes to launch them.  `warm_up` calls come first and are not counted.
    """
    for _ in range(warm_up):
        work()
    start = now(device)
    work()
    once = now(device) - start
    if once >= least:
        return once
    calls = max(1, min(10_000, math.ceil(least / BLOCKS / max(once, 1e-7))))
    blocks = []
    for _ in range(BLOCKS):
        start = now(device)
        for _ in range(calls):
            work()
        blocks.append((now(device) - start) / calls)
    return statistics.median(blocks)


class Laps:
    """Sums the seconds between calls under the names they are given; the device is waited for at each call."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.parts = device, {}
        self.restart()

    def restart(self) -> None:
        """Forget the time since the last lap."""
        self._last = now(self.device)

    def lap(self, name: str) -> None:
        """Add the seconds since the last lap, or `restart`, to those of `name`."""
        last, self._last = self._last, now(self.device)
        self.parts[name] = self.parts.get(name, 0.0) + self._last - last


@contextlib.contextmanager
def watched(module: ModuleType, name: str) -> Iterator[list[float]]:
    """The seconds of every call of module.name while the context lasts; none if the module has no such function."""
    spent: list[float] = []
    original = getattr(module, name, None)
    if original is None:
        yield spent
        return

    def timed(*arguments, **options):
        start = time.perf_counter()
        try:
            return original(*arguments, **options)
        finally:
            spent.append(time.perf_counter() - start)

    setattr(module, name, timed)
    try:
        yield spent
    finally:
        setattr(module, name, original)


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of the most memory in use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> float | None:
    """MiB of GPU memory in use at the worst moment since `reset_peak`; None on a processor."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
