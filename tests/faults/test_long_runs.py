"""Ten thousand calls and five thousand steps: memory, file handles and threads stay where they are."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_coco

from deepmask import config as configs
from deepmask import hub, released, training
from deepmask.data.coco import InstanceDataset
from deepmask.evaluation import evaluate
from deepmask.model import DeepMask
from deepmask.paths import REPOSITORY
from deepmask.sampling import PatchSampler

# A leak of one object a call would be far above: 10,000 x 1 kB are 10 MB.  What is below is the allocator's own coming
# and going, which a longer run does not add to.
MEGABYTES = 24.0
HANDLES = THREADS = 0

SIZES = (1, 1), (1, 64), (48, 64), (64, 48), (33, 90), (96, 7)  # height, width of images
BATCH = 8  # patches of a training step

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


class Watch:
    """Memory, handles and threads of this process, noted now and then; the first fifth is for warming up."""

    def __init__(self, calls):
        self.calls, self.rows = calls, []

    def look(self, call):
        if call % max(1, self.calls // 100) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            handles = len(os.listdir("/proc/self/fd"))
            self.rows.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles, threading.active_count()))

    def growth(self):
        """(3,) from the second fifth of the run to its last, in the median."""
        rows = np.array(self.rows)
        fifth = len(rows) // 5
        return np.median(rows[-fifth:], axis=0) - np.median(rows[fifth : 2 * fifth], axis=0)


def flat(watch, stress, what):
    megabytes, handles, threads = watch.growth()
    assert megabytes < MEGABYTES and handles <= HANDLES and threads <= THREADS, watch.growth()
    stress.count("long runs", what, watch.calls)
    stress.count("leaks", f"MB by {what}", round(max(0.0, megabytes), 1))
    stress.count("leaks", f"handles by {what}", max(0, handles))


def images(number):
    """Small images of a few sizes, as a folder of photographs has.

    For each new size PyTorch prepares its convolutions and keeps the last thousand, which is memory for a while.
    """
    rng = np.random.default_rng(0)
    for call in range(number):
        yield rng.integers(0, 256, (*SIZES[call % len(SIZES)], 3), np.uint8)


@linux
@pytest.mark.parametrize("name", ["deepmask", "selectivesearch"])
def test_proposals(name, stress):
    torch.set_num_threads(1)
    method = released.load(count=50) if name == "deepmask" else hub.load(name, count=50)
    watch = Watch(stress.scale(100, 10_000))
    for call, image in enumerate(images(watch.calls)):
        assert len(method(image)) <= 50
        watch.look(call)
    flat(watch, stress, f"calls of {name}")


@linux
def test_training(stress, tmp_path, monkeypatch):
    """With a loader process, and a checkpoint now and then."""
    torch.set_num_threads(1)
    config, steps = configs.load(REPOSITORY / "params.yaml", "smoke"), stress.scale(100, 5_000)
    folder = write_tiny_coco(tmp_path / "tiny")
    dataset = InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images")
    settings = configs.to_dict(config.train) | {
        "samples": steps * BATCH,
        "batch": BATCH,
        "eval_every": steps,
        "checkpoint_every": max(1, steps // 50),
        "workers": 1,
    }
    watch, mean = Watch(steps), training.learning_rate

    def watched(step, *rest):  # what every step asks for
        watch.look(step)
        return mean(step, *rest)

    monkeypatch.setattr(training, "learning_rate", watched)
    torch.manual_seed(0)
    model = DeepMask(config.geometry, config.model)
    sampler = PatchSampler(dataset, config.geometry, config.sampling, 0)
    settings = configs.from_dict(configs.TrainConfig, settings)
    training.train(model, sampler, settings, checkpoint=tmp_path / "run.pt")
    flat(watch, stress, "training steps")


@linux
def test_evaluation(stress, tiny_coco):
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_val.json", tiny_coco / "images")
    method, watch = hub.load("selectivesearch", count=20), Watch(stress.scale(100, 2_000))
    made = {int(id): method(dataset.image(i)).of(id) for i, id in enumerate(dataset.image_ids)}
    for call in range(watch.calls):
        assert 0 <= evaluate(dataset, made).auc() <= 1
        watch.look(call)
    flat(watch, stress, "evaluations")
