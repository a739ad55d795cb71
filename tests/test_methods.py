"""`python -m deepmask propose`: every method on image files, in COCO's format, and errors that name the culprit."""

from __future__ import annotations

import json
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from deepmask import config, masks, methods, proposing, released, results_file
from deepmask.__main__ import main
from deepmask.baselines import forest
from deepmask.baselines.edges import EdgeDetector
from deepmask.baselines.forest import ForestConfig
from deepmask.baselines.mcg import MCG, best_overlaps
from deepmask.baselines.mcg_forest import Ranking
from deepmask.config import ConfigError, ModelConfig
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.paths import Study
from deepmask.systems import CLASSICAL, SYSTEMS, VARIANTS
from deepmask.weights import save_model

PARAMS = """
propose: {scales: [-0.5, 0], zoom: 0.5, thresholds: [0.45, 0.3]}
baselines:
  edgeboxes: {min_area: 20.0}
  geodesic: {superpixels: 60}
  rigor: {superpixels: 60, seeds: [1, 4], smallest: 4.0}
  selectivesearch: {scales: [50.0], minimum_area: 10, minimum_side: 3}
  mcg: {superpixels: 60, regions: [15, 30, 0], limits: [100, 60, 30, 10]}
"""
COUNT = 40
NEEDS_EDGES = [key for key, method in CLASSICAL.items() if method.edges]


def disks(seed, height=50, width=66):
    """An image of flat disks on a flat ground with a little noise, and its label map."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    labels = np.zeros((height, width), np.int32)
    for label in range(1, 4):
        radius = rng.uniform(8, 14)
        labels[(y - rng.uniform(0, height)) ** 2 + (x - rng.uniform(0, width)) ** 2 < radius**2] = label
    colours = rng.integers(40, 216, (4, 3))
    return (colours[labels] + rng.integers(-6, 7, (height, width, 3))).astype(np.uint8), labels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with params.yaml, images in two folders, and a study with tiny networks and forests."""
    root = tmp_path_factory.mktemp("methods")
    (root / "params.yaml").write_text(PARAMS)
    study = Study(root / "study")
    forest.train([(disks(seed)[0], [disks(seed)[1]]) for seed in range(4)], study.forest, ForestConfig(1, 600, 16))
    image, labels = disks(7)
    pool = MCG(config.load(root / "params.yaml").baselines.mcg).pool(image, EdgeDetector(study.forest)(image))
    overlaps = best_overlaps(pool, masks.encode(np.stack([labels == label for label in (1, 2, 3)])))
    Ranking.fit(pool.features, overlaps, 3, 5, 0).save(study.ranking)
    geometry = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
    for seed, variant in enumerate(VARIANTS):
        torch.manual_seed(seed)
        save_model(study.weights(variant), DeepMask(geometry, ModelConfig(0.05, (8, 12), None)), {})
    for name, seed, size in (("one/same.png", 8, (50, 66)), ("two/same.png", 9, (40, 30))):
        (root / name).parent.mkdir()
        Image.fromarray(disks(seed, *size)[0]).save(root / name)
    return root


@pytest.fixture(autouse=True)
def nothing_released(tmp_path, monkeypatch):
    """Else the released weights would stand in for those that a study lacks."""
    monkeypatch.setattr(released, "path", lambda study=None: tmp_path / "nothing.safetensors")


@pytest.fixture
def propose(made, tmp_path, capsys):
    """Run the command on files below `made`, or elsewhere: its exit status, and what it wrote to stdout and stderr."""

    def run(method, *images, study="study", params="params.yaml", count=COUNT, more=()):
        options = ["--method", method, "--study", made / study, "--params", made / params, "--out", tmp_path / "out"]
        options += more
        paths = [made / image for image in images]
        try:
            status = main(list(map(str, ["propose", *paths, *options, f"--count={count}"])))
        except SystemExit as end:  # of argparse
            status = end.code
        said, warned = capsys.readouterr()
        return (
            status,
            said,
            "\n".join(line for line in warned.splitlines() if line and not re.search(r"image/s\]|s/image\]", line)),
        )

    return run


def check_refused(result, *named):
    """It ended in one sentence that names all these."""
    status, _, said = result
    assert status == 1 and said.startswith("deepmask propose: ") and len(said.splitlines()) == 1
    for name in named:
        assert str(name) in said


