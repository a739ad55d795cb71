"""The examples of README.md: its Python runs from top to bottom, and its commands are those that there are."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepmask.__main__ import main, parser
from deepmask.data.scenes import draw_scene

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    """The arguments of every line of the README's shell blocks that starts this program."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        for k, word in enumerate(words):
            if Path(word).name == "deepmask" and (k == 0 or words[k - 1] == "-m"):
                end = next((n for n, later in enumerate(words) if later == "&&" and n > k), None)
                found.append(words[k + 1 : end])
                break
    return found


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_scene(0, 0, 96, 72).image).save("photo.jpg")
    assert main(["propose", "photo.jpg"]) == 0
    assert len(blocks("python")) >= 2
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["features"].shape == (20, 3, 7, 7) and torch.isfinite(names["features"]).all()
    changed = np.array(Image.open("drawn.png")) != names["image"]
    assert changed.any(), "the proposals are drawn"
    assert len(names["loaded"].anns) > 20 and set(names["loaded"].imgs) == {1}


def test_the_commands_of_the_readme_are_understood(capsys):
    assert len(commands()) >= 10
    for arguments in commands():
        try:
            parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{shlex.join(arguments)}: {capsys.readouterr().err}")
