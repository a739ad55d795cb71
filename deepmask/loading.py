"""Batches of training patches on their way to the device: cut by the host or by the device, one batch ahead of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from deepmask.config import ConfigError
from deepmask.data.pixels import PixelStore
from deepmask.patches import PlannedBatches, cut
from deepmask.sampling import PatchBatches

CUTS = ("auto", "host", "device")

Batch = tuple[str, Tensor, Tensor]  # branch, windows and target, as PatchBatches gives them, on the device


def cuts_on_device(cut: str, device: torch.device) -> bool:
    """What `train.cut` means: "auto" is the device if that is a GPU.  Raises ConfigError on another word."""
    if cut not in CUTS:
        raise ConfigError(f"train.cut: expected one of {', '.join(CUTS)}, got {cut!r}")
    return cut == "device" or (cut == "auto" and device.type == "cuda")


class Loader:
    """The batches of a run on its device.

    `store`: all images, decoded; the device then cuts the patches, and keeps the images if it has room for them.
    Without a store loader processes cut the patches one by one.
    """

    def __init__(
        self, batches: PatchBatches, device: torch.device, workers: int = 0, store: PixelStore | None = None
    ) -> None:
        self.device, self.workers, self.geometry = device, workers, batches.sampler.geometry
        self.resident = store.to(device) if store is not None and store.fits(device) else None
        self.planned = store is not None
        self.data = batches if store is None else PlannedBatches(batches, None if self.resident else store)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batch `start` and all after it; on a GPU each is copied and cut while the one before it is computed on."""
        loader = DataLoader(
            self.data,
            batch_size=None,
            sampler=range(start, len(self.data)),
            num_workers=self.workers,
            multiprocessing_context="fork" if self.workers else None,  # they share annotations and pixels with us
            pin_memory=self.device.type == "cuda",
        )
        if self.device.type != "cuda":
            yield from map(self._ready, loader)
            return
        beside, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        ahead: Batch | None = None
        for batch in loader:
            with torch.cuda.stream(beside):
                following = self._ready(batch)
            if ahead is not None:
                yield ahead
            current.wait_stream(beside)  # after the step on the batch before was queued
            for tensor in following[1:]:
                tensor.record_stream(current)
            ahead = following
        if ahead is not None:
            yield ahead

    def _ready(self, batch: dict[str, Tensor | str]) -> Batch:
        if self.planned:
            windows, target = cut(batch, self.geometry, self.device, self.resident)
        else:
            windows, target = (batch[key].to(self.device, non_blocking=True) for key in ("windows", "target"))
        return batch["branch"], windows, target
