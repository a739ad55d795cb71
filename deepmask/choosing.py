"""Which proposal method a user gets, with whose weights, and the sentence that says why (paper: section 4).

The stages of a study use `methods` and nothing else: a study must never take weights that it has not trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepmask import config as configs
from deepmask import methods, released
from deepmask.config import Config
from deepmask.data import sources
from deepmask.paths import Study
from deepmask.proposals import ProposalMethod
from deepmask.shrinking import Shrinking
from deepmask.systems import CLASSICAL, SYSTEMS

RELEASED = "released"  # as --weights
UNTRAINED = "selectivesearch"  # needs neither weights nor a forest


@dataclass(frozen=True)
class Chosen:
    """A method, what its proposals depend on besides the image (see `methods.reads`), and what to tell its user."""

    method: ProposalMethod
    reads: list[Any] = field(default_factory=list)
    why: str = ""


def choose(
    key: str | None,
    study: Study,
    params: Path,
    profile: str | None = None,
    *,
    weights: str | None = None,
    count: int = 1000,
) -> Chosen:
    """The method of a command line: `key` and `weights` as the user gave them, None where he did not.

    Raises ConfigError, and WeightsError or BaselineError if something that the method needs is not there.
    """
    if weights is not None:
        return _of_file(key or "deepmask", params, profile, weights, count)
    if key is None:
        return _default(study, params, profile, count)
    return find(key, study, configs.load(params, profile), count)


def find(key: str, study: Study, config: Config, count: int = 1000) -> Chosen:
    """A method of a study by its key; the released weights stand in for a DeepMask that the study has not trained.

    Images larger than `propose.longest` are shrunk for every method.
    """
    if key in released.METHODS and not study.weights("deepmask").is_file() and released.path().is_file():
        why = (
            f"{SYSTEMS[key].name} with the released weights, trained on drawn scenes: {study.root} has none of its own"
        )
        return Chosen(released.load(method=key, count=count), [key, count, released.path()], why)
    method, reads = methods.load(key, study, config, count), methods.reads(key, study, config, count)
    if key in CLASSICAL:
        return Chosen(Shrinking(method, config.propose.longest), [*reads, config.propose.longest])
    return Chosen(method, reads)


def _default(study: Study, params: Path, profile: str | None, count: int) -> Chosen:
    """DeepMask where it was not trained on drawn scenes; else a method without training, set for photographs."""
    if params.is_file():
        config = configs.load(params, profile)
        if not sources.is_drawn(config.data) and study.weights("deepmask").is_file():
            own = find("deepmask", study, config, count)
            return replace(own, why=f"deepmask of {study.root}, trained on images of its own")
    why = (
        f"{UNTRAINED}, which needs no training: the networks of this repository are trained on drawn scenes and find "
        "little in photographs; try one with --method deepmask"
    )
    config = Config()  # its settings are those for photographs, whatever the study's are
    return replace(find(UNTRAINED, study, config, count), why=why)


def _of_file(key: str, params: Path, profile: str | None, weights: str, count: int) -> Chosen:
    """DeepMask or DeepMaskZoom with the weights of a file, which may say how they are to be used."""
    file = released.path() if weights == RELEASED else Path(weights)
    otherwise = configs.load(params, profile).propose if params.is_file() else None
    return Chosen(released.load(file, key, count, otherwise), [key, count, otherwise, file])
