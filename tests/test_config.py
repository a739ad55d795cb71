"""Parameters: unknown keys and wrong types are refused, profiles are changes to the default one."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from deepmask import config
from deepmask.config import Config, ConfigError
from deepmask.systems import variant_config

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
PROFILES = ["mini", *yaml.safe_load(PARAMS.read_text())["profiles"]]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_loads_and_survives_a_round_trip(profile):
    loaded = config.load(PARAMS, profile)
    assert loaded.profile == profile
    assert config.from_dict(Config, config.to_dict(loaded)) == loaded


def test_coco_profile_is_the_paper():
    """Section 3.4: 224 px, 128, 56, lr .001, batch 32, momentum .9, decay .00005, lambda 1/32, seven scales."""
    paper = config.load(PARAMS, "coco")
    geometry, train = paper.geometry, paper.train
    assert (geometry.patch, geometry.canonical, geometry.stride, geometry.mask, geometry.context) == (
        224,
        128,
        16,
        56,
        0,
    )
    assert (geometry.jitter, geometry.jitter_octaves, geometry.negative, geometry.negative_octaves) == (16, 0.25, 32, 1)
    assert (paper.model.width, paper.model.rank, paper.model.score_hidden, paper.model.dropout) == (
        1,
        512,
        (512, 1024),
        0.5,
    )
    assert (train.optimiser, train.lr, train.batch, train.momentum) == ("sgd", 0.001, 32, 0.9)
    assert (train.weight_decay, train.score_weight, train.schedule) == (0.00005, 1 / 32, "constant")
    assert paper.propose.scales == (-2, -1.5, -1, -0.5, 0, 0.5, 1) and paper.propose.thresholds == (0.2,)
    assert paper.data.reported_images == 5000 and paper.pretrain.weights == "imagenet"


def test_profiles_only_list_what_they_change():
    profiles = yaml.safe_load(PARAMS.read_text())
    base = config.to_dict(config.load(PARAMS))
    for name, changes in profiles["profiles"].items():
        for section, values in changes.items():
            values = values if isinstance(values, dict) else {None: values}
            for key, value in values.items():
                same = base[section] if key is None else base[section][key]
                assert (list(same) if isinstance(same, tuple) else same) != value, f"{name}: {section} {key}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train: {learning_rate: 0.1}", "learning_rate"),
        ("train: {lr: fast}", "lr"),
        ("train: {batch: 1.5}", "batch"),
        ("training: {}", "training"),
        ("model: {score_hidden: [1, 2, 3]}", "score_hidden"),
        ("train: 3", "train"),
        ("- a", "sections"),
        ("a: [", "YAML"),
    ],
)
def test_errors_name_the_key(tmp_path, text, named):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=named):
        config.load(tmp_path / "params.yaml")


def test_missing_file_and_unknown_profile_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such parameter file"):
        config.load(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="'huge'.*mini, smoke"):
        config.load(PARAMS, "huge")


def test_scientific_notation_is_a_number(tmp_path):
    """YAML 1.1 reads 1e-3 as a string."""
    (tmp_path / "params.yaml").write_text("train: {lr: 1e-3}")
    assert config.load(tmp_path / "params.yaml").train.lr == 0.001


def test_variants_differ_in_one_value_only():
    base = config.load(PARAMS)
    full = variant_config(base, "deepmaskfull")
    assert full.model.rank is None
    assert dataclasses.replace(full, model=base.model) == base == variant_config(base, "deepmask20")
    with pytest.raises(ConfigError, match="deepmask30"):
        variant_config(base, "deepmask30")
