"""Ablations: each changes one value, what it changes is as the paper words it, and the default stays as it was."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepmask import config, results_file
from deepmask.config import (
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    ProposeConfig,
    SamplingConfig,
    TrainConfig,
    UpsamplingConfig,
)
from deepmask.data.coco import InstanceDataset
from deepmask.data.scenes import write_scenes
from deepmask.geometry import Geometry
from deepmask.model import DeepMask, downsample, mask_loss, upsample
from deepmask.paths import Study
from deepmask.sampling import PatchBatches, PatchSampler, collate
from deepmask.stages import propose
from deepmask.systems import ABLATIONS, SYSTEMS, VARIANTS, systems_of, trains_on_seen_only, variant_config
from deepmask.training import train
from deepmask.upsampling import bilinear_kernel, factor, learn_kernel, likeness, mask_logits, transposed
from deepmask.weights import save_model

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=16, jitter=2.0, negative=6.0, context=4)
SAMPLING = SamplingConfig(min_area=4, min_side=1)
MODEL = ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))
TRAIN = TrainConfig(samples=48, batch=8, warmup=2, eval_every=4)


@pytest.fixture
def sampler(tiny_coco):
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    return PatchSampler(dataset, GEOMETRY, SAMPLING, seed=3)


def network():
    torch.manual_seed(0)
    return DeepMask(GEOMETRY, MODEL)


def masks(n, side, seed=0):
    """Discs (n, side, side) bool of several sizes and places."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side] + 0.5
    centres, radii = rng.uniform(0.35 * side, 0.65 * side, (n, 2)), rng.uniform(0.12 * side, 0.3 * side, n)
    discs = [np.hypot(rows - y, cols - x) < r for (y, x), r in zip(centres, radii, strict=True)]
    return torch.from_numpy(np.stack(discs))


# --- which values they change ----------------------------------------------------------------------------------------


def test_an_ablation_changes_one_value_of_training():
    base = config.load(PARAMS)
    assert not base.train.mask_negatives and not base.train.downsample_targets, "the paper's choices"
    for ablation, value in (("masknegatives", "mask_negatives"), ("downsampled", "downsample_targets")):
        changed = variant_config(base, ablation)
        assert changed.train == dataclasses.replace(base.train, **{value: True})
        assert dataclasses.replace(changed, train=base.train) == base
    assert variant_config(base, "masknegatives20") == variant_config(base, "masknegatives")
    assert [v for v in VARIANTS + ABLATIONS if trains_on_seen_only(v)] == ["deepmask20", "masknegatives20"]


def test_every_network_makes_the_masks_of_a_system():
    assert {key for variant in VARIANTS for key in systems_of(variant)} == {*SYSTEMS}
    for ablation in ABLATIONS:
        ((key, system),) = systems_of(ablation).items()
        assert key == system.name == system.masks == system.scores == ablation and key not in SYSTEMS
    with pytest.raises(ConfigError, match="deepmask30"):
        systems_of("deepmask30")


def test_an_ablation_can_make_proposals(tmp_path):
    """Nothing needs them, but a user who asks for them gets them, under the name of the network."""
    study = Study(tmp_path)
    write_scenes(study.scenes, train=1, val=5, width=64, height=48, seed=0, progress=False)
    save_model(study.weights("downsampled"), network(), {})
    data = DataConfig(reported_images=2, tuning_images=1)
    settings = ProposeConfig(scales=(0.0,), count=5, thresholds=(0.3, 0.5), tuning_count=5)
    propose.job(study, Config(data=data, geometry=GEOMETRY, propose=settings), "downsampled", 0, 1)
    made = results_file.read(study.proposals("downsampled", "downsampled"))
    assert [len(proposals) for proposals in made.values()] == [5, 5]
    assert study.result("tuning", "downsampled.csv").exists()


