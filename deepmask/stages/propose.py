"""Stage: the proposals of the systems that use one network's masks (paper: sections 3.3 and 4)."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deepmask import device as devices
from deepmask import distributed, files, proposals
from deepmask.config import Config
from deepmask.data import splits
from deepmask.data.coco import InstanceDataset
from deepmask.evaluation import evaluate
from deepmask.inference import DensePass, Paster, best_cells
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.stages import launch
from deepmask.systems import SYSTEMS
from deepmask.weights import load_model


def run(study: Study, params: str | Path, profile: str | None, variant: str, ranks: int = 0) -> None:
    """Start `job` on every core or GPU; see `launch.start`."""
    launch.start("propose", job, study, params, profile, variant, ranks=ranks)


def job(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Choose the mask threshold of a variant on the tuning images, then write the proposals of its systems."""
    systems = {key: system for key, system in SYSTEMS.items() if system.masks == variant}
    names = {name for system in systems.values() for name in (system.masks, system.scores)}
    networks = {name: load_model(study.weights(name), devices.device()) for name in sorted(names)}
    settings = config.propose
    octaves = settings.scales + ((settings.zoom,) if any(s.zoom for s in systems.values()) else ())

    def at_thresholds(image: np.ndarray) -> dict[str, Proposals]:
        dense = DensePass(networks[variant], image, settings.scales)
        paster = Paster(dense, best_cells(dense.scores(), settings.tuning_count))
        return {f"{variant}-{t}": paster.proposals(t) for t in settings.thresholds}

    def at(threshold: float) -> Callable[[np.ndarray], dict[str, Proposals]]:
        def propose(image: np.ndarray) -> dict[str, Proposals]:
            passes = {name: DensePass(network, image, octaves) for name, network in networks.items()}
            scores = {name: passes[name].scores() for name in sorted({s.scores for s in systems.values()})}
            made = {}
            for key, system in systems.items():
                used = len(settings.scales) + system.zoom
                cells = best_cells(scores[system.scores][:used], settings.count)
                made[key] = Paster(passes[system.masks], cells).proposals(threshold)
            return made

        return propose

    folder = study.proposals(variant, variant).parent
    tune = splits.load(config.data, study, "tune")
    names = [f"{variant}-{t}" for t in settings.thresholds]
    propose_all(tune, folder / "tuning", names, at_thresholds, rank, ranks)
    aucs = [evaluate(tune, proposals.read(folder / "tuning" / f"{name}.json")).auc() for name in names]
    threshold = settings.thresholds[int(np.argmax(aucs))]
    report = splits.load(config.data, study, "report")
    propose_all(report, folder, list(systems), at(threshold), rank, ranks)
    if rank == 0:
        shutil.rmtree(folder / "tuning")
        table = pd.DataFrame({"threshold": settings.thresholds, "mask_auc": aucs})
        table["chosen"] = table.threshold == threshold
        files.write_csv(study.result("tuning", f"{variant}.csv"), table)


def propose_all(
    dataset: InstanceDataset,
    folder: Path,
    names: Sequence[str],
    propose: Callable[[np.ndarray], dict[str, Proposals]],
    rank: int,
    ranks: int,
) -> None:
    """Write folder/NAME.json for each name, all ranks sharing the images of `dataset`.

    `propose`: image -> proposals by name.  The bytes do not depend on the number of ranks.
    """
    bounds = np.linspace(0, len(dataset), ranks + 1).astype(int)  # neighbours stay together, so parts only join
    parts = folder / "parts"
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(proposals.Writer(parts / f"{name}.{rank}.json")) for name in names}
        shard = range(bounds[rank], bounds[rank + 1])
        for i in distributed.progress(shard, rank, desc=f"propose {names[0]}", unit="image"):
            made = propose(dataset.image(i))
            for name in names:
                writers[name].add(made[name].of(dataset.image_ids[i]))
    distributed.barrier()
    if rank == 0:
        for name in names:
            files = [parts / f"{name}.{r}.json" for r in range(ranks)]
            proposals.join(files, folder / f"{name}.json")
        shutil.rmtree(parts)
    distributed.barrier()
