"""Extraction of zip and tar files that trusts none of their names: all of an archive appears in its folder, or nothing.

Members are written below a scratch folder and moved when the last one is there.  Nothing but plain files and folders
is taken, and no more bytes than the caller expects.
"""

from __future__ import annotations

import errno
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

ENTRY = 512  # bytes that a member takes at least: in a tar file, and about what it takes of a disk's tables
LONGEST, DEEPEST, WIDEST = 1000, 50, 255  # bytes of a member's name, its parts, and bytes of a part


class ArchiveError(ValueError):
    """An archive is damaged or not harmless; the message names it, and the member."""


_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # encrypted, or of another compression
    ValueError,  # a name that is no text, a number that is none
    OverflowError,  # a size that no file can have
)


class _Member(NamedTuple):
    name: str
    folder: bool
    plain: bool  # a file or a folder, and no link, device or the like
    bytes: int  # as declared
    open: Callable[[], IO[bytes]]


def extract(archive: Path, target: Path, scratch: Path, limit: int) -> dict[str, int]:
    """Put the content of a .zip or .tar file into the folder `target`; the number of files by folder of the archive.

    `scratch` is a folder of the same file system that is made for this, emptied before and removed after; `limit`
    the bytes that the content may have, where a member counts as ENTRY at least.  Files that are there already are
    replaced.  Raises ArchiveError for an archive that is damaged, has more than `limit`, a link or device, a name
    twice, or one that is too long or would lead out of `target`.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        files = _write(archive, scratch, limit)
        target.mkdir(parents=True, exist_ok=True)
        for child in sorted(scratch.iterdir()):
            _move(child, target / child.name)
    except ArchiveError:
        raise
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a seek to where no file can be
            raise
        raise ArchiveError(f"{archive}: damaged, or no archive ({error}); remove it and fetch it again") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return files


def _write(archive: Path, folder: Path, limit: int) -> dict[str, int]:
    members = _zip if archive.suffix == ".zip" else _tar
    files: Counter[str] = Counter()
    written = 0
    with tqdm(desc=f"extract {archive.name}", unit="B", unit_scale=True, unit_divisor=1000) as bar:
        for number, member in enumerate(members(archive), 1):
            name = _harmless(archive, member)
            size = 0 if member.folder else member.bytes
            if max(written + size, number * ENTRY) > limit:
                raise ArchiveError(f"{archive}: has more than the {limit:,} bytes that are expected; fetch it again")
            path = folder / name
            if member.folder:
                _make(archive, member, path)
                continue
            written += size
            _make(archive, member, path.parent)
            try:
                with open(path, "xb") as out, member.open() as content:
                    shutil.copyfileobj(content, out, 1 << 20)
                    if out.tell() != member.bytes:
                        raise EOFError(f"{member.name!r} ends too early")
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
    parts = [os.fsencode(part) for part in name.split("/")]
    if len(os.fsencode(name)) > LONGEST or len(parts) > DEEPEST or max(map(len, parts)) > WIDEST:
        raise ArchiveError(f"{archive}: member {name[:40]!r}... has too long a name; nothing of it is extracted")
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
            folder = info.filename.endswith("/")  # as `is_dir` says, which fails for an empty name
            plain = kind in (0, stat.S_IFDIR if folder else stat.S_IFREG)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others inflate without a limit
                raise NotImplementedError(f"{info.filename!r} is compressed in a way that is not read")
            yield _Member(info.filename, folder, plain, info.file_size, lambda info=info: content.open(info))


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
