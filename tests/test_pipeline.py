"""The chain is complete: stages depend on all that they run, the lock is current, and imports point downwards."""

import ast
import dataclasses
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
import yaml

from deepmask.config import Config

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "deepmask"
SECTIONS = {field.name for field in dataclasses.fields(Config)} - {"ranks"}  # how many processes share a job

# A module may import from its own floor and from those below it.
FLOORS = [
    {
        "bounds",
        "geometry",
        "params_file",
        "runs",
        "masks",
        "config",
        "baseline_config",
        "detection_config",
        "training_config",
        "paths",
        "paper",
        "device",
        "environment",
        "distributed",
        "systems",
        "files",
        "processes",
        "failures",
    },
    {"data", "proposals", "results_file"},
    {"model", "sampling", "patches", "loading", "weights", "imagenet"},
    {
        "optim",
        "checkpoints",
        "pretraining",
        "training",
        "validation",
        "upsampling",
        "inference",
        "released",
        "evaluation",
        "matching",
        "scoring",
        "bootstrap",
        "baselines",
        "detection",
    },
    {"report", "figures", "pictures", "matches", "cells", "claims", "rules", "ledger", "readme", "card"},
    {
        "stages",
        "studies",
        "notebooks",
        "methods",
        "choosing",
        "hub",
        "shrinking",
        "proposing",
        "demo",
        "commands",
        "__main__",
    },
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}

if not (ROOT / "dvc.yaml").exists():
    pytest.skip("dvc.yaml is not written yet", allow_module_level=True)
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
each_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


# --- what the code imports -------------------------------------------------------------------------------------------


def module_names():
    files = (path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / PACKAGE).rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in files]


def module_path(module):
    """The file of a module of the package, relative to the repository; None for any other name."""
    base = PurePosixPath(*module.split("."))
    found = [path for path in (base.with_suffix(".py"), base / "__init__.py") if (ROOT / path).is_file()]
    return found[0] if found else None


