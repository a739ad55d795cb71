"""What is kept of an unattended study: eight small files with its tables, pictures, speed and log."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks import report as speed
from benchmarks.budget import Amounts, Rates
from deepmask import config as configs
from deepmask import figures, files, masks, pictures, report, results_file, scoring
from deepmask.config import Config
from deepmask.data import splits
from deepmask.data.coco import InstanceDataset
from deepmask.environment import environment
from deepmask.paths import REPOSITORY, Study
from deepmask.systems import SYSTEMS, VARIANTS

FILES = ("summary.md", "environment.json", "benchmark.json", "table1.csv", "training.csv")
FILES += ("training.png", "proposals.png", "log.txt")
LARGEST = 2 * 10**6  # bytes of a file
LOG = 60_000  # last characters kept of each log
SHOWN = 4  # scenes in the picture of proposals
BEST = 10  # proposals on each
FOUND = 0.5  # IoU from which an object counts as found (paper: Figure 3)


def write(work: Path, out: Path, missing: Sequence[str]) -> list[str]:
    """Write FILES into `out`, as far as the steps in `work` got; what went wrong, in words.

    `missing`: sentences on packages that are not here.
    """
    out.mkdir(parents=True, exist_ok=True)
    study, wrong, parts = Study(work / "study"), [], {}

    def attempt(name: str, make: Callable[[], Any]) -> None:
        try:
            parts[name] = make()
        except Exception as error:  # the other files are still worth having
            wrong.append(f"{name}: {type(error).__name__}: {error}")

    files.write_json(out / "environment.json", environment())
    config = configs.load(work / "params.yaml") if (work / "params.yaml").is_file() else None
    if config:
        attempt("table1.csv", lambda: _table(study, config, work, out))
        attempt("training.png", lambda: _training(study, out))
        attempt("proposals.png", lambda: _pictures(study, config, out / "proposals.png"))
    attempt("benchmark.json", lambda: _benchmark(work, out))
    steps = json.loads((work / "steps.json").read_text()) if (work / "steps.json").is_file() else []
    amounts = work / "amounts.json"
    plan = json.loads(amounts.read_text()) if amounts.is_file() else {}
    text = _summary(steps, plan, parts, [*missing, *map(without_paths, wrong)], config)
    files.write_text(out / "summary.md", without_paths(text))
    logs = [(path.stem, path.read_text(errors="replace")) for path in sorted((work / "logs").glob("*.log"))]
    files.write_text(out / "log.txt", "".join(f"==== {name}\n{tidy(log)}\n" for name, log in logs))
    for path in out.iterdir():
        if path.name in FILES and path.stat().st_size > LARGEST:
            path.unlink()
            wrong.append(f"{path.name}: larger than {LARGEST} bytes, left out")
    return wrong


def tidy(log: str) -> str:
    """A log without what a progress bar has written over, without folders of the machine, and not too long."""
    lines = [line.rsplit("\r", 1)[-1] for line in log.replace("\r\n", "\n").split("\n")]
    return without_paths("\n".join(lines))[-LOG:]


def without_paths(text: str) -> str:
    """Text in which the folders and the name of the machine are a dot."""
    folders = {REPOSITORY, Path.cwd(), Path(sys.prefix), Path(sys.base_prefix), Path.home()}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):  # one may be inside another
        if len(folder.parts) > 1:
            text = text.replace(str(folder), ".")
    text = re.sub(r"(?<![\w./-])/(?:root|home|Users|tmp|work|workspace|mnt|opt|usr)/[\w./-]*", ".", text)
    return text.replace(socket.gethostname(), "host") if len(socket.gethostname()) > 3 else text


def _table(study: Study, config: Config, work: Path, out: Path) -> str:
    """Table 1 of the systems whose proposals were made, in Markdown; table1.csv in `out`."""
    made = {key: study.proposals(system.masks, key) for key, system in SYSTEMS.items()}
    made = {key: path for key, path in made.items() if path.is_file()}
    if not made:
        raise FileNotFoundError("no proposals were made")
    reported = splits.load(config.data, study, "report")
    settings = {"small": config.evaluate.small, "large": config.evaluate.large, "images": len(reported)}
    annotations = splits.folder(config.data, study) / config.data.val
    measured = scoring.table(
        made, annotations, **settings, resamples=config.evaluate.bootstrap, seed=config.evaluate.seed
    )
    origin = report.Provenance(config.profile, len(reported), config.train.seed, "make gpu")
    csv, markdown = report.write_table1(measured, work / "tables", origin)
    shutil.copyfile(csv, out / "table1.csv")
    return markdown.read_text()


def _training(study: Study, out: Path) -> str:
    """training.csv and its figure; the last looks at held-out patches, in Markdown."""
    paths = {variant: study.result("training", f"{variant}.csv") for variant in VARIANTS}
    histories = {variant: pd.read_csv(path) for variant, path in paths.items() if path.is_file()}
    if not histories:
        raise FileNotFoundError("no network was trained to the end")
    table = pd.concat([history.assign(variant=variant) for variant, history in histories.items()])
    files.write_csv(out / "training.csv", table[["variant", *table.columns.drop("variant")]])
    training_curves(histories).savefig(out / "training.png", dpi=130)
    names = [name for name in table if name.split("_")[0] in ("iou", "auc") or name.endswith("_loss")]
    rows = [
        [variant, str(int(history.samples.iloc[-1])), *(f"{history[name].iloc[-1]:.3f}" for name in names)]
        for variant, history in histories.items()
    ]
    return speed.table(["", "patches", *names], rows)


def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Losses, IoU and AUC of held-out patches against the patches trained on; the second network's lines are broken."""
    with plt.rc_context(figures.STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
        for (variant, history), dash in zip(histories.items(), ("-", "--", ":"), strict=False):
            for name, colour in (("mask", "#0b559f"), ("score", "#c8400a")):
                axes[0].plot(history.samples, history[f"{name}_loss"], dash, color=colour, label=f"{name}, {variant}")
            for group, colour in pictures.GROUPS.items():
                for axis, measure in zip(axes[1:], ("iou", "auc"), strict=True):
                    if f"{measure}_{group}" in history:
                        values = history[f"{measure}_{group}"]
                        axis.plot(history.samples, values, dash, color=colour, label=f"{group}, {variant}")
        axes[0].axhline(np.log(2), color="0.7", linestyle=":", label="log 2")
        titles = ("loss per patch", "IoU of held-out patches", "AUC of held-out scores")
        for axis, title in zip(axes, titles, strict=True):
            axis.set(title=title, xlabel="patches")
            axis.legend(frameon=False, fontsize=7)
    plt.close(figure)
    return figure


def _pictures(study: Study, config: Config, path: Path) -> None:
    reported = splits.load(config.data, study, "report")
    proposals = results_file.read(study.proposals("deepmask", "deepmask"), reported.image_ids.tolist())
    figure = scenes_with_proposals(reported, proposals, SHOWN)
    for dpi in (110, 80, 60):
        figure.savefig(path, dpi=dpi)
        if path.stat().st_size <= LARGEST:
            break


def scenes_with_proposals(dataset: InstanceDataset, proposals: Mapping[int, Any], count: int) -> Figure:
    """Scenes with the most objects, in rows: the objects, the best-ranked proposals, the closest to each object.

    An object that no proposal overlaps with an IoU of FOUND has none in the last picture.
    """
    crowd = dataset.ann_crowd
    objects = [np.array([a for a in dataset.annotations(i) if not crowd[a]], int) for i in range(len(dataset))]
    chosen = sorted(range(len(dataset)), key=lambda i: -len(objects[i]))[:count]
    figure, axes = plt.subplots(len(chosen), 3, figsize=(9, 2.4 * len(chosen)), squeeze=False, layout="constrained")
    for row, i in zip(axes, chosen, strict=True):
        image, truth = dataset.image(i), [dataset.mask(a) for a in objects[i]]
        made = proposals.get(int(dataset.image_ids[i]))
        rles = list(made.masks) if made is not None and made.masks else []
        pictures.show_masks(row[0], image, truth, title=f"{len(truth)} objects")
        pictures.show_masks(row[1], image, [masks.decode(rle) for rle in rles[:BEST]], title=f"best {BEST} proposals")
        closest = np.zeros((len(rles), len(truth)))
        if rles and truth:
            closest = masks.iou(rles, masks.encode(np.stack(truth)))
        found = [j for j in range(len(truth)) if len(rles) and closest[:, j].max() >= FOUND]
        near = [masks.decode(rles[int(closest[:, j].argmax())]) for j in found]
        tints = pictures.colours(len(truth))[found]
        pictures.show_masks(row[2], image, near, tints, title=f"closest to each: {len(found)} of {len(truth)} found")
    plt.close(figure)
    return figure


def _benchmark(work: Path, out: Path) -> str:
    """benchmark.json, with the speed of the trained network if it was measured; its report."""
    (path,) = (work / "benchmark").glob("*.json")
    result = json.loads(path.read_text())
    for path in (work / "trained").glob("*.json"):
        result["inference"] += json.loads(path.read_text())["inference"]
    files.write_json(out / "benchmark.json", result)
    return speed.markdown(result)


def _summary(
    steps: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any],
    parts: Mapping[str, str],
    wrong: Sequence[str],
    config: Config | None,
) -> str:
    lines = ["# An unattended study", ""]
    rows = [[step["name"], step["status"], f"{step['seconds']:.0f}"] for step in steps]
    lines += [speed.table(["step", "", "seconds"], rows), ""]
    if plan:
        lines += [f"Profile `{config.profile}`, made smaller where the time asked for it:", ""]
        cells = [[name, f"{row['profile']:,}", f"{row['here']:,}"] for name, row in plan["amounts"].items()]
        lines += [speed.table(["", "profile", "here"], cells), ""]
        rates = ", ".join(f"{name} {value:.3g}" for name, value in plan["rates"].items())
        origin = "measured here" if plan["measured"] else "that are guesses, as the probe failed"
        lines += [f"Planned from rates {origin}, per second: {rates}.", ""]
    if wrong:
        lines += ["Not made, or not here:", "", *(f"- {line}" for line in wrong), ""]
    if "table1.csv" in parts:
        lines += ["## Average recall", "", parts["table1.csv"], ""]
    if "training.png" in parts:
        lines += ["## Training", "", "Held-out patches at the end ([curves](training.png)):", "", parts["training.png"]]
        lines += ["", "![training](training.png)", "", "![proposals](proposals.png)", ""]
    if "benchmark.json" in parts:
        lines += [parts["benchmark.json"].replace("\n## ", "\n### ").replace("# Speed", "## Speed", 1)]
    return "\n".join(lines).rstrip() + "\n"


def record(amounts: Amounts, rates: Rates, config: Config, measured: bool) -> dict[str, Any]:
    """The plan in numbers: of each amount what the profile has and what is run here, and the rates behind it."""
    profile = {
        "train_images": config.data.train_images,
        "pretrain_samples": config.pretrain.samples,
        "train_samples": config.train.samples,
    }
    here = dataclasses.asdict(amounts)
    return {
        "amounts": {name: {"profile": value, "here": here[name]} for name, value in profile.items()},
        "rates": dataclasses.asdict(rates),
        "measured": measured,
    }
