"""Methods by name: one import, one call, or torch.hub."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import deepmask
from deepmask import released
from deepmask.config import ConfigError, ModelConfig, load
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.paths import REPOSITORY
from deepmask.weights import WeightsError, save_model


def test_selective_search_needs_no_study():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:60] = 200
    proposals = deepmask.load("selectivesearch", count=20)(image)
    assert 0 < len(proposals) <= 20 and (np.diff(proposals.scores) <= 0).all()


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(released, "path", lambda study=None: tmp_path / "released.safetensors")
    with pytest.raises(ConfigError, match="params.yaml: no such parameter file"):
        deepmask.load("deepmask", study=tmp_path)
    (tmp_path / "params.yaml").write_text("profile: mini\n")
    with pytest.raises(WeightsError, match="no such weights file; train first"):
        deepmask.load("deepmask", study=tmp_path)
    with pytest.raises(ConfigError, match="expected one of"):
        deepmask.load("sharpmask")


def test_importing_the_package_is_quick():
    """Nothing heavy comes with it until a method is loaded."""
    code = "import sys, deepmask; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; deepmask.nothing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "has no attribute 'nothing'" in result.stderr


def torch_hub(entry, *arguments, **options):
    return torch.hub.load(str(REPOSITORY), entry, *arguments, source="local", trust_repo=True, **options)


def test_torch_hub_gives_the_released_network(tmp_path, monkeypatch):
    monkeypatch.setattr(released, "path", lambda study=None: tmp_path / "released.safetensors")
    with pytest.raises(WeightsError, match="no such weights file"):
        torch_hub("deepmask")
    geometry = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
    torch.manual_seed(0)
    model = DeepMask(geometry, ModelConfig(0.05, (8, 12), 8)).eval()
    save_model(tmp_path / "full.safetensors", model, {})
    released.write(tmp_path / "full.safetensors", released.path(), load(REPOSITORY / "params.yaml").propose, 0.4)
    loaded = torch_hub("deepmask")
    patches = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(patches, "mask"), model(patches, "mask"), rtol=0.01, atol=0.01)
    assert not loaded.training and not torch_hub("deepmask", pretrained=False, profile="smoke").training


def test_torch_hub_gives_proposal_methods():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:60] = 200
    here = torch_hub("proposals", "selectivesearch", count=20)(image)
    there = deepmask.load("selectivesearch", count=20)(image)
    assert here.masks == there.masks and np.array_equal(here.scores, there.scores)


def test_every_entry_point_says_where_its_recall_stands():
    spec = importlib.util.spec_from_file_location("hubconf", REPOSITORY / "hubconf.py")
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    entries = {name: entry for name, entry in vars(hubconf).items() if callable(entry) and not name.startswith("_")}
    assert set(entries) == {"deepmask", "proposals"}, "what torch.hub.list shows"
    for entry in entries.values():
        assert "results/weights/README.md" in entry.__doc__ and not re.search(r"\.\d{2}", entry.__doc__)
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)
