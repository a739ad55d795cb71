"""The detector: its RoIs, targets, network and training, and that fewer proposals are a prefix of more."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import HEIGHT, WIDTH
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from deepmask.checkpoints import CheckpointError
from deepmask.data.coco import InstanceDataset
from deepmask.detection import rois
from deepmask.detection.inference import detect, predict
from deepmask.detection.model import FastRCNN, losses
from deepmask.detection.rois import RoIs, corners, decode, encode, flip, sample
from deepmask.detection.training import RoIBatches, learning_rate, train
from deepmask.detection.voc_map import average_precisions, mean_ap
from deepmask.detection_config import DetectionConfig, DetectionError
from deepmask.model import Trunk
from deepmask.proposals import Proposals

CONFIG = DetectionConfig(shorter=HEIGHT, pooled=3, hidden=(16, 16), rois=32, iterations=10, warmup=0, precision="fp32")


@pytest.fixture
def dataset(tiny_coco):
    return InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")


def network(config=CONFIG, classes=4, width=0.05):
    torch.manual_seed(0)
    return FastRCNN.on_trunk(Trunk(width, 2), 4, classes, config)


def random_boxes(rng, count, largest=30):
    """x1, y1, x2, y2 inside an image of 64 x 48 pixels."""
    start = rng.uniform(0, [WIDTH - largest, HEIGHT - largest], (count, 2))
    return torch.from_numpy(np.hstack([start, start + rng.uniform(3, largest, (count, 2))])).float()


def jittered(dataset, count, seed=0, spread=0.1):
    """Proposals near the objects of every image, and as many anywhere."""
    made = {}
    for i, id in enumerate(dataset.image_ids.tolist()):
        rng = np.random.default_rng([seed, i])
        boxes = dataset.ann_boxes[dataset.annotations(i)]
        near = boxes[rng.integers(0, len(boxes), count)] if len(boxes) else np.zeros((0, 4), np.float32)
        sides = np.tile(near[:, 2:], 2)
        anywhere = random_boxes(rng, count).numpy()
        anywhere[:, 2:] -= anywhere[:, :2]
        boxes = np.concatenate([near + rng.normal(0, spread, near.shape) * sides, anywhere])
        made[id] = Proposals.ranked(id, rng.uniform(size=len(boxes)), boxes)
    return made


# --- regression targets ----------------------------------------------------------------------------------------------


def test_targets_are_those_of_torchvision():
    rng = np.random.default_rng(0)
    boxes, objects = random_boxes(rng, 50), random_boxes(rng, 50)
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0), bbox_xform_clip=rois._LARGEST_GROWTH)  # 1 / STD
    targets = encode(boxes, objects)
    torch.testing.assert_close(targets, coder.encode_single(objects, boxes))
    deltas = torch.from_numpy(rng.normal(0, 3, (50, 4, 4))).float()
    deltas[0, 0] = 100.0  # beyond what a box may grow
    theirs = coder.decode_single(deltas.flatten(1), boxes).unflatten(1, (4, 4))
    torch.testing.assert_close(decode(boxes, deltas), theirs, rtol=1e-4, atol=1e-3)


def test_decoding_undoes_encoding():
    rng = np.random.default_rng(1)
    boxes, objects = random_boxes(rng, 50), random_boxes(rng, 50)
    targets = encode(boxes, objects)
    torch.testing.assert_close(decode(boxes, targets[:, None])[:, 0], objects, rtol=0, atol=1e-3)
    assert torch.equal(encode(boxes, boxes), torch.zeros(50, 4))
    mirrored = encode(flip(boxes, WIDTH), flip(objects, WIDTH))
    torch.testing.assert_close(mirrored, targets * torch.tensor([-1.0, 1, 1, 1]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(flip(flip(boxes, WIDTH), WIDTH), boxes)


# --- RoIs ------------------------------------------------------------------------------------------------------------


def test_a_quarter_is_foreground_and_background_is_hard():
    rng = np.random.default_rng(2)
    objects, labels = torch.tensor([[2.0, 2, 22, 22], [30, 10, 60, 40]]), torch.tensor([3, 1])
    proposals = torch.cat(
        [random_boxes(rng, 2000), objects.repeat(20, 1) + torch.from_numpy(rng.normal(0, 2, (40, 4)))]
    )
    config = dataclasses.replace(CONFIG, rois=128)
    made = sample(proposals.float(), objects, labels, config, rng)
    assert len(made.boxes) == len(made.labels) == len(made.targets) == 64
    assert (made.labels > 0).tolist() == [True] * 16 + [False] * 48
    best, nearest = box_iou(made.boxes, objects).max(dim=1)
    assert (best[:16] >= 0.5).all() and torch.equal(made.labels[:16], labels[nearest[:16]])
    assert ((best[16:] >= 0.1) & (best[16:] < 0.5)).all()
    assert torch.equal(made.targets[:16], encode(made.boxes[:16], objects[nearest[:16]]))
    assert not made.targets[16:].any() and len(made.boxes.unique(dim=0)) == 64


def test_too_few_hard_ones_are_filled_up_with_easy_ones():
    rng = np.random.default_rng(3)
    objects = torch.tensor([[2.0, 2, 22, 22]])
    hard = torch.tensor([[2.0, 2, 10, 22], [12.0, 2, 32, 20]])
    easy = torch.tensor([[40.0, 30, 45 + k, 40] for k in range(20)])
    made = sample(torch.cat([easy, hard]), objects, torch.tensor([2]), CONFIG, rng)  # 16 RoIs an image
    assert made.labels.tolist() == [2] + [0] * 15, "the object itself is the only foreground"
    assert torch.equal(made.boxes[0], objects[0])
    assert {tuple(b) for b in hard.tolist()} <= {tuple(b) for b in made.boxes.tolist()}, "no hard one is left out"
    few = sample(hard, objects, torch.tensor([2]), CONFIG, rng)
    assert len(few.boxes) == 3
    none = sample(easy, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CONFIG, rng)
    assert len(none.boxes) == 16 and not none.labels.any()


def test_batches_are_a_function_of_seed_and_number(dataset):
    proposals = jittered(dataset, 30)
    batches = RoIBatches(dataset, proposals, CONFIG)
    assert [len(batches[t]) for t in range(3)] == [2, 2, 2]
    images = [batches.example(k)[0] for k in range(8)]
    with_objects = 4  # of five images; a crowd is none
    seen = [min(hash(i.numpy().tobytes()), hash(i.flip(2).contiguous().numpy().tobytes())) for i in images]
    assert len({*seen[:4]}) == with_objects == len({*seen[4:]}), "every image once an epoch"
    assert any(not torch.equal(a, b) for a in images for b in images if torch.equal(a.flip(2), b)), "mirrored too"
    halves = [RoIBatches(dataset, proposals, CONFIG, rank, 2)[1] for rank in (0, 1)]
    for (image, made), [(part, same)] in zip(batches[1], halves, strict=True):
        assert torch.equal(image, part) and torch.equal(made.boxes, same.boxes), "ranks share a batch"


def test_rois_follow_the_mirrored_image(dataset):
    """Foreground RoIs of classes are where the objects are drawn, mirrored or not."""
    batches = RoIBatches(dataset, jittered(dataset, 30), CONFIG)
    ids, mirrored = sorted(dataset.categories), set()
    for k in range(16):
        image, made = batches.example(k)
        plain = {i: torch.from_numpy(dataset.image(i)).permute(2, 0, 1) for i in range(len(dataset))}
        i, turned = next((i, t) for i, x in plain.items() for t in (0, 1) if torch.equal(x.flip(2) if t else x, image))
        mirrored.add(turned)
        annotations = [a for a in dataset.annotations(i) if not dataset.ann_crowd[a]]
        truth = corners(dataset.ann_boxes[annotations])
        truth = flip(truth, WIDTH) if turned else truth
        classes = torch.tensor([ids.index(c) + 1 for c in dataset.ann_category[annotations]])
        best, nearest = box_iou(made.boxes, truth).max(dim=1)
        assert torch.equal(made.labels > 0, best >= 0.5)
        assert torch.equal(made.labels[made.labels > 0], classes[nearest[made.labels > 0]])
    assert mirrored == {0, 1}


def test_images_without_objects_are_an_error_only_if_all_are(dataset):
    with pytest.raises(DetectionError, match="no image has an object"):
        RoIBatches(dataset.with_categories([]), jittered(dataset, 3), CONFIG)


# --- the network -----------------------------------------------------------------------------------------------------


def test_images_are_scaled_and_boxes_with_them():
    model = network(dataclasses.replace(CONFIG, shorter=600, longer=1000))
    assert model.scale(480, 640) == 1.25 and model.scale(300, 1000) == 1 and model.scale(600, 2000) == 0.5
    model = network(dataclasses.replace(CONFIG, shorter=2 * HEIGHT))
    features = model.features(torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8))
    assert features.shape[2:] == (2 * HEIGHT // 4, 2 * WIDTH // 4)
    boxes = random_boxes(np.random.default_rng(0), 9)
    assert torch.equal(model.pool(features, boxes, 2.0), model.pool(features, 2 * boxes, 1.0))


def test_pooling_takes_the_largest_feature_of_each_cell():
    """Box 4..20 x 8..24 px at stride 4: features 1 to 5 and 2 to 6, both ends included, in 5 x 5 cells of one."""
    model = network(dataclasses.replace(CONFIG, pooled=5))
    features = torch.rand(1, 3, 12, 16)
    pooled = model.pool(features, torch.tensor([[4.0, 8.0, 20.0, 24.0]]), 1.0)
    assert torch.equal(pooled[0], features[0, :, 2:7, 1:6])
    coarse = network(dataclasses.replace(CONFIG, pooled=1)).pool(features, torch.tensor([[4.0, 8.0, 20.0, 24.0]]), 1.0)
    assert torch.equal(coarse[0, :, 0, 0], features[0, :, 2:7, 1:6].amax((1, 2)))


@pytest.mark.parametrize("pooling", ["max", "align"])
@pytest.mark.parametrize("frozen", [0, 4])
def test_the_loss_reaches_the_trunk_but_not_what_is_frozen(dataset, pooling, frozen):
    model = network(dataclasses.replace(CONFIG, pooling=pooling, frozen=frozen, dropout=0.0))
    images, sampled = zip(*RoIBatches(dataset, jittered(dataset, 30), CONFIG)[0], strict=True)
    sum(losses(*model(images, [r.boxes for r in sampled]), sampled, CONFIG.rois)).backward()
    moved = [layer.weight.grad is not None and bool(layer.weight.grad.any()) for layer in model.trunk.convolutions]
    assert moved == [False] * frozen + [True] * (8 - frozen)
    assert all(
        p.grad is not None for layer in (model.fc1, model.fc2, model.scores, model.deltas) for p in layer.parameters()
    )
    with pytest.raises(DetectionError, match="frozen: 9.*8 convolutions"):
        network(dataclasses.replace(CONFIG, frozen=9))


def test_losses_by_hand():
    """Cross entropy over all RoIs; smooth L1 over the foreground's targets of its own class; parts of a batch add up"""
    labels, targets = torch.tensor([2, 0, 1]), torch.zeros(3, 4)
    targets[0], targets[2] = torch.tensor([0.5, 0, 0, 3.0]), torch.tensor([0, 1.0, 0, 0])
    logits, deltas = torch.randn(3, 3), torch.zeros(3, 2, 4)
    deltas[0, 0] = deltas[1] = 7.0  # of another class, and of background: not looked at
    made = RoIs(torch.zeros(3, 4), labels, targets)
    class_loss, box_loss = losses(logits, deltas, [made], 6)
    by_hand = -sum(logits[i].log_softmax(0)[labels[i]] for i in range(3)) / 6
    torch.testing.assert_close(class_loss, by_hand)
    torch.testing.assert_close(box_loss, torch.tensor((0.5 * 0.5**2 + (3 - 0.5) + 0.5 * 1.0) / 6))
    parts = [RoIs(made.boxes[s], made.labels[s], made.targets[s]) for s in (slice(0, 2), slice(2, 3))]
    halves = [losses(logits[s], deltas[s], [p], 6) for s, p in zip((slice(0, 2), slice(2, 3)), parts, strict=True)]
    torch.testing.assert_close(sum(h[0] for h in halves), class_loss)
    torch.testing.assert_close(sum(h[1] for h in halves), box_loss)
    nothing = losses(logits[1:2], deltas[1:2], [RoIs(torch.zeros(1, 4), labels[1:2], targets[1:2])], 6)
    assert nothing[1] == 0, "a batch of background alone"


