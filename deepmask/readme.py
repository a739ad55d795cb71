"""The results that README.md shows, made from the result files: no number in it is typed."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from deepmask import paper
from deepmask.claims import FAILS, HOLDS, UNTESTED
from deepmask.files import write_text
from deepmask.paths import Study
from deepmask.report import ReportError

SUMMARY = ("<!-- how close: made by `python -m deepmask readme`, do not edit -->", "<!-- end of how close -->")
RESULTS = ("<!-- results: made by `python -m deepmask readme`, do not edit -->", "<!-- end of results -->")
RELIABILITY = ("<!-- reliability: made by `python -m deepmask readme`, do not edit -->", "<!-- end of reliability -->")
KINDS = {"segm": "masks", "bbox": "boxes"}
OURS, EARLIER = ("DeepMask",), tuple(paper.METHODS.values())[:5]
TABLES = ("table1.md", "table2.md", "detection.md", "speed.md")


def results(study: Study) -> str:
    """Markdown: the paper's tables with ours, then the claims that do not hold.  Raises ReportError."""
    parts = [_read(study.result("tables", name)) for name in TABLES]
    claims = json.loads(_read(study.result("claims.json")))
    of = {verdict: [claim for claim in claims if claim["verdict"] == verdict] for verdict in (HOLDS, FAILS, UNTESTED)}
    tally = ", ".join(f"{len(found)} {verdict}" for verdict, found in of.items())
    parts.append(f"**Claims.** Of {len(claims)} statements of the paper, {tally} ([the ledger](results/claims.md)).")
    if of[FAILS]:
        lines = [
            f"- {claim['statement']} ({claim['section']}): {claim['ours']}; {claim['reason']}." for claim in of[FAILS]
        ]
        parts.append("What does not hold here:\n\n" + "\n".join(lines))
    return "\n\n".join(part.strip() for part in parts)


def summary(study: Study) -> str:
    """Markdown: DeepMask and the best earlier method beside the paper's, in four lines.  Raises ReportError."""
    table = pd.read_csv(io.StringIO(_read(study.result("tables", "table1.csv"))))
    verdicts = [claim["verdict"] for claim in json.loads(_read(study.result("claims.json")))]
    lines = [
        "| average recall, ours (the paper's) | 10 proposals | 100 | 1000 |",
        "| --- | ---: | ---: | ---: |",
        *(_row(f"DeepMask, {kind}", table[table.kind == key], OURS) for key, kind in KINDS.items()),
        *(_row(f"best earlier method, {kind}", table[table.kind == key], EARLIER) for key, kind in KINDS.items()),
    ]
    hold, fail, untested = (verdicts.count(verdict) for verdict in (HOLDS, FAILS, UNTESTED))
    counts = f"{hold} hold here, {fail} do not, {untested} cannot be tested at this scale"
    return "\n".join(lines) + f"\n\nOf {len(verdicts)} statements in the paper's sections 3 and 4, {counts}."


def reliability(study: Study) -> str:
    """Markdown: what the last `make stress` tried, in a sentence."""
    if not study.result("reliability.json").is_file():
        return "`make stress` has not been run yet."
    counts = json.loads(_read(study.result("reliability.json")))
    kills, cases, faults = (int(sum(counts[area].values())) for area in ("kills", "cases", "faults"))
    runs = ", ".join(f"{number:,} {what}" for what, number in counts["long runs"].items())
    tried = f"{kills} kills survived, {cases:,} hostile or odd inputs, {faults} refusals of the machine"
    return f"The last `make stress`: {tried}, and {runs} without growth ([the counts](results/reliability.json))."


def updated(text: str, study: Study) -> str:
    """The README with current results between its markers; raises ReportError if it has none."""
    blocks = ((SUMMARY, summary(study)), (RESULTS, results(study)), (RELIABILITY, reliability(study)))
    for (begin, end), made in blocks:
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ReportError(f"the README has no place for results: put {begin!r} and {end!r} into it")
        text = f"{before}{begin}\n\n{made}\n\n{end}{after}"
    return text


def update(path: Path, study: Study) -> bool:
    """Write the results into a README; whether anything changed."""
    text = path.read_text(encoding="utf-8")
    new = updated(text, study)
    if new != text:
        write_text(path, new)
    return new != text


def _row(name: str, table: pd.DataFrame, methods: Sequence[str]) -> str:
    """The best of some methods at each number of proposals, measured and published."""
    rows = table[table.method.isin(methods)]
    cells = [(rows[key].max(), rows[f"{key} paper"].max()) for key in ("AR@10", "AR@100", "AR@1000")]
    return f"| {name} | " + " | ".join(f"{_decimal(ours)} ({_decimal(theirs)})" for ours, theirs in cells) + " |"


def _decimal(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path}: not there; `make repro` writes it") from None