# --- masks of negatives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_half_of_a_mask_batch_are_legal_negatives(sampler, ranks):
    """Empty targets, far from every object by the rule of section 3.4; the positives are those of the same numbers."""
    for rank in range(ranks):
        batch = PatchBatches(sampler, 4, 16, rank, ranks, mask_negatives=True)[2]
        plain = PatchBatches(sampler, 4, 16, rank, ranks)[2]
        empty = ~batch["target"].flatten(1).any(dim=1)
        assert empty.tolist() == [False, True] * (8 // ranks)
        assert torch.equal(batch["target"][::2], plain["target"][::2])
        assert torch.equal(batch["windows"][::2], plain["windows"][::2])
    for k in range(1, 100, 2):
        sample = sampler.mask_sample(k, negatives=True)
        p, dataset = sample.placement, sampler.dataset
        assert not sample.label and not sampler.mask(sample).any()
        for x, y, w, h in dataset.ann_boxes[dataset.annotations(sample.image)].astype(float):
            shift = max(abs(p.x - x - w / 2), abs(p.y - y - h / 2)) * 2**p.octave
            assert shift >= GEOMETRY.negative - 1e-6 or abs(p.octave - math.log2(16 / max(w, h))) >= 1 - 1e-6


def test_score_batches_do_not_change(sampler):
    a, b = (PatchBatches(sampler, 4, 8, mask_negatives=flag)[3] for flag in (False, True))
    assert torch.equal(a["windows"], b["windows"]) and torch.equal(a["target"], b["target"])


def test_loss_of_an_empty_mask_by_hand():
    """log(1 + exp(f)) for a constant output f, and a gradient that pushes every output down."""
    for f in (-2.0, 0.0, 3.0):
        logits = torch.full((1, 16, 16), f, requires_grad=True)
        loss = mask_loss(logits, torch.zeros(1, 32, 32, dtype=torch.bool))
        loss.backward()
        assert loss.item() == pytest.approx(math.log1p(math.exp(f)), rel=1e-5)
        assert (logits.grad > 0).all()
        assert logits.grad.sum().item() == pytest.approx(1 / (1 + math.exp(-f)), rel=1e-4)


# --- the ground truth downsampled ------------------------------------------------------------------------------------


def test_downsampling_by_hand():
    """4 -> 2: an output fills the pixel on it, the next two by 2/3 and 1/3, the last not: 3, 2, 1, 0 sixths of all."""
    for fine, coarse in [
        ("1100", "10"),
        ("0100", "00"),
        ("1010", "10"),
        ("1101", "11"),
        ("0101", "01"),
        ("0000", "00"),
    ]:
        mask = torch.tensor([[[pixel == "1" for pixel in fine]] * 4])
        assert torch.equal(downsample(mask, 2), torch.tensor([[[pixel == "1" for pixel in coarse]] * 2])), fine
        assert torch.equal(downsample(mask.mT, 2), downsample(mask, 2).mT)


def test_downsampling_against_brute_force():
    """Every output against the mean of the mask over what `upsample` makes of that output alone."""
    target = masks(3, 32)
    found = downsample(target, 12)
    for r in range(12):
        for c in range(12):
            alone = torch.zeros(1, 12, 12)
            alone[0, r, c] = 1
            footprint = upsample(alone, 32)
            share = (footprint * target).sum((1, 2)) / footprint.sum()
            assert torch.equal(found[:, r, c], share > 0.5)


def test_downsampling_moves_no_edge():
    """The paper's sizes: a mean over blocks of 4 x 4 pixels would move edges outwards by a pixel and a half there."""
    edges = torch.arange(8, 216)
    target = (torch.arange(224) >= edges[:, None])[:, None].expand(-1, 224, -1)
    again = upsample(downsample(target, 56) * 2.0 - 1, 224) > 0
    moved = (224 - again[:, 100].sum(dim=1) - edges).double()
    assert moved.abs().max() <= 2, "half an output"
    for quarter in moved.split(52):
        assert abs(quarter.mean()) < 0.5


# --- training --------------------------------------------------------------------------------------------------------


def first_loss(sampler, tmp_path, **changes):
    """The loss per mask patch of the first step of a run."""
    settings = dataclasses.replace(TRAIN, samples=16, eval_every=2, precision="fp32", **changes)
    return train(network(), sampler, settings, checkpoint=tmp_path / "c.pt").mask_loss.iloc[0]


def test_training_compares_what_it_says(sampler, tmp_path):
    """By default the upsampled output with eight positives; each ablation what its name says instead."""
    positives = [sampler.mask_sample(k) for k in range(8)]
    batch = collate(sampler, positives, "mask")
    logits, target = network()(batch["windows"], "mask"), batch["target"]

    def by_hand(f, m):
        return F.softplus(-(m * 2.0 - 1) * f).mean().item()

    assert all(sample.label for sample in positives)
    assert first_loss(sampler, tmp_path) == pytest.approx(by_hand(upsample(logits, 32), target), rel=1e-4)
    small = by_hand(logits, downsample(target, 16))
    assert first_loss(sampler, tmp_path, downsample_targets=True) == pytest.approx(small, rel=1e-4)
    batch = PatchBatches(sampler, 2, 8, mask_negatives=True)[0]
    half = by_hand(upsample(network()(batch["windows"], "mask"), 32), batch["target"])
    assert first_loss(sampler, tmp_path, mask_negatives=True) == pytest.approx(half, rel=1e-4)


def test_masks_of_negatives_become_empty_only_where_they_are_trained(sampler, tmp_path):
    settings = dataclasses.replace(TRAIN, samples=480, lr=0.003, eval_every=1000)
    negatives = collate(sampler, [sampler.score_sample(k) for k in range(1, 65, 2)], "score")["windows"]
    inside = []
    for flag in (False, True):
        model, changed = network(), dataclasses.replace(settings, mask_negatives=flag)
        train(model, sampler, changed, checkpoint=tmp_path / "c.pt")
        inside.append(mask_logits(model, negatives).sigmoid().mean().item())
    assert inside[1] < 0.6 * inside[0]


# --- a trained upsampling layer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_the_bilinear_kernel_interpolates(times):
    logits = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(logits[:, None], scale_factor=times, mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(transposed(logits, bilinear_kernel(times)), expected, atol=1e-6)
    assert bilinear_kernel(times).sum().item() == pytest.approx(times**2)


@pytest.mark.parametrize("times", [2, 4])
def test_the_kernel_that_made_the_masks_is_recovered(times):
    """Masks are drawn from the probabilities that a kernel, bilinear or any other, gives for logits of noise."""
    generator = torch.Generator().manual_seed(times)
    logits = 2 * torch.randn(40, 16, 16, generator=generator)
    other = bilinear_kernel(times).roll(1, 0) + 0.1 * torch.randn(2 * times, 2 * times, generator=generator)
    for kernel in (bilinear_kernel(times), other):
        target = torch.rand(40, 16 * times, 16 * times, generator=generator) < transposed(logits, kernel).sigmoid()
        learned, losses = learn_kernel(logits, target, UpsamplingConfig(seed=0))
        again, _ = learn_kernel(logits, target, UpsamplingConfig(seed=1))
        assert likeness(learned, kernel)["correlation"] > 0.99 and likeness(learned, kernel)["difference"] < 0.1
        assert torch.allclose(learned, again, atol=0.01), "wherever it starts"
        assert losses[-1] < 0.9 * losses[0]
    assert likeness(bilinear_kernel(times), other)["correlation"] < 0.95, "two kernels that can be told apart"


def test_likeness_by_hand():
    a, b = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[2.0, 4], [6, 8]])
    assert likeness(a, b) == pytest.approx({"correlation": 1.0, "difference": 0.5})


def test_a_mask_that_does_not_divide_the_patch_is_named():
    assert factor(GEOMETRY) == 2
    with pytest.raises(ConfigError, match=r"geometry.mask.*\(32\), got 12"):
        factor(dataclasses.replace(GEOMETRY, mask=12))
