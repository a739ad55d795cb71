"""The ledger: rules decide by intervals, what is missing is said, and every claim has a verdict."""

import json

import pandas as pd
import pytest

from deepmask import claims, ledger, paper, readme, report
from deepmask.claims import FAILS, HOLDS, UNTESTED, Claim, Measurements, Missing, Verdict
from deepmask.files import write_csv, write_text
from deepmask.paths import Study


def row(value, low, high, first="a", second="b"):
    return pd.Series({"first": first, "second": second, "value": value, "low": low, "high": high})


@pytest.fixture
def measured(tmp_path):
    study = Study(tmp_path)
    points = [("MCG", "segm", "all", n, ar) for n, ar in ((1, 0.0), (10, 0.1), (100, 0.2), (1000, 0.3))]
    curve = pd.DataFrame(points, columns=["method", "kind", "group", "count", "ar"])
    write_csv(study.result("recall", "curves.csv"), curve)
    write_csv(study.result("recall", "differences.csv"), curve.assign(first="a", second="b", metric="AUC"))
    return Measurements(study)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict", "where"),
    [
        (0.02, 0.01, 0.03, HOLDS, "above 0"),
        (0.02, -0.01, 0.05, FAILS, "both sides"),
        (-0.02, -0.03, -0.01, FAILS, "below 0"),
        (0.0, 0.0, 0.0, FAILS, "both sides"),
    ],
)
def test_better_needs_the_whole_interval(value, low, high, verdict, where):
    found = claims.better(row(value, low, high))
    assert found.verdict == verdict and where in found.reason


def test_the_least_certain_of_several_decides():
    good, bad = row(0.5, 0.4, 0.6, "x", "y"), row(0.3, -0.1, 0.6, "x", "z")
    assert claims.better([good, good]).verdict == HOLDS
    found = claims.better([good, bad, good])
    assert found.verdict == FAILS and "x less z" in found.reason and found.ours.startswith("+.300 (-.100")


def test_equal_needs_the_whole_interval_within():
    assert claims.equal(row(0.001, -0.004, 0.006), 0.01).verdict == HOLDS
    assert claims.equal(row(0.001, -0.011, 0.006), 0.01).verdict == FAILS
    assert claims.equal(row(0.008, 0.005, 0.011), 0.01).verdict == FAILS


def test_missing_results_are_named_and_not_judged(measured):
    def asks(measured):
        return claims.better(measured.difference("DeepMask", "Rigor", "segm", "AUC"))

    table = claims.judge([Claim("k", "4", "s", "p", "r", asks)], measured)
    assert table.verdict.tolist() == [UNTESTED] and "Rigor" in table.reason[0] and "AUC" in table.reason[0]
    with pytest.raises(Missing, match="results/pascal/summary.csv"):
        measured.table("pascal", "summary.csv")


def test_needed_counts_are_interpolated(measured):
    assert measured.needed("MCG", "segm", 0.2) == pytest.approx(100, rel=1e-6)
    assert measured.needed("MCG", "segm", 0.25) == pytest.approx(10**2.5, rel=1e-3)
    assert measured.needed("MCG", "segm", 0.31) == float("inf")


def test_every_claim_has_a_rule_a_place_and_a_verdict(tmp_path):
    table = claims.judge(ledger.CLAIMS, Measurements(Study(tmp_path)))
    assert len(table) >= 20 and table.key.is_unique and set(table.verdict) == {UNTESTED}, "nothing is there to judge by"
    assert (table.reason.str.len() > 0).all() and table.section.str.match(r"[34]").all()
    assert (table.rule.str.len() > 0).all()


def test_a_rule_can_fail_and_hold(measured):
    """The same rule on opposite measurements."""
    claim = next(claim for claim in ledger.CLAIMS if claim.key == "low-rank-better")
    for sign, verdict in ((1, HOLDS), (-1, FAILS)):
        low, high = sorted((sign * 0.01, sign * 0.03))
        found = dict(row(sign * 0.02, low, high, "DeepMask", "DeepMaskFull"))
        found |= {"kind": "segm", "group": "all", "metric": "AUC"}
        write_csv(measured.study.result("recall", "differences.csv"), pd.DataFrame([found]))
        assert claims.judge([claim], measured).verdict[0] == verdict


