"""Run folders: the same chain with another profile or another data set, beside the committed results.

A run folder holds a copy of `dvc.yaml`, the parameters of one profile, and everything that `dvc repro` makes of them.
Its code is the repository's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from deepmask.config import Config, ConfigError, from_dict, read_params
from deepmask.paths import REPOSITORY


def prepare(
    folder: str | Path, profile: str | None = None, data: str | Path | None = None, changes: Sequence[str] = ()
) -> Path:
    """Make `folder` ready for `dvc repro`, and return it.

    `profile`: of the repository's params.yaml; `data`: a COCO-format folder; `changes`: further parameters as
    "section.key=value".  A params.yaml that is there already is kept if it is of that profile and data, so it can be
    edited; changes are laid over it.  Raises ConfigError.
    """
    folder = Path(folder)
    if data is not None and not Path(data).expanduser().is_dir():
        raise ConfigError(f"{data}: no such folder; DATA must be a COCO-format folder")
    params = read_params(REPOSITORY / "params.yaml", profile)
    params["src"] = os.path.relpath(REPOSITORY, folder.resolve())
    if data is not None:
        params["data"]["root"] = str(Path(data).expanduser().resolve())
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPOSITORY / "dvc.yaml", folder / "dvc.yaml")
    target = folder / "params.yaml"
    if target.exists():
        present = read_params(target)
        wanted = (params["profile"], params["data"]["root"])
        if (present.get("profile"), present.get("data", {}).get("root")) != wanted:
            raise ConfigError(f"{target}: belongs to another profile or data folder; remove {folder} to start anew")
        params = yaml.safe_load(target.read_text())
    for change in changes:
        _change(params, change)
    # unknown keys are reported here, before they are written and not in the middle of the chain
    from_dict(Config, {key: value for key, value in params.items() if key != "src"}, str(target))
    if changes or not target.exists():
        target.write_text(yaml.safe_dump(params, sort_keys=False))
    if not (folder / ".dvc").is_dir():
        _dvc(folder, "init", "--no-scm", "--quiet")
        _dvc(folder, "config", "core.analytics", "false")
        _dvc(folder, "config", "core.check_update", "false")
    return folder


def _change(params: dict[str, Any], change: str) -> None:
    """Lay one "section.key=value" over nested parameters; the value is YAML."""
    name, equals, value = change.partition("=")
    if not equals:
        raise ConfigError(f"{change!r} is not of the form section.key=value")
    *sections, key = name.split(".")
    for section in sections:
        params = params.setdefault(section, {})
        if not isinstance(params, dict):
            raise ConfigError(f"{change!r}: {section} has no keys below it")
    params[key] = yaml.safe_load(value)


def _dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True)
