"""Every proposal method of the study by its key (paper: section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from deepmask import device as devices
from deepmask.config import Config, ConfigError
from deepmask.paths import Study
from deepmask.proposals import ProposalMethod, Proposals
from deepmask.systems import CLASSICAL, SYSTEMS


class WithEdges:
    """A classical method together with its edge detector: image -> ranked proposals."""

    def __init__(self, method: Callable, detector: Callable | None) -> None:
        self.name, self.method, self.detector = method.name, method, detector

    def __call__(self, image: np.ndarray) -> Proposals:
        """Proposals of an image (H, W, 3) uint8 RGB, with `image_id` 0."""
        return self.method(image, None if self.detector is None else self.detector(image))


def load(key: str, study: Study, config: Config, count: int = 1000, threshold: float | None = None) -> ProposalMethod:
    """A method of SYSTEMS or CLASSICAL with the weights and forests of a study, ready for any image.

    `threshold`: the probability at which networks cut their masks; None is the one that was chosen on tuning images.
    Raises ConfigError on another key or a count below 0, and WeightsError or BaselineError if the study has not made
    what it needs.
    """
    if key not in SYSTEMS and key not in CLASSICAL:
        raise ConfigError(f"method: expected one of {', '.join([*SYSTEMS, *CLASSICAL])}, got {key!r}")
    if count < 0:
        raise ConfigError(f"count: {count} proposals cannot be made; ask for 0 or more")
    if key in CLASSICAL:  # imported here, because the networks need neither numba nor higra
        from deepmask.baselines import methods

        method = methods.load(key, config.baselines, study.ranking, count)
        if not CLASSICAL[key].edges:
            return WithEdges(method, None)
        from deepmask.baselines.edges import EdgeDetector

        return WithEdges(method, EdgeDetector(study.forest, config.edges.scales))
    from deepmask.inference import DeepMaskProposer
    from deepmask.weights import load_model

    system = SYSTEMS[key]
    octaves = config.propose.scales + ((config.propose.zoom,) if system.zoom else ())
    networks = {name: load_model(study.weights(name), devices.device()) for name in {system.masks, system.scores}}
    return DeepMaskProposer(
        networks[system.masks],
        octaves,
        scorer=networks[system.scores],
        count=count,
        threshold=threshold or _threshold(study, config, system.masks),
        longest=config.propose.longest,
        name=system.name,
    )


def reads(key: str, study: Study, config: Config, count: int = 1000) -> list[Any]:
    """What the proposals of such a method depend on besides the image: parameters, and Paths of files."""
    if key in SYSTEMS:
        system = SYSTEMS[key]
        cut = _threshold(study, config, system.masks)
        return [count, cut, config.propose, *(study.weights(name) for name in (system.masks, system.scores))]
    edges = [config.edges.scales, study.forest] if CLASSICAL[key].edges else []
    return [count, getattr(config.baselines, key), *edges, *([study.ranking] if key == "mcg" else [])]


def _threshold(study: Study, config: Config, network: str) -> float:
    """The mask threshold that was chosen on tuning images, or the first candidate if none has been yet."""
    path = study.result("tuning", f"{network}.csv")
    if not path.is_file():
        return config.propose.thresholds[0]
    tuned = pd.read_csv(path)
    return float(tuned.threshold[tuned.chosen].iloc[0])
