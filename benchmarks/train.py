"""Training patches per second: of the study's own loop on images, and of its step on one fixed batch.

The loop is `deepmask.training.train` itself.  It looks at the held-out patches every so many steps, and a clock in
their place times it from inside, so that whatever the loop does with data is measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from deepmask import device as devices
from deepmask.config import Config, TrainConfig
from deepmask.data.coco import InstanceDataset
from deepmask.data.pixels import PixelStore
from deepmask.loading import Batch, Loader, cuts_on_device
from deepmask.model import DeepMask
from deepmask.optim import make_optimisers
from deepmask.sampling import BRANCHES, PatchBatches, PatchSampler
from deepmask.training import Objective, train

STEPS = 100_000  # that a run is asked for; the clock ends it long before
LOOK = 0.5  # seconds between two readings of the clock, at most
CACHE_MB = 1024  # of decoded images, the default of `PatchSampler`
STILL = 1e-6  # learning rate: speed is measured, and no batch size may diverge


@dataclass(frozen=True)
class Case:
    """One way to train the network of a profile."""

    batch: int
    optimiser: str
    compile: bool = False


class TimeIsUp(Exception):
    """The clock has seen enough."""


class Clock:
    """Stands where `train` expects held-out patches, notes the time at each look, and ends the run.

    The first look ends the warm-up.  The run ends at a look `seconds` later, but not before two more.
    """

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds, self.times = device, seconds, []

    def measure(self, model: DeepMask, dtype: torch.dtype = torch.float32) -> dict[str, float]:
        """No measures of the network; raises TimeIsUp."""
        self.times.append(timing.now(self.device))
        if len(self.times) > 2 and self.times[-1] - self.times[0] >= self.seconds:
            raise TimeIsUp
        return {}

    @property
    def interval(self) -> float:
        """Mean seconds from look to look."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def settings(config: Config, case: Case, device: torch.device, every: int = 1) -> TrainConfig:
    """The profile's training with the batch and optimiser of a case; `every`: steps between two looks."""
    changes = {"samples": STEPS * case.batch, "batch": case.batch, "optimiser": case.optimiser, "lr": STILL}
    changes |= {"compile": case.compile, "eval_every": every, "checkpoint_every": STEPS + 1, "schedule": "constant"}
    # worker processes take cores from a network that computes on the processor
    workers = min(config.train.workers, devices.cores() - 1) if device.type == "cuda" else 0
    return dataclasses.replace(config.train, **changes, workers=workers)


def build(config: Config, device: torch.device) -> DeepMask:
    """The untrained network of a profile."""
    torch.manual_seed(0)
    return DeepMask(config.geometry, config.model).to(device).to(memory_format=torch.channels_last).train()


def loader(sampler: PatchSampler, settings: TrainConfig, device: torch.device, store: PixelStore | None) -> Loader:
    """The batches of a run, as `train` loads them."""
    return Loader(PatchBatches(sampler, STEPS, settings.batch), device, settings.workers, store)


def fixed_batches(sampler: PatchSampler, settings: TrainConfig, device: torch.device) -> list[Batch]:
    """One batch per branch, on the device."""
    batches = PatchBatches(sampler, len(BRANCHES), settings.batch)
    return list(Loader(batches, device).batches())


def with_data(
    config: Config,
    case: Case,
    sampler: PatchSampler,
    store: PixelStore | None,
    device: torch.device,
    step: float,
    seconds: float,
    folder: Path,
) -> float:
    """Patches per second of `train`, images included.

    `step`: the seconds that a step is expected to take; `seconds`: how long to measure; `folder`: for a checkpoint.
    """
    every = 2 * max(1, math.ceil(min(LOOK, seconds / 3) / step / 2))  # even: as many mask as score batches
    clock = Clock(device, seconds)
    try:
        train(
            build(config, device),
            sampler,
            settings(config, case, device, every),
            checkpoint=folder / "none.pt",
            held_out=clock,
            store=store,
        )
    except TimeIsUp:
        pass
    return case.batch * every / clock.interval


