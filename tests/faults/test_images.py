"""Images that are odd, broken or hostile: pixels or a DataError, and the other images of a run get their proposals."""

import io
import json
import os
import resource
import struct
import zlib
from functools import cache

import fuzz_binary
import numpy as np
import pytest
from PIL import Image

from deepmask import released, results_file
from deepmask.__main__ import main
from deepmask.data.coco import DataError, read_image

MEGABYTES = 1000  # that the process may need beyond what it has needed already
HEIGHT, WIDTH = 20, 30


def chunk(kind, data):
    """Of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, data, *more):
    """A gray PNG file that says it has this size and depth, and further chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif(width, height):
    """A GIF file that says it has this size."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame


def tiff(width, height):
    """A gray TIFF file that says it has this size."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 64}
    entries = b"".join(struct.pack("<HHII", key, 4, 1, value) for key, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def zeros(count):
    """That many zeros, deflated."""
    packer = zlib.compressobj(9)
    blocks = [packer.compress(bytes(min(1 << 24, count - start))) for start in range(0, count, 1 << 24)]
    return b"".join(blocks) + packer.flush()


def saved(image, kind, **options):
    """An image file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def odd_images():
    """Files that are images: name -> (height, width), content."""
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    gray = np.asarray(colours)[:, :, 0]
    real = gray.astype(np.float32)
    real[0], real[1], real[2], real[3] = np.nan, np.inf, -np.inf, 3e38
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [colours.transpose(Image.Transpose.ROTATE_180)]}
    usual = HEIGHT, WIDTH
    return {
        "one.png": ((1, 1), saved(Image.new("RGB", (1, 1)), "PNG")),
        "row.png": ((1, 700), saved(Image.new("RGB", (700, 1), "red"), "PNG")),
        "column.jpg": ((700, 1), saved(Image.new("L", (1, 700), 70), "JPEG")),
        "strip.png": ((50, 20_000), saved(Image.new("RGB", (20_000, 50), "blue"), "PNG")),
        "1-bit.png": (usual, saved(colours.convert("1"), "PNG")),
        "16-bit.png": (usual, saved(Image.fromarray(gray.astype(np.uint16) * 257), "PNG")),
        "32-bit.tif": (usual, saved(Image.fromarray(gray.astype(np.int32) * -99_999), "TIFF")),
        "nan.tif": (usual, saved(Image.fromarray(real), "TIFF")),
        "cmyk.jpg": (usual, saved(colours.convert("CMYK"), "JPEG")),
        "lab.tif": (usual, saved(colours.convert("LAB"), "TIFF")),
        "ycbcr.tif": (usual, saved(colours.convert("YCbCr"), "TIFF")),
        "palette.png": (usual, saved(colours.quantize(16), "PNG", transparency=bytes(range(16)))),
        "turned.jpg": (usual, saved(colours, "JPEG", exif=exif)),
        "moving.gif": (usual, saved(colours, "GIF", **frames)),
        "moving.webp": (usual, saved(colours, "WEBP", **frames)),
        "moving.png": (usual, saved(colours, "PNG", **frames)),
        "png.jpg": (usual, saved(colours, "PNG")),
        "two.jpg": (usual, saved(colours, "MPO", **frames)),
    }


@cache
def broken_images():
    """Files that are none, or more than an image: name -> content."""
    rows = zlib.compress(bytes(9 * 8))
    bomb = zeros(300_000_000)
    return {
        "empty.png": b"",
        "text.jpg": b"hello",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "none.png": png(0, 0, 8, rows),
        "none.gif": gif(0, 0),
        "none.tif": tiff(0, 0),
        "bomb.png": png(30_000, 30_000, 1, zeros(30_000 * (30_000 // 8 + 1))),
        "claim.png": png(2**31 - 1, 2**31 - 1, 8, rows),
        "claim.gif": gif(65_535, 65_535),
        "claim.tif": tiff(2**32 - 1, 2**32 - 1),
        "claim.ppm": b"P6 99999999 99999999 255\n",
        "less.gif": gif(20_000, 20_000),
        "less.tif": tiff(20_000, 20_000),
        "less.ppm": b"P5 20000 20000 255\n",
        "text.png": png(8, 8, 8, rows, chunk(b"zTXt", b"key\0\0" + bomb)),
        "words.png": png(8, 8, 8, rows, chunk(b"iTXt", b"key\0\1\0\0\0" + bomb)),
        "profile.png": png(8, 8, 8, rows, chunk(b"iCCP", b"key\0\0" + bomb)),
        "texts.png": png(8, 8, 8, rows, *[chunk(b"zTXt", b"key\0\0" + zeros(900_000))] * 100),
    }


def fails(path):
    """Whether there is a DataError, of one line that names the file."""
    try:
        pixels = read_image(path)
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    return False


def test_odd_images_are_read(tmp_path, stress):
    for name, (size, content) in odd_images().items():
        (tmp_path / name).write_bytes(content)
        pixels = read_image(tmp_path / name)
        assert pixels.shape == (*size, 3) and pixels.dtype == np.uint8, name
        stress.count("cases", "odd images", 1)


def test_of_moving_images_the_first_frame_is_read(tmp_path):
    files = odd_images()
    (tmp_path / "plain.png").write_bytes(files["png.jpg"][1])
    plain = read_image(tmp_path / "plain.png")
    (tmp_path / "moving.png").write_bytes(files["moving.png"][1])
    np.testing.assert_array_equal(read_image(tmp_path / "moving.png"), plain)


@pytest.mark.parametrize("name", sorted(broken_images()))
def test_broken_images_cost_neither_memory_nor_patience(name, tmp_path, stress):
    (tmp_path / name).write_bytes(broken_images()[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fails(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1000
    stress.count("cases", "odd images", 1)


@pytest.mark.filterwarnings("ignore")  # Pillow: of tags that are cut off
def test_truncated_images(tmp_path, stress):
    """Cut off anywhere; some formats can do without their end."""
    step, tried, failed = stress.scale(41, 1), 0, 0
    for number, content in enumerate(fuzz_binary.images()):
        for end in range(number % step, len(content), step):
            (tmp_path / "cut").write_bytes(content[:end])
            tried += 1
            failed += fails(tmp_path / "cut")
    assert failed > 0.8 * tried
    stress.count("cases", "odd images", tried)


@pytest.mark.parametrize("method", ["selectivesearch", "deepmask"])
def test_a_run_over_all_of_them_proposes_on_those_that_are_images(method, tmp_path, stress, capsys):
    if not released.path().is_file():
        pytest.skip("no released weights")
    folder, sound, broken = tmp_path / "images", odd_images(), broken_images()
    folder.mkdir()
    for name, content in ({name: content for name, (_, content) in sound.items()} | broken).items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.jpg").mkdir()
    (folder / "nowhere.gif").symlink_to(folder / "nothing")
    number = len(sound) + len(broken) + 3
    arguments = ["propose", str(folder), "--method", method, "--count", "9", "--pictures", str(number)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    said, warned = capsys.readouterr()
    assert f"{len(broken) + 3} of {number} images have no proposals" in warned and "Traceback" not in warned
    for name in [*broken, "pipe.png", "folder.jpg", "nowhere.gif"]:
        assert sum(line.startswith(f"{folder / name}: ") for line in said.splitlines()) == 1
    records = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    sizes = {os.path.basename(record["file_name"]): (record["height"], record["width"]) for record in records}
    assert sizes == {name: size for name, (size, _) in sound.items()}
    assert set(results_file.read(tmp_path / "out")) <= {record["id"] for record in records}
    assert len(list((tmp_path / "out").glob("*.png"))) == len(sound)
    stress.count("cases", "odd images", number)