@pytest.mark.parametrize("method", [*CLASSICAL, *SYSTEMS])
def test_every_method_writes_what_pycocotools_loads(made, propose, tmp_path, method):
    images = ["one/same.png", "two/same.png"]
    status, said, warned = propose(method, *images)
    assert status == 0 and not warned
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"proposals.json", "images.json", "1-same.png", "2-same.png"}
    truth = COCO(out / "images.json")
    loaded = truth.loadRes(str(out / "proposals.json"))
    assert [truth.imgs[id]["file_name"] for id in (1, 2)] == [str(made / image) for image in images]
    proposals = results_file.read(out / "proposals.json", {1, 2})
    assert len(loaded.anns) == len(proposals[1]) + len(proposals[2])
    for id, (height, width) in ((1, (50, 66)), (2, (40, 30))):
        record, of_image = truth.imgs[id], proposals[id]
        assert (record["height"], record["width"]) == (height, width)
        assert 0 < len(of_image) <= COUNT and f"{made / images[id - 1]}: {len(of_image)} proposals" in said
        boxes = of_image.boxes
        assert (boxes >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= [width, height]).all()
        if method == "edgeboxes":
            assert of_image.masks is None
        else:
            np.testing.assert_array_equal(boxes, masks.boxes(of_image.masks))
            assert loaded.annToMask(loaded.loadAnns(loaded.getAnnIds(id))[0]).shape == (height, width)
        with Image.open(out / f"{id}-same.png") as shown:
            shown.verify()
            assert shown.width / shown.height == pytest.approx(width / height, rel=0.01)


@pytest.mark.parametrize("method", [*CLASSICAL, "deepmask"])
def test_the_same_bytes_every_time_and_as_in_memory(made, propose, tmp_path, method):
    written = []
    for _ in range(2):
        assert propose(method, "one/same.png")[0] == 0
        written.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert written[0] == written[1]
    loaded = methods.load(method, Study(made / "study"), config.load(made / "params.yaml"), COUNT)
    direct = loaded(np.array(Image.open(made / "one/same.png")))
    assert direct.image_id == 0
    results_file.write(tmp_path / "direct.json", [direct.of(1)])
    assert (tmp_path / "direct.json").read_bytes() == written[0]["proposals.json"]


def test_a_folder_of_images_with_the_ids_of_an_annotation_file(made, propose, tmp_path):
    names = {"one/same.png": 70, "two/same.png": 4}
    records = [{"id": id, "file_name": name, "width": 1, "height": 1} for name, id in names.items()]
    (tmp_path / "instances.json").write_text(json.dumps({"images": records}))
    more = ["--annotations", tmp_path / "instances.json", "--chunk=1", "--pictures=1"]
    assert propose("selectivesearch", ".", more=more)[0] == 0
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"proposals-00000.json", "proposals-00001.json", "images.json", "70-same.png"}
    assert list(results_file.read(tmp_path / "out")) == [4, 70]
    status, _, said = propose("selectivesearch", ".", more=["--chunk=0"])
    assert status == 2 and "--chunk: '0' is not a whole number above 0" in said


def test_images_of_the_same_name_keep_their_own_pictures_and_proposals(made, propose, tmp_path):
    propose("selectivesearch", "one/same.png", "two/same.png")
    both = results_file.read(tmp_path / "out" / "proposals.json")
    pictures = [(tmp_path / "out" / f"{id}-same.png").read_bytes() for id in (1, 2)]
    assert pictures[0] != pictures[1]
    for id, image in ((1, "one/same.png"), (2, "two/same.png")):
        shutil.rmtree(tmp_path / "out")
        propose("selectivesearch", image)
        alone = results_file.read(tmp_path / "out" / "proposals.json")[1]
        assert alone.masks == both[id].masks
        assert (tmp_path / "out" / "1-same.png").read_bytes() == pictures[id - 1]


