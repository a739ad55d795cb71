"""The model card beside the released weights, made from files: no number in it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from deepmask import released
from deepmask.files import write_text
from deepmask.paths import Study
from deepmask.report import KINDS, ReportError, read_measured
from deepmask.systems import SYSTEMS
from deepmask.weights import load_tensors

METRICS = ("AR@10", "AR@100", "AR@1000", "AUC")

HEAD = """\
# Released weights of DeepMask

`deepmask.safetensors` is the network DeepMask of this study in half precision: {parameters:,} parameters,
{megabytes:.1f} MB. Loading it runs no code. This page is made by `notebooks/14_weights.ipynb` from the study's files.

| | |
| --- | --- |
| network | of section 3.1, {width:g} of VGG-A's width, rank {rank}; patches of {patch} px, a cell every {stride} px |
| trained on | {data}; {samples:,} patches, optimiser {optimiser}, seed {seed} |
| made by | `{command}`, profile `{profile}`, then this notebook |
| scales | 2 to the power of {scales}; DeepMaskZoom: also {zoom:g} |
| masks | cut at probability {threshold:g}, chosen on tuning images (AUC of masks {tuned}) |
| licence | {licence} |

## What it reaches

Average recall on the {images} test images of the study, {kind}, which neither training nor tuning
saw. It is Table 1, measured with the weights in single precision; the notebook asserts that half precision gives the
same proposals.
"""

USE = """\
```python
import deepmask

propose = deepmask.load("deepmask")  # this file where the study has trained no DeepMask of its own
proposals = propose(image)  # (H, W, 3) uint8 RGB -> proposals, best first
```

On the command line: `deepmask demo`, and `deepmask propose IMAGE --weights released`. With torch.hub: `hubconf.py`.
"""

LIMITS_DRAWN = """\
- It has seen nothing but drawn scenes and finds little in photographs. For these `deepmask propose` takes
  SelectiveSearch, which needs no training, unless it is told otherwise.
- Objects and grounds of the test scenes come from the same program as those of the training scenes.
"""
LIMITS = """\
- One training run with one seed; the numbers do not contain what another run would change.
- Masks are predicted on a grid of {mask} x {mask} and interpolated: soft borders, and low recall at high IoU.
- Objects smaller than the finest scale or larger than the coarsest are missed.
- It proposes regions and does not name them; neighbouring cells find an object again, and nothing suppresses that.
- These are not the authors' weights, and the numbers are not the paper's.
"""


def text(study: Study) -> str:
    """Markdown: what the released weights are, what they reach, and where they fail.  Raises ReportError, WeightsError.

    Reads the released file, Table 1 and the thresholds that were tried.
    """
    file = released.path(study)
    tensors, record = load_tensors(file)
    table = read_measured(study.result("tables", "table1.csv"))
    rows = table[table["method"].isin([SYSTEMS[key].name for key in released.METHODS])]
    if rows.empty:
        raise ReportError(
            f"{study.result('tables', 'table1.csv')}: has no row of DeepMask; run the stage that writes it"
        )
    tuning = read_measured(study.result("tuning", "deepmask.csv"))
    propose, scenes = released.settings(file), record.get("scenes")
    facts: dict[str, Any] = {**record["geometry"], **record["model"], **record["train"]}
    head = HEAD.format(
        **{key: facts[key] for key in ("width", "rank", "patch", "stride", "samples", "optimiser", "seed")},
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        megabytes=file.stat().st_size / 1e6,
        data=_data(record["images"], scenes),
        command=rows["command"].iloc[0],
        profile=record["profile"],
        scales=", ".join(f"{octave:g}" for octave in propose.scales),
        zoom=propose.zoom,
        threshold=propose.thresholds[0],
        tuned=_short(tuning["mask_auc"][tuning["chosen"]].iloc[0]),
        licence="MIT, as the code" if scenes else "that of the images it was trained on, besides the code's MIT",
        images=rows["images"].iloc[0],
        kind="drawn by the same program" if scenes else "of the same data",
    )
    limits = (LIMITS_DRAWN if scenes else "") + LIMITS.format(mask=facts["mask"])
    return "\n".join([head, _table(rows), "\n## Limits\n", limits, "## Use\n", USE])


def write(study: Study) -> Path:
    """Write the card beside the released weights; its path."""
    path = released.path(study).with_name("README.md")
    write_text(path, text(study))
    return path


def _data(images: int, scenes: dict[str, int] | None) -> str:
    if scenes is None:
        return f"{images:,} images of a COCO-format data set"
    return f"{images:,} drawn scenes of {scenes['width']} x {scenes['height']} px (seed {scenes['seed']})"


def _table(rows: pd.DataFrame) -> str:
    lines = [f"| | {' | '.join(METRICS)} |", "| --- |" + " ---: |" * len(METRICS)]
    for kind, (heading, _) in KINDS.items():
        for row in rows[rows["kind"] == kind].sort_values("method").to_dict("records"):
            name = f"{row['method']}, {heading.lower()}"
            lines.append(f"| {name} | {' | '.join(_short(row[metric]) for metric in METRICS)} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if pd.notna(value) else "–"
