"""Processes that share a machine: at the same work they take turns, and none outlives the one that started it.

The system lets go of a lock when its process ends, however it ends, so a killed one leaves none behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of file systems without locks, where nobody waits
STARTED_BY = "DEEPMASK_STARTED_BY"  # environment of torchrun: the number of the process that waits for it
_PR_SET_PDEATHSIG = 1  # of prctl(2)


@contextlib.contextmanager
def turn(path: str | Path, work: str | None = None) -> Iterator[None]:
    """Hold `path` while the block runs: a folder, or a file that is made if it is not there, with its folder.

    `work`: what a process does there, for the message of one that has to wait; None: it says nothing.  Raises OSError
    if the path cannot be opened.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDONLY) if path.is_dir() else os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _taken(handle, wait=False):
                if work:
                    tqdm.write(f"{path}: another process {work}; waiting for it", file=sys.stderr)
                _taken(handle, wait=True)
            if _is_at(handle, path):
                yield
                return
        finally:
            os.close(handle)


def end_with(parent: int) -> None:
    """Have the system end this process when `parent`, the one that started it, dies; at once if it has died already.

    So a killed job leaves no process behind.  Linux only; elsewhere they end at their next exchange with it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def end_with_launcher() -> None:
    """The same for a process that torchrun has started; `STARTED_BY` says who started torchrun."""
    launcher = os.getppid()
    end_with(launcher)
    if sys.platform == "linux" and STARTED_BY in os.environ and os.environ[STARTED_BY] != _parent_of(launcher):
        os._exit(1)


def _parent_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""


def _taken(handle: int, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether what was opened is still at its path; its holder may have moved or removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
