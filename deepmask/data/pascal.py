"""The second data set of section 4: PASCAL VOC 2007, or the drawn scenes that play its part.

Networks are tested on its test images as they are; only the detector of Figure 5 trains on its trainval images.
"""

from __future__ import annotations

from pathlib import Path

from deepmask.config import DataConfig, PascalConfig
from deepmask.data import voc
from deepmask.data.coco import InstanceDataset
from deepmask.data.pascal_scenes import write_pascal_scenes
from deepmask.paths import Study

SPLITS = ("trainval", "test")


def make(config: PascalConfig, data: DataConfig, study: Study) -> None:
    """Write the annotations of both splits, and the images if they are drawn, below `study.pascal`.

    Scenes have the size of the study's own.  Raises DataError if `config.root` is no VOCdevkit.
    """
    if config.root is None:
        counts = {"trainval": config.train_images, "test": config.images}
        write_pascal_scenes(study.pascal, **counts, width=data.width, height=data.height, seed=config.seed)
        return
    for split in SPLITS:
        voc.write_coco(config.root, _annotations(study, split), split)


def load(config: PascalConfig, study: Study, split: str) -> InstanceDataset:
    """The images and instances of one of SPLITS; difficult objects are crowds.  Raises DataError."""
    images = voc.image_folder(config.root) if config.root else study.pascal / "images"
    return InstanceDataset.read(_annotations(study, split), images)


def _annotations(study: Study, split: str) -> Path:
    return study.pascal / "annotations" / f"instances_{split}.json"
