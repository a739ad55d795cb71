"""Training: stopping and resuming changes nothing, the idle head stands still, ranks share a batch."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from deepmask.config import ConfigError, ModelConfig, SamplingConfig, TrainConfig
from deepmask.data.coco import InstanceDataset
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.optim import Muon, make_optimisers, orthogonal
from deepmask.sampling import PatchSampler
from deepmask.training import Objective, TrainingError, learning_rate, train
from deepmask.validation import HeldOut, auc, patch_iou
from deepmask.weights import load_tensors

ROOT = Path(__file__).resolve().parent.parent
GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0, context=4)
MODEL = ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))
SAMPLING = SamplingConfig(min_area=4, min_side=1)
CONFIG = TrainConfig(samples=80, batch=8, warmup=2, eval_every=4, eval_patches=4, checkpoint_every=100)


@pytest.fixture
def dataset(tiny_coco):
    return InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")


def network():
    torch.manual_seed(0)
    return DeepMask(GEOMETRY, MODEL)


def run(dataset, checkpoint, config=CONFIG, held_out=None, **options):
    torch.set_num_threads(1)
    model = network()
    sampler = PatchSampler(dataset, GEOMETRY, SAMPLING, seed=0)
    history = train(model, sampler, config, checkpoint=checkpoint, held_out=held_out, **options)
    return model.state_dict(), history


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_stopped_and_resumed_is_bit_for_bit_uninterrupted(dataset, tmp_path, optimiser):
    config = dataclasses.replace(CONFIG, optimiser=optimiser)
    held_out = HeldOut(dataset, {"all": frozenset(dataset.categories)}, GEOMETRY, SAMPLING, 4)
    whole, history = run(dataset, tmp_path / "a.pt", config, held_out=held_out)
    run(dataset, tmp_path / "b.pt", config, held_out=held_out, stop_at=3)
    run(dataset, tmp_path / "b.pt", config, held_out=held_out, stop_at=6)  # in the middle of an evaluation interval
    resumed, resumed_history = run(dataset, tmp_path / "b.pt", config, held_out=held_out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    pd.testing.assert_frame_equal(history, resumed_history)
    assert list(history.step) == [4, 8, 10]


def test_a_checkpoint_of_another_run_is_refused(dataset, tmp_path):
    run(dataset, tmp_path / "a.pt", stop_at=2)
    with pytest.raises(TrainingError, match="a.pt.*other parameters"):
        run(dataset, tmp_path / "a.pt", dataclasses.replace(CONFIG, lr=0.5))


def test_workers_do_not_change_the_result(dataset, tmp_path):
    inline, _ = run(dataset, tmp_path / "a.pt")
    workers, _ = run(dataset, tmp_path / "b.pt", dataclasses.replace(CONFIG, workers=2))
    assert all(torch.equal(inline[name], workers[name]) for name in inline)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_idle_head_is_not_moved(name):
    """Not by its gradient, nor by momentum or weight decay of earlier steps (section 3.2: alternate)."""
    model = network()
    optimisers = make_optimisers(name, model.parameters(), 0.01, 0.9, weight_decay=0.1)
    objective = Objective(model, 1 / 32)
    windows = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    targets = {"mask": torch.rand(4, 32, 32) > 0.5, "score": torch.tensor([True, False] * 2)}
    for step in range(4):
        branch = ("mask", "score")[step % 2]
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.zero_grad(set_to_none=True)
        objective(windows, targets[branch], branch).backward()
        for optimiser in optimisers:
            optimiser.step()
        moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {"trunk", f"{branch}_head"}


def test_learning_reduces_both_losses(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, samples=1600, eval_every=40, lr=0.003)
    _, history = run(dataset, tmp_path / "a.pt", config)
    assert history.mask_loss.iloc[-1] < 0.8 * history.mask_loss.iloc[0]
    assert history.score_loss.iloc[-1] < history.score_loss.iloc[0]


def test_a_loss_that_is_not_finite_stops_the_run(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, lr=1e30, optimiser="sgd", warmup=0)
    with pytest.raises(TrainingError, match=r"step \d+: the (mask|score) loss is .*lower train.lr"):
        run(dataset, tmp_path / "a.pt", config)


def test_schedules():
    constant = dataclasses.replace(CONFIG, schedule="constant", warmup=4)
    assert [learning_rate(s, 10, constant) for s in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    cosine = dataclasses.replace(CONFIG, schedule="cosine", warmup=0)
    rates = [learning_rate(s, 100, cosine) for s in range(100)]
    assert rates[0] == 1 and rates == sorted(rates, reverse=True) and 0.02 <= rates[-1] < 0.03
    with pytest.raises(TrainingError, match="schedule"):
        learning_rate(0, 1, dataclasses.replace(CONFIG, schedule="stairs"))
    with pytest.raises(ConfigError, match="optimiser"):
        make_optimisers("adam", network().parameters(), 0.01, 0.9, 0.0)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (8, 8)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    even = u.T @ orthogonal(matrix) @ vh.T
    assert torch.allclose(even, torch.diag(even.diag()), atol=1e-6), "same singular vectors"
    assert even.diag().min() > 0.5 and even.diag().max() < 1.3


def test_muon_moves_every_direction_alike():
    """Plain gradients of a problem a hundred times steeper one way would hardly move the other."""
    start = torch.tensor([[1.0, 0.3], [-0.2, 1.0]])
    weight = torch.nn.Parameter(start.clone())
    optimiser = Muon([weight], lr=0.001)
    for _ in range(10):
        optimiser.zero_grad()
        ((weight * torch.tensor([[1.0], [0.1]])) ** 2).sum().backward()
        optimiser.step()
    moved = (weight.detach() - start).norm(dim=1)
    assert moved[1] > 0.5 * moved[0] > 0


def test_every_parameter_has_one_optimiser():
    model = network()
    optimisers = make_optimisers("muon", model.parameters(), 0.01, 0.9, 0.0)
    held = [id(p) for o in optimisers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


SCRIPT = """
import sys, torch
from deepmask.config import TrainConfig, ModelConfig, SamplingConfig
from deepmask.data.coco import InstanceDataset
from deepmask.distributed import process_group
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.sampling import PatchSampler
from deepmask.training import train
from deepmask.weights import save_tensors
from pathlib import Path
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
with process_group() as (rank, ranks):
    dataset = InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images")
    geometry = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0, context=4)
    torch.manual_seed(0)
    model = DeepMask(geometry, ModelConfig(width=0.05, rank=8, score_hidden=(8, 12), dropout=0.0))
    sampler = PatchSampler(dataset, geometry, SamplingConfig(min_area=4, min_side=1), seed=0)
    config = TrainConfig(samples=48, batch=8, optimiser="sgd", lr=0.01, warmup=0, precision="fp32")
    train(model, sampler, config, checkpoint=out / "c.pt", rank=rank, ranks=ranks)
    if rank == 0:
        save_tensors(out / f"{ranks}.safetensors", model.state_dict(), {})
"""


def test_two_ranks_train_like_one(tiny_coco, tmp_path):
    """Same global batch, same sum over it: the weights agree up to the order of additions; the idle head included."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for ranks in ("1", "2"):
        command = [*torchrun, ranks, str(script), str(tiny_coco), str(tmp_path)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    one, two = (load_tensors(tmp_path / f"{ranks}.safetensors")[0] for ranks in (1, 2))
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-5), name


def test_held_out_measures_against_brute_force(dataset):
    groups = {"all": frozenset(dataset.categories), "none": frozenset()}
    held_out = HeldOut(dataset, groups, GEOMETRY, SAMPLING, 6)
    assert set(held_out.positives) == {"all"}, "a group without objects is left out"
    row = held_out.measure(network())
    assert set(row) == {"iou_all", "accuracy_all", "auc_all"} and all(0 <= v <= 1 for v in row.values())


def test_auc_and_iou_by_hand():
    positive, negative = [2.0, 1.0, 1.0], [0.0, 1.0]
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert auc(positive, negative) == wins / 6
    a = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]]).bool()
    b = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]]]).bool()
    assert torch.allclose(patch_iou(a, b), torch.tensor([1 / 3, 1.0]))
