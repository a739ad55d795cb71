"""Work on many images that the ranks of a job share, and that goes on where it was interrupted.

What is finished of an image is a small file in a scratch folder, written whole or not at all.  The folder belongs to
one job: its key holds the parameters, the files that the job reads and the library's own code, and another key
empties it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from deepmask import distributed, files, results_file
from deepmask.data.coco import InstanceDataset
from deepmask.paths import REPOSITORY
from deepmask.proposals import Proposals

KEY = "key"


def claim(folder: Path, rank: int, *reads: Any) -> Path:
    """The scratch folder of a job that depends on `reads`: values by their repr, and Paths by their content."""
    if rank == 0:
        key = files.digest(_code(), *reads)
        present = folder / KEY
        if not present.is_file() or present.read_text() != key:
            shutil.rmtree(folder, ignore_errors=True)
            files.write_text(present, key)
    distributed.barrier()
    return folder


def each(
    dataset: InstanceDataset, work: Callable[[int], float], scratch: Path, rank: int, ranks: int, desc: str
) -> pd.DataFrame:
    """Call `work` for every image that is not done yet, all ranks sharing them; (image_id, seconds) rows.

    `work`: index of an image -> how many seconds it took, after writing what it found into `scratch`.  The rows are
    complete on the first rank, and only there.
    """
    ids = dataset.image_ids.tolist()
    for i in distributed.progress(range(rank, len(dataset), ranks), rank, desc=desc, unit="image"):
        done = scratch / f"{ids[i]}.seconds"
        if not done.is_file():
            files.write_text(done, f"{work(i):.4f}")
    distributed.barrier()
    seconds = [float((scratch / f"{id}.seconds").read_text()) for id in ids] if rank == 0 else []
    return pd.DataFrame({"image_id": ids[: len(seconds)], "seconds": seconds})


def propose_all(
    dataset: InstanceDataset,
    outputs: Mapping[str, Path],
    propose: Callable[[int], tuple[Mapping[str, Proposals], float]],
    scratch: Path,
    rank: int,
    ranks: int,
) -> pd.DataFrame:
    """Write a results file per name in `outputs`, all ranks sharing the images of `dataset`; (image_id, seconds) rows.

    `propose`: index of an image -> its proposals by name, and how many seconds they took.  The bytes do not depend on
    the number of ranks.
    """
    ids = dataset.image_ids.tolist()

    def work(i: int) -> float:
        made, seconds = propose(i)
        for name in outputs:
            results_file.write(scratch / f"{ids[i]}.{name}.json", [made[name].of(ids[i])])
        return seconds

    seconds = each(dataset, work, scratch, rank, ranks, f"propose {next(iter(outputs))}")
    if rank == 0:
        for name, path in outputs.items():
            results_file.join([scratch / f"{id}.{name}.json" for id in ids], path)
    return seconds


def speed(name: str, dataset: InstanceDataset, seconds: pd.DataFrame) -> pd.DataFrame:
    """One row: how many seconds an image takes one process, and how large the images are."""
    megapixels = dataset.image_sizes.prod(axis=1).mean() / 1e6
    row = {"what": name, "images": len(dataset), "megapixels": megapixels}
    return pd.DataFrame([row | {"mean": seconds.seconds.mean(), "median": seconds.seconds.median()}])


def release(folder: Path, rank: int) -> None:
    """Remove the scratch folder of a job that is complete."""
    distributed.barrier()
    if rank == 0:
        shutil.rmtree(folder)


@cache
def _code() -> str:
    return files.digest(*sorted((REPOSITORY / "deepmask").rglob("*.py")))
