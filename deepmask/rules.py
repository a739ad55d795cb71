"""The rules of single claims of the paper, where a comparison of two numbers is not enough (see `claims`, `ledger`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from deepmask import paper
from deepmask.claims import FAILS, HOLDS, Measurements, Missing, Verdict, better, threshold
from deepmask.systems import CLASSICAL

NAMES = [classical.name for classical in CLASSICAL.values()]
WITH_MASKS = [name for name in NAMES if name != "EdgeBoxes"]
SAME = 0.01  # AR; closer than the paper's DeepMask20* is to its DeepMask at 100 proposals (.012)
KINDS = {"bbox": ("boxes", paper.TABLE1_BOX, NAMES), "segm": ("masks", paper.TABLE1_SEGM, WITH_MASKS)}


def fewer(measured: Measurements) -> Verdict:
    ratios = []
    for kind, (what, _, others) in KINDS.items():
        for count in (10, 100):
            ar = measured.value("DeepMask", kind, f"AR@{count}")
            needed = min(measured.needed(other, kind, ar) for other in others)
            ratios.append((what, count, needed / count))
    text = "; ".join(
        f"{what} at {count}: " + (f"{ratio:.1f} times" if np.isfinite(ratio) else f"over {1000 / count:.0f} times")
        for what, count, ratio in ratios
    )
    enough = sum(ratio >= 10 for *_, ratio in ratios)
    return threshold(enough, 3, text, f"ten times or more in {enough} of 4 cases")


def zoom_costs(measured: Measurements) -> Verdict:
    ratio = measured.seconds("DeepMaskZoom") / measured.seconds("DeepMask")
    return threshold(ratio, 1.1, f"{ratio:.2f} times", "of DeepMask's seconds, on one core")


def faster_than(other: str, factor: float) -> Callable[[Measurements], Verdict]:
    def judge(measured: Measurements) -> Verdict:
        ratio = measured.seconds(CLASSICAL[other].label) / measured.seconds("DeepMask")
        return threshold(ratio, factor, f"{ratio:.2f} times DeepMask's", "both on one core, edges included")

    return judge


def full_is_slower(measured: Measurements) -> Verdict:
    ratio = measured.seconds("DeepMaskFull") / measured.seconds("DeepMask")
    return threshold(ratio, 1.2, f"{ratio:.2f} times", "of DeepMask's seconds, on one core")


def parameters(network: str, published: float, exactly: bool) -> Callable[[Measurements], Verdict]:
    def judge(measured: Measurements) -> Verdict:
        rows = measured.table("model.csv")
        total = int(rows[(rows["size"] == "paper") & (rows.network == network)].total.iloc[0])
        good = abs(total / published - 1) < 0.02 if exactly else total > published
        return Verdict(HOLDS if good else FAILS, f"{total:,}", "counted on the network at the paper's size")

    return judge


def small_is_hard(measured: Measurements) -> Verdict:
    table = measured.table("recall", "summary.csv")
    rows = table[(table.kind == "segm") & (table.group == "all") & (table.method != "DeepMaskZoom")]
    worse = rows[rows.AUC_S >= rows[["AUC_M", "AUC_L"]].min(axis=1)]
    text = f"S at most {rows.AUC_S.max():.3f}, M {rows.AUC_M.max():.3f}, L {rows.AUC_L.max():.3f}"
    if worse.empty:
        return Verdict(HOLDS, text, "true of every method")
    return Verdict(FAILS, text, f"not true of {', '.join(worse.method)}")


def large_is_easy(measured: Measurements) -> Verdict:
    small, medium, large = (measured.value("DeepMask", "segm", f"AUC_{size}") for size in "SML")
    text = f"S {small:.3f}, M {medium:.3f}, L {large:.3f}"
    return Verdict(HOLDS if small < medium < large else FAILS, text, "AUC of DeepMask's masks by size of the object")


def localization(measured: Measurements) -> Verdict:
    rows = [measured.difference(other, "DeepMask", "segm", "recall@0.9") for other in WITH_MASKS]
    best = max(rows, key=lambda row: row["low"])
    found = better(best)
    return Verdict(found.verdict, found.ours, f"{best['first']} less DeepMask, 100 masks at IoU .9: {found.reason}")


def held_out(variant: str, ablation: str, groups: tuple[str, ...]) -> Callable[[Measurements], Verdict]:
    """A network against its ablation on held-out patches, by intervals over these."""

    def judge(measured: Measurements) -> Verdict:
        table = measured.table("ablations", "differences.csv")
        table = table[(table["first"] == variant) & (table["second"] == ablation)].set_index("group")
        if not set(groups) <= set(table.index):
            raise Missing(f"not measured: {variant} less {ablation} on held-out patches")
        found = better([row for _, row in table.loc[list(groups)].iterrows()])
        text = ", ".join(f"{group} {table.value[group]:+.3f}" for group in groups)
        return Verdict(found.verdict, text, "gain in mean IoU of held-out patches, one training run each")

    return judge


def upsampling(measured: Measurements) -> Verdict:
    rows = measured.table("ablations", "upsampling.csv").set_index("upsampling")
    learned, fixed = rows.loc["learned"], rows.loc["bilinear, transposed"]
    text = f"correlation {learned.correlation:.2f}"
    reason = f"loss of held-out patches {learned.loss:.4f} learned, {fixed.loss:.4f} bilinear"
    return threshold(learned.correlation, 0.95, text, reason)


def detection(measured: Measurements, first: str, second: str) -> pd.Series:
    table = measured.table("detection", "differences.csv")
    row = table[(table["first"] == first) & (table["second"] == second)]
    if len(row) != 1:
        raise Missing(f"not measured: the mAP of {first} less that of {second}")
    return row.iloc[0]


def degrades(measured: Measurements) -> Verdict:
    table = measured.table("detection", "summary.csv")
    curve = table[table.proposals == "deepmask"].sort_values("count")
    if curve.empty:
        raise Missing("not measured: a detector on DeepMask's proposals")
    best = curve.loc[curve.mAP.idxmax()]
    text = f"best at {best['count']:.0f}: {best.mAP:.3f}, at {curve['count'].max()}: {curve.mAP.iloc[-1]:.3f}"
    good = best["count"] < curve["count"].max() and curve.mAP.iloc[-1] < best.mAP - 0.002
    return Verdict(HOLDS if good else FAILS, text, "mAP of the detector trained on DeepMask's proposals")


def correlates(measured: Measurements) -> Verdict:
    table = measured.table("detection", "summary.csv")
    r = float(np.corrcoef(table.ar, table.mAP)[0, 1])
    return threshold(r, 0.8, f"r = {r:.2f}", f"over {len(table)} pairs of a proposal method and a count")


def hundred_against_thousand(measured: Measurements) -> Verdict:
    rows = [measured.difference("DeepMask", other, "segm", "AR@100 - AR@1000") for other in WITH_MASKS]
    worst = min(rows, key=lambda row: row["low"])
    good = worst["low"] > -SAME
    found = better(worst)
    reason = f"the closest is {worst['second']} with 1000"
    return Verdict(HOLDS if good else FAILS, found.ours, reason)