def test_the_ledger_is_written_as_text_and_as_data(tmp_path):
    judge = lambda _: Verdict(FAILS, "1", "because")  # noqa: E731
    table = claims.judge([Claim("k", "4", "a statement", "2", "a rule", judge)], Measurements(Study(tmp_path)))
    text, data = (path.read_text() for path in claims.write(table, tmp_path, "Source."))
    assert "a statement" in text and "0 holds, 1 does not hold" in text and "a rule" in text and "Source." in text
    assert json.loads(data)[0]["verdict"] == FAILS


PLACES = (readme.SUMMARY, readme.RESULTS, readme.RELIABILITY)


def test_the_readme_shows_the_files_and_nothing_else_changes(tmp_path):
    study = Study(tmp_path)
    for name in readme.TABLES:
        write_text(study.result("tables", name), f"table {name}\n")
    record = {"verdict": FAILS, "statement": "S", "section": "4", "ours": "1", "reason": "R"}
    write_text(study.result("claims.json"), json.dumps([record, record | {"verdict": HOLDS}]))
    metrics = ("AR@10", "AR@100", "AR@1000")
    numbers = {f"{m}{of}": v for m in metrics for of, v in (("", 0.25), (" paper", 0.126))}
    rows = [{"kind": kind, "method": "DeepMask"} | numbers for kind in ("bbox", "segm")]
    rows += [row | {"method": method, "AR@10": best} for row in rows for method, best in (("MCG", 0.5), ("Rigor", 0.4))]
    write_csv(study.result("tables", "table1.csv"), pd.DataFrame(rows))
    path = tmp_path / "README.md"
    path.write_text("before\n" + "\nbetween\n".join("\nstale\n".join(marks) for marks in PLACES) + "\nafter\n")
    assert readme.update(path, study) and not readme.update(path, study), "the second time nothing changes"
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert "between" in text
    assert "table table1.md" in text and "- S (4): 1; R." in text
    assert "| DeepMask, masks | .250 (.126) |" in text and "| best earlier method, boxes | .500 (.126) |" in text
    assert "`make stress` has not been run" in text
    counts = {
        "kills": {"train": 2, "dvc": 3},
        "cases": {"zip": 1000},
        "faults": {"disks": 4},
        "long runs": {"calls": 1200},
    }
    write_text(study.result("reliability.json"), json.dumps(counts))
    assert "5 kills survived, 1,000 hostile or odd inputs, 4 refusals of the machine" in readme.updated(text, study)
    assert "and 1,200 calls without growth" in readme.updated(text, study)
    assert "Of 2 statements in the paper's sections 3 and 4, 1 hold here, 1 do not, 0 cannot" in text
    path.write_text("no place")
    with pytest.raises(report.ReportError, match="no place for results"):
        readme.update(path, study)


def test_published_numbers_come_from_one_place():
    claim = next(claim for claim in ledger.CLAIMS if claim.key == "recall-deepmask-segm-ar@100")
    assert f"{paper.TABLE1_SEGM['DeepMask']['AR@100']:.3f}" in claim.paper


def test_parts_of_a_study_are_judged_as_far_as_they_go(tmp_path):
    """As at the smallest profile, where one detector is trained and one network."""
    study = Study(tmp_path)
    rows = pd.DataFrame({"proposals": ["selectivesearch"] * 2, "count": [10, 100], "mAP": [0.1, 0.2], "ar": [0.1, 0.3]})
    write_csv(study.result("detection", "summary.csv"), rows)
    write_csv(study.result("tables", "speed.csv"), pd.DataFrame({"method": ["DeepMask"], "seconds": [1.0]}))
    table = claims.judge(ledger.CLAIMS, Measurements(study)).set_index("key")
    assert table.verdict["detection-degrades"] == table.verdict["faster-than-mcg"] == UNTESTED
    assert table.verdict["ar-predicts-map"] == HOLDS
