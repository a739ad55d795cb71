"""Coverage-guided fuzzing of one reader: `python tests/faults/fuzz.py TARGET [libFuzzer options]`.

A target reads a file whose bytes Atheris (libFuzzer) varies, guided by the branches of the reader that they reach.
Whatever the bytes are, it ends in a result or in one of the project's own errors; any other exception, a crash of
native code, a file that takes longer than libFuzzer's -timeout and one that needs more than its -rss_limit_mb end the
process with the bytes kept in a file.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = ("fuzz_text", "fuzz_binary", "fuzz_parameters")  # each has a dict TARGETS: name -> Target


@dataclass(frozen=True)
class Target:
    """A reader under test."""

    seeds: Callable[[], list[bytes]]  # sound files to start from
    prepare: Callable[[Path], Callable[[Path], None]]  # folder -> what reads one file in it, and lets our errors pass
    suffix: str = ""  # of the file
    slow: int = 1  # how many times longer one takes than a short text; as many times fewer are tried


def find(name: str) -> Target:
    """The target of that name, from the module that has it."""
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
    for module in MODULES:
        targets = importlib.import_module(module).TARGETS
        if name in targets:
            return targets[name]
    raise SystemExit(f"no target {name}")


def main(name: str, options: list[str]) -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    import atheris

    with atheris.instrument_imports(include=["deepmask"]):
        target = find(name)
    with tempfile.TemporaryDirectory() as folder:
        corpus, place = Path(folder, "corpus"), Path(folder, "inside")
        for made in (corpus, place):
            made.mkdir()
        for number, seed in enumerate(target.seeds()):
            (corpus / str(number)).write_bytes(seed)
        read, file = target.prepare(place), place / f"file{target.suffix}"

        def one(content: bytes) -> None:
            file.write_bytes(content)
            read(file)
            strangers = {path.name for path in Path(folder).iterdir()} - {"corpus", "inside"}
            assert not strangers, f"wrote outside of its folder: {strangers}"

        atheris.Setup([sys.argv[0], *options, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
