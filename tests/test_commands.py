"""The command line itself: names, examples that work, the first try, and training in a folder."""

import argparse
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from deepmask import choosing, demo, matches, released, results_file
from deepmask.__main__ import main, parser
from deepmask.config import ModelConfig, read_params
from deepmask.data.scenes import FIRST_INDEX, draw_scene
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.paths import REPOSITORY, Study
from deepmask.weights import load_model, save_model

GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with one image, and no released weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(released, "path", lambda study=None: tmp_path / "released.safetensors")
    image = np.full((50, 66, 3), 60, np.uint8)
    image[10:30, 20:50] = 190
    Image.fromarray(image + np.random.default_rng(0).integers(0, 9, image.shape, np.uint8)).save("photo.png")
    return tmp_path


def network(path, seed=0):
    torch.manual_seed(seed)
    save_model(path, DeepMask(GEOMETRY, ModelConfig(0.05, (8, 12), 8)), {"images": 1, "train": {}})
    return path


def all_commands(made=None):
    (group,) = (action for action in (made or parser())._actions if isinstance(action, argparse._SubParsersAction))
    return group.choices


def examples(command):
    """The lines below "example" at the end of a command's help, as a shell would split them."""
    _, _, lines = command.format_help().partition("\nexample")
    return [shlex.split(line) for line in lines.splitlines()[1:] if line.strip()]


