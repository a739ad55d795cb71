"""pyproject.toml, requirements.lock and environment.yml describe one environment, and the lock is all of it."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.11", "3.12", "3.13"]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
LOCK = [Requirement(line) for line in LINES]
PINNED = {requirement.name: next(iter(requirement.specifier)).version for requirement in LOCK}
OWN = [Requirement(text) for text in sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])]


def test_every_line_of_the_lock_pins_one_version_and_names_no_place():
    for line in LINES:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; (platform_system|python_version) [=<]+ \"[\w.]+\")?", line)
    assert LINES == sorted(LINES) and len(PINNED) == len(LINES)


@pytest.mark.parametrize("requirement", OWN, ids=str)
def test_the_lock_is_within_the_bounds_of_pyproject(requirement):
    assert requirement.name in PINNED, f"add {requirement.name} to requirements.lock"
    assert requirement.specifier.contains(PINNED[requirement.name])
    (locked,) = (entry for entry in LOCK if entry.name == requirement.name)
    assert locked.marker is None


def test_the_lock_holds_what_its_packages_need():
    """Follows the requirements of the installed packages, as pip would, for each Python that the lock serves."""
    unlike = [
        entry.name
        for entry in LOCK
        if (not entry.marker or entry.marker.evaluate()) and installed_version(entry.name) != PINNED[entry.name]
    ]
    if unlike:
        pytest.skip(f"this environment was not made from requirements.lock: {', '.join(unlike[:3])} differ")
    for python in PYTHONS:
        applies = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
        locked = {entry.name for entry in LOCK if not entry.marker or entry.marker.evaluate(applies)}
        queue, seen = [(requirement.name, "") for requirement in OWN], set()
        while queue:
            name, extra = queue.pop()
            if (name, extra) in seen or installed_version(name) is None:  # not needed on the Python that runs this
                continue
            seen.add((name, extra))
            for needed in map(Requirement, metadata.requires(name) or []):
                if needed.marker and not needed.marker.evaluate({**applies, "extra": extra}):
                    continue
                child = canonicalize_name(needed.name)
                assert child in locked, f"Python {python}: {name} needs {needed}, which is not in requirements.lock"
                assert needed.specifier.contains(PINNED[child]), f"{name} needs {needed}"
                queue += [(child, extra) for extra in ["", *needed.extras]]


def test_conda_environment_is_the_lock_and_the_package():
    assert ENVIRONMENT["name"] == PROJECT["name"]
    *others, pip = ENVIRONMENT["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    python, installer = others
    assert installer == "pip"
    admitted = SpecifierSet(python.removeprefix("python"))
    assert [f"3.{minor}" for minor in range(5, 30) if f"3.{minor}" in admitted] == PYTHONS


def test_supported_pythons_agree():
    prefix = "Programming Language :: Python :: "
    assert [text.removeprefix(prefix) for text in PROJECT["classifiers"] if text.startswith(prefix)] == PYTHONS
    required = SpecifierSet(PROJECT["requires-python"])
    assert all(python in required for python in PYTHONS) and "3.10" not in required


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert citation["preferred-citation"]["title"] == "Learning to Segment Object Candidates"


def installed_version(name):
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return None
