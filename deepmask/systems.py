"""The rows of Table 1: systems of trained networks, and the classical methods that they are compared with (section 4).

A *variant* is a network that is trained; a *system* is a row of Table 1.  DeepMaskZoom is DeepMask at one more scale;
DeepMask20* takes the masks of DeepMask20 and the scores of DeepMask.  An *ablation* is a network that is trained to
confirm a choice which the paper states without numbers; it is measured on held-out patches and has no row.
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
ABLATIONS = ("masknegatives", "masknegatives20", "downsampled")


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
    """The configuration that trains a variant or an ablation, which differ from DeepMask's in one value at most.

    DeepMaskFull has no low-rank layer (section 3.1); "masknegatives" trains masks on negatives too (section 3.2), and
    "downsampled" compares masks at the resolution of the output (section 3.4).
    """
    check_variant(variant)
    changes = {
        "deepmaskfull": {"model": {"rank": None}},
        "masknegatives": {"train": {"mask_negatives": True}},
        "masknegatives20": {"train": {"mask_negatives": True}},
        "downsampled": {"train": {"downsample_targets": True}},
    }.get(variant, {})
    sections = {name: dataclasses.replace(getattr(config, name), **values) for name, values in changes.items()}
    return dataclasses.replace(config, **sections)


def trains_on_seen_only(variant: str) -> bool:
    """Whether only the 20 PASCAL categories count as objects in training (paper: section 4, Generalization)."""
    return variant in ("deepmask20", "masknegatives20")


def systems_of(variant: str) -> dict[str, System]:
    """The systems whose masks a network makes, by key; an ablation makes one, which bears its name."""
    check_variant(variant)
    made = {key: system for key, system in SYSTEMS.items() if system.masks == variant}
    return made or {variant: System(variant, variant, variant)}


def check_classical(method: str) -> None:
    """Raises ConfigError unless `method` is one of CLASSICAL."""
    if method not in CLASSICAL:
        raise ConfigError(f"method: expected one of {', '.join(CLASSICAL)}, got {method!r}")


def check_variant(variant: str) -> None:
    """Raises ConfigError unless `variant` is one of VARIANTS or ABLATIONS."""
    if variant not in VARIANTS + ABLATIONS:
        raise ConfigError(f"variant: expected one of {', '.join(VARIANTS + ABLATIONS)}, got {variant!r}")
