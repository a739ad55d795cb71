"""The small table that a reader sees, made from the benchmark's JSON and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PARTS = ("scaling", "trunk", "score", "ranking", "mask logits", "paste", "RLE")  # of an image, in their order
PAPER = "coco"  # the profile that has the paper's network
TRAINING, DATA, IMAGE_NETWORK, IMAGE_ALL, CPU = 0.40, 0.90, 8.0, 25.0, 0.60  # the targets
VARIED = 0.15  # of the matrix rate between two measurements, from which on the reader is warned
BUSY = 0.25  # of the cores, before the benchmark began, likewise
NOTE = (
    "Shares are of the best measured matrix rate in the same format; the bytes of a layer are ideal, each tensor moved "
    "once. Training counts the FLOPs of trunk and heads, forward "
    "and backward; *synthetic* is a step on one fixed batch, *data* the study's own loop on images. Parts are waited "
    "for one by one, so on a GPU they add up to more than a step takes."
)


@dataclass(frozen=True)
class Target:
    """One aim of the project, what was measured for it, and whether it is reached; None where it does not apply."""

    aim: str
    measured: str
    reached: bool | None

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "reached", False: "not reached", None: "does not apply"}[self.reached]


def slug(environment: Mapping[str, Any]) -> str:
    """A name for files: the GPU, or the processor and its cores."""
    name = environment["device"]
    if name == "cpu":
        name = f"{environment['processor']} {environment['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def targets(result: Mapping[str, Any]) -> list[Target]:
    """The project's aims, judged on the paper's network where that was measured."""
    environment = result["environment"]
    gpu, h200 = environment["device"] != "cpu", "H200" in environment["device"]
    trained = [row for row in result["training"] if row["profile"] == PAPER and "failed" not in row]
    best = max(trained, key=lambda row: row["data_utilisation"], default=None)
    image = next((row for row in result["inference"] if row["profile"] == PAPER and "failed" not in row), None)
    rows = []
    aim = f"training on images uses at least {TRAINING:.0%} of the matrix rate, on a GPU"
    rows.append(_judge(aim, best, "data_utilisation", TRAINING, "%", gpu))
    aim = f"training on images is within {1 - DATA:.0%} of training without data"
    rows.append(_judge(aim, best, "data_to_synthetic", DATA, "%", True))
    aim = f"the network takes at most {IMAGE_NETWORK:g} ms per image, on an H200"
    rows.append(_judge(aim, image, "network_ms", IMAGE_NETWORK, "ms", h200))
    aim = f"an image takes at most {IMAGE_ALL:g} ms in all, on an H200"
    rows.append(_judge(aim, image, "total_ms", IMAGE_ALL, "ms", h200))
    aim = f"the network's dense pass uses at least {CPU:.0%} of the matrix rate, on a processor"
    rows.append(_judge(aim, image, "network_utilisation", CPU, "%", not gpu))
    return rows


def _judge(aim: str, row: Mapping[str, Any] | None, key: str, limit: float, unit: str, applies: bool) -> Target:
    if row is None:
        return Target(aim, "not measured", None)
    value = row[key]
    text = f"{value:.0%}" if unit == "%" else f"{value:.1f} {unit}"
    reached = value >= limit if unit == "%" else value <= limit
    return Target(aim, text, bool(reached) if applies else None)


def markdown(result: Mapping[str, Any]) -> str:
    """The report: ceiling, targets, training, inference, layers."""
    environment = result["environment"]
    packages = environment["packages"]
    place = f"{environment['cores']} cores of {environment['processor']}"
    if environment["device"] != "cpu":
        place = f"{environment['device']}, {place}"
    parts = [f"# Speed on {place}", f"torch {packages['torch']}, Python {environment['python']}."]
    parts += ["## Ceiling", _hardware(result["hardware"])]
    parts += [doubt] if (doubt := _doubt(result)) else []
    aims = [[target.aim, target.measured, target.verdict] for target in targets(result)]
    parts += ["## Targets", table(["target, for the paper's network", "measured", ""], aims)]
    if result["training"]:
        parts += ["## Training", _training(result["training"])]
    if result["inference"]:
        parts += ["## Dense inference", _inference(result["inference"])]
    parts += [text for part in result["layers"] for text in _layers(part)]
    return "\n\n".join([*parts, NOTE]) + "\n"


def _hardware(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = []
    for row in rows:
        name = "" if row["threads"] is None else f", {_threads(row['threads'])}"
        for kind, best in row["best_tflops"].items():
            products = ", ".join(f"{rate:.3g}" for _, rate in _by_size(row["matrix_tflops"][kind]))
            note = f"products {products}; convolution {row['convolution_tflops'][kind]:.3g}"
            cells.append([f"matrix rate, {kind}{name}", f"{best:.3g} TFLOP/s", note])
        cells.append([f"copy, read and written{name}", f"{row['copy_gbs']:.3g} GB/s", ""])
    sizes = ", ".join(size for size, _ in _by_size(next(iter(rows[0]["matrix_tflops"].values())))) if rows else ""
    return table(["", "best", f"of matrices of side {sizes}, and a 3x3 convolution"], cells)


def _doubt(result: Mapping[str, Any]) -> str:
    """A warning if other programs may have slowed what was measured; else nothing."""
    varied = max((row.get("varied", 0.0) for row in result["hardware"]), default=0.0)
    busy = result.get("load_before", 0.0) / result["environment"]["cores"]
    if varied <= VARIED and busy <= BUSY:
        return ""
    return (
        f"Other programs may have been running ({busy:.0%} of the cores were busy before; measured twice, the matrix "
        f"rate differed by {varied:.0%}), and times may be too long: run it again on an idle machine."
    )


def _by_size(rates: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(rates.items(), key=lambda item: int(item[0]))


def _training(rows: Sequence[Mapping[str, Any]]) -> str:
    names = ["network", "batch", "optimiser", "GFLOP per patch", "synthetic, patches/s", "share", "data, patches/s"]
    names += ["share", "data/synthetic", "data, ms", "forward, ms", "backward, ms", "optimiser, ms", "peak, GiB"]
    cells = []
    for row in rows:
        head = [_what(row), str(row["batch"]), row["optimiser"] + (", compiled" if row["compile"] else "")]
        if "failed" in row:
            cells.append([*head, f"failed: {row['failed']}", *[""] * (len(names) - 4)])
            continue
        parts = [f"{row['parts_ms'][name]:.3g}" for name in ("data", "forward", "backward", "optimiser")]
        cells.append(
            [
                *head,
                f"{row['gflop_per_patch']:.3g}",
                f"{row['synthetic_patches_per_s']:.4g}",
                f"{row['synthetic_utilisation']:.0%}",
                f"{row['data_patches_per_s']:.4g}",
                f"{row['data_utilisation']:.0%}",
                f"{row['data_to_synthetic']:.0%}",
                *parts,
                _gib(row["peak_mib"]),
            ]
        )
    return table(names, cells)


def _inference(rows: Sequence[Mapping[str, Any]]) -> str:
    done = [row for row in rows if "failed" not in row]
    names = [name for name in PARTS if any(name in row["parts_ms"] for row in done)]
    cells = [["image", *(f"{row['image'][1]} x {row['image'][0]}" for row in done)]]
    cells += [[f"{name}, ms", *(f"{row['parts_ms'].get(name, 0):.3g}" for row in done)] for name in names]
    cells += [
        ["network, ms", *(f"{row['network_ms']:.3g}" for row in done)],
        ["network, GFLOP", *(f"{sum(row['gflop'].values()):.4g}" for row in done)],
        ["network, share of the matrix rate", *(f"{row['network_utilisation']:.0%}" for row in done)],
        ["all, ms", *(f"{row['total_ms']:.4g}" for row in done)],
        ["images/s", *(f"{row['images_per_s']:.3g}" for row in done)],
        ["peak memory, GiB", *(_gib(row["peak_mib"]) for row in done)],
    ]
    failed = [f"{_what(row)}: failed, {row['failed']}" for row in rows if "failed" in row]
    return "\n\n".join([table(["", *map(_what, done)], cells), *failed])


def _layers(part: Mapping[str, Any]) -> Iterable[str]:
    yield f"## Layers of {_what(part)}, batch {part['batch']}"
    if "failed" in part:
        yield f"failed: {part['failed']}"
        return
    names = ["layer", "GFLOP", "MB", "FLOP/byte", "bound by", "forward, ms", "TFLOP/s", "share of the bound"]
    names += ["backward, ms", "TFLOP/s", "share of the bound"]
    grouped: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in part["rows"]:
        grouped.setdefault(_group(row["layer"]), {}).setdefault(row["direction"], []).append(row)
    cells = []
    for name, group in grouped.items():
        forward = _joined(group["forward"])
        intensity = 1e3 * forward["gflop"] / forward["mb"]
        cell = [name, f"{forward['gflop']:.3g}", f"{forward['mb']:.3g}", f"{intensity:.3g}"]
        cell.append(group["forward"][0]["bound_by"])
        for both in (forward, _joined(group["backward"])):
            rate = f"{both['gflop'] / both['ms']:.3g}" if both["gflop"] else "–"
            cell += [f"{both['ms']:.3g}", rate, f"{both['ideal'] / both['ms']:.0%}"]
        cells.append(cell)
    yield table(names, cells)


def _group(layer: str) -> str:
    """Layers that are alike share a line."""
    return {"relu": "ReLU, all", "pool": "pools, all"}.get(layer.rstrip("0123456789"), layer)


def _joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sums over rows; `ideal` is the milliseconds that they would take at their bounds."""
    sums = {key: sum(row[key] for row in rows) for key in ("gflop", "mb", "ms")}
    return sums | {"ideal": sum(row["share"] * row["ms"] for row in rows)}


def _what(row: Mapping[str, Any]) -> str:
    name = f"`{row['profile']}`" + (", trained" if row.get("trained") else "")
    return name if row.get("threads") is None else f"{name}, {_threads(row['threads'])}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _gib(mib: float | None) -> str:
    return "–" if mib is None else f"{mib / 1024:.2f}"


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    rule = ["---", *("---:" for _ in names[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, rule, *rows])
