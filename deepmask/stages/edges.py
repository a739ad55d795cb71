"""Stage: the edge detector of the classical methods, and the edge maps of the reported images (paper: section 4).

Four of the five methods start from the same edges, so these are detected once.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import cv2

from deepmask import distributed, files
from deepmask.baselines import edges, forest
from deepmask.config import Config
from deepmask.data import sources, splits
from deepmask.paths import Study
from deepmask.stages import launch, sharing


def run(study: Study, params: str | Path, profile: str | None, ranks: int = 0) -> None:
    """Start `job` on every core; see `launch.start`."""
    launch.start("edges", job, study, params, profile, ranks=ranks)


def job(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Train or copy the structured forest, then write the edge maps of every reported image."""
    cv2.setNumThreads(1)  # the ranks share the cores
    settings, report = config.edges, splits.load(config.data, study, "report")
    scratch = sharing.claim(study.scratch("edges"), rank, config.data, settings)
    if rank == 0 and not (scratch / study.forest.name).is_file():
        _make_forest(study, config, scratch / study.forest.name, ranks)
    distributed.barrier()
    detector = edges.EdgeDetector(scratch / study.forest.name, settings.scales)

    def work(i: int) -> float:
        image, start = report.image(i), time.perf_counter()
        maps = detector(image)
        seconds = time.perf_counter() - start
        files.write_array(scratch / study.edges(report.image_ids[i]).name, maps)
        return seconds

    seconds = sharing.each(report, work, scratch, rank, ranks, "edges")
    if rank == 0:
        for path in [study.forest, *map(study.edges, report.image_ids.tolist())]:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(scratch / path.name, path)
        files.write_csv(study.result("speed", "edges.csv"), sharing.speed("edges", report, seconds))
        files.write_json(study.result("edges.json"), {"trained_on": trained_on(config), "scales": settings.scales})
    sharing.release(scratch, rank)


def trained_on(config: Config) -> str:
    """What the rows of the tables say about the edges."""
    if config.edges.model:
        return Path(config.edges.model).name
    if config.edges.bsds500:
        return "BSDS500"
    return "scenes" if sources.is_drawn(config.data) else "training masks"


def _make_forest(study: Study, config: Config, path: Path, workers: int) -> None:
    settings = config.edges
    if settings.model:
        edges.EdgeDetector(settings.model, settings.scales)  # raises BaselineError if it is none
        shutil.copyfile(settings.model, path)
        return
    if settings.bsds500:
        samples = forest.bsds_samples(settings.bsds500)
    else:
        samples = forest.mask_samples(
            splits.load(config.data, study, "train"), settings.forest.images, settings.forest.seed
        )
    forest.train(samples, path, settings.forest, workers)
