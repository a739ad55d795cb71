"""The five methods by their key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from deepmask.baseline_config import BaselinesConfig
from deepmask.baselines.edge_boxes import EdgeBoxes
from deepmask.baselines.geodesic import Geodesic
from deepmask.baselines.mcg import MCG
from deepmask.baselines.mcg_forest import Ranking
from deepmask.baselines.rigor import Rigor
from deepmask.baselines.selective_search import SelectiveSearch
from deepmask.proposals import Proposals
from deepmask.systems import check_classical

KINDS = {kind.name: kind for kind in (EdgeBoxes, Geodesic, Rigor, SelectiveSearch)}


def load(
    key: str, config: BaselinesConfig, ranking: Path, count: int
) -> Callable[[np.ndarray, np.ndarray | None], Proposals]:
    """A method of `systems.CLASSICAL`: (image, edge maps of an `EdgeDetector`) -> ranked proposals.

    `ranking`: file of the forest that MCG needs.  Raises ConfigError on another key, and BaselineError.
    """
    check_classical(key)
    if key == MCG.name:
        return MCG(config.mcg, Ranking.load(ranking), count)
    return KINDS[key](getattr(config, key), count)
