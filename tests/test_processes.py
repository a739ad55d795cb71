"""Processes of one machine: turns, ends, and what a user is told when the machine refuses."""

import errno
import os
import subprocess
import sys
import time

import cv2
import numpy as np
import psutil
import pytest
import torch

from deepmask import failures, processes
from deepmask.config import ConfigError
from deepmask.distributed import _reason

HOLD = "import sys, time; from deepmask import processes\nwith processes.turn(sys.argv[1], 'works here'):\n    "


def holder(path):
    """A process that holds a path until it is told to let go, or is killed."""
    code = f"{HOLD}print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_second_waits_and_says_so(tmp_path, kind):
    path = tmp_path / "new.lock" if kind == "file" else tmp_path
    first = holder(path)
    second = subprocess.Popen([sys.executable, "-c", HOLD + "pass", path], stderr=subprocess.PIPE, text=True)
    assert "another process works here; waiting for it" in second.stderr.readline()
    assert second.poll() is None
    first.communicate("")
    assert second.wait(10) == 0 and first.returncode == 0


def test_a_killed_process_holds_nothing(tmp_path):
    first = holder(tmp_path / "lock")
    first.kill()
    first.communicate()
    with processes.turn(tmp_path / "lock"):
        pass


def test_a_file_that_was_moved_away_is_not_what_is_held(tmp_path):
    """As `files.replacing` moves the file that it holds to its place."""
    path = tmp_path / "lock"
    first = holder(path)
    second = subprocess.Popen([sys.executable, "-c", HOLD + "pass", path], stderr=subprocess.PIPE, text=True)
    second.stderr.readline()
    path.rename(tmp_path / "elsewhere")
    first.communicate("")
    assert second.wait(10) == 0 and path.exists(), "it holds a new file at the path"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parents")
def test_a_child_ends_with_its_parent():
    child = "import os, time; from deepmask import processes; processes.end_with(os.getppid()); time.sleep(60)"
    begin = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}])"
    code = f"{begin}; print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        found = psutil.Process(int(parent.stdout.readline()))
        time.sleep(1)
        assert found.is_running()
        parent.kill()
    _, alive = psutil.wait_procs([found], 10)
    assert not alive
    orphan = subprocess.run([sys.executable, "-c", "from deepmask import processes; processes.end_with(1)"])
    assert orphan.returncode == 1, "its parent is another one already"


def refused(make):
    with pytest.raises(failures.MachineError) as caught, failures.told():
        make()
    return str(caught.value)


def test_what_the_machine_refuses_is_one_sentence():
    def fail(error):
        raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/file")
    assert refused(lambda: fail(full)) == "a/file: No space left on device; free some space, or write elsewhere"
    assert "a/b: No such file or directory; restore it" in refused(lambda: open("a/b"))
    huge = 1 << 50
    for too_much in (
        lambda: np.empty(huge),
        lambda: torch.empty(huge),
        lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
        lambda: fail(cv2.error("OpenCV(4) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate")),
    ):
        assert refused(too_much).startswith("out of memory; free some")
    killed = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    assert "was killed" in refused(lambda: fail(killed)) and "goes on where it was" in refused(lambda: fail(killed))


def test_what_the_machine_is_not_to_blame_for_is_passed_on():
    for error in (ConfigError("train.lr: out of memory"), RuntimeError("shapes differ"), OSError("truncated image")):
        with pytest.raises(type(error)) as caught, failures.told():
            raise error
        assert caught.value is error


def test_why_a_job_failed_is_found_among_the_words_of_torchrun():
    said = ["deepmask job: a.png: no such image file; add it", "E1125 failed (exitcode: 1)", "deepmask FAILED"]
    assert _reason(said) == "a.png: no such image file; add it"
    said = [
        "deepmask FAILED",
        "traceback : Signal 15 (SIGTERM) received by PID 3",
        "Root Cause (first observed failure):",
        "traceback : Signal 9 (SIGKILL) received by PID 4",
        "====",
    ]
    assert _reason(said).startswith("it was ended by SIGKILL")
    assert _reason(["ZeroDivisionError: division by zero", "===="]) == "ZeroDivisionError: division by zero"
