"""How large a study fits into the time that is left, at rates that were measured (pure functions)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deepmask.config import Config

MARGIN = 0.85  # of the time is planned with
START = 25.0  # seconds of a job before its first step: imports, reading annotations, building the network
SHARES = {"scenes": 0.15, "pretrain": 0.20}  # of the time at most; training gets what is left
LEAST_BATCHES = 10  # a run that is shorter tests nothing
LOOKS = 20  # rows of a training curve


@dataclass(frozen=True)
class Rates:
    """What this machine does in a second."""

    scenes: float  # drawn, on all cores
    pretrain: float  # drawn objects that are classified
    train: float  # patches
    images: float  # proposed on


@dataclass(frozen=True)
class Amounts:
    """How much of a profile is run."""

    train_images: int
    pretrain_samples: int
    train_samples: int


def amounts(seconds: float, rates: Rates, config: Config) -> Amounts:
    """The largest study of a profile's kind that `seconds` allow, never larger than the profile itself.

    The images to tune and report on are all drawn and proposed on; scenes and pre-training get their shares of the
    rest at most, and training of one network what they leave.
    """
    held_out = config.data.reported_images + config.data.tuning_images
    free = MARGIN * (seconds - 3 * START) - held_out / rates.scenes - proposing(rates, config)
    wanted = {
        "scenes": config.data.train_images / rates.scenes,
        "pretrain": config.pretrain.samples / rates.pretrain,
    }
    given = {name: max(0.0, min(wanted[name], share * free)) for name, share in SHARES.items()}
    return Amounts(
        train_images=_fit(given["scenes"] * rates.scenes, 1, 32, config.data.train_images),
        pretrain_samples=_batches(given["pretrain"] * rates.pretrain, config.pretrain.batch, config.pretrain.samples),
        train_samples=_samples(free - sum(given.values()), rates, config),
    )


def training(seconds: float, rates: Rates, config: Config) -> int:
    """Patches to train a network on in so many seconds."""
    return _samples(MARGIN * (seconds - START), rates, config)


def second_network(seconds: float, rates: Rates, first: int, config: Config) -> int:
    """Patches to train a second network on, at most the `first` one's; 0 if fewer than half of them are possible."""
    free = MARGIN * (seconds - START) - proposing(rates, config)
    batch = config.train.batch
    possible = min(first, int(max(0.0, free) * rates.train) // batch * batch)
    return possible if 2 * possible >= first else 0


def proposing(rates: Rates, config: Config) -> float:
    """Seconds of proposing by one network; tuning images are proposed on at every threshold."""
    images = config.data.reported_images + config.data.tuning_images * len(config.propose.thresholds)
    return START + images / rates.images


def changes(found: Amounts, config: Config) -> dict[str, dict[str, Any]]:
    """What of the profile's parameters differs, by section; looks and checkpoints are spread over the shorter run."""
    steps = max(1, found.train_samples // config.train.batch)
    every = max(2, min(config.train.eval_every, steps // LOOKS) // 2 * 2)  # as many mask as score batches
    return {
        "data": {"train_images": found.train_images},
        "pretrain": {"samples": found.pretrain_samples},
        "train": {"samples": found.train_samples, "eval_every": every, "checkpoint_every": 5 * every},
    }


def _samples(seconds: float, rates: Rates, config: Config) -> int:
    return _batches(seconds * rates.train, config.train.batch, config.train.samples)


def _fit(possible: float, unit: int, least: int, wanted: int) -> int:
    return min(wanted, max(least, int(possible) // unit * unit))


def _batches(possible: float, batch: int, wanted: int) -> int:
    return _fit(possible, batch, LEAST_BATCHES * batch, wanted)
