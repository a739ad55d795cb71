"""The parts of a small study as processes that a test can kill: `python tests/faults/work.py PART FOLDER RANKS [LAST]`.

With LAST the process ends itself at the LAST-th of two moments per file that takes its place: just before, just after.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from deepmask import config as configs
from deepmask import studies
from deepmask.__main__ import main as deepmask
from deepmask.data import pascal
from deepmask.paths import Study
from deepmask.stages import baseline, detection, edges, pretrain, propose, ranking, train
from deepmask.stages import pascal as pascal_stage

Part = Callable[[Study, Path, int], object]  # study, its params.yaml, ranks


def _scenes(study: Study, params: Path, ranks: int) -> None:
    config = configs.load(params)
    studies.draw_scenes(study, config.data)
    pascal.make(config.pascal, config.data, study)


def _evaluate(study: Study, params: Path, ranks: int) -> None:
    config = configs.load(params)
    files = [str(study.proposals("deepmask", key)) for key in ("deepmask", "deepmaskzoom")]
    annotations, table = str(study.scenes / config.data.val), str(study.result("table.csv"))
    _command("evaluate", *files, "--annotations", annotations, "--csv", table)


def _images(study: Study, params: Path, ranks: int) -> None:
    _command("propose", str(study.pascal / "images"), "--method", "selectivesearch", "--out", str(study.root / "found"))


def _command(*arguments: str) -> None:
    if status := deepmask(arguments):
        sys.exit(status)


PARTS: dict[str, Part] = {  # in an order in which each finds what it reads
    "scenes": _scenes,
    "pretrain": lambda study, params, ranks: pretrain.run(study, params, None, ranks),
    "train": lambda study, params, ranks: train.run(study, params, None, "deepmask", ranks),
    "propose": lambda study, params, ranks: propose.run(study, params, None, "deepmask", ranks),
    "evaluate": _evaluate,
    "images": _images,
    "edges": lambda study, params, ranks: edges.run(study, params, None, ranks),
    "ranking": lambda study, params, ranks: ranking.run(study, params, None, ranks),
    "baseline": lambda study, params, ranks: baseline.run(study, params, None, "mcg", ranks),
    "pascal": lambda study, params, ranks: pascal_stage.run(study, params, None, ranks),
    "detection": lambda study, params, ranks: detection.run(study, params, None, "deepmask", ranks),
}


def _end_at(last: int) -> None:
    """Have `os.replace` kill this process at its LAST-th moment."""
    replace, moments = os.replace, iter(range(1, 10**9))

    def counted(source: str | Path, target: str | Path) -> None:
        for act in (lambda: None, lambda: replace(source, target)):
            act()
            if next(moments) == last:
                os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted


if __name__ == "__main__":
    part, folder, number, *moment = sys.argv[1:]
    if moment:
        _end_at(int(moment[0]))
    PARTS[part](Study(Path(folder)), Path(folder, "params.yaml"), int(number))
