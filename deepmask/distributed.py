"""Several processes for one job, through torchrun and torch.distributed, on one machine or on several.

On a machine without a GPU one single-threaded rank per core trains faster than one process with several threads,
and does not collapse when another program holds a core; with GPUs there is one rank per GPU.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from deepmask import device as devices
from deepmask import processes

T = TypeVar("T")

NODES = "DEEPMASK_TORCHRUN"  # environment: options of torchrun for several machines, in the place of --standalone
_PATIENCE = timedelta(hours=12)  # ranks wait for one that decodes images or proposes on a large one


class LaunchError(RuntimeError):
    """A process of a parallel job failed; its own last words are in the message."""


def available_ranks() -> int:
    """One rank per GPU, or per core that this process may use."""
    return torch.cuda.device_count() or devices.cores()


def launch(arguments: Sequence[str], ranks: int) -> None:
    """Run `python -m deepmask ARGUMENTS` in `ranks` processes and pass on what they print; raises LaunchError."""
    nodes = shlex.split(os.environ.get(NODES, "--standalone"))
    command = [sys.executable, "-m", "torch.distributed.run", *nodes, f"--nproc-per-node={ranks}"]
    command += ["-m", "deepmask", *arguments]
    environment = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    environment |= {**os.environ, processes.STARTED_BY: str(os.getpid())}
    last: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        preexec_fn=partial(processes.end_with, os.getpid()),
    ) as process:
        told = False  # by torchrun, that a process has failed; what follows is its own traceback
        for line in process.stdout:
            told = told or "failed (exitcode: " in line
            if not told:
                print(line, end="", file=sys.stderr, flush=True)
            if line.strip():
                last = [*last[-40:], line.strip()]
    if process.returncode:
        raise LaunchError(f"deepmask {' '.join(arguments[:2])} failed in one of {ranks} processes: {_reason(last)}")


def _reason(last: Sequence[str]) -> str:
    """Why a job failed, from torchrun's last lines: what one of its processes said, or the signal that ended one."""
    own = [line for line in last if re.match(r"deepmask \w+: ", line)]
    killed = [found[1] for line in last if (found := re.search(r"Signal \d+ \((\w+)\) received by PID", line))]
    if own:
        return own[0].partition(": ")[2]
    if killed:  # the last is what torchrun calls the root cause
        return f"it was ended by {killed[-1]}, which the system sends when memory runs out; use fewer ranks or workers"
    return next((line for line in last if "Error" in line and "torch" not in line), last[-1] if last else "")


@contextlib.contextmanager
def process_group() -> Iterator[tuple[int, int]]:
    """(rank, ranks) of this process, as torchrun set them; (0, 1) outside torchrun."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    if ranks == 1:
        yield 0, 1
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield dist.get_rank(), ranks
    finally:
        dist.destroy_process_group()


def wrap(model: nn.Module) -> nn.Module:
    """The model with averaged gradients over the ranks; the model itself if there is one rank.

    Parameters that a batch does not reach (the idle head) keep no gradient, so no optimiser moves them.
    """
    if not dist.is_initialized():
        return model
    return DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=False)


def progress(iterable: Iterable, rank: int, **options: Any) -> tqdm:
    """tqdm on the first rank only; TQDM_DISABLE and TQDM_MININTERVAL of the environment are obeyed."""
    return tqdm(iterable, **options, **({"disable": True} if rank else {}))


def mean(values: Tensor) -> Tensor:
    """The mean over the ranks, elementwise; every rank calls it and gets the same."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def first_then_others(make: Callable[[], T]) -> T:
    """What `make` returns, called by the first rank before the others: it writes the file that they only open."""
    first = not dist.is_initialized() or dist.get_rank() == 0
    made = make() if first else None
    barrier()
    return made if first else make()
