"""How the paper's claims are judged: a rule each, to be written before its number is known, and what it may look at.

A rule reads the result files of a study and nothing else.  What decides is the 95 % bootstrap interval over images,
which does not contain the spread over training runs.  The claims themselves are in `deepmask.ledger`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from deepmask.files import write_json, write_text
from deepmask.paths import Study

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested at this scale"


class Missing(LookupError):
    """A result that a rule asks for has not been made; the message names it."""


@dataclass(frozen=True)
class Verdict:
    """What a rule finds."""

    verdict: str  # HOLDS, FAILS or UNTESTED
    ours: str  # our number, with its interval where it has one
    reason: str


@dataclass(frozen=True)
class Claim:
    """One statement of the paper."""

    key: str
    section: str
    statement: str  # in our words
    paper: str  # the paper's number, or a dash
    rule: str  # when it holds
    judge: Callable[[Measurements], Verdict]


class Measurements:
    """The result files of one study; raises Missing for what is not there."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def table(self, *parts: str) -> pd.DataFrame:
        """A CSV file below results/."""
        path = self.study.result(*parts)
        if not path.is_file():
            raise Missing(f"there is no results/{'/'.join(parts)}")
        return pd.read_csv(path)

    def record(self, *parts: str) -> dict:
        """A JSON file below results/."""
        path = self.study.result(*parts)
        if not path.is_file():
            raise Missing(f"there is no results/{'/'.join(parts)}")
        return json.loads(path.read_text())

    @cached_property
    def curves(self) -> pd.DataFrame:
        """AR against the number of proposals."""
        return self.table("recall", "curves.csv")

    def value(self, method: str, kind: str, metric: str, group: str = "all", where: str = "recall") -> float:
        """One number of results/WHERE/summary.csv."""
        return float(_only(self.table(where, "summary.csv"), method=method, kind=kind, group=group)[metric])

    def difference(
        self, first: str, second: str, kind: str, metric: str, group: str = "all", where: str = "recall"
    ) -> pd.Series:
        """value, low and high of a paired difference in results/WHERE/differences.csv."""
        table = self.table(where, "differences.csv")
        return _only(table, first=first, second=second, kind=kind, group=group, metric=metric)

    def needed(self, method: str, kind: str, ar: float) -> float:
        """How many proposals a method needs for an AR, between the counts log-interpolated; inf if more than it has."""
        curve = self.curves
        curve = curve[(curve.method == method) & (curve.kind == kind) & (curve.group == "all")].sort_values("count")
        if curve.empty:
            raise Missing(f"{method} has no curve of kind {kind}")
        if ar > curve.ar.max():
            return float("inf")
        return float(np.exp(np.interp(ar, curve.ar, np.log(curve["count"]))))

    def seconds(self, label: str) -> float:
        """Seconds per image of a method, by the label of its row, edges included."""
        return float(_only(self.table("tables", "speed.csv"), method=label)["seconds"])


def better(found: pd.Series | Sequence[pd.Series], reason: str = "") -> Verdict:
    """Holds if every difference is above 0 by its interval."""
    rows = [found] if isinstance(found, pd.Series) else list(found)
    worst = min(rows, key=lambda row: row["low"])
    if worst["low"] > 0:
        return Verdict(HOLDS, interval(worst), reason or "the whole interval is above 0")
    against = "below 0" if worst["high"] < 0 else "on both sides of 0"
    name = f"{worst['first']} less {worst['second']}: " if len(rows) > 1 else ""
    return Verdict(FAILS, interval(worst), f"{name}the interval is {against}")


def equal(found: pd.Series, tolerance: float) -> Verdict:
    """Holds if a difference is within a tolerance by its interval."""
    within = -tolerance < found["low"] and found["high"] < tolerance
    where = "within" if within else "not within"
    return Verdict(HOLDS if within else FAILS, interval(found), f"the interval is {where} {tolerance:g} of 0")


def threshold(value: float, at_least: float, text: str, reason: str) -> Verdict:
    """Holds if a number without an interval is large enough."""
    return Verdict(HOLDS if value >= at_least else FAILS, text, reason)


def untested(reason: str) -> Callable[[Measurements], Verdict]:
    """The judge of a claim that nothing here can test."""
    return lambda _: Verdict(UNTESTED, "–", reason)


def interval(row: pd.Series) -> str:
    """+.012 (+.003 to +.021)."""
    return f"{_signed(row['value'])} ({_signed(row['low'])} to {_signed(row['high'])})"


def judge(claims: Sequence[Claim], measured: Measurements) -> pd.DataFrame:
    """One row per claim: key, section, statement, paper, rule, ours, verdict, reason."""
    rows = []
    for claim in claims:
        try:
            found = claim.judge(measured)
        except Missing as missing:
            found = Verdict(UNTESTED, "–", str(missing))
        row = {name: getattr(claim, name) for name in ("key", "section", "statement", "paper", "rule")}
        rows.append(row | vars(found))
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, folder: Path, source: str) -> list[Path]:
    """Write claims.json and claims.md into `folder`; `source` says what made the numbers.  The paths."""
    counts = table.verdict.value_counts()
    tally = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in (HOLDS, FAILS, UNTESTED))
    shown = table.rename(columns={"statement": "claim"})[["section", "claim", "paper", "ours", "verdict", "reason"]]
    parts = [
        "# The paper's claims, one by one",
        f"{source} Of {len(table)} claims: {tally}.",
        "Intervals are 95 % bootstraps over images; they do not contain the spread over training runs. The rules, in "
        "`deepmask/ledger.py`, were written down before their numbers were known; those on held-out patches first "
        "compared means and now ask for intervals.",
        shown.to_markdown(index=False),
        "## Rules",
        table.rename(columns={"statement": "claim"})[["claim", "rule"]].to_markdown(index=False),
    ]
    markdown, record = folder / "claims.md", folder / "claims.json"
    write_text(markdown, "\n\n".join(parts) + "\n")
    write_json(record, table.to_dict("records"))
    return [markdown, record]


def _only(table: pd.DataFrame, **wanted: str) -> pd.Series:
    """The one row with these values; raises Missing."""
    for column, value in wanted.items():
        if column in table:
            table = table[table[column] == value]
    if len(table) != 1:
        raise Missing("not measured: " + ", ".join(f"{column} {value}" for column, value in wanted.items()))
    return table.iloc[0]


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)
