"""Starting a job of this package on as many processes as the machine has cores or GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from deepmask import config as configs
from deepmask import distributed, failures, processes
from deepmask.config import Config
from deepmask.paths import Study

Job = Callable[[Study, Config, str, int, int], None]  # study, configuration, variant, rank, ranks


def start(
    name: str, job: Job, study: Study, params: str | Path, profile: str | None, variant: str = "", ranks: int = 0
) -> None:
    """Run `python -m deepmask job NAME`, which is `job`, on `ranks` processes.

    0 means one per GPU, or per core that this process may use; a single rank runs in this process.
    Two of the same job in one study take turns.  Raises ConfigError, LaunchError, or what `run` does.
    """
    config = configs.load(params, profile)
    ranks = ranks or config.ranks or distributed.available_ranks()
    if ranks == 1:
        run(name, job, study, config, variant)
        return
    arguments = ["job", name, "--study", str(study.root), "--params", str(params)]
    arguments += ["--profile", profile] if profile else []
    distributed.launch([*arguments, "--variant", variant] if variant else arguments, ranks)


def run(name: str, job: Job, study: Study, config: Config, variant: str = "") -> None:
    """Run one rank of a job, the only one or one that torchrun has started, when no other process runs that job here.

    Raises what the job raises, and MachineError for what the machine refuses.
    """
    full_name = f"{name}-{variant}" if variant else name
    with failures.told(), distributed.process_group() as (rank, ranks), contextlib.ExitStack() as stack:
        if rank == 0:
            stack.enter_context(processes.turn(study.lock(full_name), f"runs {full_name} here"))
        distributed.barrier()
        job(study, config, variant, rank, ranks)
