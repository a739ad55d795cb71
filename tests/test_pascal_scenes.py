"""Drawn scenes in PASCAL's place: fewer and larger objects of 20 categories, some difficult, the same for ever."""

import json

import numpy as np
import pytest

from deepmask.config import DataConfig, PascalConfig
from deepmask.data import pascal
from deepmask.data.check import check_folder
from deepmask.data.coco import DataError
from deepmask.data.pascal_scenes import categories, draw_pascal_scene
from deepmask.data.scenes import categories as all_categories
from deepmask.data.scenes import draw_scene
from deepmask.evaluation import evaluate
from deepmask.paths import Study

WIDTH, HEIGHT = 160, 120
CONFIG = PascalConfig(images=5, train_images=4)


@pytest.fixture(scope="module")
def scenes():
    return [draw_pascal_scene(0, index, WIDTH, HEIGHT) for index in range(60)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("study"))
    pascal.make(CONFIG, DataConfig(width=WIDTH, height=HEIGHT), study)
    return study


def test_a_scene_is_a_function_of_seed_and_index(scenes):
    again, other = draw_pascal_scene(0, 7, WIDTH, HEIGHT), draw_pascal_scene(1, 7, WIDTH, HEIGHT)
    np.testing.assert_array_equal(again.image, scenes[7].image)
    assert (other.image != again.image).any()
    assert (draw_scene(0, 7, WIDTH, HEIGHT).image != again.image).mean() > 0.9, "not the scenes that are trained on"


def test_masks_are_disjoint_and_nonempty(scenes):
    for scene in scenes:
        layers = np.sum([mask for _, mask, _ in scene.instances], axis=0)
        assert layers.max() <= 1 and all(mask.any() for _, mask, _ in scene.instances)


def test_fewer_and_larger_than_in_training(scenes):
    """VOC 2007 test has 3.0 objects an image, of which a fifth are difficult."""
    others = [draw_scene(0, index, WIDTH, HEIGHT) for index in range(60)]
    count = {name: np.mean([len(s.instances) for s in some]) for name, some in (("pascal", scenes), ("other", others))}
    side = {
        name: np.median([np.sqrt(mask.sum()) / HEIGHT for s in some for _, mask, ignored in s.instances if not ignored])
        for name, some in (("pascal", scenes), ("other", others))
    }
    assert 2 < count["pascal"] < 3.5 < count["other"]
    assert side["pascal"] > 0.22 and side["pascal"] > 2 * side["other"]
    difficult = np.mean([flag for scene in scenes for *_, flag in scene.instances])
    assert 0.05 < difficult < 0.3


def test_difficult_objects_are_smaller_or_hidden(scenes):
    area = {flag: np.median([m.sum() for s in scenes for _, m, f in s.instances if f == flag]) for flag in (0, 1)}
    assert area[1] < area[0] / 2


def test_categories_are_the_studys_own():
    known = {category["id"]: category["name"] for category in all_categories()}
    assert len(categories()) == 20 and all(known[category["id"]] == category["name"] for category in categories())


def test_the_folder_is_sound_and_difficult_is_ignored(study):
    assert not check_folder(study.pascal).errors
    test, trainval = (pascal.load(CONFIG, study, split) for split in ("test", "trainval"))
    assert len(test) == 5 and len(trainval) == 4 and set(test.image_ids) != set(trainval.image_ids)
    document = json.loads((study.pascal / "annotations/instances_test.json").read_text())
    assert all(a["difficult"] == a["iscrowd"] for a in document["annotations"])
    assert len(evaluate(test, {}, "bbox").images) == sum(not a["difficult"] for a in document["annotations"])


def test_a_folder_that_is_no_devkit_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        pascal.make(PascalConfig(root=str(tmp_path / "nowhere")), DataConfig(), Study(tmp_path))