@pytest.mark.parametrize("name", all_commands())
def test_help_ends_with_examples_that_parse(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/bin/deepmask"])
    shown = examples(all_commands()[name])
    assert 1 <= len(shown) <= 2
    for words in shown:
        assert words[:2] == ["deepmask", name]
        assert parser().parse_args(words[1:]).command == name


@pytest.mark.parametrize(
    ("started", "name"),
    [
        ("/usr/bin/deepmask", "deepmask"),
        ("C/deepmask.exe", "deepmask"),
        ("x/deepmask/__main__.py", "python -m deepmask"),
    ],
)
def test_the_program_is_named_as_it_was_started(monkeypatch, started, name):
    monkeypatch.setattr(sys, "argv", [started])
    made = parser()
    assert made.prog == name and all_commands(made)["propose"].prog == f"{name} propose"


def test_help_does_not_wait_for_torch():
    code = "import sys; from deepmask.__main__ import parser; parser().format_help(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_first_try_needs_nothing_and_says_what_it_does(here, capsys):
    assert main(["propose", "photo.png", "--count", "30"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("selectivesearch, which needs no training") and "--method deepmask" in lines[0]
    assert lines[-1] == "1 image, by selectivesearch: pictures of the best and COCO results are in proposals-of-images"
    assert {path.name for path in (here / "proposals-of-images").iterdir()} == {
        "1-photo.png",
        "images.json",
        "proposals.json",
    }
    assert 0 < len(results_file.read(here / "proposals-of-images")[1]) <= 30


def test_deepmask_is_the_first_choice_where_it_has_seen_other_images_than_drawn_ones(here, tmp_path):
    study = Study(here)
    (here / "params.yaml").write_text("data: {root: photos}\npropose: {scales: [0]}\n")
    untrained = choosing.choose(None, study, here / "params.yaml")
    assert untrained.method.name == "selectivesearch"
    network(study.weights("deepmask"))
    chosen = choosing.choose(None, study, here / "params.yaml")
    assert chosen.method.name == "DeepMask" and "images of its own" in chosen.why
    (here / "params.yaml").write_text("propose: {scales: [0]}\n")
    assert choosing.choose(None, study, here / "params.yaml").method.name == "selectivesearch"


def test_a_network_of_a_file_and_the_released_one(here, capsys):
    file = network(here / "my.safetensors")
    (here / "params.yaml").write_text("propose: {scales: [-1, 0], thresholds: [0.45]}\n")
    chosen = choosing.choose(None, Study(here), here / "params.yaml", weights=str(file), count=7)
    assert (chosen.method.octaves, chosen.method.threshold, chosen.method.count) == ((-1, 0), 0.45, 7)
    assert main(["propose", "photo.png", "--weights", "my.safetensors", "--count", "5"]) == 0
    assert "by DeepMask:" in capsys.readouterr().out.splitlines()[-1]
    for wrong, named in [(["--method", "mcg"], "'mcg'"), (["--count=-1"], "count")]:
        assert main(["propose", "photo.png", "--weights", "my.safetensors", *wrong]) == 1
        assert named in capsys.readouterr().err
    for missing in ("none.safetensors", "released"):
        assert main(["propose", "photo.png", "--weights", missing]) == 1
        assert "no such weights file" in capsys.readouterr().err
    network(released.path())
    assert main(["propose", "photo.png", "--weights", "released", "--count", "5"]) == 0


def test_the_demo_counts_what_is_found(here, capsys, monkeypatch):
    class Oracle:
        """Proposes the annotated objects: a blank first, then all but the last, and the last after ten others."""

        name = "oracle"

        def __call__(self, image):
            from deepmask import masks
            from deepmask.proposals import Proposals

            objects = demo._objects(scene)
            blank = np.zeros((1, *image.shape[:2]), bool)
            order = np.concatenate([blank, objects[:1], np.repeat(blank, 9, 0), objects[1:]])
            rles = masks.encode(order)
            return Proposals(0, -np.arange(len(order)), masks.boxes(rles), rles)

    scene = draw_scene(demo.SEED, FIRST_INDEX["test"] + 3)
    number = len(demo._objects(scene))
    assert number > 2
    line = demo.run(here / "out", 3, Oracle())
    assert f"of {number} objects" in line
    assert "the best 10 proposals find 1 and the best 100 proposals find " + str(number) in line
    assert np.array_equal(np.array(Image.open(here / "out/scene.png")), scene.image)
    Image.open(here / "out/demo.png").verify()
    network(released.path())
    assert main(["demo", "--out", "out"]) == 0
    assert capsys.readouterr().out.startswith("out/demo.png: of ")
    assert main(["demo", "--scene=-1"]) == 1 and matches.FOUND == 0.5


def test_a_network_is_trained_in_a_folder_with_what_it_needs(here, capsys):
    params = read_params(REPOSITORY / "params.yaml", "smoke")
    params["data"] |= {"train_images": 6, "reported_images": 2, "tuning_images": 2, "width": 96, "height": 72}
    params["geometry"] = {"patch": 32, "canonical": 16, "stride": 4, "mask": 12, "jitter": 2.0, "negative": 6.0}
    params["pretrain"] |= {"samples": 32, "size": 16}
    params["train"] |= {"samples": 32, "eval_every": 2, "eval_patches": 2}
    (here / "mine").mkdir()
    (here / "mine/params.yaml").write_text(yaml.safe_dump(params))
    assert main(["train", "deepmask", "--study", "mine"]) == 0
    study = Study(here / "mine")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and "6 training images" in said[0] and said[-1].startswith("mine/models/deepmask.safetensors")
    assert load_model(study.weights("deepmask")).geometry == GEOMETRY
    trunk = study.trunk.stat().st_mtime_ns
    assert main(["train", "deepmask20", "--study", "mine"]) == 0
    assert study.trunk.stat().st_mtime_ns == trunk, "what is there is used"
    capsys.readouterr()
    assert main(["train", "deepmask", "--study", "mine"]) == 1
    assert "is trained already" in capsys.readouterr().err


def test_what_training_lacks_is_said_in_a_sentence(here, capsys):
    assert main(["train", "deepmusk", "--study", "mine"]) == 1
    assert "'deepmusk'" in capsys.readouterr().err and not (here / "mine").exists()
    assert main(["train", "deepmask", "--study", "mine", "--data", "nowhere"]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err and not (here / "mine").exists()
    (here / "mine").mkdir()
    (here / "mine/params.yaml").write_text("data: {root: gone}\n")
    assert main(["train", "deepmask", "--study", "mine"]) == 1
    assert "gone: no such folder" in capsys.readouterr().err
