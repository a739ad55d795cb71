"""The steps of an unattended run, and the order in which the time left decides about them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import budget, outcome
from benchmarks.budget import Rates
from benchmarks.steps import Runner, Step, python
from deepmask import config as configs
from deepmask import files
from deepmask.config import Config
from deepmask.paths import REPOSITORY

TESTS = ("geometry", "device", "masks", "model", "weights", "sampling", "pixels", "patches", "training", "inference")
TESTS += ("proposals", "evaluation", "benchmarks")
SHARES = {"tests": 0.12, "benchmark": 0.28, "probe": 0.10}  # of the time at most; the study gets the rest
LAST = 90.0  # seconds that tables and pictures are given at the end
FOREVER = float("inf")
GUESS = Rates(scenes=50.0, pretrain=500.0, train=1000.0, images=2.0)  # where the probe failed: a slow GPU's
JOB = (  # what a notebook calls: all GPUs, or cores, work on the job
    "import sys; from importlib import import_module; from deepmask.paths import study; "
    "import_module('deepmask.stages.' + sys.argv[1]).run(study(sys.argv[2]), sys.argv[3], None, *sys.argv[4:])"
)


def preparations(work: Path, total: float, rehearse: bool = False, tests: bool = True) -> list[Step]:
    """The steps before the study; `total`: seconds of the whole run; `tests`: whether pytest is there."""
    limits = {name: share * total for name, share in SHARES.items()}
    names = ("model",) if rehearse else TESTS
    paths = [path for name in names if (path := REPOSITORY / "tests" / f"test_{name}.py").is_file()]
    size = ["--quick"] if rehearse else ["--minutes", f"{0.7 * limits['benchmark'] / 60:.2f}"]
    benchmark = python("-m", "benchmarks", "--out", work / "benchmark", *size)
    probe = python("-m", "benchmarks.probe", work / "profile.yaml", work / "rates.json", *["--quick"] * rehearse)
    steps = [Step("tests", python("-m", "pytest", "-q", "-p", "no:cacheprovider", *paths), limits["tests"])]
    return [
        *steps * tests,
        Step("benchmark", benchmark, limits["benchmark"]),
        Step("probe", probe, limits["probe"]),
    ]


def data_steps(work: Path, proposing: float) -> list[Step]:
    """Scenes, and the trunk that all networks start from; `proposing`: seconds that a network's proposals need."""
    folder, params = work / "study", work / "params.yaml"
    scenes = python("-m", "deepmask", "scenes", "--study", folder, "--params", params)
    pretrain = python("-c", JOB, "pretrain", folder, params)
    return [Step("scenes", scenes, FOREVER, 2 * proposing), Step("pretrain", pretrain, FOREVER, 2 * proposing)]


def network_steps(work: Path, variant: str, params: Path, proposing: float) -> list[Step]:
    """Train a network and propose with it; a run that is stopped leaves the network of its last checkpoint."""
    folder, needs = work / "study", ("scenes", "pretrain")
    train = python("-c", JOB, "train", folder, params, variant)
    salvage = python("-m", "benchmarks.salvage", folder, params, variant)
    propose = python("-c", JOB, "propose", folder, params, variant)
    return [
        Step(f"train {variant}", train, FOREVER, proposing, needs),
        Step(f"salvage {variant}", salvage, FOREVER, needs=needs, unless=f"train {variant}"),
        Step(f"propose {variant}", propose, FOREVER, needs=needs),
    ]


def trained_step(work: Path, profile: str) -> Step:
    """The speed of dense inference with the weights that were trained."""
    arguments = ["--params", work / "profile.yaml", "--profile", profile, "--only", "inference"]
    arguments += ["--weights", work / "study/models/deepmask.safetensors", "--out", work / "trained"]
    return Step("benchmark trained", python("-m", "benchmarks", *arguments), LAST, needs=("propose deepmask",))


def run(
    work: Path, out: Path, minutes: float, profile: str, rehearse: bool = False, missing: Sequence[str] = ()
) -> bool:
    """Do everything, in `work`, and leave the files of `outcome` in `out`; whether DeepMask's proposals were made.

    `missing`: sentences on packages that are not here.
    """
    work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    runner = Runner(work, start + 60 * minutes - LAST)
    if not (work / "profile.yaml").is_file():
        write_params(work / "profile.yaml", configs.read_params(REPOSITORY / "params.yaml", profile), {})
    config = configs.load(work / "profile.yaml")
    tests = not any(line.startswith(("pytest ", "hypothesis ")) for line in missing)
    for step in preparations(work, 60 * minutes, rehearse, tests):
        runner.run(step)
    study(work, runner, config)
    for line in outcome.write(work, out, missing):
        print(f"not made: {outcome.without_paths(line)}", flush=True)
    print(f"{', '.join(sorted(path.name for path in out.iterdir()))}: {time.monotonic() - start:.0f} s in all")
    return runner.done("propose deepmask")


def study(work: Path, runner: Runner, config: Config) -> None:
    """As much of the study as the time allows, at the rates that the probe found."""
    measured = runner.done("probe")
    rates = Rates(**json.loads((work / "rates.json").read_text())) if measured else GUESS
    params, second = work / "params.yaml", work / "deepmask20.yaml"
    proposing = budget.proposing(rates, config)

    def settle(found: budget.Amounts) -> None:
        files.write_json(work / "amounts.json", outcome.record(found, rates, config, measured))
        write_params(params, configs.read_params(work / "profile.yaml"), budget.changes(found, config))

    if not params.is_file():
        settle(budget.amounts(runner.left(), rates, config))
    for step in data_steps(work, proposing):
        runner.run(step)
    if not (runner.done("train deepmask") or (work / "study/checkpoints/deepmask.pt").is_file()):
        # once more, now that it is known what the data took
        planned = configs.load(params)
        samples = budget.training(runner.left() - proposing, rates, config)
        settle(budget.Amounts(planned.data.train_images, planned.pretrain.samples, samples))
    for step in network_steps(work, "deepmask", params, proposing):
        runner.run(step)
    runner.run(trained_step(work, config.profile))
    if not second.is_file() and runner.done("propose deepmask"):
        samples = budget.second_network(runner.left(), rates, configs.load(params).train.samples, config)
        if samples:
            write_params(second, configs.read_params(params), {"train": {"samples": samples}})
    if second.is_file():
        for step in network_steps(work, "deepmask20", second, proposing):
            runner.run(step)


def write_params(path: Path, params: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> None:
    """A parameter file of one profile, with changes by section."""
    sections = {name: {**(params.get(name) or {}), **values} for name, values in changes.items()}
    files.write_text(path, yaml.safe_dump({**params, **sections}, sort_keys=False))
