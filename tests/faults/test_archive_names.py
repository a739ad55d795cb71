"""Archives whose members are hostile: an ArchiveError that names the archive, or what they declare, and only inside."""

import io
import os
import random
import stat
import tarfile
import zipfile

import pytest
from fuzz_binary import tar_file

from deepmask.data import archives
from deepmask.data.archives import ArchiveError

LIMIT = 200_000  # bytes that the content may have
CASES = 300, 3_000  # in short and in full
NAMES = [
    "a",
    "A",
    "a/b",
    "a//b",
    "./a",
    "a/.",
    ".",
    "a/",
    "a/b/",
    "é",
    "\u202ea",
    "a b",
    "a\nb",
    "-rf",
    "~",
    "$HOME",
    "x" * 255,
]
HOSTILE = [
    *("", "/", "/etc/x", "..", "../x", "a/../../x", "a/..", "..\\x", "C:\\x", "a\0b", "\0", "x" * 256, "é" * 128),
    *(
        "x" * 300,
        "a/" * 5000 + "x",
        "d/" * 60 + "x",
        "/".join(["x" * 250] * 5),
        "../" * 400 + "tmp/x",
        "//a",
        "a/" * 900,
    ),
]
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
KINDS += [tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE, b"Z"]


def tried(path, folder) -> bool:
    """Whether an archive is extracted; checks that what is written is inside, and nothing is if it is not."""
    target, scratch = folder / "target", folder / "scratch"
    before = {*folder.rglob("*")}
    try:
        counts = archives.extract(path, target, scratch, LIMIT)
    except ArchiveError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        assert {*folder.rglob("*")} == before
        return False
    made = [found for found in target.rglob("*") if not found.is_dir()]
    assert {*folder.rglob("*")} - {target, *target.rglob("*")} == before
    assert all(found.is_file() and not found.is_symlink() for found in made)
    assert sum(counts.values()) == len(made) and sum(found.stat().st_size for found in made) <= LIMIT
    archives.shutil.rmtree(target)
    return True


def random_members(rng):
    """Names and contents, hostile or not."""
    pool = NAMES if rng.random() < 0.5 else NAMES + HOSTILE
    for _ in range(rng.randint(0, 4)):
        yield rng.choice(pool), bytes(rng.choice((0, 1, 600, 3000)))


def random_zip(rng, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in random_members(rng):
            info = zipfile.ZipInfo(name)
            info.filename = name  # also with a NUL
            info.compress_type = rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            )
            info.create_system = 3
            kind = rng.choice((0, 0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK))
            info.external_attr = (kind | rng.choice((0o644, 0o7777, 0))) << 16
            archive.writestr(info, content)
    data = bytearray(path.read_bytes())
    for start in [i for i in range(len(data) - 46) if data[i : i + 4] == b"PK\1\2"]:
        if rng.random() < 0.2:  # in the directory: flags, method, sizes and place
            offset, width = rng.choice(((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)))
            value = rng.choice((0, 1, 2, 99, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)))
            data[start + offset : start + offset + width] = value.to_bytes(width, "little")
    path.write_bytes(data)


def random_tar(rng, path):
    form = rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in random_members(rng):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (
                rng.choice(KINDS if rng.random() < 0.3 else KINDS[:2]),
                rng.choice(NAMES + HOSTILE),
            )
            info.size, info.mode = len(content), rng.choice((0o644, 0o7777, 0))
            if form == tarfile.PAX_FORMAT and rng.random() < 0.2:
                key = rng.choice(
                    ("size", "path", "mtime", "GNU.sparse.major", "GNU.sparse.size", "GNU.sparse.map", "linkpath")
                )
                info.pax_headers = {key: rng.choice(("-1", "1", "9" * 30, "x", "../x", "1e999", "nan", "0,5,1"))}
            archive.addfile(info, io.BytesIO(content))
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:  # the size in a header, with a checksum that is right
        start = 512 * rng.randrange(len(data) // 512)
        data[start + 124 : start + 136] = rng.choice(
            (b"\xff" * 12, b"\xff" * 11 + b"\0", b"77777777777\0", b"\x80" + b"\1" * 11)
        )
        data[start + 148 : start + 156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    path.write_bytes(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_whatever_the_members_are(kind, stress, tmp_path):
    rng, write = random.Random(1), {"zip": random_zip, "tar": random_tar}[kind]
    cases = stress.scale(*CASES)
    extracted = 0
    for _ in range(cases):
        write(rng, tmp_path / f"a.{kind}")
        extracted += tried(tmp_path / f"a.{kind}", tmp_path)
    assert 0.05 * cases < extracted < 0.95 * cases
    stress.count("cases", f"{kind} members", cases)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_inflates_beyond_what_it_declares(method, stress, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a", bytes(30_000_000))
    data = path.read_bytes()
    path.write_bytes(data.replace((30_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].file_size == 50
    assert not tried(path, tmp_path)
    stress.count("cases", "archive bombs", 1)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_nothing_but_names(kind, stress, tmp_path):
    path, names = tmp_path / f"a.{kind}", [f"{i}/" for i in range(LIMIT // 400)]
    if kind == "tar":
        path.write_bytes(tar_file(dict.fromkeys(names, b"")))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
    assert not tried(path, tmp_path)
    stress.count("cases", "archive bombs", 1)


def test_an_encrypted_member(tmp_path):
    """Flag and method in the directory and before the member say so."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", os.urandom(40))
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    assert not tried(path, tmp_path)
