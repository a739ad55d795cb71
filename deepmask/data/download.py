"""The downloads of a study: what is missing is fetched, checked and extracted, once for all studies of a machine.

Everything is below one folder (`paths.downloads`), with a record of each file in its `.complete/`.  Processes that
want the same folder take turns, so the later ones find everything there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deepmask import files, paths, processes
from deepmask.data import archives, transfer
from deepmask.data.sources import Source
from deepmask.data.transfer import DownloadError

COLUMNS = ("name", "bytes", "sha256", "source")  # of the table; the same whatever place a file came from


def download(
    sources: Sequence[Source],
    folder: Path | None = None,
    mirror: str | None = None,
    *,
    keep: bool = False,
    timeout: float = 60.0,
    attempts: int = 6,
    pause: float = 1.0,
) -> pd.DataFrame:
    """Provide the files of `sources`, or the content of those that are archives; the table of them (COLUMNS).

    `folder` and `mirror` are by default `paths.downloads()` and `paths.mirror()`.  An archive is removed when its
    content is there, unless it is to `keep`.  The others are for `transfer.fetch`.  What is complete is not touched.
    Raises DownloadError, before anything is fetched if there is not enough space for all of it, and ArchiveError.
    """
    folder = folder or paths.downloads()
    mirror = mirror or paths.mirror()
    if missing(sources, folder):
        with _turn(folder):
            shutil.rmtree(folder / ".extracting", ignore_errors=True)
            left = missing(sources, folder)
            _check_space(left, folder, mirror, keep)
            for source in left:
                fetched = transfer.fetch(source, folder, mirror, timeout=timeout, attempts=attempts, pause=pause)
                _complete(source, folder, fetched, keep)
    rows = [{**_record(source, folder), "name": source.name, "source": source.url} for source in sources]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def missing(sources: Sequence[Source], folder: Path) -> list[Source]:
    """Those of `sources` that are not complete below `folder`."""
    return [source for source in sources if not _is_complete(source, folder)]


def space(sources: Sequence[Source], folder: Path, mirror: str | None = None, keep: bool = False) -> int:
    """Bytes that are taken below `folder` at most, while these missing files are fetched and extracted one by one."""
    taken = most = 0
    for source in sources:
        local = isinstance(transfer.address(source, mirror), Path) and source.folder is not None
        there = [folder / source.name, folder / f"{source.name}.part"]
        present = max((path.stat().st_size for path in there if path.exists()), default=0)
        taken += 0 if local else max(0, source.bytes - present)
        taken += source.unpacked
        most = max(most, taken)
        if source.folder is not None and not keep and not local:
            taken -= source.bytes
    return most


def free(folder: Path) -> int:
    """Free bytes where `folder` is or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


def describe(sources: Sequence[Source], folder: Path, mirror: str | None = None) -> str:
    """What of `sources` is there, what would be fetched, and the space that it needs, in a line each."""
    left = missing(sources, folder)
    lines = []
    for source in sources:
        state = f"{source.bytes / 1e6:9,.1f} MB" if source in left else "complete".rjust(12)
        lines.append(f"{state}  {source.name}: {source.holds} ({source.terms})")
    needs = f"{space(left, folder, mirror) / 1e9:.1f} GB needed in {folder}, {free(folder) / 1e9:.1f} GB free"
    return "\n".join([*lines, needs])


def _check_space(left: Sequence[Source], folder: Path, mirror: str | None, keep: bool) -> None:
    needed, there = space(left, folder, mirror, keep), free(folder)
    if needed > there:
        what = f"{needed / 1e9:.1f} GB are needed and {there / 1e9:.1f} GB are free"
        raise DownloadError(f"{folder}: {what}; free some, or name another place with DEEPMASK_DOWNLOADS")


def _complete(source: Source, folder: Path, fetched: transfer.Fetched, keep: bool) -> None:
    """Extract an archive, record it, and remove it."""
    record: dict[str, Any] = {"bytes": fetched.bytes, "sha256": fetched.sha256}
    if source.folder is None:
        files.write_json(_record_file(source, folder), record | {"modified": fetched.path.stat().st_mtime_ns})
        return
    scratch = folder / ".extracting" / source.name
    counts = archives.extract(fetched.path, folder / source.folder, scratch, source.unpacked)
    files.write_json(_record_file(source, folder), record | {"files": counts})
    if not keep and fetched.path.parent == folder:
        fetched.path.unlink()


def _is_complete(source: Source, folder: Path) -> bool:
    """Whether the record is of this file, and what it says is still there."""
    record = _record(source, folder)
    try:
        if not source.matches(record["sha256"]):
            return False
        if source.folder is None:
            found = (folder / source.name).stat()
            return (found.st_size, found.st_mtime_ns) == (record["bytes"], record["modified"])
        counts = record["files"].items()
        return all(len(os.listdir(folder / source.folder / name)) >= count for name, count in counts)
    except (KeyError, FileNotFoundError, NotADirectoryError):
        return False


def _record_file(source: Source, folder: Path) -> Path:
    return folder / ".complete" / f"{source.name}.json"


def _record(source: Source, folder: Path) -> dict[str, Any]:
    try:
        return json.loads(_record_file(source, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        what = f"cannot be written ({error.strerror}); name another place with DEEPMASK_DOWNLOADS"
        raise DownloadError(f"{folder}: {what}") from None
    with processes.turn(folder / ".lock", "downloads"):
        yield
