"""Stage: the proposals of the systems that use one network's masks (paper: sections 3.3 and 4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from deepmask import device as devices
from deepmask import distributed, files, results_file
from deepmask.config import Config
from deepmask.data import splits
from deepmask.evaluation import evaluate
from deepmask.inference import DensePass, Paster, best_cells
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.stages import launch, sharing
from deepmask.systems import systems_of
from deepmask.weights import load_model


def run(study: Study, params: str | Path, profile: str | None, variant: str, ranks: int = 0) -> None:
    """Start `job` on every core or GPU; see `launch.start`."""
    launch.start("propose", job, study, params, profile, variant, ranks=ranks)


def job(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Choose the mask threshold of a variant on the tuning images, then write the proposals of its systems."""
    systems = systems_of(variant)
    names = {name for system in systems.values() for name in (system.masks, system.scores)}
    networks = {name: load_model(study.weights(name), devices.device()) for name in sorted(names)}
    settings = config.propose
    octaves = settings.scales + ((settings.zoom,) if any(s.zoom for s in systems.values()) else ())

    def at_thresholds(i: int) -> tuple[dict[str, Proposals], float]:
        start = time.perf_counter()
        dense = DensePass(networks[variant], tune.image(i), settings.scales, longest=settings.longest)
        paster = Paster(dense, best_cells(dense.scores(), settings.tuning_count))
        made = {str(t): paster.proposals(t) for t in settings.thresholds}
        return made, time.perf_counter() - start

    def at(threshold: float) -> Callable[[int], tuple[dict[str, Proposals], float]]:
        def propose(i: int) -> tuple[dict[str, Proposals], float]:
            image, start = report.image(i), time.perf_counter()
            passes = {
                name: DensePass(network, image, octaves, longest=settings.longest) for name, network in networks.items()
            }
            scores = {name: passes[name].scores() for name in sorted({s.scores for s in systems.values()})}
            made = {}
            for key, system in systems.items():
                used = len(settings.scales) + system.zoom
                cells = best_cells(scores[system.scores][:used], settings.count)
                made[key] = Paster(passes[system.masks], cells).proposals(threshold)
            return made, time.perf_counter() - start

        return propose

    tune, report = (splits.load(config.data, study, split) for split in ("tune", "report"))
    weights = [study.weights(name) for name in networks]
    scratch = sharing.claim(study.scratch(f"propose-{variant}"), rank, config.data, settings, *weights)
    tuning = {str(t): scratch / "tuning" / f"{t}.json" for t in settings.thresholds}
    sharing.propose_all(tune, tuning, at_thresholds, scratch / "tuning", rank, ranks)
    distributed.barrier()
    aucs = [evaluate(tune, results_file.read(path)).auc() for path in tuning.values()]
    threshold = settings.thresholds[int(np.argmax(aucs))]
    outputs = {key: study.proposals(variant, key) for key in systems}
    sharing.propose_all(report, outputs, at(threshold), scratch, rank, ranks)
    if rank == 0:
        table = pd.DataFrame({"threshold": settings.thresholds, "mask_auc": aucs})
        table["chosen"] = table.threshold == threshold
        files.write_csv(study.result("tuning", f"{variant}.csv"), table)
    sharing.release(scratch, rank)
