"""The second data set of section 4: PASCAL VOC 2007, or the drawn scenes that play its part.

Networks are tested on its test images as they are; only the detector of Figure 5 trains on its trainval images.
"""

from __future__ import annotations

from pathlib import Path

from deepmask.config import DataConfig, PascalConfig
from deepmask.data import sources, voc
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.data.pascal_scenes import write_pascal_scenes
from deepmask.paths import Study

SPLITS = ("trainval", "test")


def make(config: PascalConfig, data: DataConfig, study: Study) -> None:
    """Write the annotations of both splits, and the images if they are drawn, below `study.pascal`.

    Scenes have the size of the study's own.  Raises DataError if the folder is no VOCdevkit.
    """
    if sources.is_drawn(config):
        counts = {"trainval": config.train_images, "test": config.images}
        write_pascal_scenes(study.pascal, **counts, width=data.width, height=data.height, seed=config.seed)
        return
    for split in SPLITS:
        voc.write_coco(_devkit(config), _annotations(study, split), split)


def load(config: PascalConfig, study: Study, split: str) -> InstanceDataset:
    """The images and instances of one of SPLITS; difficult objects are crowds.  Raises DataError."""
    images = study.pascal / "images" if sources.is_drawn(config) else voc.image_folder(_devkit(config))
    return InstanceDataset.read(_annotations(study, split), images)


def _devkit(config: PascalConfig) -> Path:
    """The VOCdevkit that `root` names, else the downloaded one."""
    if config.root is not None:
        return Path(config.root).expanduser()
    folder = sources.voc_folder(config)
    if not folder.is_dir():
        remedy = "run `python -m deepmask download` with this study's profile, or set pascal.root to a VOCdevkit"
        raise DataError(f"{folder}: no such folder; {remedy}")
    return folder


def _annotations(study: Study, split: str) -> Path:
    return study.pascal / "annotations" / f"instances_{split}.json"
