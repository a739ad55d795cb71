"""kill -9 at any moment: the next run goes on, and ends with what an undisturbed one ends with."""

import contextlib
import os
import random
import shutil
import signal
import subprocess

import psutil
import pytest
import work

SHORT = ("scenes", "train", "propose")  # parts in `make test`
PARTS = [pytest.param(part, marks=[] if part in SHORT else pytest.mark.full) for part in work.PARTS]
VICTIMS = ("all of it", "the first process", "any process", "itself")
KILLS = 2, 5  # of a part, in short and in full
MOMENTS = 60  # `itself`: in which of them at most, see work.py
PATIENCE = 20  # seconds in which what was killed is gone


def kill(part, folder, victim, rng, seconds):
    """Start a part and kill it, or a process of it; whether there was still something to kill."""
    ranks = 1 if victim == "itself" else rng.choice((1, 2))
    last = [rng.randint(1, MOMENTS)] if victim == "itself" else []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(work.command(part, folder, ranks, *last), **quiet, start_new_session=True) as first:
        family = []
        if victim != "itself":
            try:
                first.wait(seconds * rng.random() ** 0.5)  # more often late, as Python takes its time to start
                return False
            except subprocess.TimeoutExpired:
                with contextlib.suppress(psutil.NoSuchProcess):
                    family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
        if victim == "all of it":
            os.killpg(first.pid, signal.SIGKILL)
        elif victim == "the first process":
            first.kill()
        elif victim == "any process" and family:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(family).kill()
        status = first.wait(10 * seconds + 60)
    _, alive = psutil.wait_procs(family, PATIENCE)
    assert not alive, f"{victim} of {part} was killed and left {alive}"
    return status != 0


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_goes_on(part, references, stress, tmp_path):
    undisturbed, rng, folder = references(part), random.Random(part), tmp_path / "study"
    shutil.copytree(undisturbed.before, folder)
    killed = 0
    for attempt in range(10 * KILLS[1]):
        killed += kill(part, folder, VICTIMS[attempt % len(VICTIMS)], rng, undisturbed.seconds)
        if killed == stress.scale(*KILLS):
            break
    assert killed == stress.scale(*KILLS), "it is over too fast to be killed"
    assert work.finish(work.command(part, folder)) == ""
    assert work.state(folder) == undisturbed.result
    left = [path.name for path in folder.glob("checkpoints/*") if path.suffix != ".lock"]
    assert not left, f"{left} are of no use any more"
    stress.count("kills", part, killed)
