"""Tables of section 4: ours beside the paper's, made from measured CSV files and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from deepmask import paper
from deepmask.files import write_csv, write_text
from deepmask.systems import CLASSICAL

KINDS = {"bbox": ("Box proposals", paper.BOX_METRICS), "segm": ("Segmentation proposals", paper.SEGM_METRICS)}
SOURCE1, SOURCE2 = "the first 5000 images of COCO val2014", "PASCAL VOC 2007 test"
HEADINGS = {"AUC_S": "AUC S", "AUC_M": "AUC M", "AUC_L": "AUC L"}


class ReportError(ValueError):
    """Measurements are missing or malformed; the message names the file or column."""


@dataclass(frozen=True)
class Provenance:
    """Where our numbers come from; every table says it."""

    profile: str  # of params.yaml
    images: int  # reported on
    seed: int
    command: str  # that makes the table


def provenance(profile: str, own_data: bool, seed: int, images: int) -> Provenance:
    """The provenance of what a study measures on so many images; `own_data`: in a folder that was named."""
    command = "make repro" if profile == "mini" else f"make repro PROFILE={profile}"
    return Provenance(profile, images, seed, command + " DATA=..." * own_data)


def read_measured(*paths: str | Path) -> pd.DataFrame:
    """The rows of several CSV files of measurements, one below the other; raises ReportError if one is missing."""
    try:
        return pd.concat([pd.read_csv(path) for path in sorted(map(str, paths))], ignore_index=True)
    except FileNotFoundError as error:
        raise ReportError(f"{error.filename}: no such measurements; run the stage that writes them") from None


def table1(measured: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as far as measured: one row per kind and method, each metric ours and, beside it, the paper's.

    `measured`: a row per method (key or name of `paper.METHODS`, or any other) and kind ("bbox", "segm"), with the
    columns of `evaluation.METRICS`; and, if ours is to be named differently, a `label`.  Result: kind, method, label,
    "AR@10", "AR@10 paper", ...; rows in the paper's order, others after them; nan where the paper has no number.
    Raises ReportError.
    """
    return _beside(measured, paper.TABLE1)


def write_table1(measured: pd.DataFrame, folder: str | Path, provenance: Provenance) -> list[Path]:
    """Write table1.csv and table1.md (ours, the paper's in brackets) into `folder`; the paths."""
    return _write(table1(measured), Path(folder) / "table1", "Table 1", SOURCE1, provenance)


def write_table2(measured: pd.DataFrame, folder: str | Path, provenance: Provenance) -> list[Path]:
    """Write table2.csv and table2.md, box proposals on PASCAL, as `write_table1` does; `measured` as for `table1`."""
    boxes = measured[measured["kind"] == "bbox"]
    return _write(_beside(boxes, {"bbox": paper.TABLE2}), Path(folder) / "table2", "Table 2", SOURCE2, provenance)


def write_detection(summary: pd.DataFrame, folder: Path, provenance: Provenance) -> Path:
    """Write detection.md: mAP by number of proposals; `summary` as for `figures.detection_curves`."""
    quotes = paper.QUOTES
    published = {
        ("deepmask", 100): quotes["map_100"],
        ("deepmask", 500): quotes["map_500"],
        ("selectivesearch", 2000): quotes["map_selectivesearch"],
    }
    rows = []
    for source, part in summary.groupby("proposals", sort=False):
        row = {"Fast R-CNN on proposals of": paper.METHODS[source]}
        for found in part.to_dict("records"):
            quote = published.get((source, found["count"]))
            row[str(found["count"])] = _short(found["mAP"]) + (f" ({_short(quote.value)})" if quote else "")
        rows.append(row)
    caption = (
        f"**Figure 5.** mAP by number of proposals, ours (the paper's, on PASCAL VOC 2007). Profile "
        f"`{provenance.profile}`, {provenance.images} images, seed {provenance.seed}, `{provenance.command}`."
    )
    path = Path(folder) / "detection.md"
    write_text(path, f"{caption}\n\n{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}\n")
    return path


