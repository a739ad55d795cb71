"""Files on disk: whole or not at all, also when two write the same one."""

import errno
import multiprocessing
import os

import numpy as np
import pandas as pd
import pytest

from deepmask import files


def test_a_file_appears_when_the_block_is_left(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with files.replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    files.write_text(path, "before")
    with pytest.raises(type(error)), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, files.replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "a.txt"):
        open(tmp_path / "other")
    assert str(caught.value.filename) == str(tmp_path / "other"), "another file's error keeps its name"


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / "a.txt.part").write_text("half of something long")
    files.write_text(tmp_path / "a.txt", "short")
    assert (tmp_path / "a.txt").read_text() == "short" and os.listdir(tmp_path) == ["a.txt"]


def _write_often(path, letter):
    for _ in range(200):
        files.write_text(path, letter * 100_000)


def test_two_that_write_the_same_file_take_turns(tmp_path):
    path = tmp_path / "a.txt"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        text = path.read_text() if path.exists() else "a" * 100_000
        assert len(text) == 100_000 and len(set(text)) == 1
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        files.write_array(tmp_path / f"{name}.npz", np.arange(6.0).reshape(2, 3))
        files.write_csv(tmp_path / f"{name}.csv", pd.DataFrame({"x": [1 / 3, 2.0]}))
        files.write_json(tmp_path / f"{name}.json", {"z": 1, "a": [1.5]})
    for suffix in ("npz", "csv", "json"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert np.array_equal(files.read_array(tmp_path / "a.npz"), np.arange(6.0).reshape(2, 3))


def test_a_digest_sees_values_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    before = files.digest(1, "x", tmp_path / "a")
    assert before == files.digest(1, "x", tmp_path / "a") != files.digest(1, "y", tmp_path / "a")
    (tmp_path / "a").write_text("2")
    assert files.digest(1, "x", tmp_path / "a") != before


def test_a_damaged_array_is_named_and_nothing_in_it_is_executed(tmp_path):
    path = tmp_path / "a.npz"
    files.write_array(path, np.arange(6.0))
    whole = path.read_bytes()
    np.savez(tmp_path / "objects.npz", array=np.array([{}, print], object))
    contents = [b"", b"no array", whole[: len(whole) // 2], (tmp_path / "objects.npz").read_bytes()]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(files.FileError, match="a.npz: damaged .*; remove it and make it again") as error:
            files.read_array(path)
        assert "\n" not in str(error.value)
