"""The state of a run on disk: of this run and whole, or refused with a sentence."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from deepmask import checkpoints
from deepmask.checkpoints import CheckpointError


def made():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    return model, [torch.optim.AdamW(model.parameters(), lr=0.1)]


def step(model, optimisers):
    for optimiser in optimisers:
        optimiser.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimiser.step()


@pytest.fixture
def saved(tmp_path):
    model, optimisers = made()
    step(model, optimisers)
    checkpoints.save(tmp_path / "run.pt", model, optimisers, ("config", 1), step=1, rows=[{"loss": 0.5}])
    return tmp_path / "run.pt"


def resume(path, config=("config", 1)):
    model, optimisers = made()
    return checkpoints.resume(path, model, optimisers, config, step=0, rows=[]), model, optimisers


def test_a_run_goes_on_where_it_was(saved, tmp_path):
    state, model, optimisers = resume(saved)
    assert state == {"step": 1, "rows": [{"loss": 0.5}]}
    step(model, optimisers)
    whole, both = made()
    for _ in range(2):
        step(whole, both)
    assert torch.equal(model.weight, whole.weight)
    assert resume(tmp_path / "none.pt")[0] == {"step": 0, "rows": []}


def test_another_run_is_refused(saved):
    with pytest.raises(CheckpointError, match="run.pt: left by a run with other parameters; remove it"):
        resume(saved, ("config", 2))


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9, 0.999])
def test_half_a_file_is_refused(saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match="run.pt: a damaged checkpoint .*; remove it to start anew"):
        resume(saved)


class Trap:
    """Pickled, it asks whoever loads it to touch a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


OF_THIS_RUN = {"config": "('config', 1)"}


@pytest.mark.parametrize("content", [{}, [1], OF_THIS_RUN, OF_THIS_RUN | {"step": 1, "rows": []}])
def test_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="run.pt"):
        resume(tmp_path / "run.pt")


def test_no_code_is_run(tmp_path):
    torch.save(Trap(tmp_path / "trapped"), tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="run.pt: a damaged checkpoint"):
        resume(tmp_path / "run.pt")
    (tmp_path / "run.pt").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    with pytest.raises(CheckpointError, match="run.pt: a damaged checkpoint"):
        resume(tmp_path / "run.pt")
    assert not (tmp_path / "trapped").exists()
