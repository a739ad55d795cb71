"""Stage: Fast R-CNN on the proposals of one method, with 10 to 2000 of them (paper: section 4, Detection; Figure 5)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from deepmask import config as configs
from deepmask import device as devices
from deepmask import distributed, files, imagenet, results_file
from deepmask.config import Config
from deepmask.data.coco import InstanceDataset
from deepmask.detection.inference import detect
from deepmask.detection.model import FastRCNN
from deepmask.detection.training import train
from deepmask.detection.voc_map import Detections, average_precisions, mean_ap
from deepmask.model import Trunk
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.stages import detection_proposals as proposing
from deepmask.stages import launch, sharing
from deepmask.weights import load_into, save_tensors


def run(study: Study, params: str | Path, profile: str | None, source: str, ranks: int = 0) -> None:
    """Propose on every core or GPU, then start `job` on as many of them as a batch has images; see `launch.start`."""
    config = configs.load(params, profile)
    proposing.run(study, params, profile, source, ranks=ranks)
    ranks = min(ranks or config.ranks or distributed.available_ranks(), config.detection.images)
    launch.start("detection", job, study, params, profile, source, ranks=ranks)
    shutil.rmtree(proposing.scratch(study, source), ignore_errors=True)


def job(study: Study, config: Config, source: str, rank: int, ranks: int) -> None:
    """Train the detector on the proposals that are there, and write its mAP and AP for every number of them."""
    proposing.check_source(source)
    settings, name = config.detection, f"fastrcnn-{source}"
    dataset, test = (proposing.images(study, config, part) for part in proposing.PARTS)
    made = {part: proposing.path(study, source, part) for part in proposing.PARTS}
    categories = sorted(dataset.categories)
    model = _network(study, config, len(categories)).to(devices.device())
    checkpoint = study.checkpoint(name)
    key, proposals = files.digest(config.pascal, config.model, made["train"]), _read(made["train"], dataset)
    history = train(model, dataset, proposals, checkpoint=checkpoint, key=key, rank=rank, ranks=ranks)
    if rank == 0:
        record = {"proposals": source, "detection": configs.to_dict(settings), "categories": categories}
        save_tensors(study.weights(name), model.state_dict(), record | {"images": len(dataset)})
        files.write_csv(study.result("training", f"{name}.csv"), history)
    distributed.barrier()
    proposals = _read(made["test"], test)
    scratch = sharing.claim(study.scratch(name), rank, config.pascal, settings, study.weights(name), made["test"])
    model.eval()

    def work(i: int) -> float:
        image, start = test.image(i), time.perf_counter()
        detected = detect(model, categories, image, proposals[int(test.image_ids[i])], settings.counts)
        seconds = time.perf_counter() - start
        id = int(test.image_ids[i])
        rows = [
            np.column_stack([np.full(len(d), id), np.full(len(d), n), d.categories, d.scores, d.boxes])
            for n, d in detected.items()
        ]
        files.write_array(scratch / f"{id}.npz", np.concatenate(rows))
        return seconds

    sharing.each(test, work, scratch, rank, ranks, "detect")
    if rank == 0:
        tables = [files.read_array(scratch / f"{id}.npz") for id in test.image_ids.tolist()]
        files.write_array(study.detections(source), np.concatenate(tables))
        _evaluate(study, source, test, settings.counts)
        checkpoint.unlink(missing_ok=True)
    sharing.release(scratch, rank)


def _network(study: Study, config: Config, classes: int) -> FastRCNN:
    torch.manual_seed(config.detection.seed)
    if config.detection.trunk == "vgg16":
        return FastRCNN.on_vgg16(imagenet.load("vgg16"), classes, config.detection)
    trunk = Trunk(config.model.width, config.geometry.pools)
    load_into(trunk, study.trunk)
    return FastRCNN.on_trunk(trunk, config.geometry.stride, classes, config.detection)


def _read(path: Path, dataset: InstanceDataset) -> dict[int, Proposals]:
    """The proposals of every image, also of those that have none."""
    ids = dataset.image_ids.tolist()
    return {id: Proposals(id, [], []) for id in ids} | results_file.read(path, ids)


def read_detections(study: Study, source: str, count: int) -> dict[int, Detections]:
    """The detections with the best `count` proposals, by image id."""
    table = files.read_array(study.detections(source))
    table = table[table[:, 1] == count]
    rows = {int(id): table[table[:, 0] == id] for id in np.unique(table[:, 0])}
    return {id: Detections(of_image[:, 4:], of_image[:, 3], of_image[:, 2]) for id, of_image in rows.items()}


def _evaluate(study: Study, source: str, test: InstanceDataset, counts: Sequence[int]) -> None:
    """Write mAP by number of proposals, and the AP of each category."""
    means, classes = [], []
    for count in counts:
        precisions = average_precisions(test, read_detections(study, source, count))
        means.append({"proposals": source, "count": count, "mAP": mean_ap(precisions)})
        precisions.insert(0, "proposals", source)
        precisions.insert(1, "count", count)
        classes.append(precisions)
    files.write_csv(study.result("detection", f"{source}.csv"), pd.DataFrame(means))
    files.write_csv(study.result("detection", f"{source}-classes.csv"), pd.concat(classes))
