"""What the site shows beside its own texts: pages made of results/, of executed notebooks and of the modules."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from deepmask import readme
from deepmask.paths import Study

FIGURES = {
    "figure4_proposals": "Figure 4, a to f: average recall by number of proposals, for boxes and masks and by size.",
    "figure4_iou": "Figure 4, g to i: recall by IoU, with 10, 100 and 1000 proposals.",
    "figure2": "Figure 2: masks of single cells, and the score map of one scale.",
    "figure3": "Figure 3: the best proposals for what is annotated, and what is missed.",
    "figure5": "Figure 5: mean average precision of Fast R-CNN by number of proposals.",
    "figure6": "Figure 6: more results, all of DeepMask.",
    "baselines": "The five classical methods on one scene.",
}
PARTS = {  # of the API reference
    "The network": ("geometry", "model", "sampling", "patches", "loading", "training", "inference", "weights"),
    "Data": ("data.coco", "data.check", "data.scenes", "data.voc", "data.splits"),
    "Proposals and their evaluation": (
        "proposals",
        "results_file",
        "masks",
        "runs",
        "matching",
        "evaluation",
        "scoring",
    ),
    "All methods": ("hub", "methods", "cells", "systems", "baselines", "detection"),
    "Parameters": ("config", "training_config", "baseline_config", "detection_config"),
    "Results": ("paper", "report", "rules", "ledger", "claims", "bootstrap"),
}


def generate(root: Path, folder: Path) -> None:
    """Write all generated pages of the repository `root` below `folder`, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "figures").mkdir(parents=True)
    _chapters(root, folder)
    _results(root, folder)
    for name, source in (("claims", "claims.md"), ("weights", "weights/README.md")):
        shutil.copyfile(root / "results" / source, folder / f"{name}.md")
    _api(root, folder)


def as_markdown(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks; what reST would take for markup is escaped."""
    if what == "module" or lines:
        lines[:] = [_escaped(line) for line in lines]


def _escaped(line: str) -> str:
    parts = line.split("`")
    parts[::2] = [re.sub(r"([*|_\\])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def _chapters(root: Path, folder: Path) -> None:
    order = re.findall(r"/notebooks/(\w+)\.ipynb\" _build", (root / "dvc.yaml").read_text(encoding="utf-8"))
    paths = sorted((root / "results" / "notebooks").glob("*.ipynb"))
    paths.sort(key=lambda path: order.index(path.stem.partition("-")[0]))
    pages = {path.stem: path.stem for path in paths}
    for path in reversed(paths):  # a link to a notebook that runs once per variant leads to DeepMask's, or the first
        source = path.stem.partition("-")[0]
        if source not in pages or path.stem.endswith("-deepmask"):
            pages[source] = path.stem
    names = []
    for path in paths:
        text = re.sub(
            r"\]\((\w+)\.ipynb\)",
            lambda link: f"]({pages.get(link[1], link[1])}.ipynb)",
            path.read_text(encoding="utf-8"),
        )
        notebook = json.loads(text)
        first = notebook["cells"][0]
        variant = path.stem.partition("-")[2]
        if variant:  # one notebook, run once per network or method
            source = "".join(first["source"])
            first["source"] = re.sub(r"^# (.*)", rf"# \1: {variant}", source, count=1)
        (folder / f"{path.stem}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        names.append(path.stem)
    entries = "\n".join(names)
    text = f"""# The notebooks

Each was executed by the chain, at the default profile; its source is in `notebooks/`. They read as chapters, in this
order.

```{{toctree}}
:maxdepth: 1

{entries}
```
"""
    (folder / "chapters.md").write_text(text, encoding="utf-8")


def _results(root: Path, folder: Path) -> None:
    block = readme.results(Study(root)).replace("results/claims.md", "claims.md")
    lines = [
        "# Results",
        "",
        "Made by the committed code and parameters; `dvc status` says so.",
        "",
        block,
        "",
        "## Figures",
        "",
    ]
    for name, caption in FIGURES.items():
        shutil.copyfile(root / "results" / "figures" / f"{name}.png", folder / "figures" / f"{name}.png")
        lines += [f"```{{figure}} figures/{name}.png", f":alt: {caption}", "", caption, "```", ""]
    (folder / "results.md").write_text("\n".join(lines), encoding="utf-8")


def _api(root: Path, folder: Path) -> None:
    (folder / "api").mkdir()
    lines = ["# API reference", ""]
    for title, names in PARTS.items():
        lines += [f"## {title}", "", "```{toctree}", ":maxdepth: 1", ""]
        for name in names:
            for module in _modules(root / "deepmask", name):
                page = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n"
                (folder / "api" / f"{module}.rst").write_text(page, encoding="utf-8")
                lines.append(f"api/{module}")
        lines += ["```", ""]
    (folder / "api.md").write_text("\n".join(lines), encoding="utf-8")


def _modules(package: Path, name: str) -> list[str]:
    """The module of this name, or all modules of the package of this name."""
    place = package.joinpath(*name.split("."))
    if place.with_suffix(".py").is_file():
        return [f"deepmask.{name}"]
    return [f"deepmask.{name}.{path.stem}" for path in sorted(place.glob("*.py")) if path.stem != "__init__"]
