"""Parameter files, for `fuzz.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz import Target

from deepmask import config
from deepmask.config import Config, ConfigError

PROFILES = None, "mini", "smoke"
SEEDS = [
    "profile: mini\ndata: {root: null, seen: [dog], width: 320}\ntrain: {lr: 1e-3, batch: 32, optimiser: sgd}\n",
    "profile: mini\nmodel: {rank: null}\nprofiles:\n  smoke:\n    ranks: 1\n    edges: {forest: {trees: 4}}\n",
    "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nexternal: {<<: *b}\n",
    "propose: {scales: [-1.0, .inf, 0x10, 1:30], thresholds: [!!float .5, 2001-01-01, !!binary aGk=]}\n",
    "baselines: {geodesic: {tiers: [[1, 1, .5], [1, 2, .5]]}, mcg: {weights: [0, 1], regions: [3, 0]}}\n",
]


def _parameters(folder: Path) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        for profile in PROFILES:
            try:
                made = config.load(file, profile)
            except ConfigError as error:
                assert str(error).startswith(str(file)) and len(str(error)) < 2000
            else:
                assert config.from_dict(Config, config.to_dict(made)) == made

    return read


def _seeds() -> list[bytes]:
    params = Path(config.__file__).resolve().parent.parent / "params.yaml"
    return [params.read_bytes()[:2500], *(text.encode() for text in SEEDS)]


TARGETS = {
    "parameters": Target(_seeds, _parameters, ".yaml", slow=4),
}
