"""Drawn scenes: purity, exact annotations, and the composition that the study relies on."""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deepmask.data import textures
from deepmask.data.categories import NOVEL_FAMILIES, PASCAL_FAMILIES, pretraining_styles, styles
from deepmask.data.scenes import FIRST_INDEX, categories, draw_scene, object_patches, write_scenes


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, index) for index in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=30, val=8, width=160, height=120, seed=3, workers=1, progress=False)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_scene_is_a_pure_function_of_seed_and_index(scenes):
    again = draw_scene(0, 7)
    assert np.array_equal(scenes[7].image, again.image)
    for (a, mask_a, crowd_a), (b, mask_b, crowd_b) in zip(scenes[7].instances, again.instances, strict=True):
        assert (a, crowd_a) == (b, crowd_b) and np.array_equal(mask_a, mask_b)
    assert not np.array_equal(scenes[7].image, scenes[8].image)
    assert not np.array_equal(scenes[7].image, draw_scene(1, 7).image)
    assert not np.array_equal(scenes[7].image, draw_scene(0, FIRST_INDEX["val"] + 7).image)


def test_scene_does_not_depend_on_what_was_drawn_before():
    code = "import hashlib; from deepmask.data.scenes import draw_scene; "
    code += "print(hashlib.sha256(draw_scene(0, 7).image.tobytes()).hexdigest())"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    draw_scene(1, 2)
    assert elsewhere.strip() == hashlib.sha256(draw_scene(0, 7).image.tobytes()).hexdigest()


def test_masks_are_disjoint_and_not_empty(scenes):
    for scene in scenes:
        covered = np.zeros(scene.image.shape[:2], int)
        for category, mask, _ in scene.instances:
            assert mask.dtype == bool and mask.any() and category in styles()
            covered += mask
        assert covered.max(initial=0) <= 1


def test_mask_is_where_the_object_is_drawn(scenes):
    """Pixels change across mask borders more than they do elsewhere, by a wide margin."""
    on, off = [], []
    for scene in scenes[:20]:
        step = np.abs(np.diff(cv2.GaussianBlur(scene.image, (0, 0), 0.8).astype(int), axis=1)).sum(2)
        border = np.zeros(step.shape, bool)
        for _, mask, crowd in scene.instances:
            if not crowd:
                border |= mask[:, 1:] != mask[:, :-1]
        on.append(step[border])
        off.append(step[~border])
    assert np.concatenate(on).mean() > 1.8 * np.concatenate(off).mean()


def test_sizes_shares_crowds_and_occlusion(scenes):
    objects = [(c, mask) for scene in scenes for c, mask, crowd in scene.instances if not crowd]
    area = np.array([np.count_nonzero(mask) for _, mask in objects])
    assert 6 <= len(objects) / len(scenes) <= 9
    assert 0.30 <= np.mean(area < 16**2) <= 0.48
    assert 0.26 <= np.mean((area >= 16**2) & (area < 48**2)) <= 0.44
    assert 0.17 <= np.mean(area >= 48**2) <= 0.34
    pascal = {category["id"] for category in categories() if category["pascal"]}
    assert 0.30 <= np.mean([c in pascal for c, _ in objects]) <= 0.50
    assert len({c for c, _ in objects}) >= 70
    components = [cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1 for _, mask in objects]
    assert sum(count > 1 for count in components) >= 5
    crowds = [mask for scene in scenes for _, mask, crowd in scene.instances if crowd]
    assert 1 <= len(crowds) <= 14
    assert np.mean([cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 for mask in crowds]) > 4


def test_categories_are_20_pascal_10_of_the_same_families_and_50_of_others():
    listed = categories()
    assert [category["id"] for category in listed] == list(range(1, 81))
    assert len({category["name"] for category in listed}) == 80
    pascal = Counter(c["supercategory"] for c in listed if c["pascal"])
    other = Counter(c["supercategory"] for c in listed if not c["pascal"])
    assert pascal == dict.fromkeys(PASCAL_FAMILIES, 4)
    assert {family: other[family] for family in PASCAL_FAMILIES} == dict.fromkeys(PASCAL_FAMILIES, 2)
    assert sum(other[family] for family in NOVEL_FAMILIES) == 50 and min(other[f] for f in NOVEL_FAMILIES) >= 4
    assert len(NOVEL_FAMILIES) == 11 and not set(NOVEL_FAMILIES) & set(PASCAL_FAMILIES)
    assert all(styles()[c["id"]].family == c["supercategory"] for c in listed)


def test_pretraining_classes_are_not_annotated_categories():
    classes = pretraining_styles(96)
    assert Counter(style.family for style in classes) == dict.fromkeys([*PASCAL_FAMILIES, *NOVEL_FAMILIES], 6)
    dials = np.stack([style.dials for style in [*classes, *styles().values()]])
    distance = np.abs(dials[:, None] - dials[None]).max(2)
    assert distance[np.triu_indices(len(dials), 1)].min() > 0.1


