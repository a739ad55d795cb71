"""Stage: one trained variant (paper: sections 3.2 and 3.4)."""

from __future__ import annotations

from pathlib import Path

import torch

from deepmask import config as configs
from deepmask import device as devices
from deepmask import distributed, files
from deepmask.config import Config
from deepmask.data import splits
from deepmask.data.pixels import PixelStore
from deepmask.loading import cuts_on_device
from deepmask.model import DeepMask
from deepmask.paths import Study
from deepmask.sampling import PatchSampler
from deepmask.stages import launch
from deepmask.systems import trains_on_seen_only, variant_config
from deepmask.training import train
from deepmask.validation import HeldOut
from deepmask.weights import load_into, save_model


def run(study: Study, params: str | Path, profile: str | None, variant: str, ranks: int = 0) -> None:
    """Start `job` on every core or GPU; see `launch.start`."""
    launch.start("train", job, study, params, profile, variant, ranks=ranks)


def job(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Train one variant from the pre-trained trunk; write its weights and history."""
    config = variant_config(config, variant)
    dataset, tune = (splits.load(config.data, study, split) for split in ("train", "tune"))
    groups = splits.categories(config.data, dataset)
    if trains_on_seen_only(variant):
        dataset = dataset.with_categories(groups["seen"])
    torch.manual_seed(config.train.seed)
    model = DeepMask(config.geometry, config.model)
    load_into(model.trunk, study.trunk)
    model.to(devices.device())
    sampler = PatchSampler(dataset, config.geometry, config.sampling, config.train.seed)
    held_out = None
    if rank == 0:
        held_out = HeldOut(tune, groups, config.geometry, config.sampling, config.train.eval_patches)
    checkpoint = study.checkpoint(variant)
    store = None
    if cuts_on_device(config.train.cut, devices.device()):
        store = distributed.first_then_others(lambda: PixelStore.open(dataset, study.pixels))
    history = train(
        model,
        sampler,
        config.train,
        checkpoint=checkpoint,
        held_out=held_out,
        store=store,
        key=files.digest(config.data, config.geometry, config.model, config.sampling, study.trunk),
        rank=rank,
        ranks=ranks,
    )
    if rank == 0:
        record = {"variant": variant, "train": configs.to_dict(config.train), "images": len(dataset)}
        save_model(study.weights(variant), model, record)
        files.write_csv(study.result("training", f"{variant}.csv"), history)
        checkpoint.unlink(missing_ok=True)
