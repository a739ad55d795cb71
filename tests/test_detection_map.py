"""VOC 2007 mean average precision: by hand, and against a computation that goes from detection to detection."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, annotation, rectangle

from deepmask.bootstrap import resampled
from deepmask.data.coco import InstanceDataset
from deepmask.detection.voc_map import Detections, average_precisions, mean_ap, resampled_map
from deepmask.detection_config import DetectionError


def write(folder, images, categories=1):
    """A data set of `images`: id -> [(category, (x, y, w, h), difficult), ...]."""
    records = [(i, *object) for i, objects in images.items() for object in objects]
    document = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.png"} for i in images],
        "categories": [{"id": c, "name": f"c{c}"} for c in range(1, categories + 1)],
        "annotations": [
            annotation(k, i, c, [rectangle(*box)], bbox=list(box), iscrowd=int(difficult))
            for k, (i, c, box, difficult) in enumerate(records, 1)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return InstanceDataset.read(folder / "instances.json", folder)


def found(*entries, category=1):
    """Detections of one image from (score, (x, y, w, h)) pairs."""
    return Detections([box for _, box in entries], [score for score, _ in entries], [category] * len(entries))


def ap(dataset, detections):
    return float(average_precisions(dataset, detections).ap.iloc[0])


BOXES = A, B, FAR = (2, 2, 20, 20), (30, 2, 20, 20), (2, 30, 6, 6)


def test_precision_is_read_at_eleven_recalls(tmp_path):
    """Found, missed, found: precision 1 up to recall 1/2, then 2/3."""
    dataset = write(tmp_path, {1: [(1, A, False)], 2: [(1, B, False)]})
    detections = {1: found((0.9, A), (0.8, FAR)), 2: found((0.7, B))}
    assert ap(dataset, detections) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert ap(dataset, {1: detections[1]}) == pytest.approx(6 / 11), "an image without detections finds nothing"
    assert ap(dataset, {}) == 0


def test_a_recall_is_reached_exactly(tmp_path):
    """Three of ten objects are a recall of .3, which .1 + .1 + .1 in floating point is not."""
    dataset = write(tmp_path, {i: [(1, A, False)] for i in range(1, 11)})
    for k in range(11):
        assert ap(dataset, {i: found((0.5, A)) for i in range(1, k + 1)}) == pytest.approx((k + 1) / 11 * (k > 0))


def test_an_object_is_found_once(tmp_path):
    """The second detection is a false positive, and does not pass on to another object that it overlaps too."""
    near = (4, 2, 20, 20)  # IoU .82 with A
    dataset = write(tmp_path, {1: [(1, A, False), (1, near, False)]})
    nearer_a = (2.5, 2, 20, 20)
    detections = {1: found((0.9, A), (0.8, nearer_a), (0.7, near))}
    assert ap(dataset, detections) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_the_better_score_finds_the_object_and_not_the_better_box(tmp_path):
    dataset = write(tmp_path, {1: [(1, A, False)]})
    loose = (2, 2, 20, 30)  # IoU 2/3
    assert ap(dataset, {1: found((0.9, loose), (0.8, A))}) == 1
    too_loose = (2, 2, 20, 40.1)  # IoU below 1/2
    assert ap(dataset, {1: found((0.9, too_loose), (0.8, A))}) == pytest.approx(1 / 2)
    assert ap(dataset, {1: found((0.9, (2, 2, 20, 40)))}) == 1, "an IoU of .5 is enough"


def test_difficult_objects_count_neither_way(tmp_path):
    dataset = write(tmp_path, {1: [(1, A, False), (1, B, True)]})
    alone = ap(dataset, {1: found((0.8, A))})
    assert ap(dataset, {1: found((0.95, B), (0.9, B), (0.8, A))}) == alone == 1
    assert average_precisions(dataset, {}).objects.tolist() == [1]


def test_categories_do_not_mix(tmp_path):
    """A box of the wrong class finds nothing; a class without objects, or with difficult ones only, has no AP."""
    dataset = write(tmp_path, {1: [(1, A, False), (2, B, True)]}, categories=3)
    table = average_precisions(dataset, {1: found((0.9, A), category=3)})
    assert table.ap.iloc[0] == 0 and np.isnan(table.ap.iloc[1:]).all()
    assert table.name.tolist() == ["c1", "c2", "c3"]
    assert mean_ap(table) == 0
    assert math.isnan(mean_ap(average_precisions(write(tmp_path, {1: []}), {1: found((0.9, A))})))


def test_what_does_not_belong_together_is_named(tmp_path):
    dataset = write(tmp_path, {1: [(1, A, False)]})
    with pytest.raises(DetectionError, match="image 7"):
        average_precisions(dataset, {7: found((0.9, A))})
    with pytest.raises(DetectionError, match="category 4"):
        average_precisions(dataset, {1: found((0.9, A), category=4)})
    with pytest.raises(DetectionError, match="length"):
        Detections([A], [0.5, 0.4], [1, 1])


def plain_ap(objects, detections):
    """AP of one class in whole fractions; `objects`: image -> [(box, difficult)]; `detections`: (score, image, box)."""
    taken, correct, wrong, points = set(), 0, 0, []
    total = sum(not difficult for of_image in objects.values() for _, difficult in of_image)
    for _, image, (x, y, w, h) in sorted(detections, key=lambda d: -d[0]):
        best, place = Fraction(-1), None
        for k, ((gx, gy, gw, gh), _) in enumerate(objects.get(image, [])):
            both = max(0, min(x + w, gx + gw) - max(x, gx)) * max(0, min(y + h, gy + gh) - max(y, gy))
            iou = Fraction(both, w * h + gw * gh - both)
            if iou > best:
                best, place = iou, k
        if best >= Fraction(1, 2):
            if objects[image][place][1]:
                continue
            if (image, place) not in taken:
                taken.add((image, place))
                correct += 1
                points.append((Fraction(correct, total), Fraction(correct, correct + wrong)))
                continue
        wrong += 1
        points.append((Fraction(correct, total or 1), Fraction(correct, correct + wrong)))
    if not total:
        return math.nan
    best_at = [max([p for r, p in points if r >= Fraction(k, 10)], default=0) for k in range(11)]
    return float(sum(best_at) / 11)


def random_box(rng):
    w, h = (int(side) for side in rng.integers(2, 7, 2) * 4)
    return int(rng.integers(0, 5)) * 4, int(rng.integers(0, 5)) * 4, w, h


@pytest.mark.parametrize("seed", range(25))
def test_against_a_plain_computation(tmp_path, seed):
    """Boxes on a coarse grid overlap often and equally; a few scores are equal as well."""
    rng = np.random.default_rng(seed)
    truth = {
        i: [(int(rng.integers(1, 4)), random_box(rng), bool(rng.random() < 0.2)) for _ in range(rng.integers(0, 5))]
        for i in range(1, 7)
    }
    dataset = write(tmp_path, truth, categories=4)
    made = [(i, int(rng.integers(1, 5)), random_box(rng)) for i in range(1, 7) for _ in range(rng.integers(0, 12))]
    scores = rng.integers(0, 40, len(made)) / 64
    detections = {}
    for i in {i for i, _, _ in made}:
        rows = [k for k, entry in enumerate(made) if entry[0] == i]
        detections[i] = Detections([made[k][2] for k in rows], scores[rows], [made[k][1] for k in rows])
    table = average_precisions(dataset, detections)
    for row in table.itertuples():
        objects = {i: [(box, d) for c, box, d in of_image if c == row.category] for i, of_image in truth.items()}
        of_class = [(s, i, box) for s, (i, c, box) in zip(scores, made, strict=True) if c == row.category]
        assert row.ap == pytest.approx(plain_ap(objects, of_class), nan_ok=True), row.name
    with_objects = table.ap[table.objects > 0]
    assert mean_ap(table) == pytest.approx(with_objects.sum() / len(with_objects), nan_ok=True)


def test_only_the_order_of_scores_matters(tmp_path):
    rng = np.random.default_rng(0)
    truth = {i: [(1, random_box(rng), False) for _ in range(3)] for i in range(1, 5)}
    dataset = write(tmp_path, truth)
    scores = rng.permutation(40).reshape(4, 10) / 40
    boxes = {i: np.array([random_box(rng) for _ in range(10)]) for i in truth}
    plain = {i: Detections(boxes[i], scores[i - 1], np.ones(10)) for i in truth}
    shuffled = {}
    for i in reversed(truth):
        order = rng.permutation(10)
        shuffled[i] = Detections(boxes[i][order], np.tanh(scores[i - 1][order]) - 5, np.ones(10))
    assert ap(dataset, plain) == ap(dataset, shuffled) > 0


def test_a_resample_is_the_map_of_a_data_set_with_images_repeated(tmp_path):
    rng, size, classes = np.random.default_rng(3), 6, 2
    images = {
        i: [
            (int(rng.integers(1, classes + 1)), box, bool(rng.random() < 0.2)) for box in (A, B, FAR)[: rng.integers(4)]
        ]
        for i in range(1, size + 1)
    }
    made = {}
    for i, objects in images.items():
        boxes = [box for _, box, _ in objects] + [FAR, A]
        boxes = [tuple(np.add(box, [*rng.integers(-2, 3, 2), 0, 0]).tolist()) for box in boxes]
        made[i] = Detections(boxes, rng.random(len(boxes)), rng.integers(1, classes + 1, len(boxes)))
    dataset = write(tmp_path, images, classes)
    expected = []
    for weights in resampled(size, 20, seed=5).astype(int):
        drawn = np.repeat(np.arange(1, size + 1), weights)  # an id for each copy
        copies = {copy: images[i] for copy, i in enumerate(drawn.tolist(), 1)}
        again = {copy: made[i] for copy, i in enumerate(drawn.tolist(), 1)}
        expected.append(mean_ap(average_precisions(write(tmp_path, copies, classes), again)))
    np.testing.assert_allclose(resampled_map(dataset, made, 20, seed=5), expected, atol=1e-9)
    assert np.nanstd(expected) > 0.01
