"""Every number of the study, with its reason and the paper's value.

The numbers live in `params.yaml`: its top level is the default profile (`mini`), and `profiles.NAME` lists only
what profile NAME changes.  Each section of the file is one frozen dataclass below; an unknown key or a value of the
wrong type ends in a `ConfigError` that names it.  Values "paper:" are from sections 3 and 4 of the paper.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from deepmask.baseline_config import BaselinesConfig, EdgesConfig
from deepmask.detection_config import DetectionConfig
from deepmask.geometry import Geometry
from deepmask.training_config import ModelConfig, PretrainConfig, SamplingConfig, TrainConfig, UpsamplingConfig

T = TypeVar("T")


class ConfigError(ValueError):
    """A parameter is unknown, missing or of the wrong type; the message names it and says what to do."""


@dataclass(frozen=True)
class DataConfig:
    """Which images are trained on, tuned on and reported on (paper: section 4)."""

    root: str | None = None  # a COCO-format folder of your own; null: what `download` names, or drawn scenes
    download: str | None = None  # "coco2014": the paper's photographs, downloaded; null: draw scenes
    train: str = "annotations/instances_train.json"  # annotation file for training, below root
    val: str = "annotations/instances_val.json"  # annotation file for tuning and reporting, below root
    train_folder: str = "images"  # folder of the training images, below root; COCO: train2014
    val_folder: str = "images"  # folder of the validation images, below root; COCO: val2014
    seen: tuple[str, ...] = ()  # category names DeepMask20 trains on; empty: those that are PASCAL's (paper: 20)
    reported_images: int = 200  # first images of val by ascending id; paper: 5000
    tuning_images: int = 50  # last images of val by ascending id, never reported on; paper: "a subset of val"
    train_images: int = 3000  # drawn scenes to train on; paper: about 80,000 photographs
    width: int = 320  # pixels of a drawn scene; COCO photographs: mostly 640
    height: int = 240  # pixels of a drawn scene; COCO photographs: mostly 480
    seed: int = 0  # of the drawn scenes


@dataclass(frozen=True)
class ProposeConfig:
    """Dense application (section 3.3 and 3.4)."""

    scales: tuple[float, ...] = (-2, -1.5, -1, -0.5, 0, 0.5, 1)  # log2; paper: the same
    zoom: float = 1.5  # log2 of the scale that DeepMaskZoom adds; paper: "an additional smaller scale"
    count: int = 1000  # proposals per image; paper: up to 1000
    thresholds: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6)  # candidates; one is chosen on tuning images
    tuning_count: int = 300  # proposals per tuning image while choosing; enough for the order of thresholds
    longest: int = 1280  # px; an image with a longer side is shrunk to it for the network; twice COCO's longest


@dataclass(frozen=True)
class PascalConfig:
    """The second data set (section 4, Table 2 and Figure 5)."""

    root: str | None = None  # a VOCdevkit folder; null: what `download` names, or scenes drawn in PASCAL's place
    download: str | None = None  # "voc2007": the paper's second data set, downloaded; null: draw scenes
    images: int = 80  # drawn to test on; VOC 2007: 4952
    train_images: int = 200  # drawn, for the detector alone; VOC 2007 trainval: 5011
    seed: int = 0  # of the drawn scenes
    threshold: float | None = None  # probability at which masks are cut; paper: .1; null: as on the other images


@dataclass(frozen=True)
class EvaluateConfig:
    """Metrics of section 4."""

    small: float = 16.0  # px; objects below small^2 are S; paper: 32 at 640 px images
    large: float = 48.0  # px; objects above large^2 are L; paper: 96 at 640 px images
    bootstrap: int = 1000  # resamples of the images for intervals
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """All sections of one profile."""

    profile: str = "mini"
    ranks: int = 0  # processes that share a job; 0: one per GPU, or per core that may be used
    data: DataConfig = field(default_factory=DataConfig)
    geometry: Geometry = field(default_factory=Geometry)
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    upsampling: UpsamplingConfig = field(default_factory=UpsamplingConfig)
    propose: ProposeConfig = field(default_factory=ProposeConfig)
    edges: EdgesConfig = field(default_factory=EdgesConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    pascal: PascalConfig = field(default_factory=PascalConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    external: dict[str, str] = field(default_factory=dict)  # rows of other programs: name -> COCO results file


def read_params(path: str | Path, profile: str | None = None) -> dict[str, Any]:
    """The nested dict of a parameter file, with the changes of `profile` laid over its top level.

    Raises ConfigError if the file is missing, is not a mapping, or has no such profile.
    """
    path = Path(path)
    try:
        params = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such parameter file; pass the path of a params.yaml") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(params, dict):
        raise ConfigError(f"{path}: expected sections such as data, model and train")
    profiles = params.pop("profiles", None) or {}
    if profile is None or profile == params.get("profile"):
        return params
    if profile not in profiles:
        known = ", ".join([str(params.get("profile")), *profiles])
        raise ConfigError(f"{path}: no profile {profile!r}; it has {known}")
    return {**_merge(params, profiles[profile]), "profile": profile}


def load(path: str | Path, profile: str | None = None) -> Config:
    """Read one profile of a parameter file; None is the profile at its top level.  Raises ConfigError."""
    params = read_params(path, profile)
    return from_dict(Config, {key: value for key, value in params.items() if key != "src"}, where=str(path))


def from_dict(kind: type[T], values: Any, where: str = "parameters") -> T:
    """Build the frozen dataclass `kind` from a (nested) dict; raises ConfigError on unknown keys and wrong types."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping, got {values!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(known)}")
    return kind(**{key: _coerce(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dict of a config, as `from_dict` takes it."""
    return dataclasses.asdict(config)


def _coerce(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _coerce(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        kinds = [args[0]] * len(value) if args[-1] is ... else args
        if len(kinds) != len(value):
            raise ConfigError(f"{where}: expected {len(kinds)} values, got {len(value)}")
        return tuple(_coerce(k, v, where) for k, v in zip(kinds, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        return {_coerce(args[0], key, where): _coerce(args[1], item, f"{where}: {key}") for key, item in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is not kind:
        raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def _merge(base: dict, changes: dict) -> dict:
    merged = dict(base)
    for key, value in (changes or {}).items():
        merged[key] = _merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return merged
