"""Stage: the proposals of one classical method (paper: section 4)."""

from __future__ import annotations

import time
from pathlib import Path

import cv2

from deepmask import files
from deepmask.baselines import methods
from deepmask.config import Config
from deepmask.data import splits
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.stages import launch, sharing
from deepmask.systems import CLASSICAL, check_classical


def run(study: Study, params: str | Path, profile: str | None, method: str, ranks: int = 0) -> None:
    """Start `job` on every core; see `launch.start`."""
    launch.start("baseline", job, study, params, profile, method, ranks=ranks)


def job(study: Study, config: Config, method: str, rank: int, ranks: int) -> None:
    """Write the proposals of a method of CLASSICAL on the reported images, from the edge maps that are there."""
    check_classical(method)
    cv2.setNumThreads(1)  # the ranks share the cores
    report = splits.load(config.data, study, "report")
    made_from = [study.forest] * CLASSICAL[method].edges + [study.ranking] * (method == "mcg")
    settings = getattr(config.baselines, method)
    scratch = sharing.claim(study.scratch(f"baseline-{method}"), rank, config.data, settings, *made_from)
    propose_one = methods.load(method, config.baselines, study.ranking, config.propose.count)

    def propose(i: int) -> tuple[dict[str, Proposals], float]:
        image = report.image(i)
        maps = files.read_array(study.edges(report.image_ids[i])) if CLASSICAL[method].edges else None
        start = time.perf_counter()
        made = propose_one(image, maps)
        return {method: made}, time.perf_counter() - start

    outputs = {method: study.proposals(method, method)}
    seconds = sharing.propose_all(report, outputs, propose, scratch, rank, ranks)
    if rank == 0:
        files.write_csv(study.result("speed", f"{method}.csv"), sharing.speed(method, report, seconds))
    sharing.release(scratch, rank)
