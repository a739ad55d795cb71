"""Downloads from a server that breaks off, lies, refuses and stalls: whole files with the right bytes, or a sentence.

The server is a thread of this process; nothing leaves the machine.
"""

import hashlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_coco
from PIL import Image
from torch import nn

from deepmask import config, imagenet, paths
from deepmask.__main__ import main
from deepmask.config import ConfigError, DataConfig, PascalConfig, PretrainConfig
from deepmask.data import archives, download, pascal, sources, splits, transfer
from deepmask.data.coco import DataError
from deepmask.data.sources import Source
from deepmask.data.transfer import DownloadError, fetch
from deepmask.detection_config import DetectionConfig
from deepmask.paths import Study
from deepmask.weights import WeightsError

ROOT = Path(__file__).resolve().parent.parent
DATA = np.random.default_rng(0).bytes(1_000_003)
OTHER = bytes(reversed(DATA))
QUICK = {"timeout": 5.0, "attempts": 3, "pause": 0.001}


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `plan` is how the next requests are answered, one word each, then "whole" for ever.

    `asked` has the path and the Range of every request so far.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.plan, self.always, self.ranges, self.asked = files, [], "whole", True, []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        answer = server.plan.pop(0) if server.plan else server.always
        data = server.files.get(self.path.rpartition("/")[2])
        if data is None or answer.isdecimal():
            self.send_response(int(answer) if answer.isdecimal() else 404)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        partial = bool(start) and server.ranges
        if partial and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        rest = data[start:] if partial else data
        self.send_response(206 if partial else 200)
        if partial:
            first = start + 1 if answer == "other range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if answer not in ("no length", "no length, break", "endless"):
            self.send_header("Content-Length", str(len(rest) + (7 if answer == "too long" else 0)))
        self.end_headers()
        breaks = answer in ("break", "stall", "no length, break")
        self.wfile.write(rest[: max(1, len(rest) // 2)] if breaks else rest)
        if answer == "stall":
            server.released.wait(20)
        if answer == "endless":
            self.wfile.write(bytes(len(rest)))

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server({"file.bin": DATA}) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("DEEPMASK_DOWNLOADS", "DEEPMASK_MIRROR"):
        monkeypatch.delenv(name, raising=False)


def source(url, data=DATA, **changes):
    values = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "holds": "bytes", "terms": "none"}
    return Source(url, **values | changes)


def at(server, **changes):
    return source(f"{server.url}/some/file.bin", **changes)


def fails(wanted, folder, match, mirror=None, **options):
    """The download ends in one sentence, and nothing has the name of the file."""
    with pytest.raises(DownloadError, match=match) as error:
        fetch(wanted, folder, mirror, **QUICK | options)
    assert "\n" not in str(error.value)
    assert not (folder / wanted.name).exists()
    return str(error.value)


# --- one file --------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(server, tmp_path):
    fetched = fetch(at(server), tmp_path, **QUICK)
    assert fetched == (tmp_path / "file.bin", len(DATA), hashlib.sha256(DATA).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"] and fetched.path.read_bytes() == DATA
    assert fetch(at(server), tmp_path, **QUICK) == fetched and len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("plan", [["break"], ["503", "break", "429"], ["no length, break"], ["no length"]])
def test_broken_connections_are_taken_up_again(server, tmp_path, plan, ranges):
    server.plan, server.ranges = [*plan], ranges
    assert fetch(at(server), tmp_path, **QUICK).path.read_bytes() == DATA
    starts = [int(asked[6:-1]) for _, asked in server.asked if asked]
    assert bool(starts) == any("break" in answer for answer in plan), "what is there is not asked for again"
    assert all(start > len(DATA) // 3 for start in starts)


def test_progress_resets_the_count_of_failures(server, tmp_path):
    """Half of the rest each time: many more attempts than those that are allowed without progress."""
    server.plan = ["break"] * 4
    assert fetch(at(server), tmp_path, **QUICK | {"attempts": 2}).path.read_bytes() == DATA
    assert len(server.asked) == 5


def test_a_part_of_before_is_continued(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(DATA[:600_000])
    assert fetch(at(server), tmp_path, **QUICK).path.read_bytes() == DATA
    assert server.asked == [("/some/file.bin", "bytes=600000-")]


@pytest.mark.parametrize("exact", [True, False])
def test_a_part_that_is_whole_is_only_checked(server, tmp_path, exact):
    (tmp_path / "file.bin.part").write_bytes(DATA)
    assert fetch(at(server, exact=exact), tmp_path, **QUICK).path.read_bytes() == DATA
    assert len(server.asked) == (0 if exact else 1), "without a known size the server has to say that this is all"


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(DATA + b"more")
    assert fetch(at(server), tmp_path, **QUICK).path.read_bytes() == DATA


def test_another_range_than_asked_for_is_not_appended(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(DATA[:600_000])
    server.plan = ["other range"]
    assert fetch(at(server), tmp_path, **QUICK).path.read_bytes() == DATA
    assert [asked for _, asked in server.asked] == ["bytes=600000-", None]


def test_a_file_that_changed_in_between_is_noticed(server, tmp_path):
    """A server that continues another file than it began."""
    (tmp_path / "file.bin.part").write_bytes(DATA[:600_000])
    server.files["file.bin"] = OTHER
    fails(at(server), tmp_path, "SHA-256.*removed")
    assert not [*tmp_path.iterdir()], "else the same mixture would be checked for ever"
    server.files["file.bin"] = DATA
    assert fetch(at(server), tmp_path, **QUICK).path.read_bytes() == DATA


@pytest.mark.parametrize("digits", [64, 8])
def test_other_bytes_are_refused(server, tmp_path, digits):
    server.files["file.bin"] = OTHER
    wanted = at(server, sha256=hashlib.sha256(DATA).hexdigest()[:digits], exact=digits == 64)
    assert server.url in fails(wanted, tmp_path, "SHA-256")
    server.files["file.bin"] = DATA
    assert fetch(wanted, tmp_path, **QUICK).sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_size_that_is_not_stated_exactly_is_not_checked(server, tmp_path):
    assert fetch(at(server, bytes=900_000, exact=False), tmp_path, **QUICK).bytes == len(DATA)
    assert fails(source(f"{server.url}/page", bytes=900_000, exact=False), tmp_path, "404")
    server.files["page"] = DATA * 2  # more than twice the estimate
    fails(source(f"{server.url}/page", bytes=900_000, exact=False), tmp_path, "about 900,000")


def test_a_page_instead_of_the_file_is_not_even_written(server, tmp_path):
    server.files["file.bin"] = b"<html>please log in</html>"
    fails(at(server), tmp_path, "has 26 bytes and not 1,000,003")
    assert not [*tmp_path.iterdir()] and len(server.asked) == 1


def test_more_than_was_announced_is_refused(server, tmp_path):
    server.always = "endless"
    fails(at(server), tmp_path, "sends more than 1,000,003 bytes")


def test_a_stated_length_that_does_not_come(server, tmp_path):
    """Without an exact size, the length that the server states is what makes a file whole."""
    server.always = "too long"
    fails(at(server, exact=False), tmp_path, "connection breaks, 3 times in a row")
    assert len(server.asked) > 1


@pytest.mark.parametrize(("answer", "match"), [("404", "answers 404"), ("403", "answers 403"), ("407", "password")])
def test_refusals_are_final(server, tmp_path, answer, match):
    server.always = answer
    message = fails(at(server), tmp_path, match)
    assert len(server.asked) == 1 and "DEEPMASK_MIRROR" in message and "DEEPMASK_DOWNLOADS" in message


@pytest.mark.parametrize("answer", ["503", "break"])
def test_a_server_that_never_recovers_is_given_up(server, tmp_path, answer):
    server.always, server.ranges = answer, False
    fails(at(server), tmp_path, "3 times in a row")
    assert 3 <= len(server.asked) <= 4


def test_a_stalled_server_is_left(server, tmp_path):
    server.plan = ["stall"]
    assert fetch(at(server), tmp_path, **QUICK | {"timeout": 0.3}).path.read_bytes() == DATA
    server.always, server.ranges = "stall", False
    (tmp_path / "file.bin").unlink()
    fails(at(server), tmp_path, "does not answer in time, 2 times", timeout=0.2, attempts=2)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_server_that_is_not_there(tmp_path):
    message = fails(source(f"http://127.0.0.1:{free_port()}/file.bin"), tmp_path, "refuses the connection", pause=60.0)
    assert "HTTPS_PROXY" in message and "DEEPMASK_MIRROR" in message and "data.root" not in message
    wanted = source(f"http://127.0.0.1:{free_port()}/file.bin", root="data.root")
    assert "data.root" in fails(wanted, tmp_path, "refuses the connection", pause=60.0)


def test_a_host_without_address(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fails(source("http://somewhere.invalid/file.bin"), tmp_path, "host is not known here", pause=60.0)


def test_a_certificate_of_nobody_known(server, tmp_path):
    """The server speaks no TLS at all, which ends like a wrong certificate: at once, with the name of the setting."""
    fails(source(f"{server.url}/file.bin".replace("http:", "https:")), tmp_path, "REQUESTS_CA_BUNDLE", pause=60.0)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies_that_refuse_or_are_not_there(server, tmp_path, monkeypatch, scheme):
    wanted = source(f"{scheme}://somewhere.invalid/file.bin")
    server.always = "407"
    monkeypatch.setenv(f"{scheme}_proxy", server.url)
    fails(wanted, tmp_path, "proxy", pause=60.0)
    monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{free_port()}")
    fails(wanted, tmp_path, "proxy of .* refuses or is not there", pause=60.0)


def test_a_proxy_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    assert fetch(source("http://somewhere.invalid/a/file.bin"), tmp_path, **QUICK).path.read_bytes() == DATA
    assert server.asked == [("http://somewhere.invalid/a/file.bin", None)]


def test_mirrors_are_checked_in_the_same_way(server, tmp_path):
    wanted, folder = source("http://somewhere.invalid/file.bin"), tmp_path / "downloads"
    folder.mkdir()
    assert fetch(wanted, folder, f"{server.url}/mirror/", **QUICK).bytes == len(DATA)
    assert server.asked == [("/mirror/file.bin", None)]
    (tmp_path / "mirror").mkdir()
    for mirror in (str(tmp_path / "mirror"), (tmp_path / "mirror").as_uri()):
        (folder / "file.bin").unlink()
        (tmp_path / "mirror/file.bin").write_bytes(DATA)
        assert fetch(wanted, folder, mirror, **QUICK).path == folder / "file.bin"
        (folder / "file.bin").unlink()
        (tmp_path / "mirror/file.bin").write_bytes(OTHER)
        fails(wanted, folder, "SHA-256", mirror)
        (tmp_path / "mirror/file.bin").unlink()
        fails(wanted, folder, "no such file; DEEPMASK_MIRROR", mirror)
        (folder / "file.bin").touch()
    (folder / "file.bin").unlink()
    fails(wanted, folder, "expected http", "ftp://somewhere/")


def test_passwords_of_an_address_are_not_shown(server, tmp_path):
    server.always = "403"
    mirror = server.url.replace("//", "//someone:secret@")
    assert "secret" not in fails(source("http://somewhere.invalid/file.bin"), tmp_path, "403", mirror)


def test_a_file_of_another_origin_is_taken_if_it_is_the_right_one(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(DATA)
    assert fetch(at(server), tmp_path, **QUICK).path.read_bytes() == DATA
    (tmp_path / "file.bin").write_bytes(OTHER)
    with pytest.raises(DownloadError, match="file.bin: has SHA-256 .*remove it"):
        fetch(at(server), tmp_path, **QUICK)
    assert (tmp_path / "file.bin").read_bytes() == OTHER and not server.asked, "a user's file is not removed"


# --- all that a study needs ------------------------------------------------------------------------------------------


def zipped(path, folder):
    """The bytes of a zip file of a folder's content."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path.read_bytes()


def tarred(path, folder):
    with tarfile.open(path, "w") as archive:
        archive.add(folder, folder.name)
    return path.read_bytes()


def write_voc(folder, split, names):
    """VOCdevkit/VOC2007 with one image of 64 x 48 and one object for each name."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / "VOCdevkit/VOC2007" / part).mkdir(parents=True)
    root = folder / "VOCdevkit/VOC2007"
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    for name in names:
        xml = f"<annotation>{size}<object><name>dog</name>{box}</object></annotation>"
        (root / f"Annotations/{name}.xml").write_text(xml)
        Image.new("RGB", (64, 48), "gray").save(root / f"JPEGImages/{name}.jpg")
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
    return root.parent


def rearranged(tiny, folder, parts):
    for there, here in parts.items():
        (folder / here).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (tiny / there).is_dir() else shutil.copyfile)(tiny / there, folder / here)
    return folder


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Every file of the table, but small: bytes by name."""
    root = tmp_path_factory.mktemp("content")
    tiny = write_tiny_coco(root / "tiny")
    files = {f"annotations/instances_{s}.json": f"annotations/instances_{s}2014.json" for s in ("train", "val")}
    annotations = rearranged(tiny, root / "a", files)
    train, val = (rearranged(tiny, root / s, {"images": f"{s}2014"}) for s in ("train", "val"))
    trainval = write_voc(root / "trainval", "trainval", ["000005", "000007"])
    test = write_voc(root / "test", "test", ["000001", "000002", "000003"])
    for name in ("vgg11", "vgg16"):
        torch.manual_seed(len(name))
        torch.save(small_vgg().state_dict(), root / name)
    return {
        "annotations_trainval2014.zip": zipped(root / "a.zip", annotations),
        "train2014.zip": zipped(root / "t.zip", train),
        "val2014.zip": zipped(root / "v.zip", val),
        "VOCtrainval_06-Nov-2007.tar": tarred(root / "t.tar", trainval),
        "VOCtest_06-Nov-2007.tar": tarred(root / "v.tar", test),
        "vgg11-8a719046.pth": (root / "vgg11").read_bytes(),
        "vgg16-397923af.pth": (root / "vgg16").read_bytes(),
    }


def small_vgg(init_weights=True):
    model = nn.Module()
    model.features = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3))
    return model


@pytest.fixture
def table(content, server, monkeypatch, tmp_path):
    """The sources with the sizes and checksums of `content`, served as a mirror; downloads go to `tmp_path`."""
    server.files = content
    small = {}
    for group, files in sources.SOURCES.items():
        small[group] = tuple(
            Source(
                f.url,
                len(content[f.name]),
                hashlib.sha256(content[f.name]).hexdigest()[: len(f.sha256)],
                f.holds,
                f.terms,
                f.folder,
                10 * len(content[f.name]) if f.folder else 0,
                f.exact,
                f.root,
            )
            for f in files
        )
    monkeypatch.setattr(sources, "SOURCES", small)
    monkeypatch.setenv("DEEPMASK_MIRROR", f"{server.url}/mirror")
    monkeypatch.setenv("DEEPMASK_DOWNLOADS", str(tmp_path / "downloads"))
    return small


COCO = config.load(ROOT / "params.yaml", "coco")


def needed(loaded=COCO):
    return sources.needed(loaded.data, loaded.pascal, loaded.pretrain, loaded.detection)


def test_the_paper_needs_everything_and_drawn_studies_nothing():
    assert set(needed()) == {source for files in sources.SOURCES.values() for source in files}
    for profile in ("mini", "smoke", "scenes"):
        assert needed(config.load(ROOT / "params.yaml", profile)) == ()


def test_a_users_folder_takes_the_place_of_a_download():
    own = needed_of(
        data=DataConfig(root="mine", download="coco2014"), pascal=PascalConfig(root="b", download="voc2007")
    )
    assert own == ()
    assert {s.name for s in needed_of(data=DataConfig(download="coco2014"))} == {
        "annotations_trainval2014.zip",
        "train2014.zip",
        "val2014.zip",
    }
    assert splits.folder(DataConfig(root="mine", download="coco2014"), Study(Path("."))) == Path("mine")


def needed_of(data=None, pascal=None, pretrain=None, detection=None):
    return sources.needed(
        data or DataConfig(), pascal or PascalConfig(), pretrain or PretrainConfig(), detection or DetectionConfig()
    )


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        ({"data": DataConfig(download="coco2017")}, "data.download.*'coco2017'.*coco2014"),
        ({"pascal": PascalConfig(download="coco2014")}, "pascal.download.*voc2007"),
        ({"pretrain": PretrainConfig(weights="vgg")}, "pretrain.weights.*imagenet"),
    ],
)
def test_unknown_names_are_refused(sections, match):
    with pytest.raises(ConfigError, match=match):
        needed_of(**sections)


def test_the_table_of_sources_is_complete():
    for files in sources.SOURCES.values():
        for s in files:
            assert re.fullmatch("[0-9a-f]{64}" if s.exact else "[0-9a-f]{8}", s.sha256) and s.holds and s.terms
            assert s.exact or f"-{s.sha256}." in s.name, "torch hub's rule"
            assert s.unpacked >= s.bytes if s.folder else not s.unpacked


def test_a_study_finds_what_was_downloaded(table, server, tmp_path):
    """Profile coco, whole: downloaded once, then read where params.yaml says it is."""
    made = download.download(needed(), **QUICK)
    assert sorted(server.asked) == sorted((f"/mirror/{s.name}", None) for s in needed())
    folder, study = tmp_path / "downloads", Study(tmp_path / "study")
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "coco2014",
        "VOCdevkit",
        "vgg11-8a719046.pth",
        "vgg16-397923af.pth",
    }, "archives are removed"
    assert splits.load(COCO.data, study, "train").image_ids.tolist() == [2, 3, 4, 5, 9]
    val = splits.load(COCO.data, study, "val")
    assert val.image(0).shape == (48, 64, 3)
    pascal.make(COCO.pascal, COCO.data, study)
    assert [len(pascal.load(COCO.pascal, study, split)) for split in pascal.SPLITS] == [2, 3]
    assert pascal.load(COCO.pascal, study, "test").image(0).shape == (48, 64, 3)
    assert not sources.is_drawn(COCO.data) and not sources.is_drawn(COCO.pascal)
    assert made.columns.tolist() == ["name", "bytes", "sha256", "source"] and made.source[0].startswith(
        "http://images."
    )

    again = download.download(needed(), **QUICK)
    assert len(server.asked) == len(needed()) and again.equals(made), "nothing is fetched twice"


def test_the_table_does_not_depend_on_the_place(table, server, content, tmp_path, monkeypatch):
    first = download.download(needed(), **QUICK)
    local = tmp_path / "local"
    local.mkdir()
    for name, data in content.items():
        (local / name).write_bytes(data)
    second = download.download(needed(), tmp_path / "other", str(local), **QUICK)
    assert first.to_csv() == second.to_csv()
    assert {path.name for path in local.iterdir()} == {*content}, "a user's archives stay"
    assert not [*(tmp_path / "other").glob("*.zip")], "and are used where they are"


def test_what_was_removed_is_fetched_again(table, server, tmp_path):
    download.download(needed(), **QUICK)
    folder = tmp_path / "downloads"
    (folder / "coco2014/train2014/000002.png").unlink()
    (folder / "vgg11-8a719046.pth").write_bytes(b"other")
    server.asked.clear()
    left = download.missing(needed(), folder)
    assert [source.name for source in left] == ["train2014.zip", "vgg11-8a719046.pth"]
    with pytest.raises(DownloadError, match="vgg11-8a719046.pth: has SHA-256"):
        download.download(needed(), **QUICK)
    (folder / "vgg11-8a719046.pth").unlink()
    download.download(needed(), **QUICK)
    assert [path for path, _ in server.asked] == ["/mirror/train2014.zip", "/mirror/vgg11-8a719046.pth"]


def test_too_little_space_is_said_before_anything_is_fetched(table, server, tmp_path, monkeypatch):
    folder = tmp_path / "downloads"
    wanted = download.space(needed(), folder)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=wanted - 1))
    with pytest.raises(DownloadError, match="GB are needed.*DEEPMASK_DOWNLOADS"):
        download.download(needed(), **QUICK)
    assert not server.asked
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=wanted))
    download.download(needed(), **QUICK)


def test_space_is_that_of_the_worst_moment(tmp_path):
    """By hand: archives are there only until they are extracted."""
    a, b = (
        Source(f"http://x/{n}.zip", size, "0", "", "", ".", content)
        for n, size, content in [("a", 100, 30), ("b", 50, 70)]
    )
    plain = Source("http://x/c", 10, "0", "", "")
    assert download.space([a, b, plain], tmp_path) == 30 + 50 + 70
    assert download.space([b, a, plain], tmp_path) == 70 + 100 + 30
    assert download.space([a, b, plain], tmp_path, keep=True) == 100 + 30 + 50 + 70 + 10
    assert download.space([a, b, plain], tmp_path, mirror=str(tmp_path)) == 30 + 70 + 10
    (tmp_path / "a.zip.part").write_bytes(bytes(80))
    assert download.space([a], tmp_path) == 20 + 30


def test_an_interrupted_extraction_is_repeated_without_another_download(table, server, tmp_path, monkeypatch):
    files = table["coco2014"][1:2]
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download.download(files, **QUICK)
    folder = tmp_path / "downloads"
    assert download.missing(files, folder) == list(files) and (folder / "train2014.zip").exists()
    download.download(files, **QUICK)
    assert len(server.asked) == 1 and len([*(folder / "coco2014/train2014").iterdir()]) == 8
    assert not (folder / "train2014.zip").exists()


def interrupt(*_):
    raise KeyboardInterrupt


def test_archives_can_be_kept(table, tmp_path):
    download.download(table["voc2007"], keep=True, **QUICK)
    assert len([*(tmp_path / "downloads").glob("*.tar")]) == 2


SCRIPT = """
import sys
from pathlib import Path
from deepmask.data import download
from deepmask.data.sources import Source
wanted = Source(sys.argv[1], int(sys.argv[2]), sys.argv[3], "", "")
print(download.download([wanted], Path(sys.argv[4])).sha256[0])
"""


def test_two_processes_at_once_fetch_once(server, tmp_path):
    server.plan = ["stall"]  # the first holds the lock until the other waits for it
    wanted = at(server)
    arguments = [sys.executable, "-c", SCRIPT, wanted.url, str(wanted.bytes), wanted.sha256, str(tmp_path / "d")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(arguments, **pipes) as one, subprocess.Popen(arguments, **pipes) as other:
        waiting = {one: False, other: False}
        threads = []
        for process in waiting:

            def watch(process=process):
                for line in process.stderr:
                    if "waiting for it" in line:
                        waiting[process] = True
                        server.released.set()

            threads.append(threading.Thread(target=watch))
            threads[-1].start()
        outputs = [process.stdout.read().strip() for process in (one, other)]
        for thread in threads:
            thread.join()
    assert outputs == [wanted.sha256] * 2 and sorted(waiting.values()) == [False, True]
    assert [asked is None for _, asked in server.asked].count(True) == 1, "one began it, and only that one went on"


def test_threads_at_once_fetch_once(server, tmp_path):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(download.download([at(server)], tmp_path / "d", **QUICK)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4 and len(server.asked) == 1


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="file/d: cannot be written.*DEEPMASK_DOWNLOADS"):
        download.download([at(server)], tmp_path / "file" / "d", **QUICK)


# --- the command, and what reads the downloads -----------------------------------------------------------------------


def test_the_command_lists_fetches_and_fails_in_one_sentence(table, server, tmp_path, capsys):
    arguments = ["download", "--params", str(ROOT / "params.yaml"), "--profile"]
    assert main([*arguments, "mini"]) == 0 and "no downloads" in capsys.readouterr().out
    assert main([*arguments, "coco", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(source.name in listed for source in needed()) and "GB free" in listed and "complete" not in listed
    assert not server.asked and not (tmp_path / "downloads").exists()
    server.always = "404"
    assert main([*arguments, "coco"]) == 1
    *progress, error = capsys.readouterr().err.splitlines()
    assert "answers 404" in error and error.startswith("deepmask download: http://127.")
    assert all("?B/s" in line or not line for line in progress), "no traceback"
    server.always = "whole"
    assert main([*arguments, "coco"]) == 0
    assert capsys.readouterr().out.count("complete  ") == len(needed())


def test_missing_downloads_are_named(table, tmp_path):
    study = Study(tmp_path)
    with pytest.raises(DataError, match="coco2014: no such folder; run `python -m deepmask download`"):
        splits.load(COCO.data, study, "train")
    with pytest.raises(DataError, match="VOCdevkit: no such folder; run `python -m deepmask download`"):
        pascal.make(COCO.pascal, COCO.data, study)
    with pytest.raises(WeightsError, match="vgg11-8a719046.pth: no such weights.*python -m deepmask download"):
        imagenet.load("vgg11")


def test_imagenet_weights_are_those_of_the_file(table, content, tmp_path, monkeypatch):
    download.download(table["vgg11"], **QUICK)
    monkeypatch.setattr(imagenet.torchvision.models, "vgg11", small_vgg)
    state = torch.random.get_rng_state()
    network = imagenet.load("vgg11")
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(len("vgg11"))
    for ours, theirs in zip(network.parameters(), small_vgg().parameters(), strict=True):
        assert torch.equal(ours, theirs) and ours.requires_grad and ours.device.type == "cpu"
    file = sources.weights_file("vgg11")
    for damaged in (b"", b"no weights", content["vgg11-8a719046.pth"][:500]):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match="vgg11-8a719046.pth: not the weights of vgg11") as error:
            imagenet.load("vgg11")
        assert "\n" not in str(error.value)
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="not the weights of vgg11"):
        imagenet.load("vgg11")


def test_imagenet_weights_that_are_no_numbers_are_named(table, content, tmp_path, monkeypatch):
    download.download(table["vgg11"], **QUICK)
    monkeypatch.setattr(imagenet.torchvision.models, "vgg11", small_vgg)
    file, state = sources.weights_file("vgg11"), small_vgg().state_dict()
    key = next(iter(state))
    for changed, message in ((state[key] * float("nan"), "not finite"), (state[key].double(), "torch.float64")):
        torch.save(state | {key: changed}, file)
        with pytest.raises(WeightsError, match=f"{file.name}: {key} has values .*{message}"):
            imagenet.load("vgg11")
    torch.save(state, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    file.write_bytes(data.replace(key.encode(), b"\xe1" * len(key)))  # no text
    with pytest.raises(WeightsError, match=f"{file.name}: not the weights of vgg11 .*utf-8"):
        imagenet.load("vgg11")


def test_the_place_of_downloads(monkeypatch, tmp_path):
    assert paths.downloads() == ROOT / "downloads"
    monkeypatch.setenv("DEEPMASK_DOWNLOADS", str(tmp_path))
    assert paths.downloads() == tmp_path
    monkeypatch.setenv("DEEPMASK_DOWNLOADS", "elsewhere")
    assert paths.downloads() == ROOT / "elsewhere", "the same for every study, whatever folder it runs in"
    assert transfer.address(source("http://x/a.zip"), "elsewhere") == ROOT / "elsewhere/a.zip"
