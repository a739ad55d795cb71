"""Which images are trained on, tuned on and reported on (paper: section 4 and 3.4, "non-overlapping").

Reported are the first `reported_images` of the validation file by ascending image id; tuning uses the last
`tuning_images` of it.  The two never overlap: a small validation set gives at most a quarter of itself to tuning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepmask.config import DataConfig
from deepmask.data import sources
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.paths import Study

SPLITS = ("train", "tune", "report")


def folder(config: DataConfig, study: Study) -> Path:
    """The COCO-format folder of a study: `data.root`, else what `data.download` names, else the drawn scenes.

    Raises ConfigError if that name is not known.
    """
    if config.root is not None:
        return Path(config.root).expanduser()
    return study.scenes if sources.is_drawn(config) else sources.coco_folder(config)


def load(config: DataConfig, study: Study, split: str) -> InstanceDataset:
    """The images and instances of one of SPLITS, or of "val": tune, report and what is neither.  Raises DataError.

    With `tuning_images` 0 there is no split to tune on, and all of val may be reported on.
    """
    root = folder(config, study)
    if not root.is_dir():
        remedy = "set data.root to a COCO-format folder, or draw scenes first"
        if config.root is None and not sources.is_drawn(config):
            remedy = "run `python -m deepmask download` with this study's profile, or set data.root to your own folder"
        raise DataError(f"{root}: no such folder; {remedy}")
    if split == "train":
        return InstanceDataset.read(root / config.train, root / config.train_folder)
    val = InstanceDataset.read(root / config.val, root / config.val_folder)
    if split == "val":
        return val
    tuning = min(config.tuning_images, len(val) // 4)
    if not tuning and (config.tuning_images or split == "tune"):
        raise DataError(
            f"{root / config.val}: has {len(val)} images; tuning needs at least 4, and data.tuning_images above 0"
        )
    if split == "tune":
        return val.images_subset(np.arange(len(val) - tuning, len(val)))
    return val.images_subset(np.arange(min(config.reported_images, len(val) - tuning)))


def categories(config: DataConfig, dataset: InstanceDataset) -> dict[str, frozenset[int]]:
    """Category ids by group: "seen" (DeepMask20's), "unseen" (the others), "novel" (of families never seen)."""
    return dataset.category_groups(dataset.seen_categories(config.seen))
