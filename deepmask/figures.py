"""Figures of section 4, drawn from tables of measurements, and how every figure of the study is saved and looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepmask import files, paper

INK, FAINT = "#333333", "#e3e3e3"
SPACING = 9.5  # points between the names at the ends of lines
STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8c8c8c",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.visible": False,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "svg.hashsalt": "deepmask",  # else ids are random and no two files are the same
}

# Distinct for colour-blind readers and in print: DeepMask's family in strong colours and full lines, others broken.
COLOURS = {
    "DeepMask": "#0b559f",
    "DeepMaskZoom": "#c8400a",
    "DeepMaskFull": "#00866b",
    "DeepMask20": "#a3448c",
    "DeepMask20*": "#d08a00",
    "EdgeBoxes": "#3b9fd1",
    "Geodesic": "#6b6b6b",
    "Rigor": "#a08c2c",
    "SelectiveSearch": "#1a1a1a",
    "MCG": "#8c3b3b",
}
DASHES = {
    "EdgeBoxes": (0, (4, 1.5)),
    "Geodesic": (0, (1, 1.2)),
    "Rigor": (0, (5, 1.5, 1, 1.5)),
    "SelectiveSearch": (0, (3, 1.2)),
    "MCG": (0, (6, 1.5, 1, 1.5, 1, 1.5)),
}
PANELS = (  # letter in Figure 4, kind, group, title
    ("a", "bbox", "pascal", "Boxes, PASCAL"),
    ("b", "bbox", "all", "Boxes"),
    ("c", "segm", "all", "Segmentations"),
    ("d", "segm", "small", "Small objects"),
    ("e", "segm", "medium", "Medium objects"),
    ("f", "segm", "large", "Large objects"),
)
WIDE = ("pascal", "all")  # groups whose panels stand in the upper row


def save(fig: Figure, path: str | Path) -> list[Path]:
    """Write `path`.svg and `path`.png with the same bytes for the same figure; the two paths."""
    path = Path(path)
    svg, png = path.with_name(path.name + ".svg"), path.with_name(path.name + ".png")
    with mpl.rc_context(STYLE):
        with files.replacing(svg) as temporary:
            fig.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        with files.replacing(png) as temporary:
            fig.savefig(temporary, format="png", metadata={"Software": None})
    return [svg, png]


def colour(method: str) -> str:
    """The colour of a method of the paper (key or name), and a stable gray for any other."""
    return COLOURS.get(paper.METHODS.get(method, method), "#7f7f7f")


def ar_curves(curves: pd.DataFrame, panels: Sequence[tuple[str, str, str, str]] = PANELS) -> Figure:
    """Figure 4 a-f: AR against the number of proposals, for boxes, segmentations and three sizes of objects.

    `curves`: columns method, kind ("bbox", "segm"), group ("pascal", "all", "small", "medium", "large"), count, ar, and
    label if ours is to be named differently; `panels`: letter, kind, group and title of each.  Panels without data are
    left out; ValueError if none has any.
    """
    curves = curves.dropna(subset=["ar"])
    if curves.empty:
        raise ValueError("no curve to draw; measure at least one method on images with objects")
    groups = curves.groupby(["kind", "group"])["ar"].count()
    panels = [panel for panel in panels if groups.get(panel[1:3], 0)]
    wide, narrow = [p for p in panels if p[2] in WIDE], [p for p in panels if p[2] not in WIDE]
    with mpl.rc_context(STYLE):
        fig = plt.figure(figsize=(9.6, 3.3 * bool(wide) + 2.9 * bool(narrow)), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        rows = [row for row in (wide, narrow) if row]
        parts = fig.subfigures(len(rows), 1, squeeze=False, height_ratios=[1.15, 1][: len(rows)])[:, 0]
        for row, subfigure in zip(rows, parts, strict=True):
            axes = subfigure.subplots(1, len(row), squeeze=False)[0]
            axes[0].set_ylabel("average recall")
            for (letter, kind, group, title), ax in zip(row, axes, strict=True):
                part = curves[(curves["kind"] == kind) & (curves["group"] == group)]
                _lines(ax, part, "count", "ar")
                ax.set_xscale("log")
                ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
                ax.minorticks_off()
                ax.set_xlim(1, max(part["count"].max(), 2))
                ax.set_title(f"({letter}) {title}" if letter else title)
                ax.set_xlabel("proposals per image")
        _label_ends(fig, fig.axes)
        return _finished(fig)


def recall_curves(curves: pd.DataFrame, kind: str = "segm") -> Figure:
    """Figure 4 g-i: recall against the IoU threshold, one panel per number of proposals.

    `curves`: columns method, kind, count, iou, recall, and label if wanted.  ValueError if there is nothing
    of this kind.
    """
    part = curves[curves["kind"] == kind].dropna(subset=["recall"])
    if part.empty:
        raise ValueError(f"no curve of kind {kind!r} to draw; measure at least one method on images with objects")
    counts = sorted(part["count"].unique())
    with mpl.rc_context(STYLE):
        fig = plt.figure(figsize=(9.6, 3.0), layout="constrained")
        axes = fig.subplots(1, len(counts), squeeze=False)[0]
        for letter, count, ax in zip("ghijkl", counts, axes, strict=False):
            _lines(ax, part[part["count"] == count], "iou", "recall")
            ax.set_xlim(0.5, 1)
            ax.xaxis.set_major_formatter(_fraction)
            ax.set_title(f"({letter}) {count} proposals")
            ax.set_xlabel("IoU threshold")
        axes[0].set_ylabel("recall")
        lines = sorted(axes[0].get_lines(), key=lambda line: -line.get_ydata()[0])
        fig.legend(handles=lines, loc="outside right upper", frameon=False, handlelength=2.6)  # every line ends near 0
        return _finished(fig)


def detection_curves(summary: pd.DataFrame) -> Figure:
    """Figure 5: mAP of the detector against the number of proposals, with 95 % intervals.

    `summary`: columns proposals (key of a method), count, mAP, low, high.
    """
    with mpl.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
        part = summary.rename(columns={"proposals": "method"})
        _lines(ax, part, "count", "mAP")
        for method, line in part.groupby("method"):
            ax.fill_between(line["count"], line["low"], line["high"], color=colour(method), alpha=0.12, linewidth=0)
        counts = sorted(part["count"].unique())
        ax.set_xscale("log")
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
        ax.set_ylim(0, 1.06 * max(part["high"].max(), 0.01))
        ax.set(xlabel="proposals per image", ylabel="mAP of Fast R-CNN", title="Figure 5")
        _label_ends(fig, [ax])
        return _finished(fig)


def _lines(ax: Axes, part: pd.DataFrame, x: str, y: str) -> None:
    """One line per method; the paper's own methods last, so that they lie on top."""
    names = part["method"].map(lambda method: paper.METHODS.get(method, method))
    order = {name: i for i, name in enumerate(paper.METHODS.values())}
    for name in sorted(names.unique(), key=lambda name: (order.get(name, -1), name)):
        line = part[names == name].sort_values(x)
        dashes = DASHES.get(name, "solid" if name in COLOURS else "dotted")
        label = line["label"].iloc[0].split(" (")[0] if "label" in line else name  # what is in brackets is for tables
        ax.plot(line[x], line[y], color=colour(name), linestyle=dashes, label=label, clip_on=False)
    ax.set_ylim(0, 1.06 * max(part[y].max(), 0.01))
    ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(_fraction)


