"""Every number of the study, with its reason and the paper's value.

The numbers live in `params.yaml`: its top level is the default profile (`mini`), and `profiles.NAME` lists only
what profile NAME changes.  Each section of the file is one frozen dataclass below; an unknown key, a value of the
wrong type and one out of its bounds (`deepmask.bounds`) end in a `ConfigError` that names it.  Values "paper:" are
from sections 3 and 4 of the paper.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from deepmask.baseline_config import BaselinesConfig, EdgesConfig
from deepmask.bounds import Count, Images, Inner, NotNegative, Octave, Seed, Side, Some, Whole
from deepmask.detection_config import DetectionConfig
from deepmask.geometry import Geometry
from deepmask.params_file import ConfigError, read_params, shown
from deepmask.training_config import ModelConfig, PretrainConfig, SamplingConfig, TrainConfig, UpsamplingConfig

T = TypeVar("T")

_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what no path and no UTF-8 has


@dataclass(frozen=True)
class DataConfig:
    """Which images are trained on, tuned on and reported on (paper: section 4)."""

    root: str | None = None  # a COCO-format folder of your own; null: what `download` names, or drawn scenes
    download: Literal["coco2014"] | None = None  # "coco2014": the paper's photographs, downloaded; null: draw scenes
    train: str = "annotations/instances_train.json"  # annotation file for training, below root
    val: str = "annotations/instances_val.json"  # annotation file for tuning and reporting, below root
    train_folder: str = "images"  # folder of the training images, below root; COCO: train2014
    val_folder: str = "images"  # folder of the validation images, below root; COCO: val2014
    seen: tuple[str, ...] = ()  # category names DeepMask20 trains on; empty: those that are PASCAL's (paper: 20)
    reported_images: Count = 200  # first images of val by ascending id; paper: 5000
    tuning_images: Whole = 50  # last images of val by ascending id, never reported on; paper: "a subset of val"
    train_images: Images = 3000  # drawn scenes to train on; paper: about 80,000 photographs
    width: Side = 320  # pixels of a drawn scene; COCO photographs: mostly 640
    height: Side = 240  # pixels of a drawn scene; COCO photographs: mostly 480
    seed: Seed = 0  # of the drawn scenes


@dataclass(frozen=True)
class ProposeConfig:
    """Dense application (section 3.3 and 3.4)."""

    scales: Some[Octave] = (-2, -1.5, -1, -0.5, 0, 0.5, 1)  # log2; paper: the same
    zoom: Octave = 1.5  # log2 of the scale that DeepMaskZoom adds; paper: "an additional smaller scale"
    count: Count = 1000  # proposals per image; paper: up to 1000
    thresholds: Some[Inner] = (0.2, 0.3, 0.4, 0.5, 0.6)  # candidates; one is chosen on tuning images
    tuning_count: Count = 300  # proposals per tuning image while choosing; enough for the order of thresholds
    longest: Count = 1280  # px; an image with a longer side is shrunk to it; twice COCO's longest


@dataclass(frozen=True)
class PascalConfig:
    """The second data set (section 4, Table 2 and Figure 5)."""

    root: str | None = None  # a VOCdevkit folder; null: what `download` names, or scenes drawn in PASCAL's place
    download: Literal["voc2007"] | None = None  # "voc2007": the paper's second data set, downloaded; null: draw scenes
    images: Images = 80  # drawn to test on; VOC 2007: 4952
    train_images: Images = 200  # drawn, for the detector alone; VOC 2007 trainval: 5011
    seed: Seed = 0  # of the drawn scenes
    threshold: Inner | None = None  # probability at which masks are cut; paper: .1; null: as on the other images


@dataclass(frozen=True)
class EvaluateConfig:
    """Metrics of section 4."""

    small: NotNegative = 16.0  # px; objects below small^2 are S; paper: 32 at 640 px images
    large: NotNegative = 48.0  # px; objects above large^2 are L; paper: 96 at 640 px images
    bootstrap: Whole = 1000  # resamples of the images for intervals
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.small > self.large:
            raise ConfigError(f"evaluate: small {self.small:g} is above large {self.large:g}; it has to be below")


@dataclass(frozen=True)
class Config:
    """All sections of one profile."""

    profile: str = "mini"
    ranks: Whole = 0  # processes that share a job; 0: one per GPU, or per core that may be used
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


def load(path: str | Path, profile: str | None = None) -> Config:
    """Read one profile of a parameter file; None is the profile at its top level.  Raises ConfigError."""
    params = read_params(path, profile)
    return from_dict(Config, {key: value for key, value in params.items() if key != "src"}, where=str(path))


def from_dict(kind: type[T], values: Any, where: str = "parameters") -> T:
    """Build the frozen dataclass `kind` from a (nested) dict.

    Raises ConfigError, which begins with `where`, on unknown keys, wrong types and values that are not allowed.
    """
    return _section(kind, values, where, "")


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dict of a config, as `from_dict` takes it."""
    return dataclasses.asdict(config)


def _section(kind: type[T], values: Any, where: str, name: str) -> T:
    """`kind` from a dict; `where` is the file and `name` the section, "" at the top."""
    place = f"{where}: {name}" if name else where
    if not isinstance(values, dict):
        raise ConfigError(f"{place}: expected a mapping, got {shown(values)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"{place}: unknown key {shown(unknown[0])}; known keys are {', '.join(known)}")
    below = f"{name}." if name else ""
    read = {key: _coerce(hints[key], value, where, below + key) for key, value in values.items()}
    try:
        return kind(**read)
    except ValueError as error:  # of how its values go together, with the name of the section
        raise ConfigError(f"{where}: {error}") from None


def _coerce(kind: Any, value: Any, where: str, name: str) -> Any:
    """The value as `kind` has it, or a ConfigError; `where` and `name` as in `_section`, `name` being the value's."""
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, where, name)
    place = f"{where}: {name}"
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        made = _coerce(args[0], value, where, name)
        for bound in args[1:]:
            if not bound.allows(made):
                raise ConfigError(f"{place}: expected {bound}, got {shown(value)}")
        return made
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _coerce(next(arg for arg in args if arg is not type(None)), value, where, name)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{place}: expected {' or '.join(args)}, got {shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{place}: expected a list, got {shown(value)}")
        kinds = [args[0]] * len(value) if args[-1] is ... else args
        if len(kinds) != len(value):
            raise ConfigError(f"{place}: expected {len(kinds)} values, got {len(value)}")
        return tuple(_coerce(k, v, where, name) for k, v in zip(kinds, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{place}: expected a mapping, got {shown(value)}")
        return {
            _coerce(args[0], key, where, name): _coerce(args[1], item, where, f"{name}.{shown(key)}")
            for key, item in value.items()
        }
    if kind is float and type(value) in (int, float, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except (ValueError, OverflowError):  # of a word, of a number of hundreds of digits
            pass
    if type(value) is not kind or (kind is str and _NO_TEXT.search(value)):
        raise ConfigError(f"{place}: expected {kind.__name__}, got {shown(value)}")
    return value
