"""What a machine refuses, in one sentence each: memory, space, files, and processes that are killed."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space of this user's, or write elsewhere",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or write elsewhere",
    errno.EACCES: "change its permissions, or use another place",
    errno.EPERM: "change its permissions, or use another place",
    errno.EROFS: "write elsewhere",
    errno.ENOENT: "restore it, or correct the path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
MEMORY = "out of memory; free some, use fewer processes (ranks, workers), or smaller batches or images"
NO_MEMORY = re.compile(r"can't allocate memory|out of memory|Insufficient memory|Cannot allocate memory", re.IGNORECASE)
KILLED = re.compile(
    r"DataLoader worker.*(killed by signal|exited unexpectedly)|process pool was terminated abruptly", re.DOTALL
)


class MachineError(RuntimeError):
    """The machine refused what a job needs; the message says what and what to do."""


def sentence(error: BaseException) -> str | None:
    """What to tell a user, or None if the machine is not to blame."""
    if type(error).__module__.startswith("deepmask"):
        return None
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):  # the latter of PyTorch and OpenCV
        return MEMORY
    if isinstance(error, OSError) and error.errno is not None:
        place = "" if error.filename is None else f"{error.filename}: "
        remedy = REMEDIES.get(error.errno)
        return f"{place}{error.strerror}" + (f"; {remedy}" if remedy else "")
    if isinstance(error, RuntimeError) and KILLED.search(str(error)):
        return (
            "a process that prepares data was killed, which the system does when memory runs out; use fewer workers, "
            "and repeat the command: it goes on where it was"
        )
    return None


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what the machine refuses inside the block into a MachineError."""
    try:
        yield
    except Exception as error:
        said = sentence(error)
        if said is None:
            raise
        raise MachineError(said) from error