def test_vgg16_keeps_its_layers():
    features = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
    )
    linear = [
        nn.Linear(8 * 9, 16),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(16, 10),
    ]
    vgg = SimpleNamespace(features=features, classifier=nn.Sequential(*linear))
    model = FastRCNN.on_vgg16(vgg, 4, dataclasses.replace(CONFIG, frozen=1))
    assert len(model.trunk) == 4 and not model.trunk[0].weight.requires_grad and model.trunk[2].weight.requires_grad
    assert torch.equal(model.fc1.weight, linear[0].weight) and torch.equal(model.fc2.bias, linear[3].bias)
    with pytest.raises(DetectionError, match=r"\(16, 32\).*\(16, 72\)"):
        FastRCNN.on_vgg16(vgg, 4, dataclasses.replace(CONFIG, pooled=2))


# --- training and detecting ------------------------------------------------------------------------------------------


def trained(dataset, folder, config=CONFIG, **options):
    model = network(config, len(dataset.categories))
    history = train(model, dataset, jittered(dataset, 30), checkpoint=folder / "run.pt", **options)
    return model, history


def test_a_resumed_run_is_the_same_run(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, workers=0)
    whole, history = trained(dataset, tmp_path / "a", config)
    trained(dataset, tmp_path / "b", config, stop_at=4)
    resumed, same = trained(dataset, tmp_path / "b", config)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True))
    pd.testing.assert_frame_equal(history, same)
    other = dataclasses.replace(CONFIG, lr=0.5)
    with pytest.raises(CheckpointError, match="run.pt.*other parameters"):
        trained(dataset, tmp_path / "b", other)
    seeded, _ = trained(dataset, tmp_path / "c", dataclasses.replace(config, seed=1))
    assert any(not torch.equal(p, q) for p, q in zip(whole.parameters(), seeded.parameters(), strict=True))


