"""The examples of docs/contributing work as they are printed: their code runs, their edits fit the sources."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from deepmask import config, masks, results_file, scoring
from deepmask.__main__ import main, parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md"]


def blocks(page, language):
    """The fenced blocks of a language, in their order."""
    text = (ROOT / "docs" / "contributing" / page).read_text() if isinstance(page, str) else page.read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(page):
    """Run the Python of a page in the current folder, one block after the other; a block may be a file beside them.

    The names that it defines, and what it printed.
    """
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks(page, "python"):
            if title := re.match(r"# (\w+\.py)\n", block):
                Path(title[1]).write_text(block)
            elif not re.match(r"# deepmask/", block):  # those are for `edited`
                exec(compile(block, page, "exec"), names)
    return names, printed.getvalue()


def edited(page, folder):
    """A copy of the package, of params.yaml and dvc.yaml in `folder`, with the edits and new files of a page."""
    shutil.copytree(ROOT / "deepmask", folder / "deepmask", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    for block in blocks(page, "python"):
        if title := re.match(r"# (deepmask/[\w/]+\.py)\n", block):
            (folder / title[1]).write_text(block)
    for block in blocks(page, "diff"):
        head, *lines = block.splitlines()
        path = folder / head.removeprefix("--- ")
        old, new = ("".join(f"{x[1:]}\n" for x in lines if x[:1] in kept) for kept in (("", " ", "-"), ("", " ", "+")))
        text = path.read_text()
        assert text.count(old) == 1, f"{page}: the context of an edit of {head} is not there, or more than once:\n{old}"
        path.write_text(text.replace(old, new))
    return folder


@pytest.fixture
def here(tiny_coco, monkeypatch):
    """A small COCO-format folder with params.yaml, to run examples in."""
    shutil.copy(ROOT / "params.yaml", tiny_coco)
    monkeypatch.chdir(tiny_coco)
    monkeypatch.syspath_prepend(str(tiny_coco))
    yield tiny_coco
    sys.modules.pop("grid_boxes", None)


def test_a_method_is_written_scored_and_run_on_files(here, capsys):
    instances = json.loads(Path("annotations/instances_val.json").read_text())
    first = instances["annotations"][0]  # becomes a tile of the second grid
    first |= {"segmentation": [[32, 0, 64, 0, 64, 24, 32, 24]], "bbox": [32, 0, 32, 24], "area": 768.0}
    Path("annotations/instances_val.json").write_text(json.dumps(instances))
    names, printed = run("proposal-method.md")
    dataset, method = names["dataset"], names["method"]
    made = method(dataset.image(0))
    assert len(made) == 85 and np.all(np.diff(made.scores) < 0)
    for start, count in ((0, 1), (1, 4), (5, 16), (21, 64)):
        level = np.sum([masks.decode(rle) for rle in made.masks[start : start + count]], axis=0)
        assert (level == 1).all(), "each grid covers every pixel once"
    truth = [dataset.rle(a) for a in np.flatnonzero(~dataset.ann_crowd)]
    of_image = dataset.ann_image[~dataset.ann_crowd]
    best = [masks.iou(method(dataset.image(i)).masks, [rle]).max() for i, rle in zip(of_image, truth, strict=True)]
    found, _ = names["recall"].best()
    assert np.allclose(found, np.where(np.array(best) >= 0.5, best, 0)) and found.max() == 1
    assert f"'AR@1000': {names['recall'].ar(1000)}" in printed

    written = results_file.read("grid", dataset.image_ids)
    assert {id: p.masks for id, p in written.items()} == {id: p.masks for id, p in names["proposals"].items()}
    (command,) = [block for block in blocks("proposal-method.md", "sh") if "evaluate" in block]
    assert main(shlex.split(command)[1:]) == 0 and Path("table.csv").is_file()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("masks"))
    assert float(line.split()[3]) == pytest.approx(names["recall"].ar(1000), abs=0.0006)


def test_its_results_file_is_a_row_of_the_tables(here):
    names, _ = run("proposal-method.md")
    (fragment,) = blocks("proposal-method.md", "yaml")
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r"^external: .*$", fragment.strip(), text, flags=re.MULTILINE))
    ((name, path),) = config.load("params.yaml").external.items()
    assert name == names["method"].name
    known = names["dataset"].image_ids.tolist()
    assert list(scoring.read_covering(here / path, names["dataset"], known)) == known


def test_a_method_among_the_five_is_known_to_the_command(tiny_coco, tmp_path):
    copy = edited("proposal-method.md", tmp_path / "copy")
    command = next(b for b in blocks("proposal-method.md", "sh") if "--method" in b)
    arguments = shlex.split(command.replace("IMAGE", str(tiny_coco / "images" / "000010.jpg")))[1:]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-m", "deepmask", *arguments], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = results_file.read(copy / "proposals-of-images").values()
    assert len(made) == 85


def test_a_variant_is_one_other_value(here, tmp_path):
    names, printed = run("variant.md")
    full = config.load("params.yaml")
    assert names["slim"].model.rank == 16 and names["slim"].train == full.train
    inputs = names["network"].mask_head.pixels.in_features
    assert inputs == 16 and int(printed) == sum(p.numel() for p in names["network"].mask_head.parameters())

    copy = edited("variant.md", tmp_path / "copy")
    spec = importlib.util.spec_from_file_location("edited_systems", copy / "deepmask" / "systems.py")
    systems = importlib.util.module_from_spec(spec)
    sys.modules["edited_systems"] = systems  # dataclasses look their module up
    try:
        spec.loader.exec_module(systems)
    finally:
        del sys.modules["edited_systems"]
    assert systems.variant_config(full, "deepmaskslim") == names["slim"]
    assert systems.variant_config(full, "deepmask") == full
    assert [system.name for system in systems.systems_of("deepmaskslim").values()] == ["DeepMaskSlim"]

    stages = yaml.safe_load((copy / "dvc.yaml").read_text())["stages"]
    assert set(stages["propose"]["matrix"]["variant"]) == set(systems.VARIANTS)
    assert set(stages["train"]["matrix"]["variant"]) > set(systems.VARIANTS)
    assert {f"proposals/{variant}" for variant in systems.VARIANTS} <= set(stages["evaluate"]["deps"])


def test_a_profile_is_what_it_changes(here):
    (fragment,) = blocks("profile.md", "yaml")
    path = Path("params.yaml")
    path.write_text(path.read_text() + fragment)
    _, printed = run("profile.md")
    assert printed == "geometry: stride 12 is not a power of two\n"
    (changes,) = yaml.safe_load(fragment).values()
    quick, mini = (config.to_dict(config.load(path, name)) for name in ("quick", None))
    for section in quick.keys() - {"profile"}:
        values = quick[section].items() if isinstance(quick[section], dict) else []
        changed = {key: value for key, value in values if value != mini[section][key]}
        assert changed == changes.get(section, {}), section


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_are_those_that_there_are(path):
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for line in "".join(blocks(path, "sh")).splitlines():
        for command in line.partition("#")[0].split("&&"):
            program, *arguments = shlex.split(command) or [""]
            if program == "deepmask":
                parser().parse_args(arguments)
            elif program == "make":
                assert arguments[0] in targets, line
            elif program == "dvc":
                assert all(name.partition("@")[0] in stages for name in arguments[1:]), line
            elif program == ".venv/bin/python":
                assert all((ROOT / argument).is_file() for argument in arguments[2:] if "/" in argument), line
            else:
                assert program in ("", "cd", "git"), line


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_and_named_files_are_there(path):
    text = re.sub(r"^```\w+\n.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    named = re.findall(r"`((?:deepmask|tests|docs|notebooks)/[\w./-]+)`", text)
    new = {"deepmask/baselines/grid.py"}  # what an example adds
    missing = [name for name in named if not (ROOT / name).exists() and name not in new]
    assert not missing, missing


def test_every_page_is_listed():
    listed = re.search(r"```\{toctree\}\n.*?\n\n(.*?)\n```", PAGES[0].read_text(), re.DOTALL)[1].split()
    assert PAGES[0].name == "index.md" and {f"{name}.md" for name in listed} == {page.name for page in PAGES[1:]}
