"""Parameters: unknown keys and wrong types are refused, profiles are changes to the default one."""

import dataclasses
import os
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


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"train: {lr: \xff}", "utf-8"),
        (b"train: {lr: .1, lr: .2}", "line 1: key 'lr' is there twice"),
        (b"train: " + b"[" * 2000, "nested too deeply"),
        (b"train: {batch: " + b"9" * 5000 + b"}", "none"),
        (b"train: {batch: 0x" + b"f" * 5000 + b"}", "train.batch: expected 1 or more, got a number of 20000 bits"),
        (b"train: {lr: [0x" + b"f" * 5000 + b"]}", r"train.lr: expected float, got \[a number of 20000 bits\]"),
        (b"train: {lr: 0x" + b"f" * 5000 + b"}", "train.lr: expected float, got a number"),
        (b"train: {lr: 2001-99-99}", "none"),
        (b"train: {lr: !!bool maybe}", "none"),
        (b"train: {lr: !!timestamp now}", "none"),
        (b"train: {lr: " + b"9:" * 300 + b"9.5}", "none"),
        (b"profile: mini\nprofiles: [smoke]", "profiles: expected a mapping"),
        (b"profile: mini\nprofiles: {smoke: 3}", "profiles.smoke: expected a mapping, got 3"),
        (b"profile: mini\nprofiles: {1: {}}", "no profile 'smoke'; it has 'mini', 1"),
        (b"data: &a {data: *a}\nprofiles: {smoke: &b {data: *b}}", "10000 values"),
        (b"#" * 200_000, "larger than 128 KiB"),
    ],
)
def test_files_that_are_no_parameters_end_in_one_sentence(tmp_path, content, told):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as caught:
        config.load(path, "smoke" if b"profiles" in content else None)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value)) < 500


@pytest.mark.parametrize("doubled", ["[*{0}, *{0}]", "{{<<: [*{0}, *{0}]}}"], ids=["aliases", "merge keys"])
def test_aliases_do_not_multiply(tmp_path, doubled):
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {doubled.format(f'a{i - 1}')}" for i in range(1, 60))]
    (tmp_path / "params.yaml").write_text("\n".join([*lines, "train: {lr: *a59}"]))
    with pytest.raises(ConfigError, match="10000 values|too many merge keys"):
        config.load(tmp_path / "params.yaml")


def test_aliases_and_merge_keys_of_sound_files_are_read(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "train: &a {batch: 8, lr: 0.5}\npretrain: &b {<<: *a, lr: 0.25}\n"
        "profiles: {smoke: {pretrain: {<<: *b, seed: 3}}}"
    )
    made = config.load(tmp_path / "params.yaml", "smoke")
    assert (made.train.lr, made.pretrain.lr, made.pretrain.batch, made.pretrain.seed) == (0.5, 0.25, 8, 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: {batch: 0}", "train.batch: expected 1 or more, got 0"),
        ("train: {batch: 7}", "train.batch: expected a multiple of 2, got 7"),
        ("train: {lr: -0.1}", "train.lr: expected above 0, got -0.1"),
        ("train: {lr: .nan}", "train.lr: expected above 0, got nan"),
        ("train: {weight_decay: .inf}", "train.weight_decay: expected 0 or more, got inf"),
        ("train: {optimiser: foo}", "train.optimiser: expected sgd or adamw or muon, got 'foo'"),
        ("train: {seed: 18446744073709551616}", "train.seed: expected from 0 to 9223372036854775807"),
        ("train: {checkpoint_every: 0}", "train.checkpoint_every: expected 1 or more"),
        ("pretrain: {warmup: 0}", "pretrain.warmup: expected 1 or more"),
        ("propose: {scales: []}", "propose.scales: expected a list of at least one"),
        ("propose: {thresholds: [0.2, 1.0]}", "propose.thresholds: expected between 0 and 1, got 1.0"),
        ("propose: {scales: [99.0]}", "propose.scales: expected from -8 to 8, got 99.0"),
        ("data: {width: 0}", "data.width: expected 16 or more, got 0"),
        ("sampling: {categories: uniformly}", "sampling.categories: expected uniform or annotations"),
        ("sampling: {negative_octaves: [1.0, -2.0]}", "sampling.negative_octaves: expected in ascending order"),
        ("geometry: {stride: 0}", "geometry.stride: expected 1 or more"),
        ("geometry: {stride: 6, patch: 24}", "geometry: stride 6 is not a power of two"),
        ("evaluate: {small: 50.0}", "evaluate: small 50 is above large 48"),
        ("baselines: {selectivesearch: {similarities: [foo]}}", "similarities: expected a choice of the letters CTSF"),
        ("baselines: {edgeboxes: {alpha: 1.0}}", "baselines.edgeboxes.alpha: expected between 0 and 1"),
        ("baselines: {mcg: {limits: [0, 0, 0, 0]}}", "mcg: limits are"),
        ("edges: {forest: {trees: -2}}", "edges.forest.trees: expected 1 or more, got -2"),
        ("external: {mine: 3}", "external.'mine': expected str, got 3"),
        ('data: {root: "a\\0b"}', "data.root: expected str"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_loaded(tmp_path, text, told):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"params.yaml: .*{told}"):
        config.load(tmp_path / "params.yaml")


def test_only_a_file_is_read(tmp_path):
    """A pipe would be waited for without an end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="no such parameter file"):
            config.load(path)


def test_missing_file_and_unknown_profile_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such parameter file"):
        config.load(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="'huge'.*'mini', 'smoke'"):
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
