"""Jobs are started by torchrun, on one machine or with its options for several, and their failures are told."""

import socket

import pytest
import torch

from deepmask import distributed


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_what_a_process_said_is_passed_on(tmp_path, capsys):
    with pytest.raises(distributed.LaunchError, match="deepmask check .* failed in one of 1 processes"):
        distributed.launch(["check", str(tmp_path / "nothing")], 1)
    assert "no annotations/instances_*.json" in capsys.readouterr().err


def test_options_for_several_machines(tiny_coco, monkeypatch, capsys):
    options = f"--nnodes=1 --rdzv-backend=c10d --rdzv-endpoint={free_address()} --local-addr=127.0.0.1"
    monkeypatch.setenv(distributed.NODES, options)
    distributed.launch(["check", str(tiny_coco)], 1)
    assert "0 errors" in capsys.readouterr().err
    monkeypatch.setenv(distributed.NODES, "--no-such-option")
    with pytest.raises(distributed.LaunchError):
        distributed.launch(["check", str(tiny_coco)], 1)


def test_outside_of_torchrun_there_is_one_rank(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group() as (rank, ranks):
        assert (rank, ranks) == (0, 1)
        assert torch.equal(distributed.mean(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]))
        assert distributed.first_then_others(lambda: "made") == "made"
        distributed.barrier()
