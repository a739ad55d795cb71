"""Methods by name: one import, one call."""

import subprocess
import sys

import numpy as np
import pytest

import deepmask
from deepmask.config import ConfigError
from deepmask.weights import WeightsError


def test_selective_search_needs_no_study():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:60] = 200
    proposals = deepmask.load("selectivesearch", count=20)(image)
    assert 0 < len(proposals) <= 20 and (np.diff(proposals.scores) <= 0).all()


def test_what_is_missing_is_said(tmp_path):
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
