"""kill -9 at any moment: the next run goes on, and ends with what an undisturbed one ends with."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import work

from deepmask.studies import prepare

ALL = list(work.PARTS)
SHORT = ("scenes", "pretrain", "train", "propose")  # of `make test`
PARTS = [pytest.param(part, marks=[] if part in SHORT else pytest.mark.full) for part in ALL]
VICTIMS = ("all of it", "the first process", "any process", "itself")
KILLS = 2, 6  # of a part, in short and in full
PATIENCE = 20  # seconds in which what was killed is gone
TIMES = "results/speed"  # differ from run to run


@dataclass
class Reference:
    """An undisturbed run of one part: a copy of the folder before it, its result, and how long it took."""

    before: Path
    result: dict[str, str]
    seconds: float


@pytest.fixture(scope="module")
def reference(tmp_path_factory, stress):
    """Undisturbed runs by part, made when they are asked for."""
    folder, root = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("before")
    prepare(folder, "smoke", changes=["train.checkpoint_every=1", "train.workers=1", "detection.checkpoint_every=1"])
    done: dict[str, Reference] = {}

    def up_to(part: str) -> Reference:
        for name in ALL[len(done) : ALL.index(part) + 1]:
            shutil.copytree(folder, root / name)
            start = time.monotonic()
            assert finish(name, folder, 1) == ""
            done[name] = Reference(root / name, state(folder), time.monotonic() - start)
        return done[part]

    return up_to


def command(part, folder, ranks, *last):
    return [sys.executable, work.__file__, part, str(folder), str(ranks), *map(str, last)]


def finish(part, folder, ranks):
    """Run a part to its end; what it said if that is an error."""
    done = subprocess.run(command(part, folder, ranks), capture_output=True, text=True)
    return done.stderr[-3000:] if done.returncode else ""


def state(folder):
    """What a study has: files and their checksums."""
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in kept}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith((TIMES, ".dvc", "checkpoints")) or name.endswith(".part")
    }


def kill(part, folder, victim, rng, seconds):
    """Start a part and kill it, or a process of it; whether there was still something to kill."""
    ranks = 1 if victim == "itself" else rng.choice((1, 2))
    last = [rng.randint(1, 60)] if victim == "itself" else []
    with subprocess.Popen(
        command(part, folder, ranks, *last),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        family = []
        if victim != "itself":
            try:
                first.wait(seconds * rng.random() ** 0.5)  # more often late, as Python takes its time to start
                return False
            except subprocess.TimeoutExpired:
                family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
        if victim == "all of it":
            os.killpg(first.pid, signal.SIGKILL)
        elif victim == "the first process":
            first.kill()
        elif victim == "any process":
            rng.choice(family).kill()
        status = first.wait(10 * seconds + 60)
    gone, alive = psutil.wait_procs(family, PATIENCE)
    assert not alive, f"{victim} of {part} was killed and left {alive}"
    return status != 0


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_goes_on(part, reference, stress, tmp_path):
    undisturbed, rng, folder = reference(part), random.Random(part), tmp_path / "study"
    shutil.copytree(undisturbed.before, folder)
    killed = 0
    for attempt in range(10 * KILLS[1]):
        killed += kill(part, folder, VICTIMS[attempt % len(VICTIMS)], rng, undisturbed.seconds)
        if killed == stress.scale(*KILLS):
            break
    assert killed == stress.scale(*KILLS), "it is over too fast to be killed"
    assert finish(part, folder, 1) == ""
    assert state(folder) == undisturbed.result
    left = [path.name for path in folder.glob("checkpoints/*") if path.suffix != ".lock"]
    assert not left, f"{left} are of no use any more"
    stress.count("kills", part, killed)
