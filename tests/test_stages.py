"""The stages of a study: splits that do not overlap, shared work that does not depend on how it is shared."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from deepmask import masks, results_file
from deepmask.__main__ import JOBS
from deepmask.config import DataConfig
from deepmask.data import splits
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.data.scenes import write_scenes
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.stages import sharing

CONFIG = DataConfig(reported_images=5, tuning_images=3)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("study"))
    write_scenes(study.scenes, train=3, val=8, width=64, height=48, seed=0, progress=False)
    return study


def test_tuning_and_reporting_do_not_overlap(study):
    report, tune = (splits.load(CONFIG, study, split).image_ids for split in ("report", "tune"))
    assert len(report) == 5 and len(tune) == 2 and report.max() < tune.min(), "first by ascending id, and last"
    greedy = dataclasses.replace(CONFIG, reported_images=5000, tuning_images=5000)
    report, tune = (splits.load(greedy, study, split).image_ids for split in ("report", "tune"))
    assert len(tune) == 2 and len(report) == 6, "a small file gives a quarter of itself to tuning"


def test_missing_data_is_named(study, tmp_path):
    with pytest.raises(DataError, match="nowhere.*data.root"):
        splits.load(dataclasses.replace(CONFIG, root=str(tmp_path / "nowhere")), study, "train")


def test_groups_partition_the_categories(study):
    dataset = splits.load(CONFIG, study, "train")
    groups = splits.categories(CONFIG, dataset)
    assert groups["seen"] | groups["unseen"] == set(dataset.categories) and not groups["seen"] & groups["unseen"]
    families = {dataset.categories[id].supercategory for id in groups["seen"]}
    assert groups["novel"] == {id for id, c in dataset.categories.items() if c.supercategory not in families}


def brightest(image):
    """Three "proposals" that depend on nothing but the image."""
    bright = image.mean(axis=2)
    cuts = [np.quantile(bright, q) for q in (0.5, 0.7, 0.9)]
    rles = masks.encode(np.stack([bright > cut for cut in cuts]))
    return {"a": Proposals(0, np.array([0.9, 0.5, 0.1]), masks.boxes(rles), rles)}


def share(study, folder, rank, ranks, calls=None):
    """One rank's part of three proposals for each reported image."""
    report = splits.load(CONFIG, study, "report")

    def propose(i):
        if calls is not None:
            calls.append(i)
        return brightest(report.image(i)), 0.25

    return sharing.propose_all(report, {"a": folder / "a.json"}, propose, folder / "scratch", rank, ranks)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_proposals_are_the_same_bytes_for_any_number_of_ranks(study, tmp_path, ranks):
    report = splits.load(CONFIG, study, "report")
    seconds = share(study, tmp_path / "one", 0, 1)
    for rank in reversed(range(ranks)):  # the first rank joins what the others wrote
        share(study, tmp_path / "many", rank, ranks)
    assert (tmp_path / "one/a.json").read_bytes() == (tmp_path / "many/a.json").read_bytes()
    read = results_file.read(tmp_path / "many/a.json", report.image_ids)
    assert list(read) == seconds.image_id.tolist() == report.image_ids.tolist()
    assert (seconds.seconds == 0.25).all()


def test_an_interrupted_job_goes_on_where_it_was(study, tmp_path):
    whole = tmp_path / "whole"
    share(study, whole, 0, 1)
    cut = tmp_path / "cut"
    share(study, cut, 1, 2)  # of two ranks only one ends
    calls = []
    share(study, cut, 0, 1, calls)
    assert calls == [0, 2, 4], "what the other rank finished is not done again"
    assert (cut / "a.json").read_bytes() == (whole / "a.json").read_bytes()


def test_scratch_belongs_to_one_job(tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    folder = sharing.claim(tmp_path / "scratch", 0, CONFIG, weights)
    (folder / "finished").touch()
    assert (sharing.claim(folder, 0, CONFIG, weights) / "finished").exists(), "the same job finds what it finished"
    weights.write_bytes(b"two")
    assert not (sharing.claim(folder, 0, CONFIG, weights) / "finished").exists(), "other weights: nothing is kept"
    (folder / "finished").touch()
    assert not (sharing.claim(folder, 0, dataclasses.replace(CONFIG, seed=1), weights) / "finished").exists()
    sharing.release(folder, 0)
    assert not folder.exists()


def test_images_without_objects_are_part_of_the_data(tiny_coco):
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    assert any(len(dataset.annotations(i)) == 0 for i in range(len(dataset)))


def test_every_stage_can_be_started_on_several_cores():
    """`launch.start` runs them by name as commands."""
    modules = {path.stem: path.read_text() for path in Path(sharing.__file__).parent.glob("*.py")}
    assert set(JOBS) == {name for name, code in modules.items() if "\ndef job(" in code}
