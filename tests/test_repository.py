"""What is committed: notebooks in one canonical form, and no trace of the machine that it was made on."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from deepmask import readme
from deepmask.paths import Study

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 20
LARGEST_FILE = 2_000_000  # bytes
# written in pieces, so that this file does not match itself
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:root|home|Users|tmp|work|workspace|mnt)/" + r"\w")
REGISTRY = re.compile("|".join(host + r"\." + end for host, end in [("pypi", "org"), ("pythonhosted", "org")]))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]


def test_notebooks_are_in_the_form_that_is_committed():
    """nbstripout would change nothing; the Makefile has its options."""
    (options,) = re.findall(r"^NBSTRIPOUT = nbstripout (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = [sys.executable, "-m", "nbstripout", *shlex.split(options), "--verify", *map(str, NOTEBOOKS)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"run `make notebooks-clean`\n{result.stdout}{result.stderr}"


@each_notebook
def test_notebook_names_the_kernel_as_jupyter_does(path):
    """Else opening and saving it would change the file."""
    kernel = json.loads(path.read_text())["metadata"]["kernelspec"]
    assert kernel == {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@each_notebook
def test_notebook_defaults_write_to_scratch(path):
    """Interactive runs and nbval use the defaults; results are written only when DVC passes other values."""
    (parameters,) = (source for source, tags in code_cells(path) if "parameters" in tags)
    values = [node.value for node in ast.walk(ast.parse(parameters)) if isinstance(node, ast.Constant)]
    folders = [PurePosixPath(value).parts for value in values if isinstance(value, str)]
    assert any("_scratch" in parts for parts in folders)
    assert not any({"results", "data", "models"} & set(parts) and "_scratch" not in parts for parts in folders)


@each_notebook
def test_notebook_cells_are_short(path):
    lengths = [len(source.splitlines()) for source, _ in code_cells(path)]
    assert max(lengths) <= LONGEST_CELL, f"cell {lengths.index(max(lengths))} has {max(lengths)} lines"


def in_git():
    """The files that git holds or would take."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return sorted({name for name in names if name and (ROOT / name).is_file()})


def test_git_holds_no_large_file_but_the_released_weights():
    """Those let a fresh clone propose, offline and before anything is trained; half precision keeps them small."""
    large = {name: size for name in in_git() if (size := (ROOT / name).stat().st_size) > LARGEST_FILE}
    assert set(large) <= {"results/weights/deepmask.safetensors"}, large
    assert max(large.values(), default=0) < 3 * LARGEST_FILE


def test_no_file_names_a_folder_of_a_machine_or_a_package_registry():
    found = []
    for name in in_git():
        content = (ROOT / name).read_bytes()
        if b"\0" in content[:8000]:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY.search(line) or str(ROOT) in line:
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("see " + "/ho" + "me/me/x", True),
        ('"' + "/ro" + 'ot/x"', True),
        ("https://a.b/ho" + "me/x", False),
        ("/proc/1", False),
    ],
)
def test_the_pattern_for_folders_of_a_machine(text, matches):
    assert bool(MACHINE_PATH.search(text)) is matches


def test_the_readme_shows_the_current_results():
    study = Study(ROOT)
    if not study.result("claims.json").exists():
        pytest.skip("the study has not run yet")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.updated(text, study) == text, "run `python -m deepmask readme`"
