"""`make repro` that is killed, and two of them at once in one folder."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import work
import yaml

from deepmask.studies import prepare

TARGETS = "downloads", "data", "pretrain", "train@deepmask", "propose@deepmask"
KILLS = 12
START = [sys.executable, "-m", "deepmask", "repro"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run folder with the first stages of the chain, and how long they took."""
    folder, start = prepare(tmp_path_factory.mktemp("runs") / "undisturbed", "smoke"), time.monotonic()
    said = work.finish([*START, folder, *TARGETS])
    assert not said, said
    return folder, time.monotonic() - start


def results(folder):
    """The state of the study without the logs of papermill, and the content of dvc.lock, whose order is not fixed."""
    kept = {name: digest for name, digest in work.state(folder).items() if not name.startswith("_build")}
    return kept | {"dvc.lock": yaml.safe_load((folder / "dvc.lock").read_text())}


def up_to_date(folder):
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", *TARGETS], cwd=folder, capture_output=True, text=True
    )
    return "up to date" in status.stdout


@pytest.mark.full
def test_a_killed_chain_goes_on(undisturbed, stress, tmp_path):
    reference, seconds = undisturbed
    folder, rng, killed = prepare(tmp_path / "killed", "smoke"), random.Random(0), 0
    while killed < KILLS:
        with subprocess.Popen([*START, folder, *TARGETS], stderr=subprocess.DEVNULL, start_new_session=True) as first:
            try:
                first.wait(rng.uniform(0, seconds / 2))
            except subprocess.TimeoutExpired:
                family = psutil.Process(first.pid).children(recursive=True)
                last = family[-1] if family else first
                rng.choice([lambda: os.killpg(first.pid, signal.SIGKILL), first.kill, last.kill])()
        if first.returncode == 0:  # all of it was there: begin anew
            shutil.rmtree(folder)
            prepare(folder, "smoke")
        else:
            killed += 1
    said = work.finish([*START, folder, *TARGETS])
    assert not said, said
    assert results(folder) == results(reference) and up_to_date(folder)
    stress.count("kills", "dvc repro", killed)


@pytest.mark.full
def test_two_at_once_take_turns(undisturbed, stress, tmp_path):
    reference, _ = undisturbed
    folder = prepare(tmp_path / "shared", "smoke")
    both = [
        subprocess.Popen([*START, folder, *TARGETS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("another process reproduces the study" in errors for _, errors in said) == 1
    assert sorted("didn't change" in output for output, _ in said) == [False, True], "the second has nothing to do"
    assert results(folder) == results(reference) and up_to_date(folder)
    stress.count("faults", "two at once", 1)


def test_dvc_alone_says_that_it_is_not_alone(tmp_path):
    """Without `deepmask repro` the second one is refused by DVC itself, and changes nothing."""
    folder = prepare(tmp_path / "shared", "smoke")
    (folder / "dvc.yaml").write_text(
        "stages:\n  slow:\n    cmd: touch begun && sleep 8 && echo 1 > out\n    outs: [out]\n"
    )
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as first:
        while not (folder / "begun").exists():
            time.sleep(0.1)
        second = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert first.returncode == 0 and second.returncode != 0
    assert "busy" in second.stderr or "Unable to acquire lock" in second.stderr
    assert (folder / "out").read_text() == "1\n"