def test_pictures_show_the_best_masks_in_colour(propose, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(proposing.pictures, "show_masks", lambda axis, image, best: shown.extend(best))
    propose("selectivesearch", "one/same.png")
    best = results_file.read(tmp_path / "out" / "proposals.json")[1].top(proposing.SHOWN)
    assert masks.encode(np.stack(shown)) == best.masks and len(shown) == proposing.SHOWN


def test_gray_files_and_images_of_one_colour(propose, tmp_path):
    Image.fromarray(disks(3)[0]).convert("L").save(tmp_path / "gray.png")
    Image.new("RGB", (40, 30), (90, 90, 90)).save(tmp_path / "flat.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    files = [tmp_path / name for name in ("gray.png", "flat.jpg", "dot.png")]
    for method in ["deepmask", *CLASSICAL]:
        assert propose(method, *files)[0] == 0
        results_file.read(tmp_path / "out" / "proposals.json", {1, 2, 3})
        assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 3


@pytest.mark.parametrize("method", ["edgeboxes", "mcg", "deepmask"])
def test_no_proposals_are_a_valid_file(propose, tmp_path, method):
    assert propose(method, "one/same.png", count=0)[0] == 0
    assert json.loads((tmp_path / "out" / "proposals.json").read_text()) == []


def test_a_strip_has_a_picture_too(propose, tmp_path):
    Image.new("RGB", (3000, 1)).save(tmp_path / "wide.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert propose("selectivesearch", tmp_path / "wide.png")[0] == 0


def test_pictures_of_tall_images_are_no_larger_than_can_be_drawn():
    """Drawn at 150 pixels an inch."""
    image = np.zeros((400, 2, 3), np.uint8)
    proposals = proposing.Proposals(0, np.zeros(0), np.zeros((0, 4)), [])
    assert proposing._picture(image, proposals).get_size_inches().max() < 100


def test_a_count_below_zero_is_refused(propose):
    status, _, said = propose("geodesic", "one/same.png", count=-3)
    assert status != 0 and "count" in said


@pytest.mark.parametrize("method", ["deepmusk", "", "MCG"])
def test_unknown_methods_are_named(propose, method, tmp_path):
    check_refused(propose(method, "one/same.png"), repr(method), *SYSTEMS, *CLASSICAL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", SYSTEMS)
def test_missing_and_damaged_weights_are_named(made, propose, tmp_path, method):
    needed = {SYSTEMS[method].masks, SYSTEMS[method].scores}
    for variant in needed:
        study = Study(tmp_path / variant)
        shutil.copytree(made / "study", study.root)
        study.weights(variant).write_bytes(b"no weights")
        check_refused(propose(method, "one/same.png", study=study.root), study.weights(variant))
        study.weights(variant).unlink()
        check_refused(propose(method, "one/same.png", study=study.root), study.weights(variant), "no such")
        for other in set(VARIANTS) - needed:
            study.weights(other).unlink()
        shutil.copy(made / f"study/models/{variant}.safetensors", study.weights(variant))
        assert propose(method, "one/same.png", study=study.root)[0] == 0, "it needs no other network, and no forest"


@pytest.mark.parametrize("method", CLASSICAL)
def test_missing_and_damaged_forests_are_named(made, propose, tmp_path, method):
    study = Study(tmp_path / "study")
    study.forest.parent.mkdir(parents=True)
    needed = [study.ranking] * (method == "mcg") + [study.forest] * (method in NEEDS_EDGES)
    for path in needed:
        check_refused(propose(method, "one/same.png", study=study.root), path, "no such")
        path.write_bytes(b"no forest")
        check_refused(propose(method, "one/same.png", study=study.root), path)
        shutil.copy(made / "study/models" / path.name, path)
    assert propose(method, "one/same.png", study=study.root)[0] == 0


def test_scales_that_mcg_has_no_weights_for_are_refused(propose, tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS + "edges: {scales: [1.0]}\n")
    check_refused(propose("mcg", "one/same.png", params=tmp_path / "params.yaml"), "scales")


def test_parameters_that_are_missing_or_unknown_are_named(propose, tmp_path):
    check_refused(propose("rigor", "one/same.png", params=tmp_path / "none.yaml"), "none.yaml")
    (tmp_path / "odd.yaml").write_text("baselines: {rigor: {seedlings: 3}}")
    check_refused(propose("rigor", "one/same.png", params=tmp_path / "odd.yaml"), "seedlings")


def test_networks_are_those_of_the_system(made):
    settings = config.load(made / "params.yaml")
    loaded = {key: methods.load(key, Study(made / "study"), settings, 7) for key in SYSTEMS}
    assert [method.name for method in loaded.values()] == [system.name for system in SYSTEMS.values()]
    assert all(method.count == 7 for method in loaded.values())
    assert {key for key, method in loaded.items() if method.octaves == (-0.5, 0.0, 0.5)} == {"deepmaskzoom"}

    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))

    star = loaded["deepmask20star"]
    assert same(star.masker, loaded["deepmask20"].masker) and same(star.scorer, loaded["deepmask"].scorer)
    assert not same(star.masker, star.scorer)


def test_masks_are_cut_at_the_threshold_that_was_tuned(made, tmp_path):
    shutil.copytree(made / "study", tmp_path / "study")
    study, settings = Study(tmp_path / "study"), config.load(made / "params.yaml")
    table = study.result("tuning", "deepmask20.csv")
    table.parent.mkdir(parents=True)
    table.write_text("threshold,ar,chosen\n0.2,0.1,False\n0.6,0.2,True\n0.7,0.1,False\n")
    loaded = {key: methods.load(key, study, settings) for key in SYSTEMS}
    cuts = {key: method.threshold for key, method in loaded.items()}
    tuned = {key: 0.6 if "20" in key else 0.45 for key in SYSTEMS}  # the others: the first candidate
    assert cuts == tuned


def test_baselines_are_loaded_with_their_settings(made):
    from deepmask.baselines import methods as baselines

    settings = config.load(made / "params.yaml").baselines
    ranking = Study(made / "study").ranking
    for key in CLASSICAL:
        method = baselines.load(key, settings, ranking, 5)
        assert (method.name, method.count, method.config) == (key, 5, getattr(settings, key))
    with pytest.raises(ConfigError, match="'deepmask'"):
        baselines.load("deepmask", settings, ranking, 5)
