"""Many image files: which ones, whose ids, shared by ranks, interrupted, and with files that are no images."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from deepmask import masks, proposing, results_file, scoring
from deepmask.__main__ import main
from deepmask.data.coco import DataError, InstanceDataset
from deepmask.proposals import ProposalError, Proposals
from deepmask.proposing import annotated_ids, find_images, propose_files
from deepmask.stages import sharing


class Brightest:
    """Three "proposals" that depend on nothing but the image; notes how often it was asked."""

    name = "brightest"

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        bright = image.mean(axis=2)
        rles = masks.encode(np.stack([bright > np.quantile(bright, q) for q in (0.5, 0.7, 0.9)]))
        return Proposals(0, np.array([0.9, 0.5, 0.1]), masks.boxes(rles), rles)


@pytest.fixture
def images(tmp_path):
    """Seven images in two folders, as paths."""
    paths = [tmp_path / "images" / ("a" if k < 4 else "b") / f"{k}.png" for k in range(7)]
    for k, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (9 + k, 12, 3), np.uint8)).save(path)
    return paths


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(images, folder, method=None, **options):
    return list(propose_files(method or Brightest(), images, folder, drawn=0, **options))


def one_rank(images, folder, rank, ranks, method=None, reads=(), **options):
    """What a rank does after the first one has claimed the scratch folder."""
    sharing.claim(folder / proposing.SCRATCH, 0, Brightest.name, *reads)
    return run(images, folder, method, reads=reads, rank=rank, ranks=ranks, **options)


def test_files_folders_and_patterns_name_images(images, tmp_path):
    a, b = images[0].parent, images[4].parent
    (a / "notes.txt").touch()
    assert find_images([tmp_path / "images"], tmp_path / "out") == images, "all below, sorted"
    assert find_images([b, images[1], a], tmp_path / "out") == [*images[4:], images[1], images[0], *images[2:4]]
    assert find_images([tmp_path / "images/*/[15].png"], tmp_path / "out") == [images[1], images[5]]
    assert find_images([tmp_path / "images/**/*.png"], tmp_path / "out") == images
    assert find_images([tmp_path / "none.png"], tmp_path / "out") == [tmp_path / "none.png"], "reported when it is read"
    assert find_images([tmp_path / "images"], b) == images[:4], "not what an earlier run has drawn"
    (a / "[0].png").write_bytes(images[0].read_bytes())
    assert find_images([a / "[0].png"], tmp_path / "out") == [a / "[0].png"], "a file before a pattern"
    (tmp_path / "empty").mkdir()
    for argument in (tmp_path / "empty", tmp_path / "*.jpg"):
        with pytest.raises(DataError, match="no (image|file)") as error:
            find_images([images[0], argument], tmp_path / "out")
        assert str(argument) in str(error.value)


def test_ids_are_those_of_the_annotation_file(images, tmp_path):
    file = tmp_path / "instances.json"
    names = {"a/0.png": 30, "2.png": 10, "b/4.png": 20}
    records = [{"id": id, "file_name": name, "width": 1, "height": 1} for name, id in names.items()]
    file.write_text(json.dumps({"images": records}))  # COCO's lists of test images have nothing else
    assert annotated_ids(images, file) == [30, None, 10, None, 20, None, None]
    with pytest.raises(DataError, match="none of the 1 images"):
        annotated_ids(images[1:2], file)
    with pytest.raises(DataError, match="0.png and .*0.png are both image 30"):
        annotated_ids([images[0], tmp_path / "other/a/0.png"], file)
    for text, words in (('{"images": []}', "instances.json"), ("{", "JSON"), ('{"images": [{"id": 1}]}', "height")):
        file.write_text(text)
        with pytest.raises(DataError, match=words):
            annotated_ids(images, file)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("chunk", [7, 3])
def test_the_bytes_do_not_depend_on_the_ranks(images, tmp_path, ranks, chunk, monkeypatch):
    run(images, tmp_path / "one", chunk=chunk)
    expected = contents(tmp_path / "one")
    lists = ["proposals.json"] if chunk == 7 else [f"proposals-0000{start}.json" for start in (0, 3, 6)]
    assert sorted(expected) == ["images.json", *lists] and not (tmp_path / "one" / proposing.SCRATCH).exists()
    for rank in reversed(range(ranks)):  # the first rank joins what the others wrote
        said = one_rank(images, tmp_path / "many", rank, ranks, chunk=chunk)
        assert bool(said) == (rank == 0)
    assert contents(tmp_path / "many") == expected


def test_chunks_are_together_what_one_file_would_be(images, tmp_path):
    run(images, tmp_path / "one")
    run(images, tmp_path / "parts", chunk=2)
    assert len(list((tmp_path / "parts").glob("proposals-*.json"))) == 4
    one, parts = (results_file.read(tmp_path / name) for name in ("one/proposals.json", "parts"))
    assert list(one) == list(parts) == [1, 2, 3, 4, 5, 6, 7]
    assert all(one[id].masks == parts[id].masks and np.array_equal(one[id].scores, parts[id].scores) for id in one)
    truth = COCO(tmp_path / "parts" / "images.json")
    assert [truth.imgs[id]["file_name"] for id in range(1, 8)] == [str(path) for path in images]
    assert (tmp_path / "one/images.json").read_bytes() == (tmp_path / "parts/images.json").read_bytes()
    run(images, tmp_path / "parts", chunk=5)
    left = sorted(path.name for path in (tmp_path / "parts").glob("proposals*"))
    assert left == ["proposals-00000.json", "proposals-00005.json"], "nothing of the run before"


def test_an_interrupted_run_goes_on_where_it_was(images, tmp_path):
    out, method = tmp_path / "out", Brightest()
    one_rank(images, out, 1, 2, method, ["settings"])  # of two ranks only one ends
    assert method.calls == 3
    images[5].touch()
    os.utime(images[5], ns=(0, 0))  # another file than the one that was finished
    run(images, out, method, reads=["settings"])
    assert method.calls == 3 + 4 + 1
    run(images, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_other_settings_make_everything_anew(images, tmp_path):
    weights, method = tmp_path / "weights", Brightest()
    for content in ("one", "two"):
        weights.write_text(content)
        one_rank(images, tmp_path / "out", 1, 2, method, [weights])
    assert method.calls == 6


def test_files_that_are_no_images_are_named_and_the_others_go_on(images, tmp_path):
    out, method, lines = tmp_path / "out", Brightest(), []
    intact = images[2].read_bytes()
    images[2].write_bytes(intact[:50])
    images[4].unlink()
    with pytest.raises(DataError, match="2 of 7 images"):
        for line in propose_files(method, images, out, drawn=3, chunk=4):
            lines.append(line)
    for path in (images[2], images[4]):
        assert sum(str(path) in line for line in lines) == 1
    assert list(results_file.read(out)) == [1, 2, 4, 6, 7]
    records = json.loads((out / "images.json").read_text())["images"]
    assert [record["id"] for record in records] == [1, 2, 4, 6, 7]
    assert method.calls == 5, "what was made is kept until all of it is"
    for path in (images[2], images[4]):
        path.write_bytes(intact)
    run(images, out, method, chunk=4)
    assert method.calls == 7 and len(results_file.read(out)) == 7 and not (out / proposing.SCRATCH).exists()


def test_only_the_first_images_are_drawn(images, tmp_path):
    out = tmp_path / "out"
    for drawn in (0, 2):
        lines = list(propose_files(Brightest(), images, out, drawn=drawn))
        assert sorted(path.name for path in out.glob("*.png")) == ["1-0.png", "2-1.png"][:drawn]
        assert len(lines) == drawn + 1


def test_folders_of_proposals_are_scored_as_one(tiny_coco, tmp_path, capsys):
    annotations = tiny_coco / "annotations/instances_val.json"
    dataset = InstanceDataset.read(annotations, tiny_coco / "images")
    paths = [dataset.image_root / dataset.file_name(i) for i in (2, 0, 1)]
    options = {"ids": annotated_ids(paths, annotations), "chunk": 2}
    assert options["ids"] == dataset.image_ids[[2, 0, 1]].tolist()
    run(paths, tmp_path / "out", **options)
    run(paths, tmp_path / "one", ids=options["ids"])
    expected = scoring.evaluate_file(tmp_path / "one/proposals.json", annotations)
    assert expected["images"] == 3 and expected["images_without_proposals"] == 0
    np.testing.assert_equal(scoring.evaluate_file(tmp_path / "out", annotations), expected)
    assert main(["evaluate", str(tmp_path / "out"), "--annotations", str(annotations)]) == 0
    assert "3 images" in capsys.readouterr().out
    first = (tmp_path / "out/proposals-00000.json").read_bytes()
    (tmp_path / "out/proposals-00009.json").write_bytes(first)
    with pytest.raises(
        ProposalError, match="proposals-00009.json: entry 0: image_id .* is also in .*proposals-00000.json"
    ):
        results_file.read(tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(ProposalError, match="none: no file proposals"):
        results_file.read(tmp_path / "none")


class Failing(Brightest):
    """Brightest, but without memory for images of 12 rows."""

    def __call__(self, image):
        if len(image) == 12:
            raise MemoryError("no room for\nso many")
        return super().__call__(image)


def test_an_image_that_the_method_fails_on_does_not_cost_the_others_theirs(images, tmp_path):
    lines = []
    with pytest.raises(DataError, match="1 of 7 images have no proposals"):
        for line in propose_files(Failing(), images, tmp_path / "out", drawn=0):
            lines.append(line)
    said = [line for line in lines if str(images[3]) in line]
    assert len(said) == 1 and "brightest fails on this image (MemoryError: no room for)" in said[0]
    assert "12 x 12 pixels" in said[0] and "\n" not in said[0]
    assert list(results_file.read(tmp_path / "out")) == [1, 2, 3, 5, 6, 7]


def test_any_name_that_a_file_can_have_is_an_images(images, tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    names = ["x" * 251 + ".png", "é" * 125 + ".png", os.fsdecode(b"\xff\xfe.png"), "a\nb.png", "-rf.png", "'$(x)'.png"]
    for name in names:
        (folder / name).write_bytes(images[0].read_bytes())
    (folder / "loop.png").symlink_to(folder / "loop.png")
    found = find_images([folder], tmp_path / "out")
    assert {path.name for path in found} == {*names, "loop.png"}
    with pytest.raises(DataError, match="1 of 7 images"):
        list(propose_files(Brightest(), found, tmp_path / "out", drawn=9))
    assert len(results_file.read(tmp_path / "out")) == 6
    assert len(list((tmp_path / "out").glob("*.png"))) == 6
    records = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert {record["file_name"] for record in records} == {str(folder / name) for name in names}
