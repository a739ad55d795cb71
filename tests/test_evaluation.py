"""Average recall against pycocotools, by hand, and the bootstrap against plain resampling."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepmask import masks, results_file
from deepmask.bootstrap import interval, paired_bootstrap
from deepmask.data.coco import InstanceDataset
from deepmask.evaluation import (
    AUC_COUNTS,
    AUC_WEIGHTS,
    CURVE_COUNTS,
    METRICS,
    curve_rows,
    evaluate,
    recall_rows,
    summary,
)
from deepmask.matching import NEVER, EvaluationError
from deepmask.proposals import Proposals
from deepmask.scoring import evaluate_file, format_summary

HEIGHT, WIDTH = 48, 64
SMALL, LARGE = 9.0, 16.0  # px; splits the objects below into three parts
AREA_RANGES = {"all": (0, 1e10), "small": (0, 80.9), "medium": (81, 256), "large": (256.1, 1e10)}


def rectangle(x, y, w, h):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def random_mask(rng):
    """A box or ellipse on a coarse grid, so that equal overlaps are common."""
    w, h = rng.integers(2, 8, 2) * 3
    x, y = rng.integers(0, (WIDTH - w) // 3 + 1) * 3, rng.integers(0, (HEIGHT - h) // 3 + 1) * 3
    mask = rectangle(x, y, w, h)
    if rng.random() < 0.5:
        rows, cols = np.mgrid[:HEIGHT, :WIDTH]
        mask &= ((cols - x - w / 2 + 0.5) / w) ** 2 + ((rows - y - h / 2 + 0.5) / h) ** 2 <= 0.25
    return mask


def dataset_dict(images, annotations, categories=5):
    return {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.png"} for i in images],
        "categories": [{"id": c, "name": f"c{c}", "supercategory": "s"} for c in range(1, categories + 1)],
        "annotations": annotations,
    }


def annotation(id, image_id, mask, category_id=1, iscrowd=0):
    rle = masks.encode(mask[None])[0]
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": iscrowd,
        "area": float(mask.sum()),
        "bbox": masks.boxes([rle])[0].tolist(),
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Annotation file, proposal file: crowds, duplicates, equal scores, images without objects or proposals."""
    folder, rng = tmp_path_factory.mktemp("case"), np.random.default_rng(3)
    annotations, found = [], []
    for image_id in range(1, 31):
        truth = [random_mask(rng) for _ in range(rng.integers(1, 9))] if image_id % 7 else []
        between = [np.roll(mask, 2, axis=1) for mask in truth]  # overlaps an object and its neighbour equally
        truth += [np.roll(mask, 4, axis=1) for mask in truth]
        truth += truth[:1] if image_id % 3 == 0 else []  # the same mask twice
        for mask in truth:
            category, crowd = int(rng.integers(1, 6)), int(rng.random() < 0.15)
            annotations.append(annotation(len(annotations) + 1, image_id, mask, category, crowd))
        if image_id % 11 == 0:
            continue
        count = 1200 if image_id == 1 else int(rng.integers(1, 150))
        guesses = between + [random_mask(rng) for _ in range(count)]
        for mask in truth:
            guesses += [np.roll(mask, rng.integers(-2, 3), axis=rng.integers(0, 2)) for _ in range(3)]
        guesses.append(np.zeros((HEIGHT, WIDTH), bool))
        rles = masks.encode(np.stack(guesses))
        scores = rng.integers(0, 40, len(rles)) / 40
        found.append(Proposals.ranked(image_id, scores, masks.boxes(rles), rles))
    instances, results = folder / "instances.json", folder / "proposals.json"
    instances.write_text(json.dumps(dataset_dict(range(1, 31), annotations)))
    results_file.write(results, found)
    return instances, results


@pytest.fixture(scope="module")
def recalls(case):
    dataset = InstanceDataset.read(case[0], case[0].parent)
    found = results_file.read(case[1])
    return {kind: evaluate(dataset, found, kind, max_count=2000) for kind in ("bbox", "segm")}


