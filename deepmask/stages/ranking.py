"""Stage: the forest that ranks MCG's candidates, learned from training images (paper: section 4)."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from deepmask import files
from deepmask.baselines.edges import EdgeDetector
from deepmask.baselines.mcg import MCG, best_overlaps, training_rows
from deepmask.baselines.mcg_forest import Ranking
from deepmask.config import Config
from deepmask.data import splits
from deepmask.paths import Study
from deepmask.stages import launch, sharing

HELD_OUT = 5  # every fifth image measures the forest and is not learned from
TENTHS = 10


def run(study: Study, params: str | Path, profile: str | None, ranks: int = 0) -> None:
    """Start `job` on every core; see `launch.start`."""
    launch.start("ranking", job, study, params, profile, ranks=ranks)


def job(study: Study, config: Config, variant: str, rank: int, ranks: int) -> None:
    """Describe candidates of training images, fit the forest to their overlaps, and measure it on held-out images."""
    cv2.setNumThreads(1)  # the ranks share the cores
    settings, train = config.baselines.mcg, splits.load(config.data, study, "train")
    count = min(settings.train_images, len(train))
    # between the images that the edges were learned from
    train = train.images_subset(((np.arange(count) + 0.5) * len(train) / count).astype(int))
    scratch = sharing.claim(study.scratch("ranking"), rank, config.data, config.edges, settings, study.forest)
    method, detector = MCG(settings), EdgeDetector(study.forest, config.edges.scales)

    def work(i: int) -> float:
        image, start = train.image(i), time.perf_counter()
        pool = method.pool(image, detector(image))
        overlaps = best_overlaps(pool, [train.rle(a) for a in train.annotations(i) if not train.ann_crowd[a]])
        rows = training_rows(pool, overlaps, settings.samples, settings.seed + i)
        table = np.column_stack([overlaps[rows], pool.features[rows]]) if overlaps.any() else np.zeros((0, 0))
        files.write_array(scratch / f"{i}.npz", table)
        return time.perf_counter() - start

    sharing.each(train, work, scratch, rank, ranks, "candidates")
    if rank == 0:
        tables = [files.read_array(scratch / f"{i}.npz") for i in range(count)]
        held_out = [t for i, t in enumerate(tables) if i % HELD_OUT == HELD_OUT - 1 and len(t)]
        learned = [t for i, t in enumerate(tables) if i % HELD_OUT != HELD_OUT - 1 and len(t)]
        rows = np.concatenate(learned) if learned else np.zeros((0, 2))
        ranking = Ranking.fit(rows[:, 1:], rows[:, 0], settings.trees, settings.leaf, settings.seed)
        ranking.save(study.ranking)
        files.write_csv(study.result("tuning", "mcg.csv"), _measured(ranking, held_out or learned))
    sharing.release(scratch, rank)


def _measured(ranking: Ranking, tables: list[np.ndarray]) -> pd.DataFrame:
    """Mean predicted and true overlap in each tenth of the candidates by prediction, worst first."""
    rows = np.concatenate(tables)
    predicted = ranking.predict(rows[:, 1:])
    tenths = np.array_split(np.argsort(predicted, kind="stable"), TENTHS)
    means = [(predicted[tenth].mean(), rows[tenth, 0].mean()) for tenth in tenths if len(tenth)]
    return pd.DataFrame(means, columns=["predicted", "overlap"])
