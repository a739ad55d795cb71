"""The results that README.md shows, made from the result files: no number in it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from deepmask.claims import FAILS, HOLDS, UNTESTED
from deepmask.files import write_text
from deepmask.paths import Study
from deepmask.report import ReportError

BEGIN = "<!-- results: made by `python -m deepmask readme`, do not edit -->"
END = "<!-- end of results -->"
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


def updated(text: str, study: Study) -> str:
    """The README with the current results between its two markers; raises ReportError if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReportError(f"the README has no place for results: put {BEGIN!r} and {END!r} into it")
    return f"{before}{BEGIN}\n\n{results(study)}\n\n{END}{after}"


def update(path: Path, study: Study) -> bool:
    """Write the results into a README; whether anything changed."""
    text = path.read_text(encoding="utf-8")
    new = updated(text, study)
    if new != text:
        write_text(path, new)
    return new != text


def _line(claim: dict[str, str]) -> str:
    return f"- {claim['statement']} ({claim['section']}): {claim['ours']}; {claim['reason']}."


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path}: not there; `make repro` writes it") from None
