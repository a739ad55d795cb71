"""Training patches: the paper's rule holds for every sample, and samples depend on nothing but (seed, k)."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deepmask.config import ConfigError, SamplingConfig
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.geometry import Geometry
from deepmask.sampling import PatchBatches, PatchSampler, Placement, Sample, crop

GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=4.0, context=4)
CONFIG = SamplingConfig(min_area=4, min_side=1, negative_octaves=(-2, 1))


@pytest.fixture
def dataset(tiny_coco):
    return InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")


@pytest.fixture
def sampler(dataset):
    return PatchSampler(dataset, GEOMETRY, CONFIG, seed=3)


def test_positives_are_within_tolerance_and_inside_the_patch(sampler):
    for k in range(300):
        for sample in (sampler.mask_sample(k), sampler.score_sample(2 * k)):
            x, y, octave = sampler.positions[sample.annotation]
            p = sample.placement
            assert abs(p.octave - octave) <= GEOMETRY.jitter_octaves
            shift = np.abs([p.x - x, p.y - y]) * 2.0**p.octave
            assert shift.max() <= GEOMETRY.jitter + 1e-9
            left, top, width, height = sampler.dataset.ann_boxes[sample.annotation]
            corners = np.abs([left - p.x, top - p.y, left + width - p.x, top + height - p.y]) * 2.0**p.octave
            assert corners.max() <= GEOMETRY.patch / 2, "the object would leave the patch"
            assert not sampler.dataset.ann_crowd[sample.annotation] and sample.label


@pytest.mark.parametrize("near", [0.0, 0.5, 1.0])
def test_no_negative_violates_the_rule(dataset, near):
    """Against the rule written out: section 3.4, for every annotation, crowds included."""
    sampler = PatchSampler(dataset, GEOMETRY, dataclasses.replace(CONFIG, near_negatives=near), seed=1)
    for k in range(1, 400, 2):
        sample = sampler.score_sample(k)
        p = sample.placement
        assert not sample.label
        for a in dataset.annotations(sample.image):
            x, y, w, h = dataset.ann_boxes[a].astype(float)
            dx, dy = (abs(p.x - x - w / 2) * 2**p.octave, abs(p.y - y - h / 2) * 2**p.octave)
            octaves = abs(p.octave - np.log2(GEOMETRY.canonical / max(w, h)))
            assert dx >= GEOMETRY.negative - 1e-6 or dy >= GEOMETRY.negative - 1e-6 or octaves >= 1 - 1e-6
            if dataset.ann_crowd[a]:
                assert not (x < p.x < x + w and y < p.y < y + h), "centred inside a crowd"


def test_score_batches_have_equal_numbers(sampler):
    batch = PatchBatches(sampler, 2, 16)[1]
    assert batch["branch"] == "score" and batch["target"].sum() == 8


def test_categories_are_drawn_uniformly(sampler):
    counts = np.unique(
        [sampler.dataset.ann_category[sampler.mask_sample(k).annotation] for k in range(600)], return_counts=True
    )[1]
    expected = 600 / len(sampler._by_category)
    assert len(counts) == len(sampler._by_category) and np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_image_and_mask_undergo_the_same_transform(tmp_path, dataset):
    """If the image *is* its mask, the resampled patch shows the resampled mask, flips included."""
    sampler = PatchSampler(dataset, GEOMETRY, CONFIG, seed=0)
    inner = slice(GEOMETRY.context, -GEOMETRY.context)
    flips = set()
    for k in range(60):
        sample = sampler.mask_sample(k)
        picture = np.repeat(sampler.dataset.mask(sample.annotation)[:, :, None] * np.uint8(255), 3, axis=2)
        sampler._cache[sample.image] = picture
        inside = (
            crop(np.full(picture.shape[:2], 255, np.uint8), sample.placement, GEOMETRY.window, 0)[inner, inner] == 255
        )
        patch, mask = sampler.window(sample)[inner, inner, 0] > 127, sampler.mask(sample)
        assert np.array_equal(patch[inside], mask[inside])
        flips.add(sample.placement.flip)
    assert flips == {True, False}


def test_flip_mirrors():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    a, b = (crop(image, Placement(18.3, 14.2, 0.3, flip), 24, 128) for flip in (False, True))
    assert np.array_equal(a, b[:, ::-1])


def test_crop_at_scale_one_is_the_image_itself_and_gray_outside():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    patch = crop(image, Placement(4, 4, 0, False), 16, 128)
    assert np.array_equal(patch[4:, 4:], image[:12, :12])
    assert (patch[:4] == 128).all() and (patch[:, :4] == 128).all()


def test_shrinking_is_anti_aliased():
    """A fine checkerboard becomes its mean, not a pattern."""
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    patch = crop(board, Placement(32, 32, -2, False), 12, 0)
    assert np.abs(patch.astype(int) - 127).max() <= 3


def test_samples_do_not_depend_on_workers_or_ranks(sampler):
    def batches(workers, ranks=1):
        parts = []
        for rank in range(ranks):
            data = PatchBatches(sampler, 6, 8, rank, ranks)
            parts.append(list(DataLoader(data, batch_size=None, num_workers=workers)))
        keys = ("windows", "target")
        return [{k: torch.cat([p[k] for p in step]) for k in keys} for step in zip(*parts, strict=True)]

    reference = batches(0)
    for other in (batches(2), batches(0, ranks=2)):
        for a, b in zip(reference, other, strict=True):
            assert torch.equal(a["windows"], b["windows"]) and torch.equal(a["target"], b["target"])
    assert not torch.equal(reference[0]["windows"], reference[2]["windows"]), "steps differ"


def test_other_seed_other_samples(dataset):
    a, b = (PatchSampler(dataset, GEOMETRY, CONFIG, seed=s) for s in (0, 1))
    assert [a.mask_sample(k) for k in range(5)] != [b.mask_sample(k) for k in range(5)]


def test_cache_holds_no_more_than_allowed(dataset):
    sampler = PatchSampler(dataset, GEOMETRY, CONFIG, cache_mb=0)
    for i in range(len(dataset)):
        sampler.window(Sample(i, -1, Placement(10, 10, 0, False)))
        assert len(sampler._cache) == 1


def test_no_usable_object_is_an_error(dataset):
    with pytest.raises(DataError, match="no object to train on"):
        PatchSampler(dataset, GEOMETRY, dataclasses.replace(CONFIG, min_area=1e6))


def test_no_room_for_negatives_is_an_error(dataset):
    geometry = dataclasses.replace(GEOMETRY, negative=1e6, negative_octaves=99.0)
    busy = dataset.images_subset([i for i in range(len(dataset)) if len(dataset.annotations(i))])
    with pytest.raises(DataError, match="no negative"):
        PatchSampler(busy, geometry, dataclasses.replace(CONFIG, near_negatives=0.0)).score_sample(1)


def test_a_batch_that_ranks_cannot_share_is_refused(sampler):
    with pytest.raises(ConfigError, match="train.batch 8 must be a multiple of twice the number of ranks"):
        PatchBatches(sampler, 6, 8, rank=0, ranks=3)