def coco_recall(instances, results, kind, counts):
    """(T, areas, counts) of pycocotools, without categories; nan where there are no objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(instances))
        run = COCOeval(truth, truth.loadRes(str(results)), kind)
        run.params.useCats, run.params.maxDets = 0, list(counts)
        run.params.areaRng, run.params.areaRngLbl = list(AREA_RANGES.values()), list(AREA_RANGES)
        run.evaluate()
        run.accumulate()
    recall = run.eval["recall"][:, 0]
    return np.where(recall < 0, np.nan, recall)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_recall_equals_pycocotools_at_every_count_threshold_and_size(case, recalls, kind):
    counts = (1, 3, 10, 100, 1000)
    expected = coco_recall(*case, kind, counts)
    selections = {"all": None} | recalls[kind].sizes(SMALL, LARGE)
    assert {name: select.sum() > 5 for name, select in recalls[kind].sizes(SMALL, LARGE).items()} == dict.fromkeys(
        ("small", "medium", "large"), True
    )
    for area, name in enumerate(AREA_RANGES):
        part = recalls[kind].only(selections[name])
        for column, count in enumerate(counts):
            np.testing.assert_allclose(part.recall(count), expected[:, area, column], atol=1e-12)
            assert part.ar(count) == pytest.approx(expected[:, area, column].mean())


def test_the_case_has_what_makes_matching_hard(recalls):
    recall = recalls["bbox"]
    objects, ranks, overlaps = recall.pairs
    pairs = np.stack([recall.images[objects], ranks, overlaps.round(9)], axis=1)
    assert len(np.unique(pairs, axis=0)) < len(pairs) - 20  # proposals that overlap two objects equally
    assert (recall.ranks == NEVER).any() and (recall.ranks < NEVER).any()
    assert 0 < recall.ar(10) < recall.ar(1000) < 1


def test_selected_objects_are_matched_as_if_the_others_were_not_there(case, recalls):
    dataset = InstanceDataset.read(case[0], case[0].parent)
    found = results_file.read(case[1])
    alone = evaluate(dataset.with_categories([2, 4]), found, "segm", max_count=2000)
    selected = recalls["segm"].only(recalls["segm"].of_categories([2, 4]))
    np.testing.assert_array_equal(alone.ranks, selected.ranks)
    assert not np.array_equal(selected.ranks, recalls["segm"].ranks[:, recalls["segm"].of_categories([2, 4])])


def one_image(tmp_path, truth, guesses):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(dataset_dict([5], [annotation(i + 1, 5, mask) for i, mask in enumerate(truth)])))
    rles = masks.encode(np.stack(guesses))
    found = {5: Proposals(5, np.linspace(1, 0, len(rles)), masks.boxes(rles), rles)}
    return InstanceDataset.read(path, tmp_path), found


def test_auc_of_one_object_found_at_one_rank(tmp_path):
    target, miss = rectangle(0, 0, 10, 10), rectangle(30, 30, 10, 10)
    recall = evaluate(*one_image(tmp_path, [target], [miss] * 31 + [target]))
    assert AUC_COUNTS == (1, 3, 10, 32, 100, 316, 1000)
    assert (recall.ranks == 32).all()
    # 0 up to n = 10, 1 from n = 32, and a straight line in log n between them
    by_hand = ((np.log10(32) - 1) / 2 + (3 - np.log10(32))) / 3
    assert recall.auc() == pytest.approx(by_hand)
    assert sum(AUC_WEIGHTS.values()) == pytest.approx(1)
    assert [recall.ar(31), recall.ar(32)] == [0, 1]


def test_one_proposal_claims_one_object_and_its_best(tmp_path):
    left, right = rectangle(0, 0, 10, 10), rectangle(2, 0, 10, 10)
    recall = evaluate(*one_image(tmp_path, [left, right], [rectangle(1, 0, 10, 10), left]))
    # IoU .82 with both: the later object is claimed, the exact second proposal gets the first
    np.testing.assert_array_equal(recall.ranks[0], [2, 1])
    np.testing.assert_array_equal(recall.ranks[-1], [2, NEVER])
    best, rank = recall.best()
    np.testing.assert_allclose(best, [1, 9 / 11])
    np.testing.assert_array_equal(rank, [2, 1])
    np.testing.assert_allclose(recall.best(1)[0], [9 / 11, 9 / 11])


def test_an_iou_equal_to_the_threshold_counts(tmp_path):
    recall = evaluate(*one_image(tmp_path, [rectangle(0, 0, 10, 10)], [rectangle(0, 0, 10, 5)]))
    np.testing.assert_array_equal(recall.ranks[:2, 0], [1, NEVER])  # IoU is .5 exactly


def test_recall_at_other_thresholds(recalls):
    recall = recalls["segm"]
    np.testing.assert_array_equal(recall.at(recall.thresholds[[2, 5]]).ranks, recall.ranks[[2, 5]])
    fine = recall.at(np.linspace(0.5, 1, 26)).recall(100)
    assert np.all(np.diff(fine) <= 0) and fine[-1] > 0  # exact copies count at IoU 1
    with pytest.raises(ValueError, match="from .5"):
        recall.at(np.array([0.3, 0.5]))


def test_curves_rise_and_meet_the_summary(recalls):
    recall = recalls["bbox"]
    rows = curve_rows(recall, {"all": None} | recall.sizes(SMALL, LARGE))
    assert {row["group"] for row in rows} == {"all", "small", "medium", "large"}
    curve = [row["ar"] for row in rows if row["group"] == "all"]
    assert np.all(np.diff(curve) >= 0) and len(curve) == len(CURVE_COUNTS)
    values = summary(recall, SMALL, LARGE)
    assert tuple(values) == METRICS
    at_100 = next(row["ar"] for row in rows if row["group"] == "large" and row["count"] == 100)
    assert recall.ar(100, recall.sizes(SMALL, LARGE)["large"]) == at_100
    at_half = next(row["recall"] for row in recall_rows(recall) if row["count"] == 100 and row["iou"] == 0.5)
    assert at_half == recall.recall(100)[0]


def test_no_objects_is_nan_and_no_proposals_is_zero(case):
    dataset = InstanceDataset.read(case[0], case[0].parent)
    nothing = evaluate(dataset, {})
    assert nothing.ar(1000) == 0 and nothing.auc() == 0
    nobody = nothing.only(np.zeros(len(nothing.images), bool))
    assert np.isnan([nobody.ar(10), nobody.auc(), *nobody.recall(10), *interval(nobody, "AUC")]).all()
    assert np.isnan(list(summary(evaluate(dataset.with_categories([]), {})).values())).all()


def test_errors_name_the_image(case, tmp_path):
    dataset = InstanceDataset.read(case[0], case[0].parent)
    boxes_only = Proposals(1, [0.5], [[0, 0, 5, 5]])
    with pytest.raises(EvaluationError, match="image 99 .* not annotated"):
        evaluate(dataset, {99: boxes_only}, "bbox")
    with pytest.raises(EvaluationError, match="image 1: .* no masks"):
        evaluate(dataset, {1: boxes_only})
    other = Proposals(1, [0.5], [[0, 0, 5, 5]], masks.encode(np.ones((1, 7, 9), bool)))
    with pytest.raises(EvaluationError, match="image 1: a mask is 7 x 9"):
        evaluate(dataset, {1: other})
    with pytest.raises(ValueError, match="kind"):
        evaluate(dataset, {}, "masks")
    with pytest.raises(ValueError, match="booleans"):
        evaluate(dataset, {}).only(np.arange(3))


def resampled_by_hand(recalls, metric, draws):
    """Metric of every recall on images drawn with replacement, by collecting the objects one image at a time."""
    values = []
    for recall in recalls:
        of_image = [np.flatnonzero(recall.images == i) for i in range(len(recall.image_ids))]
        ranks = recall.ranks[:, np.concatenate([of_image[i] for i in draws])]
        values.append(metric(ranks))
    return values


def test_paired_bootstrap_equals_resampling_by_hand(case, recalls):
    dataset = InstanceDataset.read(case[0], case[0].parent)
    cut = {i: p for i, p in results_file.read(case[1]).items() if i % 3}
    a, b = recalls["segm"], evaluate(dataset, cut, "segm")
    images, resamples = len(a.image_ids), 60
    draws = np.random.default_rng(7).integers(0, images, (resamples, images))

    def ar(count):
        return lambda ranks: (ranks <= count).mean()

    for name, metric in {
        "AR@10": ar(10),
        "AUC": lambda ranks: np.trapezoid([ar(n)(ranks) for n in AUC_COUNTS], np.log10(AUC_COUNTS)) / 3,
    }.items():
        pairs = [resampled_by_hand((a, b), metric, row) for row in draws]
        by_hand = np.array([x - y for x, y in pairs])
        result = paired_bootstrap(a, b, name, resamples, seed=7)
        assert result.value == pytest.approx(metric(a.ranks) - metric(b.ranks))
        assert result.standard_error == pytest.approx(by_hand.std(ddof=1))
        assert (result.low, result.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
        alone = interval(a, name, resamples, seed=7)
        assert alone.standard_error == pytest.approx(np.std([x for x, _ in pairs], ddof=1))
        assert alone.low < alone.value < alone.high
    same = paired_bootstrap(a, a, "AR@100")
    assert same == (0, 0, 0, 0)


def test_metrics_of_the_two_may_differ(recalls):
    recall = recalls["segm"]
    same = paired_bootstrap(recall, recall, "AR@10", 50)
    assert same.value == same.low == same.high == 0
    found = paired_bootstrap(recall, recall, "AR@10", 50, metric_b="AR@100")
    assert found.value == pytest.approx(recall.ar(10) - recall.ar(100)) and found.high <= 0


def test_bootstrap_refuses_what_cannot_be_compared(recalls):
    recall = recalls["segm"]
    with pytest.raises(ValueError, match="same images and objects"):
        paired_bootstrap(recall, recall.only(recall.of_categories([1])), "AUC")
    with pytest.raises(ValueError, match="neither"):
        interval(recall, "AR100")


def test_evaluate_file_prints_both_kinds_without_image_files(case, tmp_path):
    result = evaluate_file(case[1], case[0], SMALL, LARGE)
    expected = coco_recall(*case, "segm", (10, 100, 1000))
    assert result["segm"]["AR@100"] == pytest.approx(expected[:, 0, 1].mean())
    assert result["images"] == 30 and result["images_without_proposals"] == 2
    text = format_summary(result)
    assert f"{result['bbox']['AUC']:.3f}" in text.splitlines()[-4] and text.splitlines()[-3].startswith("masks")
    assert "2 of the images have no proposals" in text and "9^2" in text
    assert len({len(line) for line in text.splitlines()[-5:-2]}) == 1  # aligned
    assert evaluate_file(case[1], case[0], images=10)["images"] == 10
    boxes_only = [{"image_id": 1, "score": 0.5, "bbox": [0, 0, 5, 5], "category_id": 3}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes_only))
    result = evaluate_file(tmp_path / "boxes.json", case[0])
    assert "segm" not in result and "no masks" in format_summary(result)


def test_bounds_and_numbers_of_images_that_cannot_be_are_refused(case):
    for settings in ({"images": -3}, {"small": 100.0}, {"large": np.nan}, {"small": -1.0}):
        with pytest.raises(EvaluationError, match="images is -3|small .* no bounds"):
            evaluate_file(case[1], case[0], **settings)