def imported(source, package=""):
    """The modules of the package that a piece of code imports anywhere in it; `package` resolves relative imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            # `from deepmask import training` imports a module, `from deepmask.training import train` a name of one
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    names = {name for name in names if name.split(".")[0] == PACKAGE and module_path(name)}
    parents = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)}
    return names | {name for name in parents if module_path(name)}


@cache
def imports_of(module):
    path = module_path(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(imported((ROOT / path).read_text(), package) - {module})


def closure(modules):
    """The given modules and all that they import, directly or not."""
    found, queue = set(), list(modules)
    while queue:
        module = queue.pop()
        if module not in found:
            found.add(module)
            queue += imports_of(module)
    return found


def only_words(path):
    """Whether a file has nothing but words, constants, and names that others may ask for: no result depends on it."""
    plain = (ast.Expr, ast.Assign, ast.Import, ast.ImportFrom)
    nodes = ast.parse((ROOT / path).read_text()).body
    return all(isinstance(node, plain) or getattr(node, "name", "") == "__getattr__" for node in nodes)


def test_imports_are_followed():
    assert imported("from deepmask import config, masks as m") == {"deepmask", "deepmask.config", "deepmask.masks"} & {
        *module_names()
    }
    assert "deepmask.data.coco" in imported("def f():\n    from deepmask.data.coco import DataError")
    assert imported("from .coco import DataError", "deepmask.data") == imported("import deepmask.data.coco")
    assert imported("import numpy.linalg, json") == set()
    assert {"deepmask.geometry", "deepmask.config", "deepmask.sampling"} <= closure(["deepmask.training"])


@pytest.mark.parametrize("module", [name for name in module_names() if name != PACKAGE])
def test_imports_point_downwards(module):
    own = module.split(".")[1]
    assert own in FLOOR, f"say on which floor {module} is (FLOORS)"
    for other in imports_of(module) - {PACKAGE}:
        assert FLOOR[other.split(".")[1]] <= FLOOR[own], f"{module} imports {other}, which is above it"


# --- what the stages declare -----------------------------------------------------------------------------------------


def resolve(text):
    """A path of dvc.yaml as it is in the repository, where `src` is the folder of dvc.yaml itself."""
    return str(PurePosixPath(text.replace("${src}", ".")))


def dependencies(stage):
    return [resolve(entry if isinstance(entry, str) else next(iter(entry))) for entry in stage.get("deps", [])]


def notebook_of(stage):
    (name,) = {resolve(name) for name in re.findall(r"\$\{src\}/notebooks/[\w.-]+\.ipynb", stage["cmd"])}
    return name


def notebook_code(name):
    """The code of a notebook without the lines that only IPython understands."""
    cells = [cell for cell in json.loads((ROOT / name).read_text())["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def sections_read(code):
    """The sections of params.yaml that code reads: attributes of what `load(...)` returned, all if it is passed on."""
    tree = ast.parse(code)
    loaded = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if ast.unparse(node.value.func) in ("load", "config.load", "systems.variant_config"):
                loaded |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in loaded]
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.value in uses]
    passed_on = [node for node in uses if isinstance(node.ctx, ast.Load) and node not in [a.value for a in attributes]]
    return SECTIONS if passed_on else {node.attr for node in attributes} & SECTIONS


def sections_of_jobs(code):
    """The sections that the stage modules which a notebook starts read from the `config` they are given."""
    found = set()
    for module in imported(code):
        if module.startswith(f"{PACKAGE}.stages."):
            nodes = ast.walk(ast.parse((ROOT / module_path(module)).read_text()))
            found |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "config"}
    return found & SECTIONS


def test_sections_are_found():
    assert sections_of_jobs("from deepmask.stages import pretrain") == {"geometry", "model", "pretrain"}
    assert sections_read("c = config.load(p)\nf(c.train, c.data.root)\nc.describe()") == {"train", "data"}
    assert sections_read("c = load(p)\nf(c)") == SECTIONS
    assert sections_read("c = json.loads(p)\nf(c, d.train)") == set()


def test_every_notebook_is_a_stage():
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {notebook_of(stage) for stage in STAGES.values()} == there


@each_stage
def test_stage_depends_on_its_notebook_and_on_no_other(stage):
    """An executed notebook changes with every run, so nothing may depend on one or keep one as an output."""
    assert [path for path in dependencies(stage) if path.endswith(".ipynb")] == [notebook_of(stage)]
    assert not re.findall(r"ipynb|_build|results/notebooks", json.dumps(stage.get("outs", [])))


@each_stage
def test_stage_depends_on_all_code_that_it_runs(stage):
    declared = [PurePosixPath(path) for path in dependencies(stage)]
    needed = {module_path(module) for module in closure(imported(notebook_code(notebook_of(stage))))}
    needed = {path for path in needed if path.name != "__init__.py" or not only_words(path)}
    missing = sorted(str(path) for path in needed - {*declared})  # a folder would change with its __pycache__
    assert not missing, "add to deps: " + ", ".join(missing)
    assert not [path for path in declared if path.parts[0] == "deepmask" and not path.suffix]
    code = {path for path in declared if path.suffix == ".py"}
    assert not code - needed, "not imported, remove from deps: " + ", ".join(map(str, sorted(code - needed)))


@each_stage
def test_stage_depends_on_the_parameters_that_it_reads(stage):
    declared = {entry.split(".")[0] for entry in stage.get("params", []) if isinstance(entry, str)}
    code = notebook_code(notebook_of(stage))
    missing = (sections_read(code) | sections_of_jobs(code)) - {"profile"} - declared
    assert not missing, "add to params: " + ", ".join(sorted(missing))
    assert declared <= {*yaml.safe_load((ROOT / "params.yaml").read_text())}


def test_the_lock_is_current():
    """What results/ shows was made by the code and parameters that are here; data and weights may be absent."""
    if not (ROOT / "dvc.lock").exists():
        pytest.skip("no dvc.lock: the study has not run yet")
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    assert {name.split("@")[0] for name in lock["stages"]} == {*STAGES}
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "Data and pipelines are up to date." in result.stdout, (
        f"run `make repro` and commit its results\n{result.stdout}{result.stderr}"
    )