def test_object_patches_are_pure_and_balanced():
    images, labels = object_patches(10, 70, 32, 5, workers=2, progress=False)
    assert images.shape == (70, 32, 32, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and set(Counter(labels.tolist()).values()) == {7}
    fewer, same = object_patches(10, 12, 32, 5, workers=1, progress=False)
    assert np.array_equal(fewer, images[:12]) and np.array_equal(same, labels[:12])
    assert not np.array_equal(fewer, object_patches(10, 12, 32, 6, progress=False)[0])
    assert len(np.unique(images.reshape(70, -1), axis=0)) == 70


def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    options = {"train": 50, "val": 16, "width": 64, "height": 48, "seed": 1, "progress": False}  # enough for 3 workers
    write_scenes(tmp_path / "one", workers=1, **options)
    write_scenes(tmp_path / "more", workers=3, **options)
    assert contents(tmp_path / "one") == contents(tmp_path / "more")


def test_a_longer_set_begins_with_a_shorter_one(folder, tmp_path):
    write_scenes(tmp_path, train=4, val=2, width=160, height=120, seed=3, progress=False)
    longer, shorter = contents(folder), contents(tmp_path)
    for name in shorter:
        if name.suffix == ".jpg":
            assert shorter[name] == longer[name]
        else:
            few, many = json.loads(shorter[name]), json.loads(longer[name])
            assert few["images"] == many["images"][: len(few["images"])]
            assert few["annotations"] == many["annotations"][: len(few["annotations"])]


@pytest.mark.parametrize("name", ["train", "val"])
def test_annotation_file_is_coco(folder, name, capsys):
    coco = COCO(folder / "annotations" / f"instances_{name}.json")
    assert len(coco.imgs) == {"train": 30, "val": 8}[name]
    assert coco.dataset["categories"] == categories()
    for i, image in coco.imgs.items():
        pixels = cv2.imread(str(folder / "images" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (120, 160, 3)
        scene = draw_scene(3, i - 1, 160, 120)
        assert np.abs(pixels[:, :, ::-1].astype(int) - scene.image).mean() < 4
        annotations = coco.imgToAnns[i]
        assert len(annotations) == len(scene.instances)
        for annotation, (category, mask, crowd) in zip(annotations, scene.instances, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
            assert annotation["category_id"] == category and annotation["iscrowd"] == crowd
            assert isinstance(annotation["segmentation"]["counts"], list if crowd else str)
            rle = coco.annToRLE(annotation)
            assert annotation["area"] == coco_mask.area(rle) and annotation["bbox"] == coco_mask.toBbox(rle).tolist()


def test_ids_are_unique_across_both_files(folder):
    files = [json.loads(path.read_bytes()) for path in (folder / "annotations").iterdir()]
    for key in ("images", "annotations"):
        ids = [record["id"] for file in files for record in file[key]]
        assert len(ids) == len(set(ids)) > 0
    assert any(a["iscrowd"] for file in files for a in file["annotations"])


@pytest.mark.parametrize(("width", "height"), [(640, 480), (64, 48), (48, 64), (33, 17)])
def test_any_size(width, height):
    scene = draw_scene(0, 3, width, height)
    assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
    assert all(mask.shape == (height, width) for _, mask, _ in scene.instances)


def test_composition_scales_with_height(scenes):
    """The same categories cover about the same share of a larger picture."""
    for index in range(5):
        large = draw_scene(0, index, 640, 480)
        shares = [{c: m.mean() for c, m, _ in s.instances if m.mean() > 0.005} for s in (scenes[index], large)]
        common = shares[0].keys() & shares[1].keys()
        assert len(common) >= 0.7 * len(shares[0])
        assert np.median([abs(shares[0][c] / shares[1][c] - 1) for c in common]) < 0.1


def test_an_interrupted_run_leaves_no_annotation_file(folder, tmp_path, monkeypatch):
    options = {"train": 3, "val": 1, "width": 64, "height": 48, "seed": 1, "workers": 1, "progress": False}
    write_scenes(tmp_path, **options)
    monkeypatch.setattr("deepmask.data.scene_files.cv2.imencode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path, **options)
    assert not list((tmp_path / "annotations").iterdir())


@pytest.mark.parametrize("wrong", [{"width": 8}, {"height": 0}, {"train": -1}])
def test_impossible_sets_are_refused(tmp_path, wrong):
    options = {"train": 1, "val": 1, "width": 64, "height": 48, "seed": 0} | wrong
    with pytest.raises(ValueError, match="at least 16|number of images"):
        write_scenes(tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_textures_are_seamless_and_varied():
    bank = textures.bank()
    assert bank.dtype == np.float32 and 0 <= bank.min() and bank.max() <= 1
    assert np.ptp(bank[textures.FLAT]) == 0 and (bank[1:].std((1, 2)) > 0.1).all()
    for across, along in ((1, 2), (2, 1)):
        steps = np.abs(np.diff(bank, axis=across, append=bank.take([0], across))).mean(along)
        assert (steps[:, -1] <= 1.2 * steps[:, :-1].max(1) + 0.01).all()  # the last step is over the border


def test_rgb_agrees_with_matplotlib():
    from matplotlib.colors import hsv_to_rgb

    hsv = np.random.default_rng(0).uniform(0, 1, (50, 3))
    assert np.allclose(textures.rgb(*hsv.T), 255 * hsv_to_rgb(hsv), atol=1e-3)
    assert np.allclose(textures.rgb(hsv[:, 0] - 2, hsv[:, 1], hsv[:, 2]), 255 * hsv_to_rgb(hsv), atol=1e-3)
