"""Stage: the trunk that all variants start from (paper: section 3.1)."""

from __future__ import annotations

from pathlib import Path

from deepmask import config as configs
from deepmask import files
from deepmask.config import Config
from deepmask.paths import Study
from deepmask.pretraining import pretrain
from deepmask.stages import launch
from deepmask.weights import save_tensors


def run(study: Study, params: str | Path, profile: str | None, ranks: int = 0) -> None:
    """Start `job` on every core or GPU; see `launch.start`."""
    launch.start("pretrain", job, study, params, profile, ranks=ranks)


def job(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Write the trunk that all variants start from, and its history."""
    trunk, history = pretrain(config.geometry, config.model, config.pretrain, rank, ranks)
    if rank == 0:
        save_tensors(study.trunk, trunk.state_dict(), {"pretrain": configs.to_dict(config.pretrain)})
        files.write_csv(study.result("training", "pretrain.csv"), history)
