"""Proposal methods by name, for a few lines of someone else's code: `deepmask.load("deepmask")(image)`."""

from __future__ import annotations

from pathlib import Path

from deepmask import config as configs
from deepmask import methods
from deepmask.paths import REPOSITORY, Study
from deepmask.proposals import ProposalMethod


def load(
    method: str = "deepmask", study: str | Path = REPOSITORY, profile: str | None = None, count: int = 1000
) -> ProposalMethod:
    """A method of the study in folder `study`: a callable (H, W, 3) uint8 RGB -> `Proposals` of up to `count`.

    `method`: deepmask, deepmaskzoom, deepmask20, deepmask20star, deepmaskfull, edgeboxes, selectivesearch, geodesic,
    rigor or mcg; `profile`: of its params.yaml.  Raises ConfigError, and WeightsError or BaselineError if the study has
    not made what the method needs; selectivesearch needs nothing.
    """
    study = Study(Path(study))
    return methods.load(method, study, configs.load(study.root / "params.yaml", profile), count)
