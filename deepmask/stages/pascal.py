"""Stage: the proposals of DeepMask and of the classical methods on PASCAL (paper: section 4, Table 2)."""

from __future__ import annotations

import time
from pathlib import Path

import cv2

from deepmask import methods
from deepmask.baselines import methods as classical
from deepmask.baselines.edges import EdgeDetector
from deepmask.config import Config
from deepmask.data import pascal
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.stages import launch, sharing
from deepmask.systems import CLASSICAL

METHODS = (*CLASSICAL, "deepmask")  # the rows of Table 2


def run(study: Study, params: str | Path, profile: str | None, ranks: int = 0) -> None:
    """Start `job` on every core or GPU; see `launch.start`."""
    launch.start("pascal", job, study, params, profile, ranks=ranks)


def job(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Write the proposals of METHODS on the test images, image by image, so that their edges are detected once."""
    cv2.setNumThreads(1)  # the ranks share the cores
    test, count = pascal.load(config.pascal, study, "test"), config.propose.count
    reads = [study.forest, study.ranking, study.weights("deepmask")]
    settings = (config.pascal, config.propose, config.edges, config.baselines)
    scratch = sharing.claim(study.scratch("pascal"), rank, *settings, *reads)
    detector = EdgeDetector(study.forest, config.edges.scales)
    others = {key: classical.load(key, config.baselines, study.ranking, count) for key in CLASSICAL}
    network = methods.load("deepmask", study, config, count, threshold=config.pascal.threshold)

    def propose(i: int) -> tuple[dict[str, Proposals], float]:
        image, start = test.image(i), time.perf_counter()
        maps = detector(image)
        made = {key: method(image, maps) for key, method in others.items()}
        made["deepmask"] = network(image)
        return made, time.perf_counter() - start

    outputs = {key: study.proposals("pascal", key) for key in METHODS}
    sharing.propose_all(test, outputs, propose, scratch, rank, ranks)
    sharing.release(scratch, rank)
