"""The long computations of a study, each on any number of processes: pre-training, training, proposing.

`run(NAME, ...)` is what the notebooks call.  It starts `python -m deepmask NAME` under torchrun with one rank per
core or GPU, or calls the function of that name directly where one rank is enough.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from deepmask import config as configs
from deepmask import device as devices
from deepmask import distributed, proposals
from deepmask.config import Config
from deepmask.data import splits
from deepmask.data.coco import InstanceDataset
from deepmask.evaluation import evaluate
from deepmask.inference import DensePass, Paster, best_cells
from deepmask.model import DeepMask
from deepmask.paths import Study
from deepmask.pretraining import pretrain
from deepmask.proposals import Proposals
from deepmask.sampling import PatchSampler
from deepmask.systems import SYSTEMS, trains_on_seen_only, variant_config
from deepmask.training import train
from deepmask.validation import HeldOut
from deepmask.weights import load_model, load_tensors, save_model, save_tensors


def run(job: str, study: Study, params: str | Path, profile: str | None, variant: str = "", ranks: int = 0) -> None:
    """Run a job of JOBS on `ranks` processes; 0 means one per GPU, or per core this process may use."""
    ranks = ranks or distributed.available_ranks()
    if ranks == 1:
        JOBS[job](study, configs.load(params, profile), variant, 0, 1)
        return
    arguments = [job, "--study", str(study.root), "--params", str(params)]
    arguments += ["--profile", profile] if profile else []
    distributed.launch([*arguments, "--variant", variant] if variant else arguments, ranks)


def pretrain_trunk(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Write the trunk that all variants start from, and its history."""
    trunk, history = pretrain(config.geometry, config.model, config.pretrain, rank, ranks)
    if rank == 0:
        save_tensors(study.trunk, trunk.state_dict(), {"pretrain": configs.to_dict(config.pretrain)})
        write_csv(study.result("training", "pretrain.csv"), history)


def train_variant(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Train one variant from the pre-trained trunk; write its weights and history."""
    config = variant_config(config, variant)
    dataset, tune = (splits.load(config.data, study, split) for split in ("train", "tune"))
    groups = splits.categories(config.data, dataset)
    if trains_on_seen_only(variant):
        dataset = dataset.with_categories(groups["seen"])
    torch.manual_seed(config.train.seed)
    model = DeepMask(config.geometry, config.model)
    model.trunk.load_state_dict(load_tensors(study.trunk)[0])
    model.to(devices.device())
    sampler = PatchSampler(dataset, config.geometry, config.sampling, config.train.seed)
    held_out = None
    if rank == 0:
        held_out = HeldOut(tune, groups, config.geometry, config.sampling, config.train.eval_patches)
    checkpoint = study.checkpoint(variant)
    history = train(
        model, sampler, config.train, checkpoint=checkpoint, held_out=held_out, rank=rank, ranks=ranks
    )
    if rank == 0:
        record = {"variant": variant, "train": configs.to_dict(config.train), "images": len(dataset)}
        save_model(study.weights(variant), model, record)
        write_csv(study.result("training", f"{variant}.csv"), history)
        checkpoint.unlink(missing_ok=True)


def propose_variant(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
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
        write_csv(study.result("tuning", f"{variant}.csv"), table)


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
        for i in tqdm(shard, disable=True if rank else None, desc=f"propose {names[0]}", unit="image"):
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


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a small result with fixed digits, so that equal numbers are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    os.replace(temporary, path)


JOBS = {"pretrain": pretrain_trunk, "train": train_variant, "propose": propose_variant}
