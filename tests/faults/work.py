"""The parts of a small study as processes that a test can kill: `python tests/faults/work.py PART FOLDER RANKS [LAST]`.

With LAST the process ends itself at the LAST-th of two moments per file that takes its place: just before, just after.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    _command("scenes", "--study", str(study.root))
    pascal.make(config.pascal, config.data, study)


def _evaluate(study: Study, params: Path, ranks: int) -> None:
    config = configs.load(params)
    files = [str(study.proposals("deepmask", key)) for key in ("deepmask", "deepmaskzoom")]
    annotations, table = str(study.scenes / config.data.val), str(study.result("table.csv"))
    _command("evaluate", *files, "--annotations", annotations, "--csv", table)


def _images(study: Study, params: Path, ranks: int) -> None:
    os.chdir(study.root)  # the paths become part of the result
    _command("propose", "pascal/images", "--method", "selectivesearch", "--out", "found")


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


def command(part: str, folder: Path, ranks: int = 1, *last: int) -> list[str]:
    """What starts this program."""
    return [sys.executable, __file__, part, str(folder), str(ranks), *map(str, last)]


def finish(start: Sequence[str]) -> str:
    """Run a command to its end; what it said if that is an error."""
    done = subprocess.run(start, capture_output=True, text=True)
    return done.stderr[-3000:] if done.returncode else ""


def state(folder: Path) -> dict[str, str]:
    """What a study has: files, half ones too, and their checksums, but not what differs from run to run."""
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    passing = ("results/speed", ".dvc", "checkpoints")
    kept = {name: path for name, path in names.items() if not name.startswith(passing) or name.endswith(".part")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


@dataclass(frozen=True)
class Reference:
    """An undisturbed run of one part: a copy of the folder before it, what the folder holds after, and the seconds."""

    before: Path
    result: dict[str, str]
    seconds: float


class References:
    """Undisturbed runs of the smoke profile, made when they are first asked for, in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.study, self._copies = root / "study", root / "before"
        changes = ["train.checkpoint_every=1", "train.workers=1", "detection.checkpoint_every=1"]
        studies.prepare(self.study, "smoke", changes=changes)
        self._made: dict[str, Reference] = {}

    def __call__(self, part: str) -> Reference:
        names = list(PARTS)
        for name in names[len(self._made) : names.index(part) + 1]:
            copy, start = self._copies / name, time.monotonic()
            shutil.copytree(self.study, copy)
            said = finish(command(name, self.study))
            assert not said, said
            self._made[name] = Reference(copy, state(self.study), time.monotonic() - start)
        return self._made[part]


def main(part: str, folder: str, ranks: str, last: str | None = None) -> None:
    """Run one part; our own errors are told in one line, any other in a traceback."""
    if last is not None:
        _end_at(int(last))
    try:
        PARTS[part](Study(Path(folder)), Path(folder, "params.yaml"), int(ranks))
    except Exception as error:
        if not type(error).__module__.startswith("deepmask"):
            raise
        sys.exit(f"{part}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
