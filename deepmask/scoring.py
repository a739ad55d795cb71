"""Results files of any program, scored: the metrics of section 4, with their uncertainty if asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmask import results_file
from deepmask.bootstrap import interval
from deepmask.data.coco import InstanceDataset
from deepmask.evaluation import LARGE, METRICS, SMALL, Recall, evaluate, summary
from deepmask.matching import EvaluationError
from deepmask.proposals import Proposals

KINDS = ("bbox", "segm")


def read_covering(path: str | Path, dataset: InstanceDataset, known: Collection[int]) -> dict[int, Proposals]:
    """Proposals of another program on the images of `dataset`, by image id; other images of `known` are passed over.

    Raises ProposalError if the file is malformed or has an image that is not in `known`, and EvaluationError if it
    has proposals for fewer than half of the images: these would count as missed objects.
    """
    proposals = results_file.read(path, known, only=dataset.image_ids.tolist())
    if 2 * len(proposals) < len(dataset):
        raise EvaluationError(
            f"{path}: has proposals for {len(proposals)} of the {len(dataset)} images that are reported on, fewer than "
            "half of them; was it made for other images?"
        )
    return proposals


def evaluate_file(
    path: str | Path,
    annotations: str | Path,
    small: float = SMALL,
    large: float = LARGE,
    max_count: int = 1000,
    images: int | None = None,
) -> dict[str, Any]:
    """Score a COCO results file; image files are not needed.

    `images`: only the first so many by ascending id (the paper's 5000 of val2014).  Gives counts of what was evaluated
    and a `summary` under "bbox" and, if the file has masks, under "segm".  Raises ProposalError, DataError and
    EvaluationError.
    """
    _check(small, large, images)
    dataset, proposals, recalls = _recalls(path, annotations, max_count, images)
    return {
        "images": len(dataset),
        "images_without_proposals": len(dataset) - len(proposals),
        "objects": int((~dataset.ann_crowd).sum()),
        "proposals": sum(min(len(p), max_count) for p in proposals.values()),
        "small": small,
        "large": large,
        **{kind: summary(recall, small, large) for kind, recall in recalls.items()},
    }


def table(
    paths: Mapping[str, str | Path],
    annotations: str | Path,
    small: float = SMALL,
    large: float = LARGE,
    images: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """A row per results file (by name) and kind: each metric, and its 95 % bootstrap interval over images.

    Columns: method, kind, images, objects, then "AR@10", "AR@10 low", "AR@10 high" and so on.
    """
    _check(small, large, images)
    rows = []
    for name, path in paths.items():
        dataset, _, recalls = _recalls(path, annotations, 1000, images)
        for kind, recall in recalls.items():
            row: dict[str, Any] = {"method": name, "kind": kind, "images": len(dataset), "objects": len(recall.images)}
            for metric in METRICS:
                part, _, size = metric.partition("_")
                bounds = {s[0].upper(): select for s, select in recall.sizes(small, large).items()}
                found = interval(recall.only(bounds.get(size)), part, resamples, seed)
                row |= {metric: found.value, f"{metric} low": found.low, f"{metric} high": found.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _check(small: float, large: float, images: int | None) -> None:
    if not 0 <= small <= large:  # also false for NaN
        raise EvaluationError(f"small {small:g} and large {large:g} are no bounds: 0 <= small <= large")
    if images is not None and images < 1:
        raise EvaluationError(f"images is {images}; score at least 1, or leave it out for all of them")


def _recalls(
    path: str | Path, annotations: str | Path, max_count: int, images: int | None
) -> tuple[InstanceDataset, dict[int, Proposals], dict[str, Recall]]:
    dataset = InstanceDataset.read(annotations, Path(annotations).parent)
    known = dataset.image_ids.tolist()
    if images is not None:
        dataset = dataset.images_subset(np.arange(min(images, len(dataset))))
    proposals = results_file.read(path, known, only=dataset.image_ids.tolist())
    kinds = KINDS if all(p.masks is not None for p in proposals.values()) else KINDS[:1]
    return dataset, proposals, {kind: evaluate(dataset, proposals, kind, max_count) for kind in kinds}


def format_summary(result: Mapping[str, Any]) -> str:
    """The result of `evaluate_file` as lines of aligned text."""
    lines = [f"{result['images']} images, {result['objects']} objects, {result['proposals']} proposals"]
    if result["images_without_proposals"]:
        lines.append(f"{result['images_without_proposals']} of the images have no proposals: their objects are missed")
    lines += ["", " " * 8 + "".join(f"{name:>9}" for name in METRICS)]
    for kind, name in (("bbox", "boxes"), ("segm", "masks")):
        values = result.get(kind)
        cells = [f"{values[metric]:9.3f}" for metric in METRICS] if values else ["  the file has no masks"]
        lines.append(f"{name:<8}" + "".join(cells))
    small, large = (f"{result[bound]:g}^2" for bound in ("small", "large"))
    return "\n".join([*lines, "", f"S: area < {small} px, M: {small} to {large} px, L: > {large} px"])