def _fraction(value: float, _: int) -> str:
    """.25 as the paper writes it."""
    text = f"{round(value, 4):g}"
    return text[1:] if text.startswith("0.") else text


def _label_ends(fig: Figure, axes: Iterable[Axes]) -> None:
    """Write each line's name at its end, moved up or down as far as needed to keep the names apart."""
    labels = {ax: [_label(ax, line) for line in ax.get_lines()] for ax in axes}
    fig.draw_without_rendering()  # the layout must have made room for the names before heights are known
    for ax, texts in labels.items():
        points = 72 / fig.dpi
        low, high = (edge * points for edge in (ax.bbox.y0, ax.bbox.y1))
        ends = [ax.transData.transform(text.xy)[1] * points for text in texts]
        for text, end, place in zip(texts, ends, _apart(ends, SPACING, low, high), strict=True):
            text.set_position((text.get_position()[0], place - end))


def _label(ax: Axes, line: mpl.lines.Line2D) -> mpl.text.Annotation:
    end = line.get_xydata()[-1]
    ink = {"color": line.get_color()}
    leader = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 1, "relpos": (0, 0.5)} | ink
    style = {"va": "center", "fontsize": 8, "arrowprops": leader, "annotation_clip": False} | ink
    return ax.annotate(line.get_label(), end, (12, 0), textcoords="offset points", **style)


def _apart(wanted: Sequence[float], distance: float, low: float, high: float) -> np.ndarray:
    """Positions as near as possible to those wanted, in their order, `distance` apart and within low to high.

    Subtracting distance * rank turns "apart" into "not falling", which pooling neighbours solves by least squares.
    """
    order = np.argsort(wanted, kind="stable")
    steps = distance * np.arange(len(order))
    pools: list[list[float]] = []  # mean, size
    for value in np.asarray(wanted, float)[order] - steps:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, size = pools.pop()
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * size) / (pools[-1][1] + size), pools[-1][1] + size]
    level = np.repeat([mean for mean, _ in pools], [int(size) for _, size in pools])
    places = np.empty(len(order))
    places[order] = np.clip(level, low, max(low, high - steps[-1] if len(steps) else low)) + steps
    return places


def _finished(fig: Figure) -> Figure:
    """The figure, closed for pyplot, so that a notebook shows it once: as the value of its cell."""
    plt.close(fig)
    return fig
