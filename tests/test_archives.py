"""Extraction: everything of a sound archive, nothing of any other, and never a file outside the folder."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from deepmask.data import archives
from deepmask.data.archives import ArchiveError, extract

CONTENT = {"train/1.jpg": b"one" * 1000, "train/2.jpg": b"", "lists/deep/a.txt": b"a"}
LIMIT = 10_000


def make_zip(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def make_tar(path, content):
    with tarfile.open(path, "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


MAKERS = {"zip": make_zip, "tar": make_tar}
each_kind = pytest.mark.parametrize("kind", MAKERS)


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuses(archive, tmp_path, match):
    """Nothing is written by an archive that is refused, within its folder or without."""
    before = {*tmp_path.rglob("*")}
    with pytest.raises(ArchiveError, match=match) as error:
        extract(archive, tmp_path / "target", tmp_path / "scratch", LIMIT)
    assert "\n" not in str(error.value) and archive.name in str(error.value)
    assert {*tmp_path.rglob("*")} - {tmp_path / "target"} == before


@each_kind
def test_content_is_whole_and_counted(tmp_path, kind):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", CONTENT)
    counts = extract(archive, tmp_path / "target", tmp_path / "scratch", LIMIT)
    assert files_below(tmp_path / "target") == CONTENT
    assert counts == {"train": 2, "lists/deep": 1}
    assert not (tmp_path / "scratch").exists() and archive.exists()


@each_kind
def test_a_second_archive_joins_the_first(tmp_path, kind):
    """VOC's two archives share their folders."""
    more = {"train/3.jpg": b"three", "lists/deep/a.txt": b"newer"}
    for name, content in (("a", CONTENT), ("b", more)):
        archive = MAKERS[kind](tmp_path / f"{name}.{kind}", content)
        extract(archive, tmp_path / "target", tmp_path / "scratch", LIMIT)
    assert files_below(tmp_path / "target") == CONTENT | more


@each_kind
@pytest.mark.parametrize("name", ["../x", "a/../../x", "{root}/x", "..\\x", "a/.."])
def test_names_that_lead_out_are_refused(tmp_path, kind, name):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", {"good": b"1", name.format(root=tmp_path): b"2"})
    refuses(archive, tmp_path, "lead out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    refuses(tmp_path / "a.tar", tmp_path, "'link' is neither file nor folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind):
    member = zipfile.ZipInfo("link")
    member.create_system, member.external_attr = 3, (kind | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    refuses(tmp_path / "a.zip", tmp_path, "'link' is neither file nor folder")


@each_kind
@pytest.mark.parametrize("left", [0, 1, 40, 600, 0.9])
def test_truncated_archives_are_refused(tmp_path, kind, left):
    content = {"train/1.jpg": os.urandom(3000)} if kind == "zip" else {"train/1.jpg": b"1" * 12000}
    archive = MAKERS[kind](tmp_path / f"a.{kind}", content)
    size = archive.stat().st_size if kind == "zip" else 512 + 12000
    os.truncate(archive, left if isinstance(left, int) else int(left * size))
    with pytest.raises(ArchiveError, match=f"a.{kind}"):
        extract(archive, tmp_path / "target", tmp_path / "scratch", 20_000)
    assert not (tmp_path / "target").exists() and not (tmp_path / "scratch").exists()


def test_a_flipped_bit_is_found(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"1.jpg": os.urandom(3000)})
    data = bytearray(archive.read_bytes())
    data[1500] ^= 1
    archive.write_bytes(data)
    refuses(archive, tmp_path, "damaged")


@each_kind
def test_more_than_expected_is_refused(tmp_path, kind):
    bomb = MAKERS[kind](tmp_path / f"a.{kind}", {str(i): b"0" * 2001 for i in range(5)})
    refuses(bomb, tmp_path, "more than the 10,000 bytes")
    assert extract(bomb, tmp_path / "target", tmp_path / "scratch", 10_005) == {".": 5}


@each_kind
@pytest.mark.parametrize("names", [["a", "./a"], ["a", "a/b"], ["a/b", "a"]])
def test_names_that_collide_are_refused(tmp_path, kind, names):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", {name: b"1" for name in names})
    refuses(archive, tmp_path, "twice|through a file")


@each_kind
def test_an_interrupted_extraction_leaves_nothing_and_is_repeated(tmp_path, kind, monkeypatch):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", CONTENT)
    copy, calls = archives.shutil.copyfileobj, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        copy(*arguments)

    monkeypatch.setattr(archives.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, tmp_path / "target", tmp_path / "scratch", LIMIT)
    assert not (tmp_path / "target").exists()
    (tmp_path / "scratch/train").mkdir(parents=True)
    (tmp_path / "scratch/train/1.jpg").write_bytes(b"half")  # what a process leaves that was killed
    extract(archive, tmp_path / "target", tmp_path / "scratch", LIMIT)
    assert files_below(tmp_path / "target") == CONTENT


@each_kind
@pytest.mark.parametrize("name", ["x" * 256, "a/" * 60 + "x", "/".join(["x" * 200] * 6)])
def test_names_that_are_too_long_are_refused(tmp_path, kind, name):
    refuses(MAKERS[kind](tmp_path / f"a.{kind}", {"good": b"1", name: b"2"}), tmp_path, "too long a name")


@each_kind
def test_many_empty_members_are_more_than_expected(tmp_path, kind):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", {str(i): b"" for i in range(LIMIT // 512 + 1)})
    refuses(archive, tmp_path, "more than the 10,000 bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_inflate_without_a_limit_are_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a", b"1")
    refuses(tmp_path / "a.zip", tmp_path, "'a' is compressed in a way that is not read")


@pytest.mark.parametrize("change", ["no text", "no name", "no place"])
def test_a_damaged_directory_of_a_zip_is_refused(tmp_path, change):
    data = bytearray(make_zip(tmp_path / "a.zip", {"name": b"1"}).read_bytes())
    start = data.index(b"PK\1\2")
    if change == "no text":
        data[start + 9] |= 8  # says that names are UTF-8
        data[start + 46] = 0xFF
    elif change == "no name":  # what was the name is a comment now
        data[start + 28], data[start + 32] = 0, 4
    else:
        end = data.index(b"PK\5\6")
        data[end + 16 : end + 20] = (start + 100).to_bytes(4, "little")  # members begin before the file does
    (tmp_path / "a.zip").write_bytes(data)
    refuses(tmp_path / "a.zip", tmp_path, "a.zip")


def test_a_negative_size_in_a_tar_is_refused(tmp_path):
    """Python's own reader goes back by it: here to the first member."""
    data = bytearray(make_tar(tmp_path / "a.tar", {"a": b"1", "b": b"2"}).read_bytes())
    data[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xfc\0"  # -1024: the first member again
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    (tmp_path / "a.tar").write_bytes(data)
    refuses(tmp_path / "a.tar", tmp_path, "twice|damaged")


def test_a_line_break_in_a_name_breaks_no_message(tmp_path):
    data = bytearray(make_zip(tmp_path / "a.zip", {"a\nb": b"1" * 700}).read_bytes())
    size = data.index(b"PK\1\2") + 24
    data[size : size + 2] = (701).to_bytes(2, "little")
    (tmp_path / "a.zip").write_bytes(data)
    refuses(tmp_path / "a.zip", tmp_path, r"'a\\nb' ends too early")
