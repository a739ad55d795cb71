"""The structured forest: trained trees are what OpenCV evaluates, and they find boundaries."""

import gzip
import re

import cv2
import numpy as np
import pytest
import scipy.io
import yaml
from conftest import write_tiny_coco
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import distance_transform_edt

from deepmask.baselines import edges, forest, forest_trees
from deepmask.baselines.edges import BaselineError, EdgeDetector
from deepmask.baselines.forest import ForestConfig
from deepmask.data.coco import InstanceDataset

SMALL = ForestConfig(trees=2, patches=1500, pairs=32)


def disks(seed, height=70, width=93):
    """An image of flat disks on a flat ground with a little noise, and its label map."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    labels = np.zeros((height, width), np.int32)
    for label in range(1, 5):
        radius = rng.uniform(8, 20)
        labels[(y - rng.uniform(0, height)) ** 2 + (x - rng.uniform(0, width)) ** 2 < radius**2] = 1000 * label
    colours = rng.integers(40, 216, (5, 3))
    return (colours[labels // 1000] + rng.integers(-6, 7, (height, width, 3))).astype(np.uint8), [labels]


SAMPLES = [disks(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("forest") / "forest.yml.gz"
    forest.train(SAMPLES, path, SMALL)
    return path


def content(path):
    return yaml.safe_load(gzip.decompress(path.read_bytes()).decode().removeprefix("%YAML:1.0"))


def features_at(image, row, column):
    """The 7228 features of one patch by definition, from OpenCV's channels."""
    padded = cv2.copyMakeBorder(image.astype(np.float32) / 255, 8, 8, 8, 8, cv2.BORDER_REFLECT)
    channels = np.zeros((padded.shape[0] // 2, padded.shape[1] // 2, 13), np.float32)
    cv2.ximgproc.createRFFeatureGetter().getFeatures(padded, channels, 4, 0, 2, 13, 4)

    def smooth(weights):
        kernel = np.array(weights, np.float32) / np.sum(weights, dtype=np.float32)
        return cv2.sepFilter2D(channels, -1, kernel, kernel)[row : row + 16, column : column + 16]

    plain, coarse = smooth([1, 2, 1]), smooth([1, 2, 3, 4, 5, 4, 3, 2, 1])
    grid = coarse[np.ix_([1, 4, 8, 11, 14], [1, 4, 8, 11, 14])].transpose(2, 1, 0).reshape(13, 25)
    first, second = np.triu_indices(25, 1)
    return np.concatenate([plain.transpose(2, 1, 0).ravel(), (grid[:, first] - grid[:, second]).ravel()])


def test_opencv_reads_the_trees_as_they_were_grown(tmp_path):
    """Edge maps of a forest of one tree, computed patch by patch from the file's text, are OpenCV's."""
    path = tmp_path / "one.yml.gz"
    forest.train(SAMPLES, path, ForestConfig(trees=1, patches=1500, pairs=32))
    tree = content(path)
    image = disks(99, 36, 42)[0]
    height, width = image.shape[:2]
    votes = np.zeros((height + 16, width + 16))
    for row in range((height - 16) // 2):
        for column in range((width - 16) // 2):
            values = features_at(image, row, column)
            node = 0
            while tree["childs"][0][node]:
                right = values[tree["featureIds"][0][node]] >= tree["thresholds"][0][node]
                node = tree["childs"][0][node] - 1 + right
            bins = np.array(tree["edgeBins"][slice(*tree["edgeBoundaries"][node : node + 2])], int)
            votes[2 * row + bins % 16, 2 * column + bins // 16] += 2 * 2**2 / 16**2
    triangle = np.array([1, 2, 1]) / 4
    expected = cv2.sepFilter2D(votes, -1, triangle, triangle)
    got = EdgeDetector(path, (1.0,))._detect(image)
    assert expected.max() > 0.1
    np.testing.assert_allclose(got[:-1, :-1], expected[: height - 1, : width - 1], atol=1e-6)


def test_edges_are_at_boundaries(trained):
    image, (labels,) = disks(7)
    edges = EdgeDetector(trained)(image).mean(axis=0, dtype=np.float32)
    distance = distance_transform_edt(~forest.boundary(labels))
    assert edges[distance <= 1].mean() > 5 * edges[distance > 6].mean()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (20, 20), (33, 47), (60, 61)])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0)])
