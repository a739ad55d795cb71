"""Numbers under stress: recall equals pycocotools' on the worst worlds, and what has no number is nan.

What pycocotools writes as -1, recall over no objects, is nan here.  Elsewhere: scores of minus zero equal those of
zero, infinite ones rank first and last but are refused in files, NaN is refused by name wherever it comes from.
"""

import contextlib
import io
import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepmask import masks, results_file
from deepmask.__main__ import main
from deepmask.bootstrap import interval, paired_bootstrap
from deepmask.config import ModelConfig
from deepmask.data.coco import InstanceDataset
from deepmask.evaluation import METRICS, curve_rows, evaluate, recall_rows, summary
from deepmask.geometry import Geometry
from deepmask.inference import DeepMaskProposer, DensePass
from deepmask.matching import EvaluationError
from deepmask.model import DeepMask
from deepmask.proposals import ProposalError, Proposals
from deepmask.scoring import evaluate_file, format_summary, table
from deepmask.weights import WeightsError

COUNTS = 1, 3, 10, 100, 1000
SMALL, LARGE = 9.0, 16.0  # px
RANGES = {"all": (0, 1e12), "small": (0, 80.99), "medium": (81, 256), "large": (256.01, 1e12)}
AREAS = 0.0, 80.9375, 81.0, 100.0, 256.0, 256.0625, 1e9  # at and about the bounds
SIZES = (1, 1), (1, 9), (7, 1), (8, 8), (12, 20)  # height, width of the images

quarters = st.integers(-8, 100).map(lambda n: n / 4)  # exact in float32, so that no IoU is rounded differently
boxes = st.tuples(quarters, quarters, quarters.map(abs), quarters.map(abs)).map(list)


@st.composite
def rectangles(draw, size):
    """A mask of an image: a rectangle that may be empty or all of it."""
    height, width = size
    mask = np.zeros(size, bool)
    top, left = draw(st.integers(0, height)), draw(st.integers(0, width))
    mask[top : top + draw(st.integers(0, height)), left : left + draw(st.integers(0, width))] = True
    return rle(mask)


def rle(mask):
    coded = masks.encode(mask[None])[0]
    return {"size": coded["size"], "counts": coded["counts"].decode()}


@st.composite
def worlds(draw):
    """Annotations and results: few shapes in every image, so that most things are equal, doubled or overlap twice."""
    document = {"images": [], "annotations": [], "categories": [{"id": k, "name": f"c{k}"} for k in (1, 2)]}
    results = []
    for image_id in range(1, draw(st.integers(1, 3)) + 1):
        size = draw(st.sampled_from(SIZES))
        document["images"].append({"id": image_id, "height": size[0], "width": size[1], "file_name": "x.png"})
        shapes = draw(st.lists(st.tuples(boxes, rectangles(size)), min_size=1, max_size=5))
        crowds = draw(st.sampled_from([(0,), (0, 1), (1,)]))
        for box, mask in draw(st.lists(st.sampled_from(shapes), max_size=8)):
            more = {"iscrowd": draw(st.sampled_from(crowds)), "area": draw(st.sampled_from(AREAS))}
            more |= {"id": len(document["annotations"]) + 1, "category_id": draw(st.integers(1, 2))}
            document["annotations"].append({"image_id": image_id, "bbox": box, "segmentation": mask, **more})
        scores = draw(st.sampled_from([[0.5], [0.0, -0.0], [0.25, 0.5, 1.0], [math.inf, 0.0, -math.inf, 1e30]]))
        found = draw(st.lists(st.tuples(st.sampled_from(shapes), st.sampled_from(scores)), max_size=12))
        found *= draw(st.sampled_from([1, 1, 1, 100]))
        results += [
            {"image_id": image_id, "category_id": 1, "score": score, "bbox": box, "segmentation": mask}
            for (box, mask), score in found
        ]
    return document, results


