"""A machine that refuses: one sentence, an exit status above 0, and no file that is later taken for whole."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import work
from PIL import Image

SHORT = ("train", "propose", "images")  # parts in `make test`
PARTS = [pytest.param(part, marks=[] if part in SHORT else pytest.mark.full) for part in work.PARTS]
# Below it a folder is on a disk of its own: the part, with what room there is, is run until it has enough.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
ROOM = 200  # kB that the disk has at first, besides what is on it


def can(command):
    try:
        return subprocess.run([*NAMESPACE, "sh", "-c", command], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


own_disks = pytest.mark.skipif(not can("mount -t tmpfs tmpfs /mnt"), reason="this system lets nobody mount a disk")


def one_sentence(stderr):
    """The last line, after making sure that no traceback is before it."""
    assert "Traceback" not in stderr, stderr[-3000:]
    return stderr.strip().splitlines()[-1]


@own_disks
@pytest.mark.parametrize("part", PARTS)
def test_a_full_disk(part, references, stress, tmp_path):
    undisturbed, disk, result = references(part), tmp_path / "disk", tmp_path / "result"
    disk.mkdir()
    size = sum(path.stat().st_size + 4096 for path in undisturbed.before.rglob("*")) // 1024
    script = f"""
        mount -t tmpfs -o size={size + ROOM}k tmpfs {disk} && cp -r {undisturbed.before}/. {disk} || exit 9
        room={ROOM}
        until {" ".join(work.command(part, disk))} 2>{tmp_path}/said; do
            cat {tmp_path}/said >>{tmp_path}/all; echo ==== >>{tmp_path}/all
            find {disk} -name '*.part' >>{tmp_path}/halves
            room=$((room * 3)); test $room -lt 1000000 || exit 8
            mount -o remount,size=$(({size} + room))k {disk}
        done
        cp -r {disk} {result}
    """
    done = subprocess.run([*NAMESPACE, "sh", "-c", script], capture_output=True, text=True)
    said = (tmp_path / "all").read_text() if (tmp_path / "all").is_file() else ""
    assert done.returncode == 0, done.stderr + said[-3000:]
    assert work.state(result) == undisturbed.result
    if said:
        assert not (tmp_path / "halves").read_text()
    for sentence in map(one_sentence, said.split("====\n")[:-1]):
        assert re.search(r"\w/[^:]+: No space left on device; free some space|out of memory", sentence), sentence
        stress.count("faults", "full disks", 1)


@own_disks
@pytest.mark.parametrize("part", PARTS)
def test_a_folder_that_cannot_be_written(part, references, stress, tmp_path):
    folder = tmp_path / "locked"
    shutil.copytree(references(part).before, folder)
    before = work.state(folder)
    start = " ".join(work.command(part, folder))
    script = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec {start}"
    done = subprocess.run([*NAMESPACE, "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"\w: Read-only file system; write elsewhere", one_sentence(done.stderr))
    assert work.state(folder) == before
    stress.count("faults", "read-only folders", 1)


@pytest.mark.parametrize("part", [p for p in PARTS if p.values[0] not in ("scenes", "pretrain", "evaluate")])
def test_data_that_go_away(part, references, stress, tmp_path):
    undisturbed, folder = references(part), tmp_path / "study"
    shutil.copytree(undisturbed.before, folder)
    for images in ("data/scenes/images", "pascal/images"):
        (folder / images).rename(folder / images.replace("images", "gone"))
    done = subprocess.run(work.command(part, folder), capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"images.*: no such image file; add it|1 images have no proposals", one_sentence(done.stderr))
    for images in ("data/scenes/images", "pascal/images"):
        (folder / images.replace("images", "gone")).rename(folder / images)
    assert work.finish(work.command(part, folder)) == ""
    assert work.state(folder) == undisturbed.result
    stress.count("faults", "data that went away", 1)


def children(process, depth=20.0):
    """The processes that `process` has started, as soon as there are any."""
    until = time.monotonic() + depth
    while time.monotonic() < until and process.poll() is None:
        if found := psutil.Process(process.pid).children(recursive=True):
            return found
        time.sleep(0.01)
    return []


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_worker_that_dies(ranks, references, stress, tmp_path):
    """A loader process, or a rank of torchrun, as the system kills it when memory runs out."""
    undisturbed, folder = references("train"), tmp_path / "study"
    shutil.copytree(undisturbed.before, folder)
    with subprocess.Popen(work.command("train", folder, ranks), stderr=subprocess.PIPE, text=True) as process:
        needed = ranks + 1 if ranks > 1 else 1  # torchrun and its ranks
        family = []
        while process.poll() is None and len(family) < needed:
            family = children(process)
        victim = max(family, key=lambda child: child.pid)
        victim.send_signal(signal.SIGKILL)
        said = process.stderr.read()
    assert process.returncode == 1
    assert re.search("was killed, which|SIGKILL, which the system sends when memory runs out", one_sentence(said))
    assert work.finish(work.command("train", folder)) == ""
    assert work.state(folder) == undisturbed.result
    stress.count("faults", "workers that died", 1)


def test_no_memory_for_an_image(stress, tmp_path):
    """The other images still get their proposals."""
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / "b.png")
    command = [sys.executable, "-m", "deepmask", "propose", tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path]
    limit = resource.RLIMIT_DATA, (2_400_000_000, 2_400_000_000)  # the first takes more
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    begin = lambda: resource.setrlimit(*limit)  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=begin, env=environment)
    assert done.returncode == 1 and "1 of 2 images have no proposals" in one_sentence(done.stderr)
    assert re.search(r"a.png: .*(memory|Memory)", done.stdout)
    assert Path(tmp_path, "proposals.json").stat().st_size > 10
    stress.count("faults", "out of memory", 1)