def test_maps_have_the_size_of_the_image(trained, size, scales):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    detector = EdgeDetector(trained, scales)
    edges = detector(image)
    assert edges.shape == (len(scales), *size) and edges.dtype == np.float16
    assert edges.min() >= 0 and edges.max() <= 1
    np.testing.assert_array_equal(edges, detector(image))
    np.testing.assert_array_equal(edges, EdgeDetector(trained, scales)(image))


def test_one_colour_has_fewer_edges_than_noise(trained):
    flat, noise = np.full((64, 64, 3), 90, np.uint8), disks(3, 64, 64)[0]
    detector = EdgeDetector(trained)
    assert detector(flat).max() < detector(noise).max()


def test_the_bytes_depend_on_samples_and_settings_only(trained, tmp_path):
    forest.train(SAMPLES, tmp_path / "again.yml.gz", SMALL, workers=3)
    assert (tmp_path / "again.yml.gz").read_bytes() == trained.read_bytes()
    forest.train(SAMPLES, tmp_path / "other.yml.gz", ForestConfig(trees=2, patches=1500, pairs=32, seed=1))
    assert content(tmp_path / "other.yml.gz") != content(trained)
    assert not list(tmp_path.glob("*.part"))


def test_leaves_keep_enough_patches_and_trees_their_depth(tmp_path):
    forest.train(SAMPLES, tmp_path / "flat.yml.gz", ForestConfig(trees=3, patches=600, pairs=16, depth=2))
    tree = content(tmp_path / "flat.yml.gz")
    assert all(sum(child > 0 for child in children) <= 3 for children in tree["childs"])  # inner nodes of depth 2
    lengths = {len(nodes) for key in ("childs", "featureIds", "thresholds") for nodes in tree[key]}
    assert len(lengths) == 1 and len(tree["edgeBoundaries"]) == 3 * lengths.pop() + 1
    assert tree["edgeBoundaries"][-1] == len(tree["edgeBins"]) > 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_splits_are_the_purest(seed, leaf):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 30))
    values = rng.integers(-4, 5, (3, n)).astype(np.int16)
    classes = rng.random(n) < 0.5
    best, cut = forest_trees._split(values, np.arange(3), 3, np.arange(n), classes, leaf)

    def impurity(left):
        """Summed Gini impurity of both sides, times their patches."""
        return sum(len(side) * 2 * side.mean() * (1 - side.mean()) for side in (classes[left], classes[~left]))

    cuts = [(f, value) for f in range(3) for value in np.unique(values[f])[1:]]
    sound = [values[f] < v for f, v in cuts if leaf <= (values[f] < v).sum() <= n - leaf]
    whole = n * 2 * classes.mean() * (1 - classes.mean())
    purest = min(map(impurity, sound), default=whole)
    if purest < whole - 1e-6:
        assert leaf <= (values[best] < cut).sum() <= n - leaf
        assert impurity(values[best] < cut) == pytest.approx(purest)
    else:
        assert best == -1


def test_relabelled_patches_keep_equality_only():
    patches = np.random.default_rng(0).integers(-3, 100_000, (5, 16, 16)) // 7_000
    short = forest_trees.relabelled(patches)
    for patch, new in zip(patches.reshape(5, -1), short, strict=True):
        np.testing.assert_array_equal(patch[:, None] == patch, new[:, None] == new)
    assert forest_trees.relabelled(np.arange(256).reshape(1, 16, 16)).max() == 255


