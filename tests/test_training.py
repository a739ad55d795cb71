"""Training: stopping and resuming changes nothing, the idle head stands still, ranks share a batch."""

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_tiny_coco

from deepmask import device as devices
from deepmask.checkpoints import CheckpointError
from deepmask.config import ConfigError, ModelConfig, SamplingConfig, TrainConfig
from deepmask.data.coco import InstanceDataset
from deepmask.data.pixels import PixelStore
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.optim import Muon, make_optimisers, orthogonal
from deepmask.sampling import PatchBatches, PatchSampler
from deepmask.training import Losses, Objective, TrainingError, learning_rate, train
from deepmask.validation import HeldOut, auc, patch_iou
from deepmask.weights import load_tensors

ROOT = Path(__file__).resolve().parent.parent
GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0, context=4)
MODEL = ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))
SAMPLING = SamplingConfig(min_area=4, min_side=1)
BF16 = 0.05  # relative error of gradients in bf16; .03 was measured
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
    with pytest.raises(CheckpointError, match="a.pt.*other parameters"):
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
from deepmask.data.pixels import PixelStore
from deepmask.distributed import first_then_others, process_group
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.sampling import PatchSampler
from deepmask.training import train
from deepmask.weights import save_tensors
from pathlib import Path
folder, out, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with process_group() as (rank, ranks):
    dataset = InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images")
    geometry = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0, context=4)
    torch.manual_seed(0)
    model = DeepMask(geometry, ModelConfig(width=0.05, rank=8, score_hidden=(8, 12), dropout=0.0))
    sampler = PatchSampler(dataset, geometry, SamplingConfig(min_area=4, min_side=1), seed=0)
    config = TrainConfig(samples=64, batch=8, optimiser="sgd", lr=0.01, warmup=0, precision="fp32", eval_every=2)
    store = first_then_others(lambda: PixelStore.open(dataset, out / "pixels.bin"))
    history = train(
        model, sampler, config, checkpoint=out / "c.pt", store=store, rank=rank, ranks=ranks, stop_at=stop or None
    )
    if rank == 0:
        save_tensors(out / "weights.safetensors", model.state_dict(), {})
        history.to_csv(out / "history.csv")
"""


def in_processes(folder, out, options, stop=0):
    """Train SCRIPT's network under torchrun, and return its weights and its history."""
    out.mkdir(exist_ok=True)
    (out / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(out / "script.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}  # two ranks need no two GPUs here
    return subprocess.Popen([*command, str(folder), str(out), str(stop)], cwd=ROOT, env=environment)


def standalone(ranks):
    return ["--standalone", f"--nproc-per-node={ranks}"]


def result(process, out):
    assert process.wait(timeout=240) == 0
    return load_tensors(out / "weights.safetensors")[0], pd.read_csv(out / "history.csv")


def same_run(a, b):
    (weights, history), (others, other_history) = a, b
    for name in weights:
        assert torch.allclose(weights[name], others[name], rtol=1e-3, atol=1e-5), name
    assert list(history.step) == [2, 4, 6, 8]
    pd.testing.assert_frame_equal(history, other_history, rtol=1e-3)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    folder = write_tiny_coco(tmp_path_factory.mktemp("one") / "tiny")
    out = folder.parent / "one"
    return folder, result(in_processes(folder, out, standalone(1)), out)


def test_two_ranks_train_like_one(one_rank, tmp_path):
    """Same global batch, same sum over it: weights and losses agree up to the order of additions.

    That holds for the idle head too.
    """
    folder, alone = one_rank
    same_run(alone, result(in_processes(folder, tmp_path, standalone(2)), tmp_path))


def test_a_run_is_resumed_by_another_number_of_ranks(one_rank, tmp_path):
    folder, alone = one_rank
    assert in_processes(folder, tmp_path, standalone(2), stop=3).wait() == 0
    same_run(alone, result(in_processes(folder, tmp_path, standalone(1)), tmp_path))


def test_two_machines_train_like_one(one_rank, tmp_path):
    """Two torchrun agents that meet at an address, as on two machines with a common disk."""
    folder, alone = one_rank
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-id=1", "--rdzv-backend=c10d"]
    agents = [
        in_processes(folder, tmp_path, [*meeting, f"--rdzv-endpoint={address}", "--local-addr=127.0.0.1"])
        for _ in range(2)
    ]
    assert agents[1].wait(timeout=240) == 0
    same_run(alone, result(agents[0], tmp_path))


@pytest.mark.parametrize("branch", ["mask", "score"])
def test_gradients_in_bf16_are_those_in_fp32(dataset, branch):
    """Up to BF16 of their length: ReLUs and pools near a tie switch, beside the rounding to eight binary digits."""
    torch.manual_seed(0)
    model = DeepMask(GEOMETRY, dataclasses.replace(MODEL, width=0.25, rank=32, dropout=0.0))
    batches = PatchBatches(PatchSampler(dataset, GEOMETRY, SAMPLING, seed=0), 2, 32)
    batch = batches[("mask", "score").index(branch)]
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        model.zero_grad(set_to_none=True)
        with devices.autocast(dtype, torch.device("cpu")):
            Objective(model, 1 / 32)(batch["windows"], batch["target"], branch).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    exact, rounded = gradients
    assert exact.keys() == rounded.keys()
    flat, other = (torch.cat([g.flatten() for g in part.values()]) for part in gradients)
    assert 1e-4 * flat.norm() < (flat - other).norm() < BF16 * flat.norm()
    assert torch.nn.functional.cosine_similarity(flat, other, dim=0) > 0.998


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a machine without a GPU")
def test_compiled_gradients_are_the_gradients(dataset):
    """Of mask batches; dropout alone, of score batches, draws other numbers when it is compiled."""
    batch = PatchBatches(PatchSampler(dataset, GEOMETRY, SAMPLING, seed=0), 1, 8)[0]
    gradients = []
    for compiled in (False, True):
        objective = Objective(network(), 1 / 32)
        if compiled:
            objective.compile(dynamic=False)
        objective(batch["windows"], batch["target"], "mask").backward()
        gradients.append({name: p.grad for name, p in objective.model.named_parameters()})
    for name, exact in gradients[0].items():
        ours = gradients[1][name]
        assert (exact is None) == (ours is None) == name.startswith("score_head")
        assert exact is None or torch.allclose(exact, ours, rtol=1e-4, atol=1e-6), name


def test_training_from_decoded_images_is_training(dataset, tmp_path):
    """The device's patches differ by a rounding of gray levels, so the losses do by little."""
    store = PixelStore.open(dataset, tmp_path / "pixels.bin")
    _, host = run(dataset, tmp_path / "a.pt")
    _, device = run(dataset, tmp_path / "b.pt", store=store)
    assert np.allclose(host.mask_loss, device.mask_loss, rtol=0.01)


def test_losses_are_read_in_order_and_late(dataset):
    losses = Losses({"mask": 0.0, "score": 1.0}, lr=0.1)
    for step in range(49):
        losses.add(step, ("mask", "score")[step % 2], torch.tensor(float(step)))
    assert losses.totals == {"mask": 0.0, "score": 1.0}, "not read yet"
    losses.add(49, "mask", torch.tensor(1.0))
    assert losses.totals == {"mask": sum(range(0, 49, 2)) + 1, "score": 1 + sum(range(1, 49, 2))}
    losses.add(50, "mask", torch.tensor(1.0))
    losses.add(51, "score", torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="step 51: the score loss is nan"):
        losses.drained()


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
