"""Extraction of zip and tar files that trusts none of their names: all of an archive appears in its folder, or nothing.

Members are written below a scratch folder and moved when the last one is there.  Nothing but plain files and folders
is taken, and no more bytes than the caller expects.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm


class ArchiveError(ValueError):
    """An archive is damaged or not harmless; the message names it, and the member."""


class _Member(NamedTuple):
    name: str
    folder: bool
    plain: bool  # a file or a folder, and no link, device or the like
    bytes: int  # as declared
    open: Callable[[], IO[bytes]]


def extract(archive: Path, target: Path, scratch: Path, limit: int) -> dict[str, int]:
    """Put the content of a .zip or .tar file into the folder `target`; the number of files by folder of the archive.

    `scratch` is a folder of the same file system that is made for this, emptied before and removed after; `limit`
    the bytes that the content may have.  Files that are there already are replaced.  Raises ArchiveError for an
    archive that is damaged, has more than `limit`, a link or device, a name twice, or one that would lead out of
    `target`.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        files = _write(archive, scratch, limit)
        target.mkdir(parents=True, exist_ok=True)
        for child in sorted(scratch.iterdir()):
            _move(child, target / child.name)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted
        raise ArchiveError(f"{archive}: damaged, or no archive ({error}); remove it and fetch it again") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return files


def _write(archive: Path, folder: Path, limit: int) -> dict[str, int]:
    members = _zip if archive.suffix == ".zip" else _tar
    files: Counter[str] = Counter()
    written = 0
    with tqdm(desc=f"extract {archive.name}", unit="B", unit_scale=True, unit_divisor=1000) as bar:
        for member in members(archive):
            name = _harmless(archive, member)
            path = folder / name
            if member.folder:
                _make(archive, member, path)
                continue
            written += member.bytes
            if written > limit:
                raise ArchiveError(f"{archive}: has more than the {limit:,} bytes that are expected; fetch it again")
            _make(archive, member, path.parent)
            try:
                with open(path, "xb") as out, member.open() as content:
                    shutil.copyfileobj(content, out, 1 << 20)
                    if out.tell() != member.bytes:
                        raise EOFError(f"{member.name} ends too early")
            except FileExistsError:
                raise ArchiveError(f"{archive}: has {member.name!r} twice; fetch it again") from None
            files[name.parent.as_posix()] += 1
            bar.update(member.bytes)
    return dict(files)


def _harmless(archive: Path, member: _Member) -> PurePosixPath:
    """The name of a member below the folder it is extracted into."""
    name = member.name
    if not name or name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise ArchiveError(f"{archive}: member {name!r} would lead out of its folder; nothing of it is extracted")
    if not member.plain:
        raise ArchiveError(f"{archive}: member {name!r} is neither file nor folder; nothing of it is extracted")
    return PurePosixPath(name)


def _make(archive: Path, member: _Member, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ArchiveError(f"{archive}: {member.name!r} goes through a file; fetch it again") from None


def _zip(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on Windows
            plain = kind in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG)
            yield _Member(info.filename, info.is_dir(), plain, info.file_size, lambda info=info: content.open(info))


def _tar(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:") as content:  # not compressed: its members are no larger than the file
        for info in content:
            plain = info.isdir() or (info.isreg() and not info.issparse())
            yield _Member(info.name, info.isdir(), plain, info.size, lambda info=info: content.extractfile(info))


def _move(source: Path, target: Path) -> None:
    """Move a file or a folder; one that is there already is merged, file by file."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name)
    else:
        os.replace(source, target)