def test_training_that_cannot_go_on_says_why(dataset, tmp_path):
    with pytest.raises(DetectionError, match=r"iteration \d+: the loss.*lower detection.lr"):
        trained(dataset, tmp_path, dataclasses.replace(CONFIG, lr=1e30, optimiser="sgd"))
    with pytest.raises(DetectionError, match="3 ranks.*2 images"):
        trained(dataset, tmp_path, ranks=3)


def test_learning_rates():
    step = dataclasses.replace(CONFIG, schedule="step", iterations=40, warmup=4)
    assert [learning_rate(t, step) for t in (0, 3, 29, 30, 39)] == [0.25, 1, 1, 0.1, 0.1]
    cosine = dataclasses.replace(CONFIG, iterations=100)
    rates = [learning_rate(t, cosine) for t in range(100)]
    assert rates[0] == 1 and rates == sorted(rates, reverse=True) and 0.02 <= rates[-1] < 0.03


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"trunk": "vgg"}, "trunk"),
        ({"rois": 127}, "127"),
        ({"counts": (10, 5)}, "counts"),
        ({"pooling": "mean"}, "mean"),
    ],
)
def test_configuration_is_checked(change, named):
    with pytest.raises(DetectionError, match=named):
        dataclasses.replace(CONFIG, **change)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Two images, learned by heart."""
    from conftest import write_tiny_coco

    folder = write_tiny_coco(tmp_path_factory.mktemp("fitted") / "tiny")
    dataset = InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images")
    dataset = dataset.images_subset(np.flatnonzero(np.isin(dataset.image_ids, (2, 9))))
    config = dataclasses.replace(CONFIG, pooled=5, hidden=(64, 64), iterations=150, dropout=0.0, lr=0.002)
    model = network(config, len(dataset.categories), width=0.125)
    train(model, dataset, jittered(dataset, 60), checkpoint=folder / "run.pt")
    return model.eval(), dataset


def detections(model, dataset, proposals, counts):
    made = {n: {} for n in counts}
    for i, id in enumerate(dataset.image_ids.tolist()):
        of_image = detect(model, sorted(dataset.categories), dataset.image(i), proposals[id], counts)
        for n in counts:
            made[n][id] = of_image[n]
    return made


def test_two_images_are_learned_by_heart(fitted):
    model, dataset = fitted
    proposals = jittered(dataset, 60, seed=1)
    for made in detections(model, dataset, proposals, (120,)).values():
        assert mean_ap(average_precisions(dataset, made)) == pytest.approx(1)
    far = {id: Proposals(id, [0.5], [[0, 0, 4, 4]]) for id in proposals}
    for made in detections(model, dataset, far, (10,)).values():
        assert mean_ap(average_precisions(dataset, made)) == 0, "nothing is found where nothing is proposed"


def test_boxes_are_better_than_the_proposals(fitted):
    model, dataset = fitted
    for i, id in enumerate(dataset.image_ids.tolist()):
        annotations = [a for a in dataset.annotations(i) if not dataset.ann_crowd[a]]
        truth = corners(dataset.ann_boxes[annotations])
        proposed = corners(jittered(dataset, 60, seed=2)[id].boxes)
        before, nearest = box_iou(proposed, truth).max(dim=1)
        near = before >= 0.5
        classes = torch.from_numpy(np.searchsorted(sorted(dataset.categories), dataset.ann_category[annotations]))
        with torch.inference_mode():
            _, boxes = predict(model, dataset.image(i), proposed[near])
        boxes = boxes[torch.arange(len(boxes)), classes[nearest[near]]]
        after = box_iou(boxes, truth)[torch.arange(len(boxes)), nearest[near]]
        assert after.mean() > before[near].mean() + 0.05


def test_fewer_proposals_are_a_prefix_of_more(fitted):
    """Detections with the best n equal those of a run that was given only these, empty boxes included."""
    model, dataset = fitted
    proposals = jittered(dataset, 60, seed=3)
    for made in proposals.values():
        made.boxes[[0, 7, 8]] = 0  # of empty masks
    counts = (1, 5, 9, 40, 120)
    together = detections(model, dataset, proposals, counts)
    sizes = set()
    for n in counts:
        alone = detections(model, dataset, {id: made.top(n) for id, made in proposals.items()}, (n,))[n]
        for id, made in alone.items():
            sizes.add(len(made))
            np.testing.assert_array_equal(together[n][id].categories, made.categories)
            np.testing.assert_allclose(together[n][id].scores, made.scores, atol=1e-6)
            np.testing.assert_allclose(together[n][id].boxes, made.boxes, atol=1e-3)
    assert len(sizes) > 2 and 0 in sizes, "the first proposal has an empty box"


def test_what_is_kept_of_a_network_that_knows_nothing():
    """Suppressed by class, above the score, the best ones, inside the image."""
    config = dataclasses.replace(CONFIG, score=0.05, detections=60)
    model, rng = network(config).eval(), np.random.default_rng(4)
    nn.init.normal_(model.scores.weight, std=0.3)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    boxes = random_boxes(rng, 300, 40)
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).numpy()
    made = detect(model, [1, 5, 7, 9], image, Proposals.ranked(0, rng.uniform(size=300), sides), (300,))[300]
    assert len(made) == 60 and (made.scores > 0.05).all() and (np.diff(made.scores) <= 0).all()
    assert set(made.categories) <= {1, 5, 7, 9} and len(set(made.categories)) > 1
    found = corners(made.boxes)
    assert found.min() >= -1e-4 and (found[:, 2] <= WIDTH + 1e-3).all() and (found[:, 3] <= HEIGHT + 1e-3).all()
    for category in set(made.categories):
        of_class = found[made.categories == category]
        assert box_iou(of_class, of_class).fill_diagonal_(0).max() <= config.nms + 1e-4
    nothing = detect(model, [1, 5, 7, 9], image, Proposals(0, [], []), (10, 300))
    assert {n: len(d) for n, d in nothing.items()} == {10: 0, 300: 0}
