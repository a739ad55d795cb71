"""What the paper's experiment takes from elsewhere: files, sizes, checksums, terms, and where their content goes.

COCO 2014 (section 4), PASCAL VOC 2007 (Table 2 and Figure 5), and torchvision's ImageNet weights of VGG-A, which the
paper's trunk starts from (section 3.1), and of VGG-16, which Fast R-CNN starts from.  Sizes and checksums of COCO and
VOC are those in TensorFlow Datasets' `url_checksums`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepmask import paths
from deepmask.config import ConfigError, DataConfig, PascalConfig, PretrainConfig
from deepmask.detection_config import DetectionConfig

COCO, VOC = "http://images.cocodataset.org", "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007"
TORCH = "https://download.pytorch.org/models"
PHOTOGRAPHS = "Flickr's terms of use; every photograph has its own licence"
WEIGHTS = "BSD 3-Clause (torchvision); trained on ImageNet, which is for research"


@dataclass(frozen=True)
class Source:
    """One file; `url` ends in its name."""

    url: str
    bytes: int  # of the file; an estimate unless `exact`
    sha256: str  # 64 digits, or the first of them
    holds: str
    terms: str
    folder: str | None = None  # below the folder of downloads, that the archive is extracted into; None: no archive
    unpacked: int = 0  # bytes of an archive's content at most: nothing larger is extracted
    exact: bool = True
    root: str | None = None  # the parameter that takes a folder of your own instead; None: there is none

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.url.rpartition("/")[2]

    def matches(self, sha256: str) -> bool:
        """Whether that is the checksum of this file."""
        return sha256.startswith(self.sha256)


# By the name that `params.yaml` uses.  JPEGs do not shrink in an archive, and a tar file compresses nothing.
SOURCES = {
    "coco2014": (
        Source(
            f"{COCO}/annotations/annotations_trainval2014.zip",
            252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            "COCO 2014: masks of both splits",
            "CC BY 4.0",
            "coco2014",
            2_000_000_000,
            root="data.root",
        ),
        Source(
            f"{COCO}/zips/train2014.zip",
            13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            "COCO 2014: about 80,000 photographs to train on",
            PHOTOGRAPHS,
            "coco2014",
            15_000_000_000,
            root="data.root",
        ),
        Source(
            f"{COCO}/zips/val2014.zip",
            6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            "COCO 2014: about 40,000 photographs to validate on",
            PHOTOGRAPHS,
            "coco2014",
            7_500_000_000,
            root="data.root",
        ),
    ),
    "voc2007": (
        Source(
            f"{VOC}/VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
            "PASCAL VOC 2007: 5,011 photographs that the detector trains on, and their objects",
            PHOTOGRAPHS,
            ".",
            460_032_000,
            root="pascal.root",
        ),
        Source(
            f"{VOC}/VOCtest_06-Nov-2007.tar",
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
            "PASCAL VOC 2007: 4,952 photographs to test on, and their objects",
            PHOTOGRAPHS,
            ".",
            451_020_800,
            root="pascal.root",
        ),
    ),
    # the digits in these names begin the checksum, and their sizes are about right
    "vgg11": (
        Source(f"{TORCH}/vgg11-8a719046.pth", 532_000_000, "8a719046", "VGG-A on ImageNet", WEIGHTS, exact=False),
    ),
    "vgg16": (
        Source(f"{TORCH}/vgg16-397923af.pth", 554_000_000, "397923af", "VGG-16 on ImageNet", WEIGHTS, exact=False),
    ),
}
FOLDERS = {"coco2014": "coco2014", "voc2007": "VOCdevkit"}  # below the folder of downloads, what a data set ends up as


def is_drawn(config: DataConfig | PascalConfig) -> bool:
    """Whether scenes are drawn, as neither a folder nor a download is named."""
    return config.root is None and config.download is None


def needed(
    data: DataConfig, pascal: PascalConfig, pretrain: PretrainConfig, detection: DetectionConfig
) -> tuple[Source, ...]:
    """The files that a study with these sections needs; a folder that `root` names takes the place of a data set.

    Raises ConfigError for a name that is not known.
    """
    names = []
    if data.root is None and data.download is not None:
        names.append(_known("data.download", data.download, "coco2014"))
    if pascal.root is None and pascal.download is not None:
        names.append(_known("pascal.download", pascal.download, "voc2007"))
    if pretrain.weights is not None:
        _known("pretrain.weights", pretrain.weights, "imagenet")
        names.append("vgg11")
    if detection.trunk == "vgg16":
        names.append("vgg16")
    return tuple(source for name in names for source in SOURCES[name])


def coco_folder(config: DataConfig) -> Path:
    """Where the data set `data.download` is or will be, in COCO's format.  Raises ConfigError if it is not known."""
    return paths.downloads() / FOLDERS[_known("data.download", config.download, "coco2014")]


def voc_folder(config: PascalConfig) -> Path:
    """Where the VOCdevkit of `pascal.download` is or will be.  Raises ConfigError if it is not known."""
    return paths.downloads() / FOLDERS[_known("pascal.download", config.download, "voc2007")]


def weights_file(name: str) -> Path:
    """Where the ImageNet weights of "vgg11" or "vgg16" are or will be."""
    (source,) = SOURCES[name]
    return paths.downloads() / source.name


def _known(key: str, value: str | None, name: str) -> str:
    if value != name:
        raise ConfigError(f"{key}: nothing is known as {value!r}; expected {name}, or null")
    return name
