"""`python -m benchmarks`: training, inference and layers, measured here; writes results/benchmarks/DEVICE.json, .md."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import flops, hardware, inference, layers, report, train
from benchmarks.train import Case
from deepmask import config as configs
from deepmask import device as devices
from deepmask import files
from deepmask.config import Config, ConfigError
from deepmask.data.coco import InstanceDataset
from deepmask.data.scenes import write_scenes
from deepmask.environment import environment
from deepmask.paths import REPOSITORY
from deepmask.weights import WeightsError, load_model

SECTIONS = ("training", "inference", "layers")
SMALLEST = "smoke"  # the profile of --quick
PHOTOGRAPH = 640, 480  # width and height of a scene that stands for a photograph of COCO
SCENES = 48  # drawn to train on and to propose on


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement of the plan: a section, a profile, and what to call."""

    section: str
    profile: str
    threads: int | None  # None on a GPU
    arguments: dict[str, Any]  # of the section's `measure`, and shown if it fails


def plan(options: argparse.Namespace, device: torch.device) -> list[Job]:
    """What to measure on this device, the most telling first: time may run out."""
    cores = None if device.type == "cuda" else devices.cores()
    jobs: list[Job] = []

    def add(section: str, profile: str, threads: int | None = cores, **arguments: Any) -> None:
        if section in options.only:
            jobs.append(Job(section, profile, threads, arguments))

    if options.quick:  # on one core: several threads collapse when another program holds one of theirs
        one = None if cores is None else 1
        for profile in options.profile or [SMALLEST]:
            add("training", profile, one, case=Case(8, "muon"), seconds=0.2)
            add("inference", profile, one, images=1)
            add("layers", profile, one, batch=4, least=0.01)
    elif options.profile:
        for profile in options.profile:
            given = configs.load(options.params, profile).train
            add("training", profile, case=Case(given.batch, given.optimiser, given.compile), seconds=5.0)
            add("inference", profile, images=20 if cores is None else 2)
            add("layers", profile, batch=given.batch, least=0.1)
    elif device.type == "cuda":
        for batch in (32, 256):
            add("training", "coco", case=Case(batch, "sgd"), seconds=6.0)
        add("inference", "coco", images=20)
        add("layers", "coco", batch=256, least=0.1)
        for batch in (256, 32):
            add("training", "coco", case=Case(batch, "sgd", compile=True), seconds=6.0)
        for compiled in (False, True):
            add("training", "scenes", case=Case(32, "muon", compile=compiled), seconds=6.0)
        add("training", "coco", case=Case(1024, "sgd", compile=True), seconds=6.0)
        add("training", "mini", case=Case(32, "muon"), seconds=4.0)
        add("inference", "mini", images=20)
    else:
        for threads in sorted({cores, 1}, reverse=True):
            add("training", "mini", threads, case=Case(32, "muon"), seconds=4.0)
            add("inference", "mini", threads, images=5)
            add("training", "coco", threads, case=Case(8, "sgd"), seconds=4.0)
            add("inference", "coco", threads, images=1)
        add("layers", "coco", batch=8, least=0.05)
    return jobs


def run(options: argparse.Namespace) -> Path:
    """Measure, writing both files again after each measurement; the path of the JSON."""
    device = devices.device()
    result: dict[str, Any] = {"environment": environment(), "hardware": [], **{name: [] for name in SECTIONS}}
    if device.type == "cuda":
        result["environment"] |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        result["environment"]["gpu_memory_mib"] = torch.cuda.get_device_properties(device).total_memory // 2**20
    result["load_before"] = os.getloadavg()[0]
    path = options.out / f"{report.slug(result['environment'])}.json"
    jobs, end = plan(options, device), time.monotonic() + 60 * options.minutes
    for threads in dict.fromkeys(job.threads for job in jobs):
        _say(f"ceiling{_with(threads)}")
        result["hardware"].append(_ceiling(threads, device, options))
    with tempfile.TemporaryDirectory() as folder:
        data: dict[tuple[int, int], InstanceDataset] = {}
        for job in jobs:
            config = configs.load(options.params, job.profile)
            size = PHOTOGRAPH if config.data.download else (config.data.width, config.data.height)
            row = {"profile": job.profile, "threads": job.threads} | _shown(job)
            if time.monotonic() > end:
                result[job.section].append(row | {"failed": "no time was left"})
                continue
            _say(f"{job.section}, {job.profile}{_with(job.threads)}, {_shown(job)}")
            torch.set_num_threads(job.threads or torch.get_num_threads())
            if size not in data:
                data[size] = _drawn(Path(folder) / f"{size[0]}x{size[1]}", *size, 8 if options.quick else SCENES)
            work = partial(_measure, job, config, data[size], device, options.weights, Path(folder))
            result[job.section].append(row | _attempt(work))
            write(result, path)
    if not options.quick:  # once more: a program beside this one may have slowed the first measurement
        result["hardware"] = [
            hardware.better(row, _ceiling(row["threads"], device, options)) for row in result["hardware"]
        ]
    write(result, path)
    return path


