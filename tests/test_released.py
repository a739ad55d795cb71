"""The released weights: half the bytes, the same network, its own settings, and a card that is made from files."""

import numpy as np
import pandas as pd
import pytest
import torch

import deepmask
from deepmask import card, choosing, methods, released
from deepmask.config import Config, ConfigError, ModelConfig, ProposeConfig
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.paths import REPOSITORY, Study
from deepmask.report import ReportError
from deepmask.systems import SYSTEMS
from deepmask.weights import WeightsError, load_model, load_tensors, save_model, save_tensors

GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
SETTINGS = ProposeConfig(scales=(-0.5, 0.0), zoom=0.75, longest=300)
SCENES = {"width": 96, "height": 72, "seed": 4}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with a tiny network, Table 1 and thresholds; its released weights are the repository's too."""
    study = Study(tmp_path / "study")
    torch.manual_seed(0)
    record = {"images": 3210, "train": {"samples": 6400, "optimiser": "muon", "seed": 7}}
    save_model(study.weights("deepmask"), DeepMask(GEOMETRY, ModelConfig(0.05, (8, 12), 8)), record)
    study.result("tables").mkdir(parents=True)
    rows = [
        {"kind": kind, "method": method, "AR@10": 0.11, "AR@100": 0.2345, "AR@1000": 0.3, "AUC": auc}
        for kind, auc in (("bbox", 0.1678), ("segm", float("nan")))
        for method in ("DeepMask", "DeepMaskZoom", "MCG")
    ]
    table = pd.DataFrame(rows).assign(profile="tiny", images=17, seed=7, command="make repro PROFILE=tiny")
    table.to_csv(study.result("tables", "table1.csv"), index=False)
    study.result("tuning").mkdir()
    study.result("tuning", "deepmask.csv").write_text("threshold,mask_auc,chosen\n0.2,0.1,False\n0.35,0.1777,True\n")
    monkeypatch.setattr(released, "path", lambda of=None: study.result("weights", "deepmask.safetensors"))
    return study


def write(study, **record):
    record = {"profile": "tiny", "scenes": SCENES} | record
    released.write(study.weights("deepmask"), released.path(study), SETTINGS, 0.35, **record)
    return released.path(study)


def test_half_the_bytes_and_single_precision_when_loaded(study):
    file = write(study)
    single, half = (load_tensors(path)[0] for path in (study.weights("deepmask"), file))
    assert {t.dtype for t in half.values()} == {torch.float16}
    assert file.stat().st_size < 0.5 * study.weights("deepmask").stat().st_size + 2500
    loaded = load_model(file)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, single[name].half().float())
        torch.testing.assert_close(value, single[name], rtol=2**-11, atol=2**-25)
    before = file.read_bytes()
    assert write(study).read_bytes() == before, "the same bytes again"


def test_the_file_says_how_it_is_used(study):
    write(study)
    method, zoomed = (released.load(method=key, count=9) for key in released.METHODS)
    assert (method.octaves, method.threshold, method.longest) == ((-0.5, 0.0), 0.35, 300)
    assert zoomed.octaves == (-0.5, 0.0, 0.75) and (method.name, zoomed.name) == ("DeepMask", "DeepMaskZoom")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert len(method(image)) == 9
    plain = released.load(study.weights("deepmask"), otherwise=ProposeConfig(scales=(0.0,), thresholds=(0.6,)))
    assert (plain.octaves, plain.threshold) == ((0.0,), 0.6)
    with pytest.raises(ConfigError, match="'mcg'"):
        released.load(method="mcg")
    with pytest.raises(ConfigError, match="count"):
        released.load(count=-1)


@pytest.mark.parametrize(
    "settings",
    [
        {"scales": []},
        {"scales": [1e9]},
        {"scales": [float("nan")]},
        {"scales": [10**400]},
        {"zoom": -99.0},
        {"thresholds": []},
        {"thresholds": [0.0]},
        {"thresholds": [float("nan")]},
        {"longest": 0},
        {"depth": 3},
        [],
    ],
)
def test_settings_that_cannot_be_used_are_refused(study, settings):
    write(study)
    tensors, record = load_tensors(released.path())
    record["propose"] = record["propose"] | settings if isinstance(settings, dict) else settings
    save_tensors(released.path(), tensors, record)
    with pytest.raises(WeightsError, match="deepmask.safetensors: its settings cannot be used: "):
        released.load()


def test_values_beyond_float16_are_refused(study):
    model = load_model(study.weights("deepmask"))
    with torch.no_grad():
        model.score_head.out.weight[0, 0] = 1e6
    save_model(study.weights("deepmask"), model, {})
    with pytest.raises(WeightsError, match="score_head.out.weight has values that float16 cannot hold"):
        write(study)
    assert not released.path().exists()


def test_a_study_without_deepmask_gets_the_released_one_and_no_other(study, tmp_path):
    other = Study(tmp_path / "other")
    other.root.mkdir()
    (other.root / "params.yaml").write_text("propose: {scales: [0]}\n")
    with pytest.raises(WeightsError, match="train first"):
        deepmask.load("deepmask", study=other.root)
    write(study)
    for key in released.METHODS:
        chosen = choosing.find(key, other, Config(), 5)
        assert chosen.method.threshold == 0.35 and "released weights" in chosen.why and released.path() in chosen.reads
        assert deepmask.load(key, study=other.root).name == SYSTEMS[key].name
    for key in set(SYSTEMS) - set(released.METHODS):
        with pytest.raises(WeightsError, match="no such weights file; train first"):
            deepmask.load(key, study=other.root)
    with pytest.raises(WeightsError, match="no such"):
        methods.load("deepmask", other, Config())  # what the stages of a study call
    own = choosing.find("deepmask", study, Config(), 5)
    assert own.method.threshold == 0.35 and own.method.octaves == Config().propose.scales and not own.why


def test_the_card_is_made_from_the_files(study):
    write(study)
    path = card.write(study)
    assert path == study.result("weights", "README.md")
    text = path.read_text()
    for fact in ("3,210 drawn scenes of 96 x 72 px (seed 4)", "6,400 patches", "optimiser muon", "seed 7"):
        assert fact in text
    for fact in ("make repro PROFILE=tiny", "`tiny`", "0.35", ".178", "-0.5, 0", "0.75", "17 test images", "12 x 12"):
        assert fact in text
    parameters = sum(p.numel() for p in load_model(released.path()).parameters())
    assert f"{parameters:,} parameters" in text and f"{released.path().stat().st_size / 1e6:.1f} MB" in text
    assert "| DeepMask, box proposals | .110 | .234 | .300 | .168 |" in text
    assert "| DeepMaskZoom, segmentation proposals | .110 | .234 | .300 | – |" in text and "MCG," not in text
    assert "photographs" in text and "MIT" in text
    write(study, scenes=None)
    assert "3,210 images of a COCO-format data set" in card.text(study) and "find little" not in card.text(study)


def test_a_card_without_measurements_is_refused(study):
    write(study)
    study.result("tables", "table1.csv").unlink()
    with pytest.raises(ReportError, match="table1.csv"):
        card.write(study)


def test_the_released_weights_of_the_repository_are_small_and_have_their_card():
    file = Study(REPOSITORY).result("weights", "deepmask.safetensors")
    if not file.is_file():
        pytest.skip("nothing has been released yet")
    assert file.stat().st_size < 8e6, "too large for git"
    assert {t.dtype for t in load_tensors(file)[0].values()} == {torch.float16}
    assert file.with_name("README.md").read_text() == card.text(Study(REPOSITORY))