def pycocotools(document, results, kind):
    """(T, areas, counts) recall without categories, nan where pycocotools has -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = document
        truth.createIndex()
        if results:
            found = truth.loadRes(results)
        run = COCOeval(truth, found, kind)
        run.params.useCats, run.params.maxDets = 0, list(COUNTS)
        run.params.imgIds = [image["id"] for image in document["images"]]
        run.params.areaRng, run.params.areaRngLbl = [list(bounds) for bounds in RANGES.values()], list(RANGES)
        run.evaluate()
        run.accumulate()
    recall = run.eval["recall"][:, 0]
    return np.where(recall < 0, np.nan, recall)


def ours(folder, document, results):
    """The data set and the proposals, by image id."""
    (folder / "instances.json").write_text(json.dumps(document))
    dataset, found = InstanceDataset.read(folder / "instances.json", folder), {}
    for image_id in {entry["image_id"] for entry in results}:
        entries = [entry for entry in results if entry["image_id"] == image_id]
        codes = [{"size": e["segmentation"]["size"], "counts": e["segmentation"]["counts"].encode()} for e in entries]
        scores, of_image = [e["score"] for e in entries], [e["bbox"] for e in entries]
        found[image_id] = Proposals.ranked(image_id, scores, of_image, codes)
    return dataset, found


def same_as_pycocotools(folder, document, results):
    dataset, found = ours(folder, document, results)
    for kind in ("bbox", "segm"):
        recall, expected = evaluate(dataset, found, kind), pycocotools(document, results, kind)
        selections = {"all": None} | recall.sizes(SMALL, LARGE)
        for area, name in enumerate(RANGES):
            part = recall.only(selections[name])
            for column, count in enumerate(COUNTS):
                np.testing.assert_allclose(part.recall(count), expected[:, area, column], atol=1e-12)
                np.testing.assert_allclose(part.ar(count), expected[:, area, column].mean(), atol=1e-12)


def test_recall_is_that_of_pycocotools_in_any_world(stress, tmp_path):
    tried = 0

    @settings(max_examples=stress.scale(60, 1_000), deadline=None, database=None, derandomize=True)
    @given(world=worlds())
    def holds(world):
        nonlocal tried
        tried += 1
        same_as_pycocotools(tmp_path, *world)

    holds()
    stress.count("cases", "worlds against pycocotools", tried)


def test_thousands_of_objects_and_proposals_in_one_image(stress, tmp_path):
    """On a grid, all scores equal: every proposal overlaps four objects alike."""
    side = stress.scale(12, 48)
    size = (4 * side + 8, 4 * side + 8)
    document = {"categories": [{"id": 1, "name": "c"}], "annotations": [], "images": [{"id": 1, "file_name": "x"}]}
    document["images"][0] |= {"height": size[0], "width": size[1]}
    results = []
    for row, column in np.ndindex(side, side):
        mask = np.zeros(size, bool)
        mask[4 * row : 4 * row + 6, 4 * column : 4 * column + 6] = True
        entry = {"image_id": 1, "category_id": 1, "bbox": [4 * column, 4 * row, 6, 6], "segmentation": rle(mask)}
        more = {"id": len(results) + 1, "iscrowd": 0, "area": 36 + 400 * (row % 2)}
        document["annotations"].append(entry | more)
        moved = np.roll(mask, (row % 3, column % 2), (0, 1))
        box = [4 * column + column % 2, 4 * row + row % 3, 6, 6]
        results.append(entry | {"score": 0.5, "bbox": box, "segmentation": rle(moved)})
    same_as_pycocotools(tmp_path, document, results)
    stress.count("cases", "objects in one image", len(results))


@pytest.mark.parametrize("content", ["no annotations", "all crowds", "no proposals", "no images"])
def test_what_has_no_number_is_nan_or_zero_without_a_warning(content, tmp_path, capsys):
    """Metrics, curves, tables, intervals and the command, of files that hold nothing to find or nothing that finds."""
    mask = rle(np.ones((8, 8), bool))
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8], "area": 64, "segmentation": mask}
    document = {"images": [{"id": 1, "height": 8, "width": 8, "file_name": "x"}], "annotations": []}
    document["categories"] = [{"id": 1, "name": "c"}]
    if content in ("all crowds", "no proposals"):
        document["annotations"].append(annotation | {"iscrowd": int(content == "all crowds")})
    results = [{"image_id": 1, "score": 0.5, "bbox": [0, 0, 8, 8], "segmentation": mask}]
    if content == "no proposals":
        results = []
    if content == "no images":
        document["images"], results = [], []
    (tmp_path / "found.json").write_text(json.dumps(results))
    expected = 0.0 if content == "no proposals" else math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset, found = ours(tmp_path, document, results)
        for kind in ("bbox", "segm"):
            recall = evaluate(dataset, found, kind)
            values = [*summary(recall, SMALL, LARGE).values()][:4]
            np.testing.assert_equal(values, [expected] * 4)
            rows = [row["ar"] for row in curve_rows(recall, {"all": None} | recall.sizes())]
            rows += [row["recall"] for row in recall_rows(recall)]
            assert all(value == 0 or math.isnan(value) for value in rows)
            for made in (interval(recall, "AUC", 20), paired_bootstrap(recall, recall, "AR@10", 20)):
                np.testing.assert_equal(made.value, expected)
        path, annotations = tmp_path / "found.json", tmp_path / "instances.json"
        made = table({"x": path}, annotations, resamples=20)
        np.testing.assert_equal(made["AR@10"].tolist(), [expected] * len(made))
        assert format_summary(evaluate_file(path, annotations)).count("nan" if math.isnan(expected) else "0.000") >= 4
        arguments = [str(path), "--annotations", str(annotations), "--csv", str(tmp_path / "table.csv")]
        assert main(["evaluate", *arguments]) == 0, capsys.readouterr().err
    assert set(METRICS) <= {*(tmp_path / "table.csv").read_text().splitlines()[0].split(",")}


def test_scores_that_are_no_numbers_are_refused_by_name(tmp_path):
    with pytest.raises(ProposalError, match="image 3"):
        Proposals.ranked(3, [0.5, math.nan], np.zeros((2, 4)))
    for score in ("NaN", "Infinity", "-Infinity", "1e999"):
        entries = ", ".join(f'{{"image_id": 1, "score": {value}, "bbox": [0, 0, 1, 1]}}' for value in (0, score))
        (tmp_path / "found.json").write_text(f"[{entries}]")
        with pytest.raises(ProposalError, match="found.json: entry 1: score"):
            results_file.read(tmp_path / "found.json")


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"images": 0}, "images is 0"),
        ({"images": -3}, "images is -3"),
        ({"small": -1.0}, "small -1 and large 96"),
        ({"small": 100.0}, "small 100 and large 96"),
        ({"large": math.nan}, "small 32 and large nan"),
    ],
)
def test_settings_of_an_evaluation_that_cannot_be_are_refused(chosen, told, tmp_path):
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(EvaluationError, match=told):
        evaluate_file(tmp_path / "found.json", tmp_path / "instances.json", **chosen)


GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
OCTAVES = (-8.0, -1.0, 0.0, 0.5)


def network():
    torch.manual_seed(0)
    return DeepMask(GEOMETRY, ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))).eval()


def test_any_image_has_as_many_proposals_as_it_has_cells(stress):
    model, tried = network(), 0

    @settings(max_examples=stress.scale(25, 500), deadline=None, database=None, derandomize=True)
    @given(
        size=st.tuples(*[st.sampled_from([1, 2, 3, 31]) | st.integers(1, 48)] * 2),
        level=st.sampled_from([0, 128, 255, None]),
        count=st.sampled_from([0, 1, 20, 10**9]),
        threshold=st.sampled_from([1e-9, 0.2, 0.5, 1 - 1e-9]),
        longest=st.sampled_from([None, 1, 16]),
    )
    def holds(size, level, count, threshold, longest):
        nonlocal tried
        tried += 1
        image = np.random.default_rng(tried).integers(0, 256, (*size, 3), np.uint8)
        image = image if level is None else np.full_like(image, level)
        proposer = DeepMaskProposer(model, OCTAVES, count=count, threshold=threshold, longest=longest, precision="fp32")
        found = proposer(image)
        cells = sum(s.size for s in DensePass(model, image, OCTAVES, "fp32", longest).scores())
        assert len(found) == len(found.masks) == min(count, cells)
        assert np.isfinite(found.scores).all() and (found.scores[1:] <= found.scores[:-1]).all()
        assert all(rle["size"] == list(size) for rle in found.masks)
        np.testing.assert_array_equal(masks.boxes(found.masks), found.boxes)

    holds()
    stress.count("cases", "images through the network", tried)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("part", ["trunk", "score_head", "mask_head"])
def test_damaged_weights_are_named(part, value):
    """In files they are refused when they are loaded; this is for networks that are damaged otherwise."""
    model = network()
    with torch.no_grad():
        for parameter in getattr(model, part).parameters():
            parameter.fill_(value)
    with pytest.raises(WeightsError, match="not finite"):
        DeepMaskProposer(model, OCTAVES, count=20, precision="fp32")(np.full((20, 30, 3), 90, np.uint8))
