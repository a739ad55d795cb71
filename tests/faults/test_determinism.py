"""The same seed gives the same bytes: again, with another number of threads, and with another number of workers.

On a GPU sums are made in an order that is not fixed, so a repeated run agrees to a tolerance only.
"""

import hashlib
import os
import shutil
import subprocess

import pytest
import torch
import work

from deepmask import config as configs
from deepmask.data.coco import InstanceDataset
from deepmask.data.scenes import write_scenes
from deepmask.loading import Loader
from deepmask.model import DeepMask
from deepmask.paths import REPOSITORY, Study
from deepmask.sampling import PatchBatches, PatchSampler
from deepmask.studies import prepare
from deepmask.training import train
from deepmask.weights import load_tensors

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
GPU_TOLERANCE = 1e-2  # of the length of a weight, relative, after a few steps
SHORT = ("train", "propose", "evaluate")
PARTS = [pytest.param(part, marks=[] if part in SHORT else pytest.mark.full) for part in work.PARTS]


def contents(folder):
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def test_scenes(tmp_path, stress):
    made = {}
    for name, workers in (("one", 1), ("two", 2), ("again", 2)):
        sizes = {"train": stress.scale(40, 200), "val": 40, "width": 64, "height": 48, "seed": 3}
        write_scenes(tmp_path / name, **sizes, workers=workers, progress=False)
        made[name] = contents(tmp_path / name)
    assert len(made["one"]) > 80 and made["one"] == made["two"] == made["again"]
    stress.count("runs that agree", "scenes", len(made))


def batches(dataset, config, workers):
    sampler = PatchSampler(dataset, config.geometry, config.sampling, 0)
    loader = Loader(PatchBatches(sampler, 12, 8), torch.device("cpu"), workers)
    return [hashlib.sha256(w.numpy().tobytes() + t.numpy().tobytes()).hexdigest() for _, w, t in loader.batches()]


def test_sampling(tiny_coco, stress):
    config = configs.load(REPOSITORY / "params.yaml", "smoke")
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    made = [batches(dataset, config, workers) for workers in (0, 1, 2, 2)]
    assert len(set(made[0])) == 12 and all(other == made[0] for other in made)
    stress.count("runs that agree", "sampling", len(made))


@pytest.mark.parametrize("part", PARTS)
def test_threads(part, references, stress, tmp_path):
    """Two threads for whatever library takes them; the reference has what the machine gives."""
    undisturbed, folder = references(part), tmp_path / "study"
    for threads in ("1", "2"):
        shutil.copytree(undisturbed.before, folder)
        environment = {**os.environ, **dict.fromkeys(THREADS, threads)}
        done = subprocess.run(work.command(part, folder), env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert work.state(folder) == undisturbed.result
        shutil.rmtree(folder)
        stress.count("runs that agree", part, 1)


@pytest.mark.parametrize(
    "part", [p for p in PARTS if p.values[0] not in ("pretrain", "train", "detection", "evaluate")]
)
def test_ranks(part, references, stress, tmp_path):
    """Everything but training, where ranks change the order of additions (tests/test_training.py says by how much)."""
    undisturbed, folder = references(part), tmp_path / "study"
    shutil.copytree(undisturbed.before, folder)
    assert work.finish(work.command(part, folder, 2)) == ""
    assert work.state(folder) == undisturbed.result
    stress.count("runs that agree", part, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_of_training(workers, references, stress, tmp_path):
    undisturbed, folder = references("train"), tmp_path / "study"
    shutil.copytree(undisturbed.before, folder)
    prepare(folder, "smoke", changes=[f"train.workers={workers}"])
    assert work.finish(work.command("train", folder)) == ""
    made, expected = (load_tensors(Study(place).weights("deepmask"))[0] for place in (folder, references.study))
    assert made.keys() == expected.keys() and all(torch.equal(made[name], expected[name]) for name in made)
    stress.count("runs that agree", "train", 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_training_on_a_gpu(tiny_coco, tmp_path):
    config = configs.load(REPOSITORY / "params.yaml", "smoke")
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    made = []
    for name in "ab":
        torch.manual_seed(0)
        model = DeepMask(config.geometry, config.model).cuda()
        sampler = PatchSampler(dataset, config.geometry, config.sampling, 0)
        train(model, sampler, config.train, checkpoint=tmp_path / f"{name}.pt")
        made.append({key: tensor.float().cpu() for key, tensor in model.state_dict().items()})
    for key, tensor in made[0].items():
        assert (tensor - made[1][key]).norm() <= GPU_TOLERANCE * tensor.norm(), key
