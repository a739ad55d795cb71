"""Commands one after the other, each with its own time limit and log; a failure does not end the others."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepmask import files
from deepmask.paths import REPOSITORY

LEAST = 5.0  # seconds below which a step is not started
GRACE = 5.0  # seconds between asking a step to end and ending it


@dataclass(frozen=True)
class Step:
    """One command."""

    name: str
    command: tuple[str, ...]
    limit: float  # seconds at most
    reserve: float = 0.0  # seconds that it leaves for what follows
    needs: tuple[str, ...] = ()  # steps without which it cannot run
    unless: str = ""  # a step that makes it unnecessary


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    name: str
    status: str  # "done", or why not, in words
    seconds: float

    @property
    def done(self) -> bool:
        """Whether it ended well."""
        return self.status == "done"


class Runner:
    """Runs steps until `end` (of `clock`, seconds) and keeps their outcomes in FOLDER/steps.json.

    Steps that are done there already are not run again, so an interrupted sequence goes on.
    """

    def __init__(self, folder: Path, end: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.end, self.clock = folder, end, clock
        path = folder / "steps.json"
        kept = json.loads(path.read_text()) if path.is_file() else []
        self.outcomes = {row["name"]: Outcome(**row) for row in kept if row["status"] == "done"}

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - self.clock()

    def done(self, name: str) -> bool:
        """Whether a step has ended well."""
        return name in self.outcomes and self.outcomes[name].done

    def run(self, step: Step) -> bool:
        """Run a step unless it is done or unnecessary; whether what it makes is there then."""
        if self.done(step.name) or self.done(step.unless):
            return True
        missing = [name for name in step.needs if not self.done(name)]
        limit = min(step.limit, self.left() - step.reserve)
        if missing:
            return self._note(Outcome(step.name, f"left out: it needs {missing[0]}", 0.0))
        if limit < LEAST:
            return self._note(Outcome(step.name, "left out: no time was left", 0.0))
        print(f"{step.name}: at most {limit:.0f} s, {self.left():.0f} s in all", flush=True)
        log = self.folder / "logs" / f"{step.name}.log"
        start = self.clock()
        status = run_limited(step.command, log, limit)
        return self._note(Outcome(step.name, status, round(self.clock() - start, 1)))

    def _note(self, outcome: Outcome) -> bool:
        self.outcomes[outcome.name] = outcome
        files.write_json(self.folder / "steps.json", [dataclasses.asdict(row) for row in self.outcomes.values()])
        print(f"{outcome.name}: {outcome.status}, {outcome.seconds:.0f} s", flush=True)
        return outcome.done


def run_limited(command: Sequence[str], log: Path, seconds: float, environment: Mapping[str, str] | None = None) -> str:
    """Run a command from the repository for so long at most, its output appended to `log`; "done", or why not.

    All processes that it started end with it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "PYTHONPATH": _path(), "PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "10"}
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=variables | dict(environment or {}),
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            return "done" if code == 0 else f"failed (exit status {code})"
        except subprocess.TimeoutExpired:
            _end(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                pass
            return f"stopped after {seconds:.0f} s"
        finally:
            _end(process.pid, signal.SIGKILL)  # workers that outlive their parent
            process.wait()


def _end(group: int, how: signal.Signals) -> None:
    try:
        os.killpg(group, how)
    except ProcessLookupError:
        pass


def _path() -> str:
    """The repository before whatever else Python is told to import from, so that it need not be installed."""
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))


def python(*arguments: object) -> tuple[str, ...]:
    """A command of this interpreter."""
    return (sys.executable, *map(str, arguments))