class Stepper:
    """One step of training on a given batch, made of the parts that `train` is made of."""

    def __init__(self, config: Config, case: Case, device: torch.device) -> None:
        chosen = settings(config, case, device)
        model = build(config, device)
        self.device, self.dtype = device, devices.precision(chosen.precision, device)
        self.objective = Objective(model, chosen.score_weight)
        if case.compile:
            self.objective.compile(dynamic=False)
        self.optimisers = make_optimisers(
            chosen.optimiser, model.parameters(), chosen.lr, chosen.momentum, chosen.weight_decay
        )

    def __call__(self, batch: Batch, lap: Callable[[str], None] = lambda name: None) -> None:
        """One update; `lap` is called with the name of each part at its end."""
        branch, windows, target = batch
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        with devices.autocast(self.dtype, self.device):
            loss = self.objective(windows, target, branch)
        lap("forward")
        loss.backward()
        lap("backward")
        for optimiser in self.optimisers:
            optimiser.step()
        lap("optimiser")


def measure(
    config: Config,
    case: Case,
    dataset: InstanceDataset,
    device: torch.device,
    seconds: float,
    folder: Path,
    cache_mb: int = CACHE_MB,
) -> dict[str, Any]:
    """One case: patches per second with and without data, milliseconds of the parts of a step, and peak memory."""
    sampler = PatchSampler(dataset, config.geometry, config.sampling, seed=0, cache_mb=cache_mb)
    store = None
    if cuts_on_device(config.train.cut, device):
        store = PixelStore.open(dataset, folder / "pixels.bin")
    found = _without_data(config, case, sampler, store, device, seconds)
    timing.reset_peak(device)  # the memory of the first network is free again
    step = case.batch / found["synthetic_patches_per_s"]
    data = with_data(config, case, sampler, store, device, step, seconds, folder)
    return {
        **dataclasses.asdict(case),
        "precision": precision_name(config, device),
        "data_patches_per_s": data,
        "data_to_synthetic": data / found["synthetic_patches_per_s"],
        **found,
    }


def _without_data(
    config: Config,
    case: Case,
    sampler: PatchSampler,
    store: PixelStore | None,
    device: torch.device,
    seconds: float,
) -> dict[str, Any]:
    """Patches per second on fixed batches, and the parts of a step."""
    devices.tune(device)
    timing.reset_peak(device)
    chosen = settings(config, case, device)
    step, fixed = Stepper(config, case, device), fixed_batches(sampler, chosen, device)

    def pair() -> None:
        for batch in fixed:
            step(batch)

    start = timing.now(device)
    pair()  # compiles, chooses algorithms, makes the optimisers' state
    first = timing.now(device) - start
    took = timing.seconds(pair, device, warm_up=2 if device.type == "cuda" else 0, least=seconds / 2) / 2
    peak = timing.peak_mib(device)
    parts = step_parts(step, sampler, chosen, store, device, max(4, min(40, int(seconds / took))))
    return {"first_pair_s": first, "synthetic_patches_per_s": case.batch / took, "parts_ms": parts, "peak_mib": peak}


def step_parts(
    step: Stepper,
    sampler: PatchSampler,
    settings: TrainConfig,
    store: PixelStore | None,
    device: torch.device,
    steps: int,
) -> dict[str, float]:
    """Milliseconds per step spent in waiting for data, forward, backward and the optimisers, each waited for.

    `step` is warm.  The sum is above that of a step in `train`, where the processor runs ahead of a GPU.
    """
    steps += steps % 2
    batches = loader(sampler, settings, device, store).batches()
    for _ in range(2):  # workers start
        next(batches)
    laps = timing.Laps(device)
    for _ in range(steps):
        batch = next(batches)
        laps.lap("data")
        step(batch, laps.lap)
    return {name: spent / steps * 1e3 for name, spent in laps.parts.items()}


def precision_name(config: Config, device: torch.device) -> str:
    """The number format that the profile trains in on this device."""
    dtype = devices.precision(config.train.precision, device)
    return next(name for name, kind in devices.PRECISIONS.items() if kind == dtype)
