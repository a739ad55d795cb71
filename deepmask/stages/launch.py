"""Starting a job of this package on as many processes as the machine has cores or GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepmask import config as configs
from deepmask import distributed
from deepmask.config import Config
from deepmask.paths import Study

Job = Callable[[Study, Config, str, int, int], None]  # study, configuration, variant, rank, ranks


def start(
    name: str, job: Job, study: Study, params: str | Path, profile: str | None, variant: str = "", ranks: int = 0
) -> None:
    """Run `python -m deepmask job NAME`, which is `job`, on `ranks` processes.

    0 means one per GPU, or per core that this process may use; a single rank runs in this process.
    Raises ConfigError or LaunchError.
    """
    config = configs.load(params, profile)
    ranks = ranks or config.ranks or distributed.available_ranks()
    if ranks == 1:
        with distributed.process_group() as (rank, ranks):
            job(study, config, variant, rank, ranks)
        return
    arguments = ["job", name, "--study", str(study.root), "--params", str(params)]
    arguments += ["--profile", profile] if profile else []
    distributed.launch([*arguments, "--variant", variant] if variant else arguments, ranks)
