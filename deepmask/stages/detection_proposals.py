"""Stage: the proposals that the detector trains on and is tested on (paper: section 4, Detection)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2

from deepmask import methods
from deepmask.config import Config
from deepmask.data import pascal
from deepmask.data.coco import InstanceDataset
from deepmask.detection_config import SOURCES, DetectionError
from deepmask.paths import Study
from deepmask.proposals import ProposalMethod, Proposals
from deepmask.stages import launch, sharing

PARTS = ("train", "test")


def run(study: Study, params: str | Path, profile: str | None, source: str, ranks: int = 0) -> None:
    """Start `job` on every core or GPU; see `launch.start`."""
    launch.start("detection_proposals", job, study, params, profile, source, ranks=ranks)


def job(study: Study, config: Config, source: str, rank: int, ranks: int) -> None:
    """Write the boxes that a method of SOURCES proposes on the detector's training and test images.

    What is finished of an image stays in the scratch folder, so that a repeated job has little to do, until the
    detector is trained (`scratch`).
    """
    check_source(source)
    cv2.setNumThreads(1)  # the ranks share the cores
    made_from = [config.baselines.selectivesearch]
    if source == "deepmask":
        tuned = study.result("tuning", "deepmask.csv")
        made_from = [config.propose, study.weights("deepmask"), *([tuned] if tuned.is_file() else [])]
    folder = sharing.claim(scratch(study, source), rank, config.pascal, config.detection, *made_from)
    for part, count in zip(PARTS, (config.detection.proposals, max(config.detection.counts)), strict=True):
        dataset = images(study, config, part)
        propose = _boxes(dataset, methods.load(source, study, config, count, config.pascal.threshold), source)
        sharing.propose_all(dataset, {source: path(study, source, part)}, propose, folder / part, rank, ranks)


def _boxes(
    dataset: InstanceDataset, method: ProposalMethod, source: str
) -> Callable[[int], tuple[dict[str, Proposals], float]]:
    """What `sharing.propose_all` calls, without the masks, which the detector does not look at."""

    def propose(i: int) -> tuple[dict[str, Proposals], float]:
        image, start = dataset.image(i), time.perf_counter()
        made = method(image)
        return {source: Proposals(0, made.scores, made.boxes)}, time.perf_counter() - start

    return propose


def images(study: Study, config: Config, part: str) -> InstanceDataset:
    """The PASCAL images of "train" or "test"."""
    return pascal.load(config.pascal, study, {"train": "trainval", "test": "test"}[part])


def path(study: Study, source: str, part: str) -> Path:
    """Where the proposals of a method on the images of "train" or "test" are, as COCO results."""
    return study.proposals("detection", f"{source}-{part}")


def scratch(study: Study, source: str) -> Path:
    """What the job has finished so far."""
    return study.scratch(f"detection-proposals-{source}")


def check_source(source: str) -> None:
    """Raises DetectionError unless `source` is one of SOURCES."""
    if source not in SOURCES:
        raise DetectionError(f"source of proposals: expected one of {', '.join(SOURCES)}, got {source!r}")