def test_positive_patches_are_near_boundaries():
    labels = disks(5)[1][0]
    distance = distance_transform_edt(~forest.boundary(labels))
    near, far = forest._cells(labels)
    assert len(near) + len(far) == ((70 - 16) // 2 + 1) * ((93 - 16) // 2 + 1)
    centres = [distance[2 * cells[:, 0] + 8, 2 * cells[:, 1] + 8] for cells in (near, far)]
    assert centres[0].max() < 8 <= centres[1].min()


def test_nothing_to_learn(tmp_path):
    flat = np.zeros((40, 40, 3), np.uint8), [np.zeros((40, 40), np.int32)]
    tiny = np.zeros((9, 9, 3), np.uint8), [np.eye(9, dtype=np.int32)]
    for samples in ([], [flat], [tiny]):
        with pytest.raises(BaselineError, match="no boundary"):
            forest.train(samples, tmp_path / "no.yml.gz", SMALL)
    with pytest.raises(BaselineError, match="training image 1 .*label maps"):
        forest.train([SAMPLES[0], (flat[0], tiny[1])], tmp_path / "no.yml.gz", SMALL)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_forest(trained, tmp_path):
    packed = trained.read_bytes()
    text = gzip.decompress(packed)
    cases = {
        "missing.yml": (None, "no such"),
        "empty.yml": (b"", "not a structured forest"),
        "other.yml": (b"%YAML:1.0\n---\noptions: 1\n", "not a structured forest"),
        "picture.yml.gz": (gzip.compress(b"P5 1 1 255 0"), "not a structured forest"),
        "cut.yml.gz": (packed[: len(packed) // 2], "not readable"),
        "cut.yml": (text[:-100], "no lists of numbers"),
    }
    for name, (data, message) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BaselineError, match=f"{name}: .*{message}"):
            EdgeDetector(tmp_path / name)
    (tmp_path / "plain.yml").write_bytes(text)
    image = disks(1)[0]
    np.testing.assert_array_equal(EdgeDetector(tmp_path / "plain.yml")(image), EdgeDetector(trained)(image))
    with pytest.raises(BaselineError, match="scales"):
        EdgeDetector(trained, (1.0, 0.0))


def test_a_forest_whose_numbers_lead_out_of_it_never_reaches_opencv(trained, tmp_path):
    """OpenCV looks up whatever they are, and a wrong one ends the process."""
    text = gzip.decompress(trained.read_bytes())
    changes = {
        "stride is 0": (rb"stride: 2", b"stride: 0"),
        "patchSize is 32000": (rb"patchSize: 32", b"patchSize: 32000"),
        "numberOfTreesToEvaluate is 9 of 2": (rb"Evaluate: 2", b"Evaluate: 9"),
        "ssFeatureSmoothingRadius is 999999": (rb"ssFeatureSmoothingRadius: 8", b"ssFeatureSmoothingRadius: 999999"),
        "childs lead out": (rb"(childs:\s+- \[ )\d+", rb"\g<1>1000000"),
        "childs lead out of their tree, or back": (rb"(childs:\s+- \[ )\d+", rb"\g<1>1"),
        "childs are no lists": (rb"(childs:\s+- \[ )\d+", rb"\g<1>-5"),
        "featureIds reach 7228": (rb"(featureIds:\s+- \[ )\d+", rb"\g<1>7228"),
        "edgeBoundaries lead out": (rb"(edgeBoundaries: \[ )\d+", rb"\g<1>99"),
        "edgeBoundaries do not fit": (rb"(edgeBoundaries: \[ )0,", rb"\g<1>"),
        "edgeBins reach 256": (rb"(edgeBins: \[ )\d+", rb"\g<1>256"),
        "edgeBins are no lists": (rb"(edgeBins: \[ )\d+", rb"\g<1>010"),  # an octal number for OpenCV
        "thresholds are no lists": (rb"(thresholds:\s+- )\[", rb"\g<1>" + b"[" * 100_000),
        "do not fit each other": (rb"(thresholds:\s+- \[ )[0-9.]+,", rb"\g<1>"),
        "does not consist of": (rb"\Z", b"childs: [ 0 ]\n"),
    }
    for message, (old, new) in changes.items():
        changed, count = re.subn(old, new, text, count=1)
        assert count
        (tmp_path / "forest.yml").write_bytes(changed)
        with pytest.raises(BaselineError, match=f"forest.yml: not a structured forest .*{message}"):
            EdgeDetector(tmp_path / "forest.yml")


def test_the_form_of_opencvs_own_forest_is_read(trained, tmp_path):
    """Its lists are in rows, without spaces, and no line of three dashes comes first."""
    text = gzip.decompress(trained.read_bytes()).replace(b"---", b"")
    text = re.sub(rb",\s+", b",", text).replace(b"[ ", b"[").replace(b" ]", b"]")
    text = re.sub(rb"(edge\w+): \[(\d+),", rb"\1:\n    - [\2]\n    - [", text)
    (tmp_path / "forest.yml").write_bytes(text)
    image = disks(1)[0]
    np.testing.assert_array_equal(EdgeDetector(tmp_path / "forest.yml")(image), EdgeDetector(trained)(image))


def test_a_forest_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(edges, "_LARGEST", 1000)
    (tmp_path / "bomb.yml.gz").write_bytes(gzip.compress(bytes(2000)))
    with pytest.raises(BaselineError, match="bomb.yml.gz: more than 1,000 bytes"):
        EdgeDetector(tmp_path / "bomb.yml.gz")


def test_samples_of_bsds(tmp_path):
    data = tmp_path / "BSDS500" / "data"
    for kind in ("images", "groundTruth"):
        (data / kind / "train").mkdir(parents=True)
    maps = [np.arange(12, dtype=np.uint16).reshape(3, 4) // k for k in (1, 5)]
    records = np.empty((1, 2), object)
    records[0] = [{"Segmentation": m, "Boundaries": m > 3} for m in maps]
    for name in ("7", "12"):
        Image.new("RGB", (4, 3), (9, 8, 7)).save(data / "images" / "train" / f"{name}.jpg", quality=100)
    scipy.io.savemat(data / "groundTruth" / "train" / "12.mat", {"groundTruth": records})
    for folder in (tmp_path, tmp_path / "BSDS500"):
        samples = forest.bsds_samples(folder)
        image, labels = samples[0]
        assert len(samples) == 2 and image.shape == (3, 4, 3)
        assert all((a == b).all() for a, b in zip(labels, maps, strict=True))
    with pytest.raises(BaselineError, match="7.mat"):
        samples[1]
    for folder, split in ((tmp_path / "none", "train"), (tmp_path, "test")):
        with pytest.raises(BaselineError, match=f"images/{split}"):
            forest.bsds_samples(folder, split)


def test_samples_of_masks(tmp_path):
    root = write_tiny_coco(tmp_path / "tiny")
    dataset = InstanceDataset.read(root / "annotations" / "instances_train.json", root / "images")
    samples = forest.mask_samples(dataset, 10)
    assert samples.keys == [i for i in range(len(dataset)) if dataset.image_ids[i] != 4]  # 4 has no objects
    for i, (image, (labels,)) in zip(samples.keys, samples, strict=True):
        assert (image == dataset.image(i)).all() and labels.dtype == np.int32
        objects = [dataset.mask(a) for a in dataset.annotations(i) if not dataset.ann_crowd[a]]
        front = np.full(labels.shape, np.inf)
        for mask in objects:
            front[mask] = np.minimum(front[mask], mask.sum())
        for mask in objects:
            assert len(set(labels[mask & (front == mask.sum())])) == 1  # one label, wherever nothing smaller is
        np.testing.assert_array_equal(labels == 0, np.isinf(front))
        assert len(np.unique(labels[labels > 0])) == len(objects)
    for seed in range(5):
        early, late = forest.mask_samples(dataset, 2, seed).keys
        assert early in samples.keys[:2] and late in samples.keys[2:]