def write_speed(measured: pd.DataFrame, path: str | Path, provenance: Provenance) -> pd.DataFrame:
    """Write PATH.csv and PATH.md: seconds per image of each method on one core, with and without its edges.

    `measured`: a row per method key and one for "edges", in the column `what`, with the columns images, megapixels and
    median (seconds).  The paper's seconds stand beside ours where it has them, on its own machines and images.
    """
    rows = measured.set_index("what")
    published = {"deepmask": paper.QUOTES["seconds_coco"], "geodesic": paper.QUOTES["seconds_geodesic"]}
    published["mcg"] = paper.QUOTES["seconds_mcg"]
    table = []
    for key in (key for key in paper.METHODS if key in rows.index):
        classical = CLASSICAL.get(key)
        edges = rows.loc["edges", "median"] if classical and classical.edges else 0.0
        own, quote = rows.loc[key, "median"], published.get(key)
        row = {"method": classical.label if classical else paper.METHODS[key], "edges": edges, "proposals": own}
        row |= {"seconds": edges + own, "images": int(rows.loc[key, "images"])}
        table.append(row | {"paper": f"{quote.value:g} {quote.unit}" if quote else ""})
    result = pd.DataFrame(table)
    path, size = Path(path), rows["megapixels"].mean()
    write_csv(path.with_suffix(".csv"), result, digits=3)
    caption = (
        f"**Seconds per image** of {size:.2f} megapixels: median, one process on one core, without reading and writing "
        f"files. Profile `{provenance.profile}`, `{provenance.command}`. The paper's are of its own machines."
    )
    write_text(path.with_suffix(".md"), f"{caption}\n\n{result.to_markdown(index=False, floatfmt='.2f')}\n")
    return result


def _beside(measured: pd.DataFrame, published: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> pd.DataFrame:
    columns = list(dict.fromkeys(metric for kind in published for metric in KINDS[kind][1]))
    columns.sort(key=paper.SEGM_METRICS.index)
    missing = [name for name in ("method", "kind", *columns) if name not in measured]
    if missing:
        raise ReportError(f"measurements without the column {missing[0]!r}; they have {', '.join(measured.columns)}")
    ours = measured.assign(method=[paper.METHODS.get(method, method) for method in measured["method"]])
    repeated = ours[ours.duplicated(["method", "kind"])]
    if len(repeated):
        raise ReportError(f"{repeated['method'].iloc[0]} ({repeated['kind'].iloc[0]}) was measured twice; keep one")
    known = list(paper.METHODS.values())
    rows = []
    for kind in published:
        of_kind = ours[ours["kind"] == kind].set_index("method")
        for method in sorted(of_kind.index, key=lambda m: (known.index(m) if m in known else len(known), m)):
            row: dict[str, Any] = {"kind": kind, "method": method, "label": of_kind.loc[method].get("label", method)}
            for metric in columns:
                row[metric] = of_kind.loc[method, metric]
                row[f"{metric} paper"] = published[kind].get(method, {}).get(metric)
            rows.append(row)
    names = ["kind", "method", "label", *(name for metric in columns for name in (metric, f"{metric} paper"))]
    return pd.DataFrame(rows, columns=names).astype({name: "float64" for name in names[3:]})


def _write(table: pd.DataFrame, path: Path, title: str, source: str, provenance: Provenance) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    csv, markdown = path.with_suffix(".csv"), path.with_suffix(".md")
    write_csv(csv, table.assign(**vars(provenance)), digits=3)
    caption = (
        f"**{title}.** Ours (in brackets: the paper's, on {source}). Profile `{provenance.profile}`, "
        f"{provenance.images} images, seed {provenance.seed}, `{provenance.command}`."
    )
    parts = [caption, *(_markdown(table[table["kind"] == kind], *KINDS[kind]) for kind in table["kind"].unique())]
    expected = paper.TABLE2 if title == "Table 2" else paper.TABLE1_BOX
    absent = [name for name in expected if name not in set(table["method"])]
    note = "AR is the mean recall over IoU .50 to .95, AUC its mean over log-spaced counts of proposals from 1 to 1000."
    if provenance.profile != "coco":
        note += " The images are not the paper's, so compare the order of the methods, not the values."
    if absent:
        note += f" Not measured: {', '.join(absent)}."
    write_text(markdown, "\n\n".join([*parts, note]) + "\n")
    return [csv, markdown]


def _markdown(table: pd.DataFrame, heading: str, metrics: tuple[str, ...]) -> str:
    rows = [[heading, *(HEADINGS.get(metric, metric) for metric in metrics)]]
    for row in table.to_dict("records"):
        name = row["label"].replace("*", "\\*")
        rows.append([name, *(_cell(row[metric], row[f"{metric} paper"]) for metric in metrics)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    cells = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(ours: float, published: float) -> str:
    return f"{_short(ours)} ({_short(published)})"


def _short(value: float) -> str:
    """.123 as the paper prints it; a dash where there is no number."""
    if pd.isna(value):
        return "–"
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text
