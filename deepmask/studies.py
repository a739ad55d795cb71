"""Run folders: the same chain with another profile or another data set, beside the committed results.

A run folder holds a copy of `dvc.yaml`, the parameters of one profile, and everything that `dvc repro` makes of them.
Its code is the repository's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from deepmask import config as configs
from deepmask import files, processes
from deepmask.config import Config, ConfigError, DataConfig, from_dict, read_params
from deepmask.paths import REPOSITORY, Study
from deepmask.systems import check_variant

BUILD = "_build"  # where dvc.yaml keeps what is not a result


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
    files.write_text(folder / "dvc.yaml", (REPOSITORY / "dvc.yaml").read_text())
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
        files.write_text(target, yaml.safe_dump(params, sort_keys=False))
    settings = folder / ".dvc" / "config"
    if not settings.is_file():
        shutil.rmtree(folder / ".dvc", ignore_errors=True)  # of an interrupted start
        _dvc(folder, "init", "--no-scm", "--quiet")
    if "check_update" not in settings.read_text():
        _dvc(folder, "config", "core.analytics", "false")
        _dvc(folder, "config", "core.check_update", "false")
    return folder


def repro(folder: str | Path, targets: Sequence[str] = ()) -> int:
    """Run `dvc repro` in a study's folder and return its exit status; two at once take turns.

    What a killed one left of `dvc.lock` is mended first.  The stages that are complete are skipped.  Raises ConfigError
    if the folder is no study.
    """
    folder = Path(folder)
    if not (folder / "dvc.yaml").is_file():
        raise ConfigError(f"{folder}: no dvc.yaml; name the folder of a study, or make one with `deepmask study`")
    (folder / BUILD).mkdir(parents=True, exist_ok=True)
    with processes.turn(folder / BUILD / "repro.lock", "reproduces the study in this folder"):
        _mend(folder)
        command, begin = [sys.executable, "-m", "dvc", "repro", *targets], partial(processes.end_with, os.getpid())
        return subprocess.run(command, cwd=folder, preexec_fn=begin).returncode


def train(
    folder: str | Path, variant: str, profile: str | None = None, data: str | Path | None = None
) -> Iterator[str]:
    """Train one network in a run folder, on every core or GPU, and yield a line when each part of it is there.

    The folder is prepared if it has no params.yaml, or if a profile or data are given; scenes are drawn and the trunk
    is pre-trained if they are not there.  Raises ConfigError, also if the network is trained already, DataError for
    images that are not there, and LaunchError.
    """
    from deepmask.data import sources, splits  # here and below: `prepare` does without torch
    from deepmask.stages import pretrain
    from deepmask.stages import train as stage

    check_variant(variant)
    folder, study = Path(folder), Study(Path(folder))
    params, weights = folder / "params.yaml", study.weights(variant)
    if weights.is_file():
        raise ConfigError(f"{weights}: is trained already; remove it to train it anew, or name another folder")
    if profile or data or not params.is_file():
        yield f"{prepare(folder, profile, data)}: a run folder"
    config = configs.load(params)
    if sources.is_drawn(config.data):
        with processes.turn(study.lock("scenes"), "draws the scenes"):
            if not (study.scenes / config.data.val).is_file():
                draw_scenes(study, config.data)
    images = len(splits.load(config.data, study, "train"))
    yield f"{splits.folder(config.data, study)}: {images} training images"
    if not study.trunk.is_file():
        pretrain.run(study, params, None)
    yield f"{study.trunk}: the trunk that training starts from"
    stage.run(study, params, None, variant)
    yield f"{weights}: {variant}, trained on {config.train.samples} patches; --study {folder} proposes with it"


def draw_scenes(study: Study, data: DataConfig) -> None:
    """Draw the training and validation scenes of a study."""
    from deepmask.data.scenes import write_scenes

    val = data.reported_images + data.tuning_images
    write_scenes(study.scenes, train=data.train_images, val=val, width=data.width, height=data.height, seed=data.seed)


def _mend(folder: Path) -> None:
    """Restore `dvc.lock` from the copy that the last stage began with (`dvc.yaml`), if DVC was killed while writing it.

    Its record of who uses which file goes too, unless a living DVC may be in it: it may be half written, or name a
    process number that another program has by now.
    """
    lock, copy = folder / "dvc.lock", folder / BUILD / "dvc.lock"
    if lock.is_file() and not _is_whole(lock):
        if copy.is_file():
            files.write_text(lock, copy.read_text())
        else:
            lock.unlink()
        print(f"{lock}: an interrupted run left half of it; the stages it has lost are run again", file=sys.stderr)
    users = folder / ".dvc" / "tmp" / "rwlock"
    if users.is_file() and not any(map(_is_dvc, re.findall(r'"pid": (\d+)', users.read_text()))):
        users.unlink()


def _is_dvc(process: str) -> bool:
    import psutil  # comes with DVC

    try:
        return any("dvc" in part for part in psutil.Process(int(process)).cmdline())
    except psutil.Error:
        return False


def _is_whole(lock: Path) -> bool:
    text = lock.read_text(errors="replace")
    try:
        content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return False
    stages = content.get("stages") if isinstance(content, dict) else None
    whole = isinstance(stages, dict) and all(isinstance(stage, dict) and "cmd" in stage for stage in stages.values())
    return whole and text.endswith("\n")


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
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder).returncode:
        raise ConfigError(
            f"{folder}: `dvc {' '.join(arguments)}` failed, see above; is DVC installed (requirements.lock)?"
        )
