"""One command for a machine that nobody watches: tests, benchmark, and as much of a study as the time allows.

`python -m benchmarks.unattended --minutes 25 --out results/gpu` needs neither network, DVC nor notebooks.  Every step
is a command with a time limit and a log, and a failure does not end the others.  The study is the `scenes` profile by
the jobs that its notebooks start; how many scenes and patches it has follows from rates that are measured first.
`--rehearse` does all of it in a minute on a processor.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ESSENTIAL = {  # what nothing works without: module -> package
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "cv2": "opencv-contrib-python-headless",
    "yaml": "pyyaml",
    "tqdm": "tqdm",
    "safetensors": "safetensors",
    "pycocotools.mask": "pycocotools",
}
LEFT_OUT = {  # what is not done without a package
    "pytest": "the correctness tests are left out; install pytest and hypothesis to have them",
    "hypothesis": "the correctness tests are left out; install pytest and hypothesis to have them",
    "torchvision": "the tests that compare with its networks fail; install it to pass them",
    "dvc": "nothing is left out, as the jobs run without it; `make repro` needs it",
    "papermill": "nothing is left out, as the jobs run without notebooks; `make repro` needs it",
    "higra": "nothing is left out, as no classical method is run; MCG needs it",
    "numba": "nothing is left out, as no classical method is run; these need it",
}


def missing_packages(load: Callable[[str], object] = importlib.import_module) -> tuple[list[str], list[str]]:
    """Sentences on packages that cannot be imported: those that nothing works without, and the others."""

    def missing(module: str) -> bool:
        try:
            load(module)
        except Exception:  # a broken package may raise anything
            return True
        return False

    fatal = [
        f"{package} cannot be imported, and nothing works without it; install it first"
        for module, package in ESSENTIAL.items()
        if missing(module)
    ]
    return fatal, [f"{name} is not here: {without}" for name, without in LEFT_OUT.items() if missing(name)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if a package is missing that all needs, or the study made no proposals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unattended", description=__doc__.split(":")[0])
    parser.add_argument("--minutes", type=float, help="of everything (25; 5 to rehearse)")
    parser.add_argument("--out", type=Path, help="folder of the eight files that are kept (results/DEVICE)")
    parser.add_argument("--work", type=Path, help="folder of all else; a run found there goes on (runs/DEVICE)")
    parser.add_argument("--profile", help="of params.yaml (scenes; smoke to rehearse)")
    parser.add_argument("--rehearse", action="store_true", help="the smallest of everything, on any machine")
    options = parser.parse_args(arguments)
    fatal, missing = missing_packages()
    if fatal:
        print("\n".join(f"unattended: {line}" for line in fatal), file=sys.stderr)
        return 1
    for line in missing:
        print(line, flush=True)
    from benchmarks import report, sequence
    from deepmask.environment import environment
    from deepmask.paths import REPOSITORY

    name = report.slug(environment()) + "-rehearsal" * options.rehearse
    work = (options.work or REPOSITORY / "runs" / name).resolve()
    out = (options.out or (work / "out" if options.rehearse else REPOSITORY / "results" / name)).resolve()
    minutes = options.minutes or (5.0 if options.rehearse else 25.0)
    profile = options.profile or ("smoke" if options.rehearse else "scenes")
    return 0 if sequence.run(work, out, minutes, profile, options.rehearse, missing) else 1


if __name__ == "__main__":
    sys.exit(main())