def _ceiling(threads: int | None, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(threads or torch.get_num_threads())
    return hardware.ceiling(device, options.quick)


def _measure(
    job: Job, config: Config, dataset: InstanceDataset, device: torch.device, weights: Path | None, folder: Path
) -> dict[str, Any]:
    """One measurement, without its shares of the ceiling."""
    given = job.arguments
    if job.section == "training":
        found = train.measure(config, given["case"], dataset, device, given["seconds"], folder)
        gflop = flops.of_patch(config)
        return found | {"gflop_by_branch": gflop, "gflop_per_patch": sum(gflop.values()) / len(gflop)}
    if job.section == "inference":
        model = load_model(weights, device) if weights else inference.build(config, device)
        images = [dataset.image(i % len(dataset)) for i in range(given["images"])]
        return inference.measure(config, model, images, device) | {"trained": bool(weights)}
    rows = layers.measure(config, given["batch"], device, given["least"])
    return {"precision": train.precision_name(config, device), "rows": rows}


def with_shares(result: dict[str, Any]) -> dict[str, Any]:
    """The result with what every measurement is of the ceiling with as many threads, in its number format."""
    ceilings = {row["threads"]: row for row in result["hardware"]}
    shared = {**result}
    for section in SECTIONS:
        rows = []
        for row in result[section]:
            if "failed" not in row:
                ceiling = ceilings[row["threads"]]
                row = row | _shares(section, row, ceiling["best_tflops"][row["precision"]], ceiling["copy_gbs"])
            rows.append(row)
        shared[section] = rows
    return shared


def _shares(section: str, row: dict[str, Any], tflops: float, gbs: float) -> dict[str, Any]:
    if section == "training":
        names = ("synthetic", "data")
        done = {name: row[f"{name}_patches_per_s"] * row["gflop_per_patch"] / 1e3 for name in names}
        return {f"{name}_utilisation": rate / tflops for name, rate in done.items()}
    if section == "inference":
        return {"network_utilisation": row["network_tflops"] / tflops}
    return {"tflops": tflops, "gbs": gbs, "rows": [layers.judged(part, tflops, gbs) for part in row["rows"]]}


def _attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` measures; or, so that the others go on, the kind of its failure."""
    try:
        return work()
    except (ConfigError, WeightsError):
        raise
    except Exception as error:
        # anything may fail in one case on an unknown device: memory, a compiler; its words may name folders
        print(f"benchmarks: {type(error).__name__}: {error}", file=sys.stderr)
        return {"failed": type(error).__name__}
    finally:
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _shown(job: Job) -> dict[str, Any]:
    """The arguments that belong in the result."""
    case = job.arguments.get("case")
    return dataclasses.asdict(case) if case else {k: v for k, v in job.arguments.items() if k == "batch"}


def _drawn(folder: Path, width: int, height: int, count: int) -> InstanceDataset:
    write_scenes(folder, train=count, val=0, width=width, height=height, seed=0, progress=False)
    return InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images")


def write(result: dict[str, Any], path: Path) -> None:
    """The JSON, with shares, and beside it the report that is made of it."""
    written = _rounded(with_shares(result))
    files.write_json(path, written)
    files.write_text(path.with_suffix(".md"), report.markdown(written))


def _rounded(value: Any) -> Any:
    """Five digits are more than a measurement of time has."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _with(threads: int | None) -> str:
    return "" if threads is None else f", threads: {threads}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed of training and inference here.")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder (results/benchmarks)")
    parser.add_argument("--params", type=Path, default=REPOSITORY / "params.yaml", help="parameter file")
    parser.add_argument("--profile", nargs="+", help="only these profiles; default: mini and the paper's network")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="only these sections")
    parser.add_argument("--weights", type=Path, help="a trained network for inference; default: an untrained one")
    parser.add_argument("--minutes", type=float, default=30.0, help="start no measurement after so many (30)")
    parser.add_argument("--quick", action="store_true", help="the smallest profile in seconds, for tests")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; user errors end in one sentence on stderr and exit status 1."""
    try:
        path = run(parser().parse_args(arguments))
    except (ConfigError, WeightsError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(path.with_suffix(".md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
