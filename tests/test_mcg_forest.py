"""The forest that ranks MCG's candidates: scikit-learn's, whole on disk, and nothing else is taken for one."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from deepmask.baseline_config import BaselineError
from deepmask.baselines.mcg_forest import Ranking


def samples(seed=0, candidates=200):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 8, (candidates, 5)).astype(np.float32) / 8  # values that lie on thresholds too
    return table, table[:, 1] * table[:, 3] + 0.1 * rng.random(candidates)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "models" / "mcg.npz"
    Ranking.fit(*samples(), trees=3, leaf=4, seed=0).save(path)
    return path


@pytest.mark.parametrize(("trees", "leaf", "candidates"), [(2, 50, 60), (1, 1, 60), (7, 4, 200)])
def test_predictions_are_those_of_scikit_learn(trees, leaf, candidates):
    table, overlaps = samples(candidates=candidates)
    settings = {"min_samples_leaf": leaf, "max_features": 1 / 3, "max_samples": 0.5, "random_state": 3}
    forest = RandomForestRegressor(trees, **settings).fit(table, overlaps)
    ours = Ranking.fit(table, overlaps, trees, leaf, 3)
    assert len(ours.roots) == trees
    fresh = np.concatenate([samples(9)[0], np.random.default_rng(1).random((200, 5))])
    np.testing.assert_allclose(ours.predict(fresh), forest.predict(fresh), rtol=1e-12)
    assert ours.predict(fresh[:0]).shape == (0,)


def test_what_is_loaded_is_what_was_saved(saved):
    again = saved.with_name("again.npz")
    ranking = Ranking.load(saved)
    ranking.save(again)
    assert again.read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in saved.parent.iterdir()) == ["again.npz", "mcg.npz"], "no temporary file is left"
    fitted = Ranking.fit(*samples(), trees=3, leaf=4, seed=0)
    np.testing.assert_array_equal(ranking.predict(samples(1)[0]), fitted.predict(samples(1)[0]))
    Ranking.fit(*samples(), trees=3, leaf=4, seed=1).save(again)
    assert again.read_bytes() != saved.read_bytes()


def test_nothing_to_learn_from():
    with pytest.raises(BaselineError, match="no training image has an object"):
        Ranking.fit(np.zeros((0, 5)), np.zeros(0), 3, 5, 0)


def refused(path, why=""):
    with pytest.raises(BaselineError, match=f"{path.name}: .*{why}"):
        Ranking.load(path).predict(samples()[0])


def test_files_that_are_no_ranking(tmp_path):
    refused(tmp_path / "nothing.npz", "no such ranking")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", array=np.zeros(3))
    for name in ("folder", "empty", "text", "other"):
        refused(tmp_path / f"{name}.npz", "not a ranking")


def test_one_array_alone_is_no_ranking(tmp_path):
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    refused(tmp_path / "array.npz")


def test_damaged_files_load_as_they_were_or_are_refused(saved):
    whole, path = saved.read_bytes(), saved.with_name("damaged.npz")
    expected = Ranking.load(saved).predict(samples()[0])
    places = np.random.default_rng(0).permutation(len(whole))[:300].tolist()
    damaged = [whole[:end] for end in places[:40]]
    damaged += [whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :] for at in places for flip in (1, 0x80, 0xFF)]
    others = set()
    for content in damaged:
        path.write_bytes(content)
        try:
            np.testing.assert_array_equal(Ranking.load(path).predict(samples()[0]), expected)
        except Exception as error:
            others |= {type(error)}
    assert others == {BaselineError}


CHANGES = {
    "without values": lambda a: {"values": a["values"][:0]},
    "without nodes": lambda a: {name: array[:0] for name, array in a.items()},
    "without trees": lambda a: {"roots": a["roots"][:0]},
    "one value less": lambda a: {"values": a["values"][:-1]},
    "two dimensions": lambda a: {name: array[:, None] for name, array in a.items()},
    "no dimension": lambda a: {"values": np.float64(1)},
    "a loop": lambda a: {"left": 0 * a["left"]},
    "nodes before the first": lambda a: {"right": np.full_like(a["right"], -1)},
    "nodes beyond the last": lambda a: {"right": np.full_like(a["right"], 10**6)},
    "a root before the first": lambda a: {"roots": a["roots"] - 1},
    "a root beyond the last": lambda a: {"roots": a["roots"] + 10**6},
    "values that are no numbers": lambda a: {"values": a["values"] * np.nan},
    "endless thresholds": lambda a: {"thresholds": a["thresholds"] + np.inf},
    "fractions for nodes": lambda a: {"left": a["left"].astype(float)},
    "text": lambda a: {"values": a["values"].astype(str)},
    "complex numbers": lambda a: {"values": a["values"] * 1j},
    "objects": lambda a: {"values": a["values"].astype(object)},
    "records": lambda a: {"thresholds": np.zeros(len(a["values"]), [("a", float)])},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_arrays_that_are_no_forest(saved, change):
    with np.load(saved) as content:
        arrays = dict(content)
    np.savez(saved, **arrays | change(arrays))
    refused(saved)


def test_a_feature_that_candidates_do_not_have(saved):
    ranking, (table, _) = Ranking.load(saved), samples()
    for candidates in (table[:, :1], np.zeros((3, 0))):  # as after an upgrade to other features
        with pytest.raises(BaselineError):
            ranking.predict(candidates)


def with_entry(path, name, content):
    """The file with other bytes for one of its arrays."""
    with zipfile.ZipFile(path) as file:
        entries = {entry: file.read(entry) for entry in file.namelist()} | {f"{name}.npy": content}
    with zipfile.ZipFile(path, "w") as file:
        for entry, data in entries.items():
            file.writestr(entry, data)


@pytest.mark.parametrize("shape", ["(100000000000000,)", "(3,"])
def test_headers_that_promise_too_much_or_break_off(saved, shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape} }}".ljust(117) + "\n"
    with_entry(saved, "values", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    refused(saved)


@pytest.mark.parametrize("name", ["features", "values", "roots"])
def test_entries_that_are_no_arrays(saved, name):
    with_entry(saved, name, b"hello")
    refused(saved)
