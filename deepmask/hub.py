"""Proposal methods by name, for a few lines of someone else's code: `deepmask.load("deepmask")(image)`."""

from __future__ import annotations

from pathlib import Path

from deepmask import choosing
from deepmask import config as configs
from deepmask.paths import REPOSITORY, Study
from deepmask.proposals import ProposalMethod


def load(
    method: str = "deepmask", study: str | Path = REPOSITORY, profile: str | None = None, count: int = 1000
) -> ProposalMethod:
    """A method of the study in folder `study`: a callable (H, W, 3) uint8 RGB -> `Proposals` of up to `count`.

    `method`: deepmask, deepmaskzoom, deepmask20, deepmask20star, deepmaskfull, edgeboxes, selectivesearch, geodesic,
    rigor or mcg; `profile`: of its params.yaml.  selectivesearch needs nothing; deepmask and deepmaskzoom take the
    released weights where the study has trained none (`results/weights/README.md`: of drawn scenes).  Raises
    ConfigError, and WeightsError or BaselineError if the study has not made what the method needs.
    """
    study = Study(Path(study))
    return choosing.find(method, study, configs.load(study.root / "params.yaml", profile), count).method
