"""Patches cut on the device are those that the host cuts with Pillow; images are decoded once and kept as they are."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from deepmask import loading, masks, patches
from deepmask.config import ConfigError, SamplingConfig
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.data.pixels import PixelStore
from deepmask.data.scenes import write_scenes
from deepmask.geometry import Geometry
from deepmask.loading import Loader
from deepmask.patches import PlannedBatches, cut, draw, plan, resample
from deepmask.sampling import PatchBatches, PatchSampler, Placement, Sample, collate

CPU = torch.device("cpu")
GEOMETRY = Geometry(patch=80, canonical=46, stride=8, mask=40, jitter=6.0, negative=12.0, context=8)
CONFIG = SamplingConfig(near_negatives=0.3, negative_octaves=(-3.0, 2.0))


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=12, val=4, width=160, height=120, seed=3)
    return PatchSampler(
        InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images"), GEOMETRY, CONFIG, seed=1
    )


@pytest.fixture(scope="module")
def store(sampler, tmp_path_factory):
    return PixelStore.open(sampler.dataset, tmp_path_factory.mktemp("store") / "pixels.bin")


def compare(batch, windows, target):
    """Mean difference of gray levels, and the share of mask pixels that differ."""
    assert windows.dtype == torch.uint8 and windows.shape == batch["windows"].shape
    assert target.dtype == torch.bool and target.shape == batch["target"].shape
    gray = (windows.int() - batch["windows"].int()).abs()
    return float(gray.float().mean()), int(gray.max()), float((target != batch["target"]).float().mean())


@pytest.mark.parametrize("resident", [False, True], ids=["pixels travel", "pixels are there"])
@pytest.mark.parametrize("negatives", [False, True])
def test_the_device_cuts_what_the_host_cuts(sampler, store, resident, negatives):
    """Same seeds, same boxes: .2 gray levels on average and 1 at most (Pillow rounds between its two passes)."""
    batches = PatchBatches(sampler, 8, 32, mask_negatives=negatives)
    planned = PlannedBatches(batches, None if resident else store)
    for step in range(8):
        there = planned[step]
        assert ("pixels" in there) != resident
        windows, target = cut(there, GEOMETRY, CPU, store if resident else None)
        mean, most, wrong = compare(batches[step], windows, target)
        assert mean < 0.2 and most <= 1 and wrong < 3e-4


def test_half_precision_is_exact_enough(sampler, store, monkeypatch):
    monkeypatch.setattr(patches, "_precision", lambda device: torch.float16)
    batch = PatchBatches(sampler, 2, 8)
    mean, most, wrong = compare(batch[0], *cut(PlannedBatches(batch, store)[0], GEOMETRY, CPU))
    assert mean < 0.3 and most <= 2 and wrong < 1e-3


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("octave", [-4.2, -1.0, 0.0, 0.3, 3.0])
@pytest.mark.parametrize("x, y", [(80, 60), (0, 0), (159.4, 3.7), (-900, 60), (80, 4000)])
def test_any_placement(sampler, store, x, y, octave, flip):
    """Wholly outside of the image, across its borders, shrunk eighteen times, enlarged eight times."""
    samples = [
        Sample(3, annotation, Placement(x, y, octave, flip)) for annotation in (int(sampler.dataset.first[3]), -1)
    ]
    for branch in ("mask", "score"):
        batch = collate(sampler, samples, branch)
        mean, most, wrong = compare(batch, *cut(plan(sampler, samples, branch, store), GEOMETRY, CPU))
        assert mean < 0.3 and most <= 1 and wrong < 2e-3
    if abs(x) > 800 or y > 3000:
        assert (batch["windows"] == patches.GRAY).all() or octave < -3


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_masks_are_drawn_from_their_turns(seed, height, width):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.choice([0.0, 0.3, 0.7, 1.0])
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    turns = masks.turns(rle)
    assert len(turns) % 2 == 0
    # beside a larger mask, so that columns have another height on the canvas
    other = masks.turns(masks.encode(np.ones((1, 11, 10), bool))[0])
    both = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(turns), torch.from_numpy(other)], batch_first=True, padding_value=patches._NEVER
    )
    drawn = draw(both, torch.tensor([[height, width], [11, 10]]))
    assert np.array_equal(drawn[0, 0, :height, :width].numpy().astype(bool), mask) and drawn[1, 0].all()


@given(st.integers(0, 2**32 - 1))
def test_resampling_keeps_what_is_constant(seed):
    """The weights of every output sum to one, wherever the patch lies in the image and however large it is."""
    rng = np.random.default_rng(seed)
    size, ratio = int(rng.integers(1, 20)), float(np.exp(rng.uniform(-2, 2)))
    height = int(size * ratio + 8 * max(1, ratio))  # with a margin wider than the filter
    start = float(rng.uniform(2 * max(1, ratio), 3 * max(1, ratio)))
    filters = torch.tensor([[start, start, ratio, float(rng.integers(2))]])
    flat = resample(torch.full((1, 1, height, height), 7.0), torch.tensor([[height, height]]), filters, size)
    assert torch.allclose(flat, torch.full_like(flat, 7.0), atol=1e-4)


def test_resampling_is_pillows(sampler):
    image = sampler.dataset.image(0)
    box = (10.25, 20.5, 90.25, 100.5)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    filters = torch.tensor([[box[1], box[0], 80 / 32, 0.0]])
    ours = resample(planes, torch.tensor([image.shape[:2]]), filters, 32)[0].permute(1, 2, 0).numpy()
    theirs = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR, box=box)
    assert np.abs(ours - np.asarray(theirs)).max() <= 1.0


# --- images decoded once ---------------------------------------------------------------------------------------------


def test_the_store_holds_the_images(tiny_coco, tmp_path):
    """Gray and RGBA files too; of sizes that differ; from the file that is there the second time."""
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    path = tmp_path / "below" / "pixels.bin"
    times = set()
    for _ in range(2):
        store = PixelStore.open(dataset, path)
        for i in range(len(dataset)):
            assert np.array_equal(store.image(i).numpy(), dataset.image(i))
        times.add(os.stat(path).st_mtime_ns)
    assert len(times) == 1, "written once"
    assert torch.equal(store.to(CPU).pixels, store.pixels) and not store.fits(CPU)


def test_the_store_is_made_anew_for_other_images(tiny_coco, tmp_path):
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    path = tmp_path / "pixels.bin"
    PixelStore.open(dataset, path)
    changed = dataset.image_root / dataset.file_name(1)
    Image.fromarray(255 - dataset.image(1)).save(changed)
    assert np.array_equal(PixelStore.open(dataset, path).image(1).numpy(), dataset.image(1))
    fewer = dataset.images_subset([0, 2])
    assert np.array_equal(PixelStore.open(fewer, path).image(1).numpy(), dataset.image(2))
    with open(path, "r+b") as file:
        file.truncate(100)  # a disk that was full
    assert np.array_equal(PixelStore.open(fewer, path).image(1).numpy(), dataset.image(2))


def test_no_room_and_missing_images_are_said(tiny_coco, tmp_path, monkeypatch):
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 10}))
    with pytest.raises(DataError, match="GB are free; make room, or set train.cut to host"):
        PixelStore.open(dataset, tmp_path / "pixels.bin")
    monkeypatch.undo()
    (dataset.image_root / dataset.file_name(0)).unlink()
    with pytest.raises(DataError, match="no such image file"):
        PixelStore.open(dataset, tmp_path / "pixels.bin")
    assert not (tmp_path / "pixels.bin").exists()


# --- the loader ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_batches_in_order(sampler, store, workers):
    batches = PatchBatches(sampler, 7, 4)
    for kept, most in ((None, 0), (store, 1)):
        got = list(Loader(batches, CPU, workers, kept).batches(start=2))
        assert [branch for branch, *_ in got] == ["mask", "score", "mask", "score", "mask"]
        for step, (_, windows, target) in enumerate(got, 2):
            assert compare(batches[step], windows, target)[1] <= most


def test_where_patches_are_cut():
    gpu = torch.device("cuda")
    assert [loading.cuts_on_device(word, CPU) for word in ("auto", "host", "device")] == [False, False, True]
    assert [loading.cuts_on_device(word, gpu) for word in ("auto", "host", "device")] == [True, False, True]
    with pytest.raises(ConfigError, match="train.cut"):
        loading.cuts_on_device("gpu", CPU)


def test_a_plan_is_small_without_pixels(sampler):
    """What travels from loader processes when the device has the images: below 10 kB a patch of any size."""
    large = dataclasses.replace(GEOMETRY, patch=224, canonical=128, context=0)
    batch = plan(
        PatchSampler(sampler.dataset, large, CONFIG), [sampler.mask_sample(k) for k in range(32)], "mask", None
    )
    assert sum(t.nbytes for t in batch.values() if isinstance(t, torch.Tensor)) < 32 * 10_000


REAL = os.environ.get("DEEPMASK_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="DEEPMASK_REAL_DATA names no COCO-format folder")
def test_photographs_at_the_papers_size(tmp_path):
    dataset = InstanceDataset.read(f"{REAL}/annotations/instances_train.json", f"{REAL}/images").images_subset(
        slice(0, 60)
    )
    sampler = PatchSampler(dataset, Geometry(), SamplingConfig("uniform", 100, 5, 0.0, (-3.0, 2.0)), seed=0)
    batches = PatchBatches(sampler, 6, 32)
    planned = PlannedBatches(batches, PixelStore.open(dataset, tmp_path / "pixels.bin"))
    for step in range(6):
        mean, most, wrong = compare(batches[step], *cut(planned[step], Geometry(), CPU))
        print(f"gray levels: {mean:.3f} on average, {most} at most; mask pixels: {wrong:.1e}")
        assert mean < 0.2 and most <= 1 and wrong < 3e-4
