"""The network of a training run that was stopped: its last checkpoint in the place of finished weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from deepmask import config as configs
from deepmask import files
from deepmask.model import DeepMask
from deepmask.paths import Study
from deepmask.systems import variant_config
from deepmask.weights import save_model


def salvage(study: Study, params: Path, variant: str) -> int:
    """Write weights and history of a variant from its checkpoint; the step that it had reached."""
    config = variant_config(configs.load(params), variant)
    state = torch.load(study.checkpoint(variant), map_location="cpu", weights_only=True)
    model = DeepMask(config.geometry, config.model)
    model.load_state_dict(state["model"])
    record = {"variant": variant, "train": configs.to_dict(config.train), "stopped_at": state["step"]}
    save_model(study.weights(variant), model, record)
    files.write_csv(study.result("training", f"{variant}.csv"), pd.DataFrame(state["rows"]))
    return state["step"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Salvage one variant of a study."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.salvage", description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("params", type=Path)
    parser.add_argument("variant")
    options = parser.parse_args(arguments)
    step = salvage(Study(options.study), options.params, options.variant)
    print(f"{options.variant}: the weights of step {step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
