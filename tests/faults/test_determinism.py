"""The same seed makes the same bytes, whatever shares the work, and every time.

On a processor everything holds bit for bit for any number of loader processes and threads; another number of ranks
changes the order of additions in training, but not a byte of proposals.  On a GPU sums are made in any order: two
trainings differ as little as GPU says.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import write_tiny_coco

from deepmask import config, released
from deepmask.config import SamplingConfig, TrainConfig
from deepmask.data import drawing
from deepmask.data.coco import InstanceDataset
from deepmask.geometry import Geometry
from deepmask.loading import Loader
from deepmask.model import DeepMask
from deepmask.sampling import PatchBatches, PatchSampler
from deepmask.training import train
from deepmask.weights import load_tensors

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0, context=4)
GPU = 0.02  # relative difference of the mean losses of two short trainings on a GPU
STUDY = {
    "data": {"train_images": 6, "reported_images": 3, "tuning_images": 2, "width": 160, "height": 120},
    "pretrain": {"samples": 64},
    "train": {"samples": 64},
}
SCRIPT = """
import sys
from importlib import import_module
from pathlib import Path
from deepmask import config, distributed, scoring
from deepmask.data.scenes import write_scenes
from deepmask.paths import Study
study, steps, workers = Study(Path(sys.argv[1])), sys.argv[2].split(","), int(sys.argv[3])
params = config.load(study.root / "params.yaml")
data = params.data
with distributed.process_group() as (rank, ranks):
    if "scenes" in steps:
        counts = {"train": data.train_images, "val": data.reported_images + data.tuning_images}
        sizes = {"width": data.width, "height": data.height, "seed": data.seed}
        write_scenes(study.scenes, **counts, **sizes, workers=max(1, workers), progress=False)
    for step in [step for step in steps if step != "scenes"]:
        import_module(f"deepmask.stages.{step}").job(study, params, "deepmask", rank, ranks)
    if rank == 0:
        found = {key: study.proposals("deepmask", key) for key in ("deepmask", "deepmaskzoom")}
        made = scoring.table(found, study.scenes / data.val, images=data.reported_images, resamples=50)
        made.to_csv(study.result("table.csv"))
"""


def make(folder, steps="scenes,pretrain,train,propose", workers=0, threads=1, ranks=1):
    """A study of the smallest size, made in processes of its own."""
    params = config.read_params(ROOT / "params.yaml", "smoke")
    for section, values in STUDY.items():
        params[section] |= values
    for section in ("pretrain", "train"):
        params[section]["workers"] = workers
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "script.py").write_text(SCRIPT)
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(threads)}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *several, str(folder / "script.py"), str(folder), steps, str(workers)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return folder


def contents(folder):
    """Everything that a study is: its files, and of weights, which hold the number of workers, the tensors."""
    made = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in ("script.py", "params.yaml")):
        if path.suffix == ".safetensors":
            tensors = load_tensors(path)[0]
            content = b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors))
        else:
            content = path.read_bytes()
        made[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make(tmp_path_factory.mktemp("study") / "first")


def settings(short):
    """Workers and threads of further runs; the short form has one that changes both."""
    return [(2, 2)] if short else [(0, 1), (1, 1), (2, 1), (0, 2), (2, 2)]


def test_a_study_is_made_of_the_same_bytes(study, stress, tmp_path):
    """Scenes, trunk, network, history, proposals and table."""
    expected = contents(study)
    kinds = {".jpg", ".safetensors", ".csv", ".json"}
    assert {Path(name).suffix for name in expected} == kinds and "results/table.csv" in expected
    for number, (workers, threads) in enumerate(settings(not stress.full)):
        found = contents(make(tmp_path / str(number), workers=workers, threads=threads))
        assert {name for name in expected if not name.startswith("results/speed")} <= found.keys()
        differ = {name for name, digest in expected.items() if found[name] != digest}
        assert not differ, f"{differ} with {workers} workers and {threads} threads"
        stress.count("determinism", "studies made again", 1)


def test_two_ranks_propose_the_same_bytes(study, stress, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(study, again, ignore=shutil.ignore_patterns("proposals", "table.csv"))
    assert "proposals/deepmask/deepmask.json" not in contents(again)
    make(again, "propose", ranks=2)
    assert contents(again) == contents(study)
    stress.count("determinism", "proposals by two ranks", 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_proposals_do_not_depend_on_threads(threads, stress):
    image = drawing.draw_scene(0, 1, 320, 240).image
    propose, before = released.load(count=100), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = propose(image)
        torch.set_num_threads(threads)
        for _ in range(2):
            found = propose(image)
            assert found.scores.tobytes() == expected.scores.tobytes() and found.masks == expected.masks
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def sampler(tmp_path):
    folder = write_tiny_coco(tmp_path / "tiny")
    dataset = InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images")
    return PatchSampler(dataset, GEOMETRY, SamplingConfig(min_area=4, min_side=1), seed=3)


def test_batches_do_not_depend_on_loader_processes(sampler, stress):
    data, steps = PatchBatches(sampler, stress.scale(12, 400), 8), 0
    for workers in (0, 1, 2, 2):
        made = Loader(data, torch.device("cpu"), workers).batches()
        for step, (branch, windows, target) in enumerate(made):
            expected = data[step]
            assert branch == expected["branch"]
            assert torch.equal(windows, expected["windows"]) and torch.equal(target, expected["target"])
            steps += 1
    assert steps == 4 * len(data)
    stress.count("determinism", "batches made again", steps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_two_trainings_on_a_gpu_differ_by_the_order_of_additions(sampler, tmp_path):
    histories = []
    for name in ("a.pt", "b.pt"):
        torch.manual_seed(0)
        model = DeepMask(GEOMETRY, config.ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))).cuda()
        settings = TrainConfig(samples=160, batch=8, warmup=2, eval_every=10, checkpoint_every=100, precision="fp32")
        histories.append(train(model, sampler, settings, checkpoint=tmp_path / name))
    for loss in ("mask_loss", "score_loss"):
        np.testing.assert_allclose(histories[0][loss], histories[1][loss], rtol=GPU)
