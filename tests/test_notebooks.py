"""The notebooks check facts: each asserts something, and a wrong fact makes `make test` fail."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FACT = "75_844_545"  # parameters of DeepMask, in notebook 00


def cells(path, kind="code"):
    return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_asserts_and_explains(path):
    """nbval compares no outputs of a notebook without any, so what must not change is asserted."""
    code = ["".join(cell["source"]) for cell in cells(path)]
    text = ["".join(cell["source"]) for cell in cells(path, "markdown")]
    assert any(re.search(r"^ *assert ", source, re.MULTILINE) for source in code)
    assert text[0].startswith("# ") and "aper" in text[0], "a title, and where in the paper"
    assert all(len(source.splitlines()) <= 20 for source in code), "small cells"
    assert len(text) >= 3


def run(path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "-q",
        "-p",
        "no:cacheprovider",
        path,
    ]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_a_wrong_fact_fails(tmp_path):
    """The facts of notebook 00 that need no study, as they are and with one digit changed."""
    notebook = json.loads((ROOT / "notebooks" / "00_overview.ipynb").read_text(encoding="utf-8"))
    last = next(
        i for i, cell in enumerate(notebook["cells"]) if FACT in "".join(cell["source"]) and "execution_count" in cell
    )
    notebook["cells"] = notebook["cells"][: last + 1]
    text = json.dumps(notebook).replace("../params.yaml", str(ROOT / "params.yaml"))
    text = text.replace("../_scratch/smoke", str(tmp_path / "study"))
    for name, content in (("right", text), ("wrong", text.replace(FACT, "75_844_546"))):
        (tmp_path / f"{name}.ipynb").write_text(content)
    right, wrong = run(tmp_path / "right.ipynb"), run(tmp_path / "wrong.ipynb")
    assert right.returncode == 0, right.stdout
    assert wrong.returncode == 1 and "AssertionError" in wrong.stdout and "1 failed" in wrong.stdout
