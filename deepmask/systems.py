"""The rows of Table 1: systems of trained networks, and the classical methods that they are compared with (section 4).

A *variant* is a network that is trained; a *system* is a row of Table 1.  DeepMaskZoom is DeepMask at one more scale;
DeepMask20* takes the masks of DeepMask20 and the scores of DeepMask.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from deepmask.config import Config, ConfigError


@dataclass(frozen=True)
class System:
    """One row of the tables: which networks make its masks and its scores, and whether it uses the zoom scale."""

    name: str  # as the paper writes it
    masks: str
    scores: str
    zoom: bool = False


SYSTEMS = {
    "deepmask": System("DeepMask", "deepmask", "deepmask"),
    "deepmaskzoom": System("DeepMaskZoom", "deepmask", "deepmask", zoom=True),
    "deepmask20": System("DeepMask20", "deepmask20", "deepmask20"),
    "deepmask20star": System("DeepMask20*", "deepmask20", "deepmask"),
    "deepmaskfull": System("DeepMaskFull", "deepmaskfull", "deepmaskfull"),
}
VARIANTS = ("deepmask", "deepmask20", "deepmaskfull")


@dataclass(frozen=True)
class Classical:
    """A method of the literature; "-style" where ours is a reading of the publication, not a port of its program."""

    name: str  # as the paper writes it
    label: str  # what ours may call itself
    edges: bool = True  # whether it starts from the edge detector

    def row(self, edges: str) -> str:
        """The name of its row; `edges` says what the edge detector was trained on."""
        return f"{self.label} (edges: {edges})" if self.edges else self.label


CLASSICAL = {
    "edgeboxes": Classical("EdgeBoxes", "EdgeBoxes"),
    "geodesic": Classical("Geodesic", "Geodesic-style"),
    "rigor": Classical("Rigor", "Rigor-style"),
    "selectivesearch": Classical("SelectiveSearch", "SelectiveSearch", edges=False),
    "mcg": Classical("MCG", "MCG-style"),
}


def variant_config(config: Config, variant: str) -> Config:
    """The configuration that trains a variant: DeepMaskFull has no low-rank layer, nothing else differs."""
    check_variant(variant)
    rank = None if variant == "deepmaskfull" else config.model.rank
    return dataclasses.replace(config, model=dataclasses.replace(config.model, rank=rank))


def trains_on_seen_only(variant: str) -> bool:
    """Whether only the 20 PASCAL categories count as objects in training (paper: section 4, Generalization)."""
    return variant == "deepmask20"


def check_classical(method: str) -> None:
    """Raises ConfigError unless `method` is one of CLASSICAL."""
    if method not in CLASSICAL:
        raise ConfigError(f"method: expected one of {', '.join(CLASSICAL)}, got {method!r}")


def check_variant(variant: str) -> None:
    """Raises ConfigError unless `variant` is one of VARIANTS."""
    if variant not in VARIANTS:
        raise ConfigError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
